#!/usr/bin/env bash
# Makes .venv with everything that quickstart and tests need, or leaves it alone if it is up to date.
#   bash launch/setup.sh [cpu|cuda|tpu]        PYTHON=/path/to/python chooses the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-cpu}
case "$kind" in
  cpu) requirements=requirements.txt ;;
  cuda | tpu) requirements=requirements-$kind.txt ;;
  *) echo "error: launch/setup.sh knows cpu, cuda and tpu, not '$kind'." >&2; exit 2 ;;
esac

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' >/dev/null 2>&1; }

wanted="$kind $(cat requirements.txt "$requirements" pyproject.toml | cksum)"
if [ -x .venv/bin/python ] && [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ] && usable .venv/bin/python; then
  exit 0
fi

python=
for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
  if usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  found=$(python3 --version 2>/dev/null || echo "no python3")
  echo "error: Python 3.11 or newer is needed, found ${found}. Install it, or name one: PYTHON=/path/to/python3.12 bash launch/setup.sh" >&2
  exit 2
fi

echo "setting up .venv with $("$python" --version) (once; some minutes)" >&2
if [ ! -x .venv/bin/python ] || ! usable .venv/bin/python; then
  rm -rf .venv
  if ! "$python" -m venv .venv; then
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
echo "$wanted" >.venv/installed
