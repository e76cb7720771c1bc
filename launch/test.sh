#!/usr/bin/env bash
# Sets up .venv, then style, types and tests. Long tests only with --all; further arguments go to pytest.
#   bash launch/test.sh [--python 3.13] [--all] [pytest arguments]
# --python does all of it with another version, in an environment of its own (.venv-3.13).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
setup=()
chosen=(-m "not slow")
while :; do
  case "${1:-}" in
    --python) venv=.venv-${2:-}; setup=(--python "${2:-}"); shift "$(($# < 2 ? $# : 2))" ;;
    --all) chosen=(); shift ;;
    *) break ;;
  esac
done
bash launch/setup.sh "${setup[@]}"

if [ "${#chosen[@]}" = 0 ]; then
  # What only the long tests need; where it cannot be had, they are skipped and say so.
  "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements-ray.txt || true
fi
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/python" -m pytest -n 2 --dist loadfile "${chosen[@]}" "$@"
