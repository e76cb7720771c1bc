"""`ove encode --weights DIR --inputs FILE… --mode codec|frames|image --out features.npz`: features of files."""

import argparse
import functools
import operator
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ove.config import VideoConfig
from ove.config.mapping import to_mapping
from ove.errors import BadClip, ConfigError
from ove.features.feature_file import FeatureFile, is_feature_file
from ove.features.from_files import Outputs, Weights, encode_sequences, open_weights, params_fingerprint
from ove.files import on_screen, only_writer
from ove.paths import output_file
from ove.sources.folders import InputFile
from ove.tokens.native import MAX_TOKENS
from ove.tokens.preprocessing import changed, differs_from_training
from ove.tokens.read import InputConfig, Tokens, resolve_inputs
from ove.tokens.read_ahead import read_ahead
from ove.workers import cores

from .cli.command import command_parser, run_command
from .cli.numbers import number, share_or_count
from .cli.progress_line import shown
from .cli.reading import read_one, set_up_messages
from .cli.settings import add_settings_help, read_sections

_SHOWN = 20
_OF_MODE = {"budget": "codec", "frames": "frames", "max_tokens": "image", "min_tokens": "image"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the features of all usable files; returns 0 if there are any (with --strict: if all are)."""
    options = parser().parse_args(arguments)
    set_up_messages(options.verbose)
    folders = [name for name in options.inputs if Path(name).is_dir()]
    options.out = output_file(options.out, "--out", folders, is_feature_file, options.replace)
    with only_writer(options.out):
        return _write(options)


def _write(options: argparse.Namespace) -> int:
    """Encodes all files and writes their features; returns 0."""
    found = resolve_inputs(options.inputs)
    weights = open_weights(options.weights, options.compute)
    config = _input_config(options, weights)
    has_others = options.tokens or options.hidden is not None
    keep = Outputs(weights.config.pooling_head or not has_others, options.tokens, options.hidden)
    keep.check(weights.config)
    bad = [(Path(line.file), line.reason) for line in found.bad]
    n_files = len(found.files) + len(bad)
    started = time.monotonic()
    with FeatureFile(options.out) as file:
        _encode_all(found.files, weights, config, keep, options, file, bad)
        seconds = time.monotonic() - started
        _say_bad(bad)
        if not len(file):
            raise BadClip(f"none of the {n_files} input files could be used in mode {options.mode}; the reasons are above.")
        about = {
            "path": str(options.weights),
            "fingerprint": params_fingerprint(weights.params),
            "step": weights.step,
            "config": to_mapping(weights.config),
        }
        file.write(bad, about, to_mapping(config) | {"hidden_layer": options.hidden})
    print(
        f"{len(file)} of {n_files} files encoded to {options.out} in {seconds:.1f} s ({n_files / seconds:.2f} files/s, "
        f"compilation included); {len(bad)} set aside."
    )
    if bad and options.strict:
        raise BadClip(f"{len(bad)} of the {n_files} input files could not be used, and --strict was given.")
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all options."""
    parser = command_parser("encode", "Features of images and videos. docs/encoder.md says what the .npz holds.")
    add = parser.add_argument
    add("--weights", required=True, type=Path, help="hub name, published folder or file, or run folder")
    add("--inputs", required=True, nargs="+", metavar="FILE", help="files, folders, patterns, lists (.csv, .jsonl, .txt)")
    add("--mode", choices=("codec", "frames", "image"), help="how files are looked at (default: as in training, or codec)")
    add("--out", required=True, type=Path, help="the .npz to write")
    add("--replace", action="store_true", help="overwrite a file that this command has not written")
    add("--budget", type=share_or_count, help="codec: patches of a clip, or a share like 0.125 (default: as in training)")
    add("--frames", type=number(1), help="frames: whole frames of a video (default: as in training)")
    add("--size", type=number(1), help="square of so many pixels (default: videos as in training, images as they are)")
    add("--preset", dest="video.preset", choices=[*VideoConfig.PRESETS], help="of the video settings (default: as in training)")
    add("--sampling", dest="video.sampling", metavar="NAME", help="of 64 frames: uniform, consecutive, energy, pool")
    add("--source", dest="video.source", choices=("auto", "bitstream", "transcode"), help="of signals (default: auto)")
    add("--max-tokens", type=number(1), help=f"image: most patches (default {MAX_TOKENS})")
    add("--min-tokens", type=number(0), help="image: enlarge smaller ones to so many patches (default: never)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.percentile_scope=clip")
    add_settings_help(parser, {"video": VideoConfig})
    add("--compute", choices=("float32", "bfloat16"), default="float32", help="type of activations")
    add("--batch", type=number(1), default=16384, metavar="TOKENS", help="tokens in the encoder at a time (16384)")
    about = "processes that read files ahead (default: one a core); 0: none, and no guard against files that hang"
    add("--workers", type=number(0), metavar="N", help=about)
    add("--threads", dest="workers", type=number(0), metavar="N", help="former name of --workers")
    add("--tokens", action="store_true", help="also keep all tokens, with their positions")
    add("--hidden", type=number(0), metavar="LAYER", help="also keep the tokens after so many blocks (0: before the first)")
    add("--strict", action="store_true", help="exit with an error if any file cannot be used")
    add("--verbose", action="store_true", help="say at which size pictures are encoded, and which attention is used")
    return parser


def _input_config(options: argparse.Namespace, weights: Weights) -> InputConfig:
    """Returns how the weights were trained to see files, changed by the options; says what differs.

    ConfigError for an option that belongs to another mode.
    """
    trained = weights.inputs
    options.mode = options.mode or (trained.mode if trained else "codec")
    is_image = options.mode == "image"
    given = {name: getattr(options, name) for name in _OF_MODE if getattr(options, name) is not None}
    for name in given:
        if _OF_MODE[name] != options.mode:
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning in mode {options.mode}, only in {_OF_MODE[name]}.")
    values = {f"video.{key}": value for key, value in read_sections(options, "video")["video"].items()}
    if is_image and values:
        raise ConfigError(f"{', '.join(values)}: settings of videos have no meaning in mode image.")
    if options.size is not None:
        values["size_px" if is_image else "video.size_px"] = options.size
    if "frames" in given:
        given["n_frames"] = given.pop("frames")
    base = trained or InputConfig("codec", VideoConfig(patch_px=weights.config.patch_px))
    config = changed(base, mode=options.mode, **values, **given)
    for difference in differs_from_training(trained, config) if trained else ():
        print(f"note: the weights were trained on other inputs: {difference}", file=sys.stderr)
    return config


def _encode_all(
    files: list[InputFile],
    weights: Weights,
    config: InputConfig,
    keep: Outputs,
    options: argparse.Namespace,
    file: FeatureFile,
    bad: list[tuple[Path, str]],
) -> None:
    """Fills the feature file and the list of bad files, and shows progress."""
    seen: list[InputFile] = []
    total = len(files) + len(bad)

    def sequences() -> Iterator[Tokens]:
        workers = min(cores() if options.workers is None else options.workers, len(files))
        limit_s = config.video.work_limit_s if workers else None
        read = functools.partial(read_one, config, options.verbose)
        for file, tokens in read_ahead(files, read, max(workers, 1), set_aside, operator.attrgetter("name"), limit_s):
            seen.append(file)
            yield tokens

    def set_aside(file: InputFile, reason: str) -> None:
        bad.append((file.path, reason))

    progress = shown("files")
    progress("", len(bad), total)
    progress.wait()
    encodings = encode_sequences(
        weights,
        sequences(),
        keep,
        longest=config.longest,
        batch_tokens=options.batch,
        equal=config.all_equal,
        after_first=progress.restart,
    )
    for place, encoding in enumerate(encodings):
        file.add(seen[place].path, seen[place].key, encoding)
        progress("", len(file) + len(bad), total, f"{len(bad)} set aside" if bad else "")


def _say_bad(bad: Sequence[tuple[Path, str]]) -> None:
    for _, reason in bad[:_SHOWN]:
        print(f"set aside  {on_screen(reason)}", file=sys.stderr)
    if len(bad) > _SHOWN:
        print(f"… and {len(bad) - _SHOWN} more, all in the .npz (bad_files, bad_reasons).", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
