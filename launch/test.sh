#!/usr/bin/env bash
# Sets up .venv, then style, types and tests. Long tests only with --all; further arguments go to pytest.
#   bash launch/test.sh [--all] [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh

chosen=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
  chosen=()
  shift
  # What only the long tests need; where it cannot be had, they are skipped and say so.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-ray.txt || true
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -n 2 --dist loadfile "${chosen[@]}" "$@"
