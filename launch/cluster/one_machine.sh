#!/usr/bin/env bash
# Trains on one machine: one process over all its devices (a CPU, one GPU or several, the chips of one TPU host).
#   bash launch/cluster/one_machine.sh [--dry-run] [--restarts N] --config=FILE --workdir=DIR [further arguments of launch.train]
# --restarts N: start again up to N times after the machine asked for its end and the run saved (75), after it got stuck (70),
# and after a crash (a signal, 128 and more); never after an error of the configuration or the data (2), nor after Ctrl-C (130).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/cluster/accelerators.sh

dry=0
restarts=0
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry=1; shift ;;
    --restarts) restarts=${2:?--restarts needs a number}; shift 2 ;;
    *) break ;;
  esac
done
if [ $# -eq 0 ] || ! [[ $restarts =~ ^[0-9]+$ ]]; then
  echo "usage: bash launch/cluster/one_machine.sh [--dry-run] [--restarts N] --config=FILE --workdir=DIR …" >&2
  exit 2
fi

command=("${PYTHON:-.venv/bin/python}" -m launch.train "$@")
if [ "$dry" = 1 ]; then
  tell_environment
  printf '%q ' "${command[@]}"; echo
  exit 0
fi

# A signal to this script goes to the run, which saves; the script then ends with it instead of starting it again.
child=
told=0
trap 'told=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT
for ((start = 0; ; start++)); do
  "${command[@]}" & child=$!
  # A signal to this script ends `wait` early, hence the loop; the last `wait` gives the code of the run.
  while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
  code=0
  wait "$child" || code=$?
  if [ "$told" = 1 ] || [ "$start" -ge "$restarts" ]; then exit "$code"; fi
  case "$code" in
    0 | 1 | 2 | 130) exit "$code" ;;
    *) echo "exit code $code: starting again ($((start + 1)) of $restarts)" >&2 ;;
  esac
done
