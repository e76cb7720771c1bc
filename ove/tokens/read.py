"""Single files → tokens: images at their native aspect ratio, videos by codec or by whole frames."""

import contextlib
import dataclasses
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, UInt8

from ove.config import VideoConfig, limits
from ove.errors import BadClip, ConfigError
from ove.records import TIME_STEPS, Clip, CodecSignals, Saliency, Selection, on_time_grid
from ove.sources.folders import FoundInputs, InputFile, found_in_folder
from ove.sources.images import read_image
from ove.sources.lists import files_of_list, is_list
from ove.sources.quarantine import BadFile
from ove.tokens.native import MAX_TOKENS, fit_size, resize
from ove.video.decode import read_scored, read_video
from ove.video.patches import frames_to_patches, positions, take_patches
from ove.video.saliency import saliency
from ove.video.select import budget_of, choose_patches, i_frame_flags
from ove.video.span import VideoSpan

InputMode = Literal["codec", "frames", "image"]


@dataclass(frozen=True)
class Tokens:
    """The tokens of one file."""

    patches: UInt8[np.ndarray, "n P"]
    positions: Int32[np.ndarray, "n 3"]
    """(t, y, x) in patches; t on the 64-step time grid."""
    effective_hw: tuple[int, int]
    """Height and width in pixels of each picture as the encoder sees it."""
    source: str
    """Of the selection: "bitstream" or "transcode"; "pixels" without a selection."""
    cut: str = ""
    """What was wrong with a damaged video of which the first frames were used (`video.truncated`)."""


@dataclass(frozen=True)
class Reading:
    """A file as it was read: its tokens, the pictures that they come from, and how they were chosen."""

    tokens: Tokens
    frames: UInt8[np.ndarray, "T H W 3"]
    """Sampled frames, or the one picture, after the resize."""
    clip: Clip | None = None
    """Of videos; the next three of mode codec."""
    signals: CodecSignals | None = None
    saliency: Saliency | None = None
    selection: Selection | None = None


@dataclass(frozen=True)
class InputConfig:
    """How files become tokens."""

    mode: InputMode
    video: VideoConfig = dataclasses.field(default_factory=VideoConfig)
    """For the modes codec and frames."""
    budget: int | float = 2048
    """Patches of a clip (codec); a float up to 1 is a share of all its patches."""
    n_frames: int = 8
    """Whole frames of a video (frames)."""
    size_px: int | None = None
    """Images: the side of a square; None: native aspect ratio."""
    min_tokens: int = 0
    max_tokens: int = MAX_TOKENS
    """Images: see `fit_size`."""

    def __post_init__(self) -> None:
        patch_px = self.video.patch_px
        if self.mode == "codec":
            flags = i_frame_flags(self.video.n_frames, self.video.selection.gop_frames)
            choose_patches(Saliency(np.zeros(self._grid_tyx, np.float32)), flags, self.budget, self.video.selection)
        elif self.mode == "frames" and not 1 <= self.n_frames <= TIME_STEPS:
            raise ConfigError(f"frames = {self.n_frames} must be within 1…{TIME_STEPS}, the steps of the time grid.")
        elif self.mode == "image" and self.size_px is not None and (self.size_px < 1 or self.size_px % patch_px):
            raise ConfigError(f"size = {self.size_px} is not a multiple of the patch side {patch_px}.")
        elif self.mode == "image" and not 0 <= self.min_tokens <= max(self.max_tokens, 1) == self.max_tokens:
            raise ConfigError(
                f"max_tokens = {self.max_tokens} must be at least 1, and min_tokens = {self.min_tokens} within 0…max_tokens."
            )
        elif self.mode == "image" and (
            excess := limits().excess("max_picture_pixels", self.longest * self.video.patch_px**2, "pixels")
        ):
            raise ConfigError(f"size = {self.size_px}, max_tokens = {self.max_tokens}: pictures of {excess}; give less.")

    @property
    def _grid_tyx(self) -> tuple[int, int, int]:
        return self.video.n_frames, self.video.grid, self.video.grid

    @property
    def longest(self) -> int:
        """Returns the most tokens of a file."""
        if self.mode == "codec":
            return budget_of(self.budget, self._grid_tyx)
        if self.mode == "frames":
            return self.n_frames * self.video.grid**2
        return self.max_tokens if self.size_px is None else (self.size_px // self.video.patch_px) ** 2

    @property
    def all_equal(self) -> bool:
        """Returns whether all files have equally many tokens, but for videos of very few frames, which have fewer."""
        return self.mode != "image" or self.size_px is not None


def read_tokens(path: Path | str, config: InputConfig, span: VideoSpan | None = None) -> Tokens:
    """Returns the tokens of one file, and keeps nothing else of it; otherwise as `read_file`."""
    return _read(path, config, span, keep_signals=False).tokens


def read_file(path: Path | str, config: InputConfig, span: VideoSpan | None = None) -> Reading:
    """Reads one file, or a span of a video, as `config` says; BadClip, with file and reason, if it cannot be used in that mode.

    codec: of the sampled frames (64), I-frames whole and the most salient patches of the others, t = number of the sampled
    frame; frames: whole frames sampled uniformly, t = clamp(round(i / (n − 1) · 63), 0, 63) of frame i of n; image: t = 0.
    No frame of a short video is used twice, so one with too few frames gives fewer tokens.
    """
    return _read(path, config, span, keep_signals=True)


def _read(path: Path | str, config: InputConfig, span: VideoSpan | None, keep_signals: bool) -> Reading:
    if config.mode == "image":
        if span is not None:
            raise BadClip(f"{path}: mode image reads no part of a video ({span.start_s:g} s to {span.end_s:g} s); use codec.")
        return _image(Path(path), config)
    if config.mode == "codec":
        return _codec(Path(path), config, span, keep_signals)
    return _frames(Path(path), config, span)


def resolve_inputs(names: Sequence[str]) -> FoundInputs:
    """Finds the files named by files, folders (all files below), patterns with * ? [ ], and lists, with the bad lines of lists.

    A list is a .csv, .tsv, .jsonl or .txt file as everywhere (`ove.sources.lists`), or any file as `@NAME`. Files come in the
    order of the names, sorted within a folder or pattern, without hidden ones and repetitions. The key of a file is that of its
    list, else its path. A name that matches nothing is kept, for the reader to report. BadClip for a list that cannot be read,
    and if nothing is found.
    """
    found: list[InputFile] = []
    bad: list[BadFile] = []
    for name in names:
        listed, path = name.startswith("@") and not Path(name).exists(), Path(name)
        matches = [] if listed or path.exists() else sorted(glob.glob(name, recursive=True))
        for each in [Path(name[1:])] if listed else list(map(Path, matches)) or [path]:
            if listed or (is_list(each) and not each.is_dir()):
                of_list = files_of_list(each)
                found += of_list.files
                bad += of_list.bad
            elif each.is_dir():
                below = found_in_folder(each) if not matches else FoundInputs([], [])
                found += [dataclasses.replace(file, key=str(file.path)) for file in below.files]
                bad += below.bad
            else:
                found.append(InputFile(each, str(each), None))
    if not found and not bad:
        raise BadClip(f"no input files in {', '.join(names) or 'nothing'}; name files, folders, patterns or lists of files.")
    once: dict[tuple[Path, tuple[float, float] | None], InputFile] = {}
    for file in found:
        once.setdefault((file.path, file.span_s), file)
    return FoundInputs(list(once.values()), bad)


def _codec(path: Path, config: InputConfig, span: VideoSpan | None, keep_signals: bool) -> Reading:
    video, signals = config.video, None
    if keep_signals:
        clip, signals = read_video(path, video, span)
        scores = saliency(signals, video)
    else:
        clip, scores = read_scored(path, video, span)
    with _named(path):
        chosen = choose_patches(scores, clip.is_i_frame, config.budget, video.selection)
    tyx = positions(chosen.flat, chosen.grid_tyx)
    tyx[:, 0] = on_time_grid(tyx[:, 0], chosen.grid_tyx[0])
    patches = take_patches(clip.frames, chosen.flat, video.patch_px)
    tokens = Tokens(patches, tyx, (video.size_px, video.size_px), clip.source, clip.cut)
    return Reading(tokens, clip.frames, clip, signals, scores, chosen)


def _frames(path: Path, config: InputConfig, span: VideoSpan | None) -> Reading:
    video = dataclasses.replace(config.video, n_frames=config.n_frames, sampling="uniform")
    clip, _ = read_video(path, video, span)
    frame_index, first = np.unique(clip.frame_index, return_index=True)
    tokens = whole_frames(clip.frames[first], frame_index, clip.n_decoded, video.patch_px)
    return Reading(dataclasses.replace(tokens, cut=clip.cut), clip.frames, clip)


def whole_frames(
    frames: UInt8[np.ndarray, "T H W 3"], frame_index: Int32[np.ndarray, "T"], n_frames: int, patch_px: int
) -> Tokens:
    """Returns all patches of frames whose sides `patch_px` divides; `frame_index`: which of the video's `n_frames` they are."""
    _, height, width, _ = frames.shape
    grid = len(frames), height // patch_px, width // patch_px
    tyx = positions(np.arange(np.prod(grid)), grid)
    tyx[:, 0] = on_time_grid(frame_index, n_frames)[tyx[:, 0]]
    return Tokens(frames_to_patches(frames, patch_px), tyx, (height, width), "pixels")


def _image(path: Path, config: InputConfig) -> Reading:
    image = read_image(path)
    with _named(path):
        return image_input(image, config)


def image_input(image: UInt8[np.ndarray, "h w 3"], config: InputConfig) -> Reading:
    """Resizes a picture as `config` says for mode image; BadClip for a size that cannot be used."""
    patch_px = config.video.patch_px
    if config.size_px is None:
        size_hw = fit_size(image.shape[0], image.shape[1], patch_px, config.min_tokens, config.max_tokens)
    else:
        size_hw = config.size_px, config.size_px
    picture = resize(image, size_hw)[None]
    return Reading(whole_frames(picture, np.zeros(1, np.int32), 1, patch_px), picture)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Adds the file's name to errors about its contents."""
    try:
        yield
    except BadClip as error:
        raise BadClip(f"{path}: {error}", error.position) from error
