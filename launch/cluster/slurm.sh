#!/usr/bin/env bash
# Trains under SLURM, one process a GPU. Submit it from the folder of this project, with the size of the job:
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=12 launch/cluster/slurm.sh \
#     --config=FILE --workdir=DIR [arguments of launch.train]
#   bash launch/cluster/slurm.sh --dry-run --config=FILE --workdir=DIR …        shows what would be run
# --ntasks-per-node must be the number of GPUs of a node: under SLURM, JAX gives each task one GPU. Do not use --gpus-per-task,
# which hides the others. --cpus-per-task: the cores of a node divided by its tasks, for a task reads and decodes in
# batches.num_workers processes; without it, SLURM gives each task one core. DIR and the shards must lie where all nodes see
# them. Processes find each other by SLURM's variables.
#SBATCH --job-name=ove
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
# OVE_RESTARTS=N in the environment: requeue at most N times in all after what is no end by request (default 20).
# SIGTERM comes 300 s before the time limit, and when the job is preempted: the run saves, and exits with 75.
set -euo pipefail
# sbatch runs a copy of this file that lies elsewhere; it starts in the folder in which it was submitted.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/../..}"

dry=0
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
if [ $# -eq 0 ]; then
  echo "usage: sbatch [--nodes=N --cpus-per-task=N …] launch/cluster/slurm.sh --config=FILE --workdir=DIR …" >&2
  exit 2
fi
if [ ! -d launch/cluster ]; then
  echo "error: $PWD is not the folder of this project; submit the job from there." >&2
  exit 2
fi

source launch/cluster/accelerators.sh

# --kill-on-bad-exit: a task that fails ends the others. srun hands SIGTERM on to all tasks. Since SLURM 22.05 it does not take
# over --cpus-per-task of sbatch by itself.
command=(srun --kill-on-bad-exit=1 --label)
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  command+=("--cpus-per-task=$SLURM_CPUS_PER_TASK")
elif [ "$dry" = 0 ]; then
  echo "warning: no --cpus-per-task: SLURM may give each task one core, on which all its processes decode." >&2
fi
command+=("${PYTHON:-$PWD/.venv/bin/python}" -m launch.train "$@")
restarts=${OVE_RESTARTS:-20}
again=(scontrol requeue "${SLURM_JOB_ID:-JOB}")
if [ "$dry" = 1 ]; then
  tell_environment
  printf '%q ' "${command[@]}"; echo
  printf '%q ' "${again[@]}"; echo "    # after 75 (told to stop, saved); up to $restarts times after 70 (stuck), a crash"
  exit 0
fi

code=0
"${command[@]}" || code=$?
# As one_machine.sh: what a restart cannot mend (0 done, 1 and 2 bad input, 130 interrupted) ends the job. SIGTERM before the run
# could listen gives 143. SLURM counts the restarts.
case "$code" in
  0 | 1 | 2 | 130) ;;
  75) "${again[@]}" ;;
  *) if [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then "${again[@]}"; fi ;;
esac
exit "$code"
