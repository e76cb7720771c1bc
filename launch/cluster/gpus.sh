#!/usr/bin/env bash
# Trains on several GPUs of one machine, one process each, which meet at a port of this machine.
#   bash launch/cluster/gpus.sh [--dry-run] [--gpus 0,1,2,3] [--port P] --config=FILE --workdir=DIR [arguments of launch.train]
# One process over all GPUs (launch/cluster/one_machine.sh) computes the same; processes of their own read and decode in parallel.
# Without --gpus: all that nvidia-smi lists. On a machine without GPUs, --gpus 0,1 starts two processes on the CPU.
# If one process fails, the others are ended too, and this script exits with the first code that was not 0, nor 69 (another one
# was lost) if that one has left a code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source launch/cluster/accelerators.sh

dry=0
gpus=
port=8476
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry=1; shift ;;
    --gpus) gpus=${2:?--gpus needs a list, for example 0,1}; shift 2 ;;
    --port) port=${2:?--port needs a number}; shift 2 ;;
    *) break ;;
  esac
done
if [ $# -eq 0 ]; then
  echo "usage: bash launch/cluster/gpus.sh [--dry-run] [--gpus 0,1,2,3] [--port P] --config=FILE --workdir=DIR …" >&2
  exit 2
fi
if [ -z "$gpus" ]; then
  gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd,) || true
fi
if ! [[ $gpus =~ ^[0-9]+(,[0-9]+)*$ ]]; then
  echo "error: no GPUs found (nvidia-smi lists none); name them, for example --gpus 0,1." >&2
  exit 2
fi
IFS=, read -ra each <<<"$gpus"

if [ "$dry" = 1 ]; then tell_environment; fi
children=()
for i in "${!each[@]}"; do
  command=(env "CUDA_VISIBLE_DEVICES=${each[$i]}" "${PYTHON:-.venv/bin/python}" -m launch.train "$@"
    "--coordinator=127.0.0.1:$port" "--num-processes=${#each[@]}" "--process-id=$i")
  if [ "$dry" = 1 ]; then
    printf '%q ' "${command[@]}"; echo
  else
    "${command[@]}" & children+=("$!")
  fi
done
if [ "$dry" = 1 ]; then exit 0; fi

# The processes agree on the step after which they save and end.
trap 'kill -TERM "${children[@]}" 2>/dev/null || true' TERM INT
first=0
failed_at=
left=("${children[@]}")
while [ ${#left[@]} -gt 0 ]; do
  alive=()
  for child in "${left[@]}"; do
    if kill -0 "$child" 2>/dev/null; then alive+=("$child"); continue; fi
    code=0
    wait "$child" || code=$?
    if [ "$code" != 0 ] && [ -z "$failed_at" ] && { [ "$first" = 0 ] || [ "$first" = 69 ]; }; then first=$code; fi
  done
  # 75: told to stop, as the others are. Anything else: they would wait for one that is gone.
  if [ "$first" != 0 ] && [ "$first" != 75 ] && [ -z "$failed_at" ]; then
    failed_at=$SECONDS
    kill -TERM "${children[@]}" 2>/dev/null || true
  fi
  left=("${alive[@]}")
  if [ -n "$failed_at" ] && [ $((SECONDS - failed_at)) -gt 20 ]; then
    kill -KILL "${left[@]}" 2>/dev/null || true
  fi
  if [ ${#left[@]} -gt 0 ]; then sleep 1; fi
done
exit "$first"
