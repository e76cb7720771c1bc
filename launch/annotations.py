"""`ove annotations ssv2 --annotations DIR --videos DIR --split train --out LIST.jsonl`: a benchmark as a list.

`ove shards --videos` takes the list. `….report.json` beside it names everything that was left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ove.errors import BadInput
from ove.files import write_json, write_text
from ove.paths import holds_keys, output_file
from ove.probing.annotations.benchmarks import BENCHMARKS
from ove.probing.annotations.match import Matched, list_lines, match

from .cli.command import command_parser, run_command

_REPORT = ".report.json"
_SHOWN = 5
"""Names printed of each kind; the report has all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the list and the report of a split; BadInput for other files than the benchmark's, or without a video."""
    options = _parser().parse_args(arguments)
    benchmark = BENCHMARKS[options.benchmark]
    further = {name: getattr(options, name) for name in ("fold", "view") if getattr(options, name) is not None}
    for name in further.keys() - set(benchmark.options):
        raise BadInput(f"--{name} does not apply to {options.benchmark}; leave it out.")
    out = output_file(options.out, "--out", is_ours=lambda path: _is_report(path.with_suffix(_REPORT)), replace=options.replace)
    report = output_file(out.with_suffix(_REPORT), "--out", is_ours=_is_report, replace=options.replace)
    if not options.annotations.is_dir():
        raise BadInput(f"{options.annotations}: no such folder; give the folder with the benchmark's annotation files.")
    matched = match(benchmark.read(options.annotations, options.split, **further), options.videos)
    if not matched.samples:
        raise BadInput(
            f"{options.videos}: holds none of the {len(matched.missing)} videos that the annotations name, for example "
            f"{matched.missing[0] if matched.missing else 'none'}; give the folder with the benchmark's videos."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "\n".join(list_lines(matched)) + "\n")
    write_json(report, _report(matched))
    print(f"{benchmark.title}, {options.split}: {len(matched.samples)} samples of {len(matched.classes)} classes → {out}")
    if len(matched.classes) != benchmark.classes:
        print(f"  the paper's version has {benchmark.classes} classes")
    for what, names in _report(matched).items():
        if isinstance(names, list) and names:
            print(f"  {len(names)} {what.replace('_', ' ')}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}")
    print(f"  all of it: {report}")


def _is_report(path: Path) -> bool:
    return holds_keys(path, "samples", "missing_videos", "contradictory")


def _report(matched: Matched) -> dict[str, object]:
    return {
        "samples": len(matched.samples),
        "classes": len(matched.classes),
        "missing_videos": matched.missing,
        "repeated": matched.repeated,
        "contradictory": matched.contradictory,
        "unusable": matched.unusable,
        "classes_without_samples": matched.empty_classes,
    }


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("annotations", __doc__)
    add = parser.add_argument
    add("benchmark", choices=BENCHMARKS, help="whose files --annotations holds")
    add("--annotations", type=Path, required=True, help="folder of the annotation files, as they were published")
    add("--videos", type=Path, required=True, help="folder of the videos; subfolders are searched")
    add("--split", choices=("train", "val"), required=True, help="which part of the benchmark")
    add("--out", type=Path, required=True, help="the list to write (.jsonl)")
    add("--replace", action="store_true", help="overwrite a file that this command has not written")
    add("--fold", type=int, choices=(1, 2, 3), help="HMDB51: which of its splits (default: 1)")
    add("--view", choices=("all", "first", "third"), help="Charades-Ego: whose view (default: all)")
    return parser


if __name__ == "__main__":
    run_command(main)
