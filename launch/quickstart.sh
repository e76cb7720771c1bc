#!/usr/bin/env bash
# The whole way on a CPU: videos → signals → shards → labels → training → probe → report. Sets up .venv first.
#   bash launch/quickstart.sh [VIDEO_DIR] [--out DIR]        without VIDEO_DIR: on toy videos that it makes
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$here/launch/setup.sh"
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "$here/.venv/bin/python" -m launch.quickstart "$@"
