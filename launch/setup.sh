#!/usr/bin/env bash
# Makes .venv with everything that quickstart and tests need, or leaves it alone if it is up to date.
#   bash launch/setup.sh [cpu|cuda|tpu]        PYTHON=/path/to/python chooses the interpreter
# Without an argument: the kind that is installed already, else cpu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-$(cut -d' ' -f1 .venv/installed 2>/dev/null || true)}
kind=${kind:-cpu}
case "$kind" in
  cpu) requirements=requirements.txt ;;
  cuda | tpu) requirements=requirements-$kind.txt ;;
  *) echo "error: launch/setup.sh knows cpu, cuda and tpu, not '$kind'." >&2; exit 2 ;;
esac

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

wanted="$kind $(cat requirements.txt "$requirements" pyproject.toml | cksum)"
if [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ] && usable .venv/bin/python; then
  exit 0
fi

candidates=(python3.13 python3.12 python3.11 python3 python)
if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
python=
for candidate in "${candidates[@]}"; do
  if usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "no ${PYTHON:-python3}")
  echo "error: Python 3.11, 3.12 or 3.13 is needed, found ${found}. Install one, or name it: PYTHON=/path/to/python3.12 bash launch/setup.sh" >&2
  exit 2
fi

echo "setting up .venv with $("$python" --version) (once; some minutes)" >&2
if ! usable .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  rm -rf .venv
  if ! "$python" -m venv .venv; then
    rm -rf .venv
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
fi
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" --upgrade pip
"${pip[@]}" -r "$requirements"
PYTHONWARNINGS=ignore "${pip[@]}" --no-deps --editable .
echo "$wanted" >.venv/installed
