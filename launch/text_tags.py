"""`python -m launch.labels ocr --shards DIR …`: the words in pictures → the bank `ocr` beside the shards."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from launch.cli.command import run
from launch.cli.config_file import load, settings
from launch.cli.progress_line import ProgressLine, duration
from ove.config import EnginesConfig, TextConfig
from ove.config.mapping import from_mapping
from ove.errors import ConfigError
from ove.labels.engines.cluster import ray_engine
from ove.labels.engines.local import local
from ove.labels.engines.run import Progress
from ove.labels.text.pipeline import VOCABULARY, TextReport, text_tags

_SECTIONS = ("text", "engines")
_DOES = {"read": "pictures read", "count": "words counted", "tag": "records tagged"}
_SCRIPTS_SHOWN = 8


def main(arguments: list[str] | None = None) -> int:
    """Reads, counts and tags the text of shard folders; what an earlier call has finished is kept."""
    options = parser().parse_args(arguments)
    text, engines = _configs(options)
    vocabulary = options.vocabulary
    if vocabulary is not None and vocabulary.is_dir():
        vocabulary = vocabulary / "text" / VOCABULARY
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(ray_engine(engines)) if engines.engine == "ray" else local(engines)
        reports = text_tags(options.shards, text, engines, _Lines(), engine, vocabulary)
    for folder, report in zip(options.shards, reports, strict=True):
        _print(folder, report)
    return 0


class _Lines(ProgressLine):
    """Progress of each step."""

    def __call__(self, step: str, progress: Progress) -> None:
        if progress.done == progress.earlier and not progress.failed:
            self.begin()
        last = progress.done == progress.total
        if not self.is_due(last):
            return
        text = f"{_DOES[step]}: {progress.done}/{progress.total} shards"
        text += f", {progress.earlier} of them earlier" if progress.earlier else ""
        text += f", {progress.failed} failed" if progress.failed else ""
        fresh = progress.done - progress.earlier
        if fresh and not last:
            text += f", {duration(self.spent_s / fresh * (progress.total - progress.done))} left"
        self.show(text, last)


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


def parser() -> argparse.ArgumentParser:
    """The command line of `launch.labels ocr`."""
    parser = argparse.ArgumentParser(prog="python -m launch.labels ocr", description=__doc__)
    parser.add_argument(
        "--shards", type=Path, nargs="+", required=True, metavar="DIR", help="shard folders; all of them share a vocabulary"
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE|DIR", help="take over that of a file or of a tagged shard folder"
    )
    parser.add_argument("--config", metavar="FILE[:ARG]", help="a configuration file; its sections text and engines are used")
    parser.add_argument("--engine", choices=("local", "ray"), help="processes of this machine (default) or a Ray cluster")
    parser.add_argument("--workers", type=int, metavar="N", help="processes of the local engine (default: 2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. text.min_confidence=0.7")
    return parser


def _configs(options: argparse.Namespace) -> tuple[TextConfig, EnginesConfig]:
    sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    if options.config is not None:
        given = load(options.config)
        if not given.keys() & sections.keys():
            raise ConfigError(
                f"{options.config}: has none of the sections {' and '.join(_SECTIONS)}, which are what ocr reads."
            )
        sections = {name: dict(given.get(name, {})) for name in _SECTIONS}
    for name, values in settings(options.set, _SECTIONS).items():
        sections[name] |= values
    for key in ("engine", "workers"):
        if getattr(options, key) is not None:
            sections["engines"][key] = getattr(options, key)
    return from_mapping(TextConfig, sections["text"], "text."), from_mapping(EnginesConfig, sections["engines"], "engines.")


if __name__ == "__main__":
    run(main)
