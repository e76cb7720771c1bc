"""`ove.read`: one video or picture → the patches that an encoder sees of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8
from PIL import Image

from ove.api.arguments import arguments, path_given
from ove.api.modes import taken_by
from ove.api.source import Source, as_local_file
from ove.errors import BadClip, BadInput, ConfigError
from ove.paths import check_input, output_file
from ove.records import TIME_STEPS
from ove.sources.images import begins_like_an_image
from ove.tokens.native import resize
from ove.tokens.preprocessing import changed
from ove.tokens.read import InputConfig, InputMode, Reading, Tokens, image_input, read_file, whole_frames
from ove.view.overlay import overlay
from ove.view.picture_file import was_drawn_here, write_picture

_OWN = {"frames": "n_frames", "size": "size_px", "budget": "budget", "max_tokens": "max_tokens", "min_tokens": "min_tokens"}
"""Options of `read` beside those of the video section, and what the configuration calls them."""
_NAMED = arguments(video__size_px="size", size_px="size", n_frames="frames", budget_tokens="budget")


@dataclass(frozen=True, repr=False, eq=False)
class EncoderInput:
    """One video or picture as an encoder sees it, made by `ove.read`."""

    name: str
    """Where it was read from."""
    mode: Literal["codec", "frames", "image"]
    patches: UInt8[np.ndarray, "N P"]
    """RGB, each flattened as (row, column, channel); P = 14 · 14 · 3."""
    positions: Int32[np.ndarray, "N 3"]
    """(t, y, x) of each patch: t on a grid of 64 steps over the clip, y and x in patches."""
    frames: UInt8[np.ndarray, "T H W 3"]
    """The sampled frames, or the one picture (T = 1), resized."""
    saliency: Float32[np.ndarray, "T Y X"] | None
    """How surprising each patch is, 0 (as predicted) to 1; None but in mode codec."""
    config: InputConfig
    """How it was read."""
    reading: Reading

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.patches)

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        return f"<ove.EncoderInput {self.name}: {len(self)} patches of {count} frames of {height}×{width}, mode {self.mode}>"

    @property
    def tokens(self) -> Tokens:
        """Patches and positions as one record."""
        return self.reading.tokens

    def show(self, path: str | os.PathLike[str] | None = None) -> Image.Image:
        """Draws what the encoder sees; a notebook displays the result.

        Mode codec: moments of the clip with their motion, residual, saliency, and the patches kept. Otherwise the frames.

        Nothing is opened: in a script, give a path, or call `.show()` of the picture that is returned.

        Args:
            path: also write the picture there; its suffix (.png, .jpg …) is the format.

        Returns:
            The picture (``PIL.Image``), RGB.
        """
        at = self.reading
        if at.clip is not None and at.signals is not None and at.saliency is not None and at.selection is not None:
            pixels = overlay(at.clip, at.signals, at.saliency, at.selection, self.config.video, self.name)
        else:
            pixels = np.concatenate(list(self.frames), axis=1)
        picture = Image.fromarray(pixels)
        if path is not None:
            _write(pixels, path)
        return picture


def _write(pixels: UInt8[np.ndarray, "H W 3"], path: str | os.PathLike[str]) -> None:
    file = output_file(path_given(path, "path"), "path =", (), was_drawn_here, replace=None)
    try:
        write_picture(file, pixels)
    except OSError as error:
        raise ConfigError(f"path = {file}: cannot be written ({error.strerror or error}); give another path.") from error


@_NAMED
def read(
    source: Source | Shaped[np.ndarray, "..."],
    /,
    *,
    mode: Literal["auto", "codec", "frames", "image"] = "auto",
    budget: int | float | None = None,
    frames: int | None = None,
    size: int | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    **video: Any,
) -> EncoderInput:
    """Reads a video or a picture and chooses the patches that an encoder sees.

    Args:
        source: a path (``str`` or ``Path``), the ``bytes`` of a file, a binary file object, a URL (``https://``, ``s3://`` …),
            or an array of ``uint8`` pixels, ``(H, W, 3)`` for a picture or ``(T, H, W, 3)`` for the frames of a video.
        mode: ``"codec"`` samples 64 frames and keeps the most surprising patches by motion and residual of the compressed
            video; ``"frames"`` keeps all patches of a few frames; ``"image"`` those of a picture. ``"auto"`` is ``"image"``
            for pictures, ``"frames"`` for arrays of frames, and ``"codec"`` for all else.
        budget: patches of a clip in mode codec, by default 2,048; a float up to 1 is a share of all its patches.
        frames: whole frames of a video in mode frames, 1 to 64, by default 8.
        size: side in pixels of the square to which videos (default 224) and pictures (default: at their own proportions) are
            resized; a multiple of 14.
        max_tokens: the most patches of a picture at its own proportions, by default 1,024.
        min_tokens: enlarge pictures at their own proportions to at least so many patches.
        **video: other keys of the video section, such as ``sampling="energy"``, ``geometry="letterbox"`` or
            ``preset="probe"`` (:class:`ove.config.VideoConfig`). Options that the mode does not have are refused.

    Returns:
        Patches and positions, with the frames and the saliency that they were chosen by.

    Raises:
        BadClip: if the file cannot be used, with its name and the reason.
        BadInput: for a type that is no source, or pixels that are not ``uint8``.
        ConfigError: for options that are unknown, not of this mode, or do not go together.
        Unavailable: if a URL cannot be read.

    Examples:
        >>> clip = ove.read("video.mp4", budget=512)
        >>> clip.patches.shape, clip.positions.shape
        ((512, 588), (512, 3))
        >>> clip.show("patches.png").size
        (1486, 1298)
    """
    own = {"budget": budget, "frames": frames, "size": size, "max_tokens": max_tokens, "min_tokens": min_tokens}
    return read_as(source, InputConfig("codec"), own | video, mode)


def read_as(
    source: Any,
    config: InputConfig,
    options: Mapping[str, Any],
    mode: str = "auto",
    *,
    called: str = "source",
    unused: list[dict[str, str]] | None = None,
) -> EncoderInput:
    """Reads as `config` says but for the options given; None leaves one as it is. Otherwise as `read`.

    ConfigError for an option that the mode does not have; with a list `unused`, such options are appended to it instead, each
    with that sentence. `called`: the argument that the source is, for messages.
    """
    if not isinstance(mode, str) or mode not in ("auto", "codec", "frames", "image"):
        raise ConfigError(f"mode = {mode!r:.60} is none of auto, codec, frames, image.")
    given = {key: value for key, value in options.items() if value is not None or key not in _OWN}
    if not isinstance(source, _FILES) and (hasattr(source, "__array__") or hasattr(source, "__array_interface__")):
        return _of_array(np.asarray(source), mode, config, given, called, unused)
    with as_local_file(source, called) as (path, name):
        if mode == "auto":
            mode = mode_of(path, config)
        taken = taken_by(given, config, mode, f"{name} is read in mode {mode}", unused)
        config = _configured(config, mode, taken)
        return _made(name, config, read_file(path, config))


_FILES = (str, os.PathLike, bytes, bytearray, memoryview)


def mode_of(path: Path, config: InputConfig) -> InputMode:
    """Returns how a file is looked at: pictures as such, videos as in `config`; BadClip if it cannot be opened."""
    if path.is_dir():
        raise BadClip(f"{path}: is a folder; give one file. ove.split, ove.write_shards, ove.probe and `ove encode` read many.")
    check_input(path, "a video or picture")
    try:
        with path.open("rb") as file:
            is_image = begins_like_an_image(file.read(16))
    except OSError as error:
        raise BadClip(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    return "image" if is_image else config.mode if config.mode != "image" else "codec"


def _configured(config: InputConfig, mode: str, options: Mapping[str, Any]) -> InputConfig:
    values = {_OWN.get(key, f"video.{key}"): value for key, value in options.items()}
    if "size_px" in values and mode != "image":
        values["video.size_px"] = values.pop("size_px")
    return changed(config, mode=mode, **values)


def _of_array(
    array: Shaped[np.ndarray, "..."],
    mode: str,
    config: InputConfig,
    options: Mapping[str, Any],
    called: str,
    unused: list[dict[str, str]] | None,
) -> EncoderInput:
    if array.dtype != np.uint8:
        raise BadInput(
            f"{called}: pixels are of type {array.dtype}; give uint8, 0 to 255 (floats of 0 to 1: "
            "`(255 * x).round().astype(np.uint8)`)."
        )
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or not array.size:
        raise BadInput(
            f"{called}: pixels of shape {array.shape} are no RGB picture (H, W, 3) or frames (T, H, W, 3), channels last."
        )
    expected = "image" if array.ndim == 3 else "frames"
    if mode not in ("auto", expected):
        raise ConfigError(
            f"mode = {mode!r}: an array of {array.ndim} axes is read in mode {expected}; codec needs a video file."
        )
    taken = taken_by(options, config, expected, f"an array is read in mode {expected}", unused, "patch_px")
    config = _configured(config, expected, taken)
    if expected == "image":
        return _made("<array>", config, image_input(np.ascontiguousarray(array), config))
    chosen = np.unique(np.linspace(0, len(array) - 1, min(config.n_frames, len(array), TIME_STEPS)).astype(np.int32))
    side, patch_px = config.video.size_px, config.video.patch_px
    pixels = np.stack([resize(np.ascontiguousarray(array[i]), (side, side)) for i in chosen])
    return _made("<array>", config, Reading(whole_frames(pixels, chosen, len(array), patch_px), pixels))


def _made(name: str, config: InputConfig, reading: Reading) -> EncoderInput:
    tokens, saliency = reading.tokens, reading.saliency
    scores = None if saliency is None else saliency.scores
    return EncoderInput(name, config.mode, tokens.patches, tokens.positions, reading.frames, scores, config, reading)
