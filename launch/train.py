"""ove train --config=configs/toy.py --workdir=DIR: trains, or goes on where the run in DIR stopped.

On several machines, once on each: under SLURM, Open MPI and GKE as it is, on Cloud TPU with --distributed, elsewhere with
--coordinator=HOST:PORT --num-processes=N --process-id=I. Exits with 0 when done; 75 when SIGTERM stopped it and it saved, and
is to be started again; 2 when it cannot go on as asked; 69 when another process was lost; 70 when it was stuck.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax

from ove import distributed as processes
from ove.config import RunConfig
from ove.probing.online import OnlineProbe
from ove.train.hosts.workdir import claimable
from ove.train.loop import Hooks, train
from ove.train.monitor.profiler import StepRange, parse_step_range
from ove.view.batches import FirstBatches

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.processes import add_options, join_processes

LEAVE = processes.exit
"""How the command exits."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the arguments, finds the other processes if there are any, and runs the loop."""
    parser = command_parser("train", __doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="checkpoints, metrics and configuration of the run")
    add_options(parser)
    parser.add_argument("--profile", metavar="STEP:N", help="trace N steps from step STEP on (docs/watching.md)")
    arguments, config = cli_settings.parse_with_config(parser, RunConfig, argv)
    arguments.workdir = claimable(arguments.workdir)
    span = parse_step_range(arguments.profile) if arguments.profile is not None else None
    join_processes(arguments, config.train.barrier_timeout_s, config.train.heartbeat_timeout_s)
    if jax.process_index() == 0:
        print(cli_settings.training_inputs(arguments.config, config), flush=True)
    hooks = _hooks(config, arguments.workdir, span)
    state = train(config, arguments.workdir, partial(print, flush=True), hooks)
    return processes.EXIT_PREEMPTED if int(state.step) < config.train.steps else 0


def _hooks(config: RunConfig, workdir: Path, span: StepRange | None) -> Hooks:
    """What the run draws, how it is evaluated, and what is traced of it."""
    each = config.train.log_images
    draw = FirstBatches(workdir / "pictures", config.encoder.patch_px, each) if each else None
    return Hooks(draw, OnlineProbe(config) if config.train.eval_every else None, span)


if __name__ == "__main__":
    run_command(main, LEAVE)
