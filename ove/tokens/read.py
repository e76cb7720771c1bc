"""Single files → the tokens that an encoder sees: images at their own proportions, videos by codec or by whole frames."""

import contextlib
import dataclasses
import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, UInt8

from ove.config import VideoConfig
from ove.errors import BadClip, ConfigError
from ove.records import TIME_STEPS, Saliency, on_time_grid
from ove.sources.folders import files_in_folder, files_in_list
from ove.sources.images import read_image
from ove.tokens.native import MAX_TOKENS, fit_size, resize
from ove.video.decode import read_video
from ove.video.patches import frames_to_patches, positions, take_patches
from ove.video.saliency import saliency
from ove.video.select import budget_of, choose_patches, i_frame_flags

InputMode = Literal["codec", "frames", "image"]


@dataclass(frozen=True)
class Tokens:
    """What the encoder sees of one file."""

    patches: UInt8[np.ndarray, "n P"]
    positions: Int32[np.ndarray, "n 3"]
    """(t, y, x) in patches; t on the 64-step time grid."""
    effective_hw: tuple[int, int]
    """Height and width in pixels of each picture after the resize."""
    source: str
    """Where the selection comes from: "bitstream" or "transcode"; "pixels" where nothing was selected."""
    cut: str = ""
    """Of a damaged video of which the first part was used (`video.truncated`): what was wrong."""


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
    """Images: force a square of this side; None: at their own proportions."""
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

    @property
    def _grid_tyx(self) -> tuple[int, int, int]:
        return self.video.n_frames, self.video.grid, self.video.grid

    @property
    def longest(self) -> int:
        """The most tokens that a file may have."""
        if self.mode == "codec":
            return budget_of(self.budget, self._grid_tyx)
        if self.mode == "frames":
            return self.n_frames * self.video.grid**2
        return self.max_tokens if self.size_px is None else (self.size_px // self.video.patch_px) ** 2

    @property
    def all_equal(self) -> bool:
        """Whether all files have as many tokens as the longest."""
        return self.mode != "image" or self.size_px is not None


def read_tokens(path: Path, config: InputConfig) -> Tokens:
    """The tokens of one file; BadClip, with file and reason, if it cannot be used in the mode of `config`.

    codec: sampled frames (64), I-frames whole and the most surprising patches of the others, t = number of the sampled
    frame; frames: whole frames at uniform distances, t = clamp(round(i / (n − 1) · 63), 0, 63) with i the frame's index among
    the n frames of the video; image: t = 0. Spec §1, §2.
    """
    readers: dict[str, Callable[[Path, InputConfig], Tokens]] = {"codec": _codec, "frames": _frames, "image": _image}
    return readers[config.mode](path, config)


def resolve_paths(names: Sequence[str]) -> list[Path]:
    """The files that are meant by names of files and folders, by patterns with * ? [ ], and by `@list.txt` (a path a line).

    Of a folder all files below it are meant. They come in the order of the names, sorted within a folder or pattern; hidden
    files are left out, and what is named twice comes once. Any other name stays, for the reader to say what is wrong with
    it. BadClip for a list that cannot be read, and if nothing at all is found.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if name.startswith("@") and not path.exists():
            found += _listed(Path(name[1:]))
        elif path.is_dir():
            found += [file.path for file in files_in_folder(path)]
        elif not path.exists() and (matches := sorted(glob.glob(name, recursive=True))):
            found += [Path(match) for match in matches if Path(match).is_file()]
        else:
            found.append(path)
    if not found:
        raise BadClip(f"no input files in {', '.join(names) or 'nothing'}; name files, folders, patterns or @list.txt.")
    return list(dict.fromkeys(found))


def _listed(list_file: Path) -> list[Path]:
    try:
        return [file.path for file in files_in_list(list_file)]
    except UnicodeDecodeError as error:
        raise BadClip(f"{list_file}: is no list in UTF-8 text; write a path a line.") from error
    except OSError as error:
        raise BadClip(f"{list_file}: the list cannot be read ({error.strerror}); check the path after the @.") from error


def _codec(path: Path, config: InputConfig) -> Tokens:
    video = config.video
    clip, signals = read_video(path, video)
    with _named(path):
        chosen = choose_patches(saliency(signals, video), clip.is_i_frame, config.budget, video.selection)
    tyx = positions(chosen.flat, chosen.grid_tyx)
    tyx[:, 0] = on_time_grid(tyx[:, 0], chosen.grid_tyx[0])
    return Tokens(
        take_patches(clip.frames, chosen.flat, video.patch_px), tyx, (video.size_px, video.size_px), clip.source, clip.cut
    )


def _frames(path: Path, config: InputConfig) -> Tokens:
    video = dataclasses.replace(config.video, n_frames=config.n_frames, sampling="uniform")
    clip, _ = read_video(path, video)
    n_frames, height, width, _ = clip.frames.shape
    grid = n_frames, height // video.patch_px, width // video.patch_px
    tyx = positions(np.arange(np.prod(grid)), grid)
    tyx[:, 0] = on_time_grid(clip.frame_index, clip.n_decoded)[tyx[:, 0]]
    return Tokens(frames_to_patches(clip.frames, video.patch_px), tyx, (height, width), "pixels", clip.cut)


def _image(path: Path, config: InputConfig) -> Tokens:
    image, patch_px = read_image(path), config.video.patch_px
    if config.size_px is None:
        with _named(path):
            size_hw = fit_size(image.shape[0], image.shape[1], patch_px, config.min_tokens, config.max_tokens)
    else:
        size_hw = config.size_px, config.size_px
    picture = resize(image, size_hw).image
    grid = 1, size_hw[0] // patch_px, size_hw[1] // patch_px
    return Tokens(frames_to_patches(picture[None], patch_px), positions(np.arange(grid[1] * grid[2]), grid), size_hw, "pixels")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name before what is said against its contents."""
    try:
        yield
    except BadClip as error:
        raise BadClip(f"{path}: {error}", error.position) from error
