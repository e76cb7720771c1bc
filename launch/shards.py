"""`python -m launch.shards --videos|--images SOURCE --out DIR`: files, lists and archives → a folder of shards."""

import argparse
from pathlib import Path

from launch.cli.command import run_command
from launch.cli.progress_line import shown
from launch.cli.settings import parse_assignments
from ove.config import ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import ConfigError
from ove.shards.assemble import WriteSummary
from ove.shards.make import write_source
from ove.shards.write import WriteProgress
from ove.sources.quarantine import QUARANTINE

IMAGES_PER_SHARD = 1024
"""A picture takes about a tenth of the bytes of a clip."""
_SHOWN = 10
"""Bad files named on the screen; all of them are in the quarantine list."""


def main(arguments: list[str] | None = None) -> int:
    """Writes a shard folder; 0 when it holds at least one record."""
    options = _parser().parse_args(arguments)
    kind, source = _source(options)
    video, shards = _configs(options, kind)
    progress = shown("files")

    def show(found: WriteProgress) -> None:
        progress("", found.done, found.total, f"{found.bad} set aside" if found.bad else "")

    summary = write_source(kind, source, options.out, video, shards, show)
    _report(summary, options.out)
    return 0


def _report(summary: WriteSummary, out: Path) -> None:
    print(f"{summary.n_good} good, {len(summary.bad)} bad; {summary.n_shards} shards in {out}", end="")
    print(f" ({summary.n_earlier} files were done already)" if summary.n_earlier else "")
    for entry in summary.bad[:_SHOWN]:
        print(f"  set aside: {entry.reason}")
    if len(summary.bad) > _SHOWN:
        print(f"  … and {len(summary.bad) - _SHOWN} more")
    if summary.bad:
        print(f"  reasons of all: {out / QUARANTINE}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.shards",
        description="Writes videos or pictures into shards. Started again, it goes on where it stopped. What cannot be used is "
        "set aside in quarantine.jsonl with its reason.",
        epilog="SOURCE: a folder (class names from its subfolders), a list (.txt: path<TAB>label a line; .csv, .jsonl: columns "
        "path, label, and obj, vid, ocr with lists of class centers), a WebDataset tar, a TFRecord or a Parquet file, or a "
        "folder of these. docs/data_format.md says more.",
    )
    parser.add_argument("--videos", type=Path, metavar="SOURCE", help="where videos come from")
    parser.add_argument("--images", type=Path, metavar="SOURCE", help="where pictures come from")
    parser.add_argument("--out", type=Path, required=True, help="folder for shards, manifest.json and quarantine.jsonl")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the square frames (default: 224)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames sampled from a video (default: 64)")
    parser.add_argument("--gop", type=int, metavar="N", help="one I-frame every N sampled frames (default: 32)")
    parser.add_argument("--preset", choices=list(VideoConfig.PRESETS), help="settings of the video section (default: paper)")
    parser.add_argument("--store", metavar="FORMS", help="frames, h264, mosaics, with commas (default: frames)")
    parser.add_argument("--budget", type=int, metavar="N", help="patches of a clip in its mosaics (default: 2048)")
    parser.add_argument("--crf", type=int, metavar="N", help="of the H.264 stream, 0 (large) … 51 (poor) (default: 18)")
    parser.add_argument("--max-side", type=int, metavar="PX", help="shrink pictures whose longer side is more (default: never)")
    parser.add_argument("--image-column", metavar="NAME", help="column or feature that holds the files (Parquet, TFRecord)")
    parser.add_argument("--label-column", metavar="NAME", help="column, feature, JSON key or extension with the class name")
    parser.add_argument("--records-per-shard", type=int, metavar="N", help="default: 64 videos, 1024 pictures")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.sampling=consecutive")
    return parser


def _source(options: argparse.Namespace) -> tuple[str, Path]:
    given = [(kind, source) for kind, source in (("video", options.videos), ("image", options.images)) if source is not None]
    if len(given) != 1:
        raise ConfigError("give either --videos or --images, with a folder, a list of paths or an archive.")
    return given[0]


def _configs(options: argparse.Namespace, kind: str) -> tuple[VideoConfig, ShardsConfig]:
    sections = parse_assignments(options.set, ("video", "shards"))
    named = {
        ("video", "preset"): options.preset,
        ("video", "size_px"): options.size,
        ("video", "n_frames"): options.frames,
        ("video", "selection.gop_frames"): options.gop,
        ("shards", "store"): None if options.store is None else tuple(form.strip() for form in options.store.split(",")),
        ("shards", "budget_tokens"): options.budget,
        ("shards", "h264_crf"): options.crf,
        ("shards", "max_side_px"): options.max_side,
        ("shards", "image_column"): options.image_column,
        ("shards", "label_column"): options.label_column,
        ("shards", "records_per_shard"): options.records_per_shard,
        ("shards", "workers"): options.workers,
    }
    for (section, key), value in named.items():
        if value is not None:
            sections[section][key] = value
    if kind == "image":
        sections["shards"].setdefault("records_per_shard", IMAGES_PER_SHARD)
    return from_mapping(VideoConfig, sections["video"], "video."), from_mapping(ShardsConfig, sections["shards"], "shards.")


if __name__ == "__main__":
    run_command(main)
