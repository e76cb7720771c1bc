"""`ove shards --videos|--images SOURCE --out DIR`: writes files, lists and archives into shards."""

import argparse
from pathlib import Path

from ove.config import ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import ConfigError
from ove.paths import output_folder
from ove.shards.assemble import WriteSummary
from ove.shards.make import write_source
from ove.shards.write import WriteProgress
from ove.sources.quarantine import QUARANTINE

from .cli.command import command_parser, run_command
from .cli.numbers import number_of
from .cli.progress_line import shown
from .cli.settings import add_settings_help, read_sections, word_list

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
    out = output_folder(options.out, "--out", [source])
    sections = read_sections(options, "video", "shards")
    if kind == "image":
        sections["shards"].setdefault("records_per_shard", IMAGES_PER_SHARD)
    video = from_mapping(VideoConfig, sections["video"], "video.")
    shards = from_mapping(ShardsConfig, sections["shards"], "shards.")
    progress = shown("files")

    def show(found: WriteProgress) -> None:
        progress("", found.done, found.total, f"{found.bad} set aside" if found.bad else "")

    summary = write_source(kind, source, out, video, shards, show, options.replace)
    _report(summary, out)
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
    parser = command_parser(
        "shards",
        "Writes videos or pictures into shards. Started again, it goes on where it stopped. What cannot be used is "
        "set aside in quarantine.jsonl with its reason.",
        epilog="SOURCE: a folder (class names from its subfolders), a list (.txt: path, path<TAB>label or path number a line; "
        ".csv, .jsonl: columns path, label, and obj, vid, ocr with lists of class centers), a WebDataset tar, a TFRecord or a "
        "Parquet file, or a folder of these. docs/data_format.md says more.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("--videos", type=Path, metavar="SOURCE", help="where videos come from")
    parser.add_argument("--images", type=Path, metavar="SOURCE", help="where pictures come from")
    parser.add_argument("--out", type=Path, required=True, help="folder for shards, manifest.json and quarantine.jsonl")
    parser.add_argument("--replace", action="store_true", help="also over a set of other inputs or settings, which is deleted")

    def number(option: str, dest: str, about: str, metavar: str = "N") -> None:
        section, _, key = dest.partition(".")
        of = number_of({"video": VideoConfig, "shards": ShardsConfig}[section], key)
        parser.add_argument(option, dest=dest, type=of, metavar=metavar, help=about)

    number("--size", "video.size_px", "side of the square frames (default: 224)", "PX")
    number("--frames", "video.n_frames", "frames sampled from a video (default: 64)")
    number("--gop", "video.selection.gop_frames", "one I-frame every N sampled frames (default: 32)")
    number("--budget", "shards.budget_tokens", "patches of a clip in its mosaics (default: 2048)")
    number("--crf", "shards.h264_crf", "of the H.264 stream, 0 (large) … 51 (poor) (default: 18)")
    number("--max-side", "shards.max_side_px", "longer side of pictures, at most (default: any)", "PX")
    number("--records-per-shard", "shards.records_per_shard", "default: 64 videos, 1024 pictures")
    number("--workers", "shards.workers", "processes (default: one a core)")
    add = parser.add_argument
    add("--preset", dest="video.preset", choices=[*VideoConfig.PRESETS], help="of the video settings (default: paper)")
    add("--store", dest="shards.store", type=word_list, metavar="FORMS", help="of frames,h264,mosaics (default: frames)")
    add("--image-column", dest="shards.image_column", metavar="NAME", help="of the files, in Parquet and TFRecord")
    add("--path-column", dest="shards.path_column", metavar="NAME", help="of the paths, in CSV and JSONL")
    add("--label-column", dest="shards.label_column", metavar="NAME", help="column, JSON key or extension with the class name")
    number("--label-folder", "shards.label_folder", "the N-th folder above a file is its class (default: topmost)")
    add("--root", dest="shards.root", metavar="DIR", help="where relative paths of a list start (default: the list's folder)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.sampling=consecutive")
    add_settings_help(parser, {"video": VideoConfig, "shards": ShardsConfig})
    return parser


if __name__ == "__main__":
    run_command(main)
