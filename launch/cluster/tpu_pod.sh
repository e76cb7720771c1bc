#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice, or on a single TPU VM: copies this checkout to every worker and runs there what it is told.
#   bash launch/cluster/tpu_pod.sh [--dry-run] NAME ZONE setup
#   bash launch/cluster/tpu_pod.sh [--dry-run] NAME ZONE train --config=FILE --workdir=DIR [arguments of launch.train]
#   bash launch/cluster/tpu_pod.sh [--dry-run] NAME ZONE logs | stop
# Needs gcloud, and a TPU VM that exists: gcloud compute tpus tpu-vm create NAME --zone=ZONE --accelerator-type=v5p-256 --version=…
# DIR and the shards must lie where all workers see them (Filestore, or a bucket with hierarchical namespace that is mounted with
# gcsfuse: docs/launching.md). `setup` copies the last commit, and installs Python 3.12 by uv, in the home folder, where the image
# has none that is new enough. `train` goes on after this machine has gone; `stop` lets it save and end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

dry=0
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
if [ $# -lt 3 ]; then
  echo "usage: bash launch/cluster/tpu_pod.sh [--dry-run] NAME ZONE setup|train|logs|stop [arguments of launch.train]" >&2
  exit 2
fi
name=$1 zone=$2 what=$3
shift 3

run() {
  if [ "$dry" = 1 ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

# The same command on all workers at once.
everywhere() {
  run gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$1"
}

case "$what" in
  setup)
    archive=$(mktemp -d)/ove.tar.gz
    run git archive --format=tar.gz "--output=$archive" HEAD
    run gcloud compute tpus tpu-vm scp "$archive" "$name:ove.tar.gz" "--zone=$zone" --worker=all
    # Images of Cloud TPUs are of Ubuntu, whose release 22.04 has Python 3.10.
    unpack="mkdir -p ove && tar -xzf ove.tar.gz -C ove"
    install="python3 -m pip install --user --quiet uv && python3 -m uv python install 3.12"
    use="export PYTHON=\$(python3 -m uv python find 3.12)"
    everywhere "$unpack && if [ -z \"\$(bash ove/launch/setup.sh --found)\" ]; then $install && $use; fi && bash ove/launch/setup.sh tpu"
    ;;
  train)
    if [ $# -eq 0 ]; then echo "error: train needs --config=FILE and --workdir=DIR." >&2; exit 2; fi
    # --distributed: the workers find each other by the TPU's metadata. The process writes its number, for `stop`.
    words=$(printf '%q ' "$@")
    everywhere "cd ove && (setsid nohup .venv/bin/python -m launch.train --distributed $words >train.log 2>&1 </dev/null & echo \$! >train.pid)"
    ;;
  logs) run gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=0 "--command=tail -n 40 -F ove/train.log" ;;
  stop) everywhere "kill -TERM \$(cat ove/train.pid)" ;;
  *) echo "error: $what is none of setup, train, logs, stop." >&2; exit 2 ;;
esac
