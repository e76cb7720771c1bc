"""`python -m launch.labels [embed|dedup|kmeans|assign|all|ocr] --shards DIR`: from records to what they are trained on.

embed: a teacher's embeddings; dedup: samples that show the same; kmeans: class centers; assign: the nearest centers of
every record, beside the shards; all (if left out): one after the other. Each goes on where it was interrupted. ocr: words
in pictures, see `ocr --help`.

On several machines that see the same folders, once on each: under SLURM, Open MPI and GKE as it is, on Cloud TPU with
--distributed, elsewhere with --coordinator=HOST:PORT --num-processes=N --process-id=I. Or, without any connection between them,
embed and assign with --part.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from launch import text_tags
from launch.cli import config_file, several
from launch.cli.command import run
from launch.cli.together import together
from launch.label_stock import Inputs, Stock
from launch.label_tasks import Tasks
from ove.config import LabelsConfig
from ove.config.mapping import from_mapping
from ove.distributed import Processes, leave
from ove.errors import BadShard, ConfigError
from ove.labels.parts import WHOLE, Part, working
from ove.shards.labels import Bank
from ove.shards.read import ShardSet
from ove.shards.remote.remote_shards import uri_of

_TASKS = ("embed", "dedup", "kmeans", "assign", "all")
_IN_PARTS = ("embed", "assign")
_PATIENCE_S = 30 * 86400.0
"""How long processes wait for one that is still heard of: for the slowest part of the embeddings, for duplicates."""


def main(arguments: list[str] | None = None) -> int:
    """Does one task, or all, for each bank, unless that has been done with the same options."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["ocr"]:
        return text_tags.main(arguments[1:])
    options = _parser().parse_args(arguments)
    config = _config(options)
    _check(options)
    several.join(options, config.meet_limit_s, config.silence_limit_s)
    processes = Processes(_PATIENCE_S)
    if processes.count > 1 and options.part != WHOLE:
        raise ConfigError(
            "--part is for single commands; of several processes each takes its part by itself: leave --part out."
        )
    with ExitStack() as held, processes.blamed():
        with together(processes, "shards"):
            stocks = _stocks(options, config)
            is_done = options.task == "all" and all(stock.is_labelled() for stock in stocks)
        if processes.gather("labels", "done" if is_done else "lacking")[0] == "done":
            if processes.index == 0:
                print(f"{options.shards}: has these labels already.")
            return 0
        with together(processes, "locks"):
            for stock in stocks if processes.index == 0 else ():
                held.enter_context(working(stock.folder, options.part))
        for stock in stocks:
            tasks = Tasks(stock, processes)
            for task in ("embed", "dedup", "kmeans", "assign") if options.task == "all" else (options.task,):
                getattr(tasks, task)()
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.part != WHOLE and options.task not in _IN_PARTS:
        raise ConfigError(
            f"--part shares out the tasks {' and '.join(_IN_PARTS)}, not {options.task}; name one of them, and run what lies "
            "between them once, when all parts are embedded."
        )
    if options.engine is not None:
        raise ConfigError(
            f"--engine is an option of ocr; {options.task} is a JAX program: start several processes of it, or share out embed "
            "and assign with --part (docs/scale_out.md)."
        )
    if uri_of(options.shards) is not None:
        raise BadShard(
            f"{options.shards}: is remote, and labels are written beside the shards; copy the folder here, label it there."
        )


def _stocks(options: argparse.Namespace, config: LabelsConfig) -> list[Stock]:
    """The folders of all banks that are wanted."""
    shards = ShardSet.open(options.shards)
    if options.task in ("kmeans", "all") and options.centers_from is None:
        _check_size(config, len(shards))
    inputs = Inputs(shards, config, options.centers_from, options.part, alone=options.task != "all")
    folder = options.work or options.shards / "labels" / "steps"
    return [Stock(inputs, bank, folder / bank) for bank in _banks(shards, options.bank)]


def _banks(shards: ShardSet, wanted: list[str] | None) -> list[Bank]:
    """Of pictures only `obj`; of videos also `vid`."""
    there: list[Bank] = ["vid", "obj"] if shards.manifest.kind == "video" else ["obj"]
    for bank in wanted or ():
        if bank not in there:
            raise ConfigError(f"--bank {bank}: {shards.folder} holds {shards.manifest.kind}s: give {' or '.join(there)}.")
    return [bank for bank in there if wanted is None or bank in wanted]


def _check_size(config: LabelsConfig, n_records: int) -> None:
    most = n_records // 2
    if config.n_centers > most:
        advice = f"give --centers {most} or fewer" if most else "write more records into the shards"
        raise ConfigError(f"labels.n_centers = {config.n_centers} is more than half of the {n_records} records; {advice}.")
    if config.n_labels > config.n_centers:
        raise ConfigError(
            f"labels.n_labels = {config.n_labels} is more than the {config.n_centers} centers; "
            f"give --labels {config.n_centers} or fewer."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.labels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", choices=(*_TASKS, "ocr"), default="all")
    parser.add_argument("--shards", type=Path, required=True, help="folder that launch.shards wrote")
    parser.add_argument("--config", metavar="FILE[:ARG]", help="a configuration file; its section labels is used")
    parser.add_argument("--set", action="append", default=[], metavar="labels.KEY=VALUE", help="any setting of LabelsConfig")
    parser.add_argument("--bank", action="append", choices=("vid", "obj"), help="only this one (default: all there are)")
    parser.add_argument("--centers", type=int, metavar="K", help="class centers per bank (default: 64)")
    parser.add_argument("--labels", type=int, metavar="M", help="nearest centers kept per sample (default: 10)")
    parser.add_argument("--iterations", type=int, metavar="N", help="of k-means, at most (default: 20)")
    parser.add_argument("--seed", type=int, metavar="N", help="of k-means (default: 0)")
    parser.add_argument(
        "--from", dest="centers_from", type=Path, metavar="DIR", help="labelled shard folder whose centers are taken over"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="for embeddings and centers (default: SHARDS/labels/steps)")
    parser.add_argument("--part", type=_part, default=WHOLE, metavar="I/N", help="embed, assign: the I-th of N parts, from 0")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    several.add_options(parser)
    return parser


def _part(text: str) -> Part:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 0 ≤ I < N, for example 0/4")
    return int(part), int(parts)


def _config(options: argparse.Namespace) -> LabelsConfig:
    values: dict[str, Any] = {}
    if options.config is not None:
        sections = config_file.load(options.config)
        if "labels" not in sections:
            raise ConfigError(f"{options.config}: has no section labels, which is what launch.labels reads.")
        values = dict(sections["labels"])
    values |= config_file.settings(options.set, ["labels"])["labels"]
    named = {
        "n_centers": options.centers,
        "n_labels": options.labels,
        "iterations": options.iterations,
        "seed": options.seed,
    }
    given = {key: value for key, value in named.items() if value is not None}
    if options.centers_from is not None and given.keys() & {"n_centers", "iterations", "seed"}:
        raise ConfigError("--from takes over the centers of another folder: leave --centers, --iterations and --seed out.")
    return from_mapping(LabelsConfig, values | given, "labels.")


if __name__ == "__main__":
    run(main, leave)
