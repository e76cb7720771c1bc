"""`ove shards --videos|--images SOURCE --out DIR`: writes files, lists and archives into shards."""

import argparse
from functools import partial
from pathlib import Path

from ove.config import ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import ConfigError
from ove.shards.assemble import WriteSummary
from ove.shards.make import write_source
from ove.shards.write import WriteProgress
from ove.sources.quarantine import QUARANTINE

from .cli.command import CommandParser, program, run_command
from .cli.progress_line import shown
from .cli.settings import read_sections, word_list

IMAGES_PER_SHARD = 1024
"""A picture takes about a tenth of the bytes of a clip."""
_SHOWN = 10
"""Bad files printed; all are in the quarantine list."""


def main(arguments: list[str] | None = None) -> int:
    """Writes a shard folder; returns 0 if it contains a record."""
    options = _parser().parse_args(arguments)
    if (options.videos is None) == (options.images is None):
        raise ConfigError("give either --videos or --images, with a folder, a list of paths or an archive.")
    kind, source = ("image", options.images) if options.videos is None else ("video", options.videos)
    sections = read_sections(options, "video", "shards")
    if kind == "image":
        sections["shards"].setdefault("records_per_shard", IMAGES_PER_SHARD)
    video = from_mapping(VideoConfig, sections["video"], "video.")
    shards = from_mapping(ShardsConfig, sections["shards"], "shards.")
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
    parser = CommandParser(
        prog=program("shards"),
        description="Writes videos or pictures into shards. Started again, it goes on where it stopped. What cannot be used is "
        "set aside in quarantine.jsonl with its reason.",
        epilog="SOURCE: a folder (class names from its subfolders), a list (.txt: path, path<TAB>label or path number a line; "
        ".csv, .jsonl: columns path, label, and obj, vid, ocr with lists of class centers), a WebDataset tar, a TFRecord or a "
        "Parquet file, or a folder of these. docs/data_format.md says more.",
    )
    parser.add_argument("--videos", type=Path, metavar="SOURCE", help="where videos come from")
    parser.add_argument("--images", type=Path, metavar="SOURCE", help="where pictures come from")
    parser.add_argument("--out", type=Path, required=True, help="folder for shards, manifest.json and quarantine.jsonl")
    number = partial(parser.add_argument, type=int, metavar="N")
    number("--size", dest="video.size_px", metavar="PX", help="side of the square frames (default: 224)")
    number("--frames", dest="video.n_frames", help="frames sampled from a video (default: 64)")
    number("--gop", dest="video.selection.gop_frames", help="one I-frame every N sampled frames (default: 32)")
    number("--budget", dest="shards.budget_tokens", help="patches of a clip in its mosaics (default: 2048)")
    number("--crf", dest="shards.h264_crf", help="of the H.264 stream, 0 (large) … 51 (poor) (default: 18)")
    number("--max-side", dest="shards.max_side_px", metavar="PX", help="longer side of pictures, at most (default: any)")
    number("--records-per-shard", dest="shards.records_per_shard", help="default: 64 videos, 1024 pictures")
    number("--workers", dest="shards.workers", help="processes (default: one a core)")
    add = parser.add_argument
    add("--preset", dest="video.preset", choices=[*VideoConfig.PRESETS], help="of the video settings (default: paper)")
    add("--store", dest="shards.store", type=word_list, metavar="FORMS", help="of frames,h264,mosaics (default: frames)")
    add("--image-column", dest="shards.image_column", metavar="NAME", help="of the files, in Parquet and TFRecord")
    add("--path-column", dest="shards.path_column", metavar="NAME", help="of the paths, in CSV and JSONL")
    add("--label-column", dest="shards.label_column", metavar="NAME", help="column, JSON key or extension with the class name")
    number("--label-folder", dest="shards.label_folder", help="the N-th folder above a file is its class (default: topmost)")
    add("--root", dest="shards.root", metavar="DIR", help="where relative paths of a list start (default: the list's folder)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.sampling=consecutive")
    parser.add_settings_help({"video": VideoConfig, "shards": ShardsConfig})
    return parser


if __name__ == "__main__":
    run_command(main)
