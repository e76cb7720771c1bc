"""python -m launch.probe --config=configs/probe_toy.py: probes a frozen encoder and prints a table of scores.

On several machines, once on each, as `launch.train`: each computes features and scores of a part of the samples.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax

from ove import distributed as processes
from ove.config import ProbeConfig
from ove.files import write_json, write_text
from ove.probing.compare import compare
from ove.probing.predictions import check_name, write_predictions
from ove.probing.report import as_csv, as_json, table
from ove.shards.joined import open_shards

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.processes import add_options, join_processes

_MEET_LIMIT_S, _SILENCE_LIMIT_S = 600.0, 60.0
"""How long processes wait for each other at the start, and without a sign of life from one."""

LEAVE = processes.exit
"""How the command exits."""


def main(argv: Sequence[str] | None = None) -> None:
    """Probes; the first process prints the table and writes files."""
    parser = command_parser("probe", __doc__)
    add = parser.add_argument
    add("--out", type=Path, help="write scores and table to this JSON file, and a CSV beside it")
    add("--predictions", type=Path, metavar="FILE", help="write per-sample predictions for the validation set (.jsonl or .csv)")
    add_options(parser)
    arguments, config = cli_settings.parse_with_config(parser, ProbeConfig, argv)
    if arguments.predictions:
        check_name(arguments.predictions)
    join_processes(arguments, _MEET_LIMIT_S, _SILENCE_LIMIT_S)
    is_first = jax.process_index() == 0
    comparison = compare(config, partial(print, flush=True) if is_first else lambda line: None)
    if not is_first:
        return
    print("\n" + table(comparison))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, as_json(comparison), indent=2)
        write_text(arguments.out.with_suffix(".csv"), as_csv(comparison))
    if arguments.predictions:
        write_predictions(arguments.predictions, comparison, open_shards(config.val_shards).names)


if __name__ == "__main__":
    run_command(main, LEAVE)
