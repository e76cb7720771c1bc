"""`ove labels [embed|dedup|kmeans|assign|all|ocr] --shards DIR`: labels of records, beside the shards.

embed: a teacher's embeddings; dedup: duplicates; kmeans: class centers; assign: the nearest centers of every record; all (the
default): one after the other. Each resumes where it was interrupted. ocr: words in pictures, see `ocr --help`.

On several machines that see the same folders, once on each: under SLURM, Open MPI and GKE as it is, on Cloud TPU with
--distributed, elsewhere with --coordinator=HOST:PORT --num-processes=N --process-id=I. Or, without any connection between them,
embed and assign with --part.
"""

import argparse
import functools
import sys
from contextlib import ExitStack
from pathlib import Path

from ove.config import EnginesConfig, LabelsConfig, TextConfig
from ove.config.mapping import from_mapping
from ove.distributed import Processes, exit
from ove.errors import BadShard, ConfigError
from ove.labels.engines.cluster import ray_engine
from ove.labels.engines.run import StepProgress, local
from ove.labels.parts import WHOLE, WorkPart, working
from ove.labels.step_cache import LabelJob, StepCache, banks_of, check_size
from ove.labels.steps import Steps
from ove.labels.text.tag_shards import VOCABULARY, TextReport, tag_shards
from ove.paths import output_folder, uri_of
from ove.shards.labels import STEPS
from ove.shards.shard_set import ShardSet

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.numbers import number_of
from .cli.processes import add_options, join_processes
from .cli.progress_line import shown

_TASKS = ("embed", "dedup", "kmeans", "assign", "all")
_IN_PARTS = ("embed", "assign")
_DOES = {"read": "pictures read", "count": "words counted", "tag": "records tagged"}
_SCRIPTS_SHOWN = 8
_PATIENCE_S = 30 * 86400.0
"""How long processes wait for a live one: for the slowest part of the embeddings, for duplicates."""

LEAVE = exit
"""How the command exits."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one task, or all, for each bank; skips all if labels with the same options exist."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["ocr"]:
        return _ocr(arguments[1:])
    options = _parser().parse_args(arguments)
    config = _config(options)
    _check(options)
    join_processes(options, config.barrier_timeout_s, config.heartbeat_timeout_s)
    processes = Processes(_PATIENCE_S)
    say = functools.partial(print, flush=True)
    if processes.count > 1 and options.part != WHOLE:
        raise ConfigError(
            "--part is for single commands; of several processes each takes its part by itself: leave --part out."
        )
    with ExitStack() as held, processes.as_process_lost():
        with processes.all_or_none("shards"):
            caches = _caches(options, config)
            is_done = options.task == "all" and all(cache.is_labelled() for cache in caches)
        if processes.all_gather("labels", "done" if is_done else "lacking")[0] == "done":
            if processes.index == 0:
                print(f"{options.shards}: has these labels already.")
            return 0
        tasks = _TASKS[:-1] if options.task == "all" else (options.task,)
        with processes.all_or_none("locks"):
            for cache in caches if processes.index == 0 else ():
                held.enter_context(working(cache.folder, options.part))
                for task in () if options.replace else tasks:
                    cache.check_free(task)
        for cache in caches:
            steps = Steps(cache, processes, say)
            for task in tasks:
                getattr(steps, task)()
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


def _caches(options: argparse.Namespace, config: LabelsConfig) -> list[StepCache]:
    """Returns the folders of the wanted banks."""
    shards = ShardSet.open(options.shards)
    if options.task in ("kmeans", "all") and options.centers_from is None:
        check_size(config, len(shards))
    inputs = LabelJob(shards, config, options.centers_from, options.part, alone=options.task != "all")
    folder = output_folder(options.work, "--work") if options.work else options.shards / "labels" / STEPS
    return [StepCache(inputs, bank, folder / bank) for bank in banks_of(shards, options.bank)]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("labels", __doc__)
    parser.add_argument("task", nargs="?", choices=(*_TASKS, "ocr"), default="all", help="one step, or all (default: all)")
    parser.add_argument("--shards", type=Path, required=True, help="folder that `ove shards` wrote")
    parser.add_argument("--config", metavar="FILE[:ARG]", help="a configuration file; its section labels is used")
    parser.add_argument("--set", action="append", default=[], metavar="labels.KEY=VALUE", help="any setting of LabelsConfig")
    cli_settings.add_settings_help(parser, {"labels": LabelsConfig})
    parser.add_argument("--bank", action="append", choices=("vid", "obj"), help="only this one (default: all there are)")
    for option, key, about in (
        ("--centers", "n_centers", "class centers per bank (default: 64)"),
        ("--labels", "n_labels", "nearest centers kept per sample (default: 10)"),
        ("--iterations", "iterations", "of k-means, at most (default: 20)"),
        ("--seed", "seed", "of k-means (default: 0)"),
    ):
        type_ = number_of(LabelsConfig, key)
        parser.add_argument(option, dest=f"labels.{key}", type=type_, metavar="N", help=about)
    parser.add_argument("--from", dest="centers_from", type=Path, metavar="DIR", help="use the centers of this labelled folder")
    parser.add_argument("--replace", action="store_true", help="also over what was made of these shards with other settings")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for embeddings and centers (default: SHARDS/labels/steps)")
    parser.add_argument("--part", type=_part, default=WHOLE, metavar="I/N", help="embed, assign: the I-th of N parts, from 0")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    add_options(parser)
    return parser


def _part(text: str) -> WorkPart:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 0 ≤ I < N, for example 0/4")
    return int(part), int(parts)


def _config(options: argparse.Namespace) -> LabelsConfig:
    given = [key for key in ("n_centers", "iterations", "seed") if getattr(options, f"labels.{key}") is not None]
    if options.centers_from is not None and given:
        raise ConfigError("--from takes over the centers of another folder: leave --centers, --iterations and --seed out.")
    return from_mapping(LabelsConfig, cli_settings.read_sections(options, "labels")["labels"], "labels.")


def _ocr(arguments: list[str]) -> int:
    """Reads, counts and tags the text of shard folders; keeps what an earlier call finished."""
    options = _ocr_parser().parse_args(arguments)
    sections = cli_settings.read_sections(options, "text", "engines")
    text = from_mapping(TextConfig, sections["text"], "text.")
    engines = from_mapping(EnginesConfig, sections["engines"], "engines.")
    vocabulary = options.vocabulary
    if vocabulary is not None and vocabulary.is_dir():
        vocabulary = vocabulary / "text" / VOCABULARY
    progress = shown("shards")

    def show(step: str, found: StepProgress) -> None:
        notes = (f"{found.earlier} of them earlier" * bool(found.earlier), f"{found.failed} failed" * bool(found.failed))
        progress(_DOES[step], found.done, found.total, ", ".join(filter(None, notes)))

    with ExitStack() as stack:
        engine = stack.enter_context(ray_engine(engines)) if engines.engine == "ray" else local(engines)
        reports = tag_shards(options.shards, text, engines, show, engine, vocabulary, options.replace)
    for folder, report in zip(options.shards, reports, strict=True):
        _print(folder, report)
    return 0


def _print(folder: Path, report: TextReport) -> None:
    print(
        f"{folder}: {report.tagged} of {report.pictures} pictures are tagged, {report.with_words} have words in them; "
        f"{report.words} words, {report.vocabulary} in the vocabulary"
    )
    shares = [f"{script.lower()} {times / report.words:.1%}" for script, times in report.scripts.items()]
    if shares:
        more = len(shares) - _SCRIPTS_SHOWN
        print(f"  scripts: {', '.join(shares[:_SCRIPTS_SHOWN])}" + (f" and {more} more" if more > 0 else ""))
    if report.dead:
        print(f"  set aside: {', '.join(report.dead)}; reasons in {folder}/text/*/dead-letters.jsonl")


def _ocr_parser() -> argparse.ArgumentParser:
    parser = command_parser("labels ocr", "The words in pictures → the bank `ocr` beside the shards.")
    add = parser.add_argument
    add("--shards", type=Path, nargs="+", required=True, metavar="DIR", help="shard folders; all of them share a vocabulary")
    add("--replace", action="store_true", help="also over tags of these shards that were made with other settings")
    add("--vocabulary", type=Path, metavar="FILE|DIR", help="use that of a file or of a tagged shard folder")
    add("--config", metavar="FILE[:ARG]", help="a configuration file; its sections text and engines are used")
    add("--engine", dest="engines.engine", choices=("local", "ray"), help="this machine (default) or a Ray cluster")
    add(
        "--workers",
        dest="engines.workers",
        type=number_of(EnginesConfig, "workers"),
        metavar="N",
        help="processes (default: 2)",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. text.min_confidence=0.7")
    cli_settings.add_settings_help(parser, {"text": TextConfig, "engines": EnginesConfig})
    return parser


if __name__ == "__main__":
    run_command(main, LEAVE)
