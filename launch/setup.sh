#!/usr/bin/env bash
# Makes .venv with everything that quickstart and tests need, or leaves it alone if it is up to date.
#   bash launch/setup.sh [--python 3.13] [cpu|cuda|tpu]
# Without a kind: the one that is installed already, else cpu. --python makes .venv-3.13 instead, beside .venv.
# PYTHON=/path/to/python chooses the interpreter; an environment of another version is made anew.
#   bash launch/setup.sh --found       prints the versions that --python would find, the oldest first
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

supported=(3.11 3.12 3.13)
declare -A sizes=(  # of the environment
  [cpu]="JAX, FFmpeg, OCR, tools for tests and documentation; about 1,900 MB"
  [cuda]="JAX with CUDA, FFmpeg, OCR, tools for tests and documentation"
  [tpu]="JAX with libtpu, FFmpeg, OCR, tools for tests and documentation"
)

says() { "$1" -c "$2" 2>/dev/null; } # what a Python prints
version_of() { says "$1" 'import sys; print(*sys.version_info[:3], sep=".")'; }
usable() { says "$1" 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null; }
is_version() { [[ "$(version_of "$1")" == "$2".* ]]; }
makes_environments() { says "$1" 'import ensurepip, venv' >/dev/null; }

# The interpreter of a version: pythonVERSION on the PATH, else the newest that pyenv has; one that makes environments first.
find_version() {
  local candidates=("python$1") installed fallback='' candidate
  if installed=$(pyenv root 2>/dev/null); then
    mapfile -t -O 1 candidates < <(compgen -G "$installed/versions/$1.*/bin/python" | sort -rV)
  fi
  for candidate in "${candidates[@]}"; do
    if is_version "$candidate" "$1"; then
      if makes_environments "$candidate"; then echo "$candidate"; return; fi
      fallback=${fallback:-$candidate}
    fi
  done
  echo "$fallback"
}

venv=.venv
version=
case "${1:-}" in
  --found)
    for known in "${supported[@]}"; do
      python=$(find_version "$known")
      if [ -n "$python" ] && makes_environments "$python"; then echo "$known"; fi
    done
    exit 0
    ;;
  --python)
    version=${2:-}
    if [[ " ${supported[*]} " != *" $version "* ]] || [ -z "$version" ]; then
      echo "error: --python takes one of ${supported[*]}, not '$version'." >&2
      exit 2
    fi
    venv=.venv-$version
    shift 2
    ;;
esac

kind=${1:-$(cut -d' ' -f1 "$venv/installed" 2>/dev/null || true)}
kind=${kind:-cpu}
case "$kind" in
  cpu) requirements=requirements.txt ;;
  cuda | tpu) requirements=requirements-$kind.txt ;;
  *) echo "error: launch/setup.sh knows cpu, cuda and tpu, not '$kind'." >&2; exit 2 ;;
esac

python=
if [ -n "$version" ]; then
  python=${PYTHON:-$(find_version "$version")}
  if [ -z "$python" ]; then
    echo "error: there is no Python $version, neither as python$version on the PATH nor in pyenv. Install one" \
      "(pyenv install $version), or name it: PYTHON=/path/to/python$version" >&2
    exit 2
  elif ! is_version "$python" "$version"; then
    echo "error: PYTHON=$python is $(version_of "$python" || echo "no Python"), and --python asks for $version." >&2
    exit 2
  fi
elif [ -n "${PYTHON:-}" ]; then
  if usable "$PYTHON"; then python=$PYTHON; fi
else
  for candidate in "$venv/bin/python" python3.13 python3.12 python3.11 python3 python; do
    if usable "$candidate"; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ]; then
  found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "no ${PYTHON:-python3}")
  echo "error: Python 3.11, 3.12 or 3.13 is needed, found ${found}. Install one, or name it: PYTHON=/path/to/python3.12 bash launch/setup.sh" >&2
  exit 2
fi

exact=$(version_of "$python")
wanted="$kind $exact $(cat requirements.txt requirements-dev.txt "$requirements" pyproject.toml | cksum)"
here=$(version_of "$venv/bin/python" || true)
if [ "$here" = "$exact" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

echo "setting up $venv with Python $exact (once; some minutes)" >&2
if [ "$here" != "$exact" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  # The interpreter itself, for it may have been named by an environment that goes now.
  python=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
  rm -rf "$venv"
  if ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
fi
# Says every 15 s how much is there, until the command is done; then exits as it does.
growing() {
  local job size seconds=0
  "$@" &
  job=$!
  trap 'kill "$job" 2>/dev/null' EXIT
  while kill -0 "$job" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if [ $((seconds % ${SETUP_SAYS_EVERY_S:-15})) = 0 ]; then
      size=$(du -sm "$venv" 2>/dev/null | cut -f1 || true)
      echo "  $size MB after $seconds s" >&2
    fi
  done
  trap - EXIT
  wait "$job"
}

# Twice quiet: errors only. What pip warns of are its own sources, cache and version.
pip=("$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check)
echo "installing pip" >&2
"${pip[@]}" --upgrade pip
echo "installing $requirements and requirements-dev.txt: ${sizes[$kind]}" >&2
growing "${pip[@]}" -r "$requirements" -r requirements-dev.txt
echo "installing ove itself" >&2
PYTHONWARNINGS=ignore "${pip[@]}" --no-deps --editable .
echo "$wanted" >"$venv/installed"
