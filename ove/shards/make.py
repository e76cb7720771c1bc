"""One input → one record: a video with its saliency and its pixels in the chosen forms, or a picture."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from ove.config import ShardsConfig, VideoConfig
from ove.config.mapping import to_mapping
from ove.errors import BadClip, ConfigError
from ove.files import naming
from ove.records import Saliency
from ove.shards.assemble import WriteSummary
from ove.shards.h264_clip import encode_clip
from ove.shards.pictures import MOSAIC_QUALITY, STARTS, encode_jpeg, encode_png, whole_picture
from ove.shards.schema import MAX_PATCHES, ImageRecord, Record, VideoRecord, encode_frames
from ove.shards.write import WriteProgress, scratch_folder, write_shards
from ove.sources.folders import InputFile
from ove.sources.images import IMAGE_SIGNATURES, is_plain, read_image
from ove.sources.inputs import Contents, find_inputs, read_input
from ove.video.decode import read_scored
from ove.video.patches import patches_to_frames, take_patches
from ove.video.select import choose_patches, i_frame_flags
from ove.video.span import VideoSpan

_LOSSY = IMAGE_SIGNATURES["JPEG"] + IMAGE_SIGNATURES["WebP"] + IMAGE_SIGNATURES["JPEG 2000"]
"""First bytes of files that are re-encoded as JPEG where necessary (AVIF too)."""


@dataclass(frozen=True)
class RecordMaker:
    """Makes the record of an input; picklable."""

    kind: str
    """Of all inputs: "video" or "image"."""
    video: VideoConfig
    shards: ShardsConfig
    scratch: Path
    """Folder for temporary files."""

    def __call__(self, file: InputFile) -> Record:
        """Makes the record of one input; BadClip, naming it, if it cannot be used."""
        contents = read_input(file, self.kind, self.shards)
        labels = {bank: np.array(values, np.int32) for bank, values in contents.labels.items()}
        if self.kind == "image":
            return self._image(file, contents, labels)
        return self._video(file, contents, labels)

    def _video(self, file: InputFile, contents: Contents, labels: dict[str, np.ndarray]) -> VideoRecord:
        with self._as_file(file, contents) as path:
            clip, found = read_scored(path, self.video, file.span_s and VideoSpan(*file.span_s))
        try:
            store = self.shards.store
            flat, mosaics = self._mosaics(clip.frames, found, clip.is_i_frame) if "mosaics" in store else (None, [])
        except BadClip as error:
            raise BadClip(f"{file.name}: {error}", error.position) from error
        return VideoRecord(
            key=file.key,
            frames=encode_frames(clip.frames, self.shards.jpeg_quality) if "frames" in store else [],
            size_px=self.video.size_px,
            patch_px=self.video.patch_px,
            frame_index=clip.frame_index,
            pts_s=np.asarray(clip.pts_s, np.float64),
            is_i_frame=clip.is_i_frame,
            saliency=found.scores.astype(np.float16),
            source=clip.source,
            codec=clip.codec,
            n_decoded=clip.n_decoded,
            fps=float(clip.fps),
            label=contents.label,
            cut=clip.cut,
            labels=labels,
            h264=encode_clip(clip.frames, self.shards.h264_crf) if "h264" in store else b"",
            mosaics=mosaics,
            mosaic_flat=np.zeros(0, np.uint16) if flat is None else flat,
            valid=clip.valid,
        )

    def _mosaics(
        self, frames: UInt8[np.ndarray, "T S S 3"], found: Saliency, is_i_frame: np.ndarray
    ) -> tuple[UInt16[np.ndarray, "N"], list[bytes]]:
        """Returns the flat indices of the selected patches, and the mosaics that hold them, from the decoded frames."""
        chosen = choose_patches(_as_stored(found), is_i_frame, self.shards.budget_tokens, self.video.selection, fill=True)
        patch_px, (_, rows, columns) = self.video.patch_px, chosen.grid_tyx
        n_mosaics = -(-len(chosen.flat) // (rows * columns))
        patches = np.zeros((n_mosaics * rows * columns, patch_px * patch_px * 3), np.uint8)
        patches[: len(chosen.flat)] = take_patches(frames, chosen.flat, patch_px)
        pictures = patches_to_frames(patches, (n_mosaics, rows, columns), patch_px)
        return chosen.flat.astype(np.uint16), encode_frames(pictures, MOSAIC_QUALITY)

    def _image(self, file: InputFile, contents: Contents, labels: dict[str, np.ndarray]) -> ImageRecord:
        media = contents.media
        picture = read_image(media) if isinstance(media, Path) else read_image(Path(file.name), media)
        data = media.read_bytes() if isinstance(media, Path) else media
        whole = whole_picture(data)
        if whole is None and data.startswith(STARTS):
            raise BadClip(f"{file.name}: ends before its picture does; get a whole copy.")
        height, width = picture.shape[:2]
        longest = self.shards.max_side_px or max(height, width)
        if max(height, width) > longest:
            scale = longest / max(height, width)
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
            picture, whole = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), None
        if whole is None or not is_plain(whole):
            lossy = data.startswith(_LOSSY) or data[4:].startswith(IMAGE_SIGNATURES["AVIF"])
            whole = encode_jpeg(picture, self.shards.jpeg_quality) if lossy else encode_png(picture)
        return ImageRecord(file.key, whole, height, width, contents.label, labels)

    @contextlib.contextmanager
    def _as_file(self, file: InputFile, contents: Contents) -> Iterator[Path]:
        """Yields the path of an input's video; one in an archive is written to a temporary file."""
        if isinstance(contents.media, Path):
            yield contents.media
            return
        path = self.scratch / f"{os.getpid()}{contents.suffix}"
        with naming(path):
            path.write_bytes(contents.media)
        try:
            yield path
        except BadClip as error:
            raise BadClip(str(error).replace(str(path), file.name), error.position) from error
        finally:
            path.unlink()


def write_source(
    kind: str,
    source: Path,
    out: Path,
    video: VideoConfig,
    shards: ShardsConfig,
    progress: Callable[[WriteProgress], None],
    replace: bool = False,
) -> WriteSummary:
    """Writes the inputs of a source (a folder, list or archive) into shards in `out`; `kind`: "video" or "image".

    Resumes an earlier call; with `replace` also over shards of other inputs or settings. Errors as in `find_inputs`,
    `mosaic_selection` and `write_shards`.
    """
    made_with = _decides(kind, video, shards)
    defaults = _decides(kind, VideoConfig(), ShardsConfig(store=shards.store))
    with scratch_folder(out) as scratch:
        found = find_inputs(source, kind, shards, scratch)
        make = RecordMaker(kind, video, shards, scratch)
        limit_s = video.work_limit_s
        return write_shards(found.files, out, make, shards, made_with, progress, limit_s, found.bad, replace, defaults)


def _decides(kind: str, video: VideoConfig, shards: ShardsConfig) -> dict[str, Any]:
    """Returns all settings that decide the records, for the manifest."""
    of_shards = {key: value for key, value in to_mapping(shards).items() if key != "workers"}
    if kind == "image":
        return {"kind": kind, "shards": of_shards}
    return {"kind": kind, "shards": of_shards, "video": to_mapping(video), "mosaics": mosaic_selection(video, shards)}


def mosaic_selection(video: VideoConfig, shards: ShardsConfig) -> dict[str, Any] | None:
    """Returns how the patches of mosaics are selected, for the manifest; None without mosaics.

    ConfigError for a budget that no clip can meet, or for clips with more patches than a record can index.
    """
    if "mosaics" not in shards.store:
        return None
    grid = (video.n_frames, video.grid, video.grid)
    if np.prod(grid) > MAX_PATCHES:
        raise ConfigError(
            f"shards.store = mosaics: {'×'.join(map(str, grid))} patches are more than {MAX_PATCHES}; store frames or h264."
        )
    flags = i_frame_flags(video.n_frames, video.selection.gop_frames)
    choose_patches(Saliency(np.zeros(grid, np.float32)), flags, shards.budget_tokens, video.selection)
    return {"budget_tokens": shards.budget_tokens} | to_mapping(video.selection)


def _as_stored(found: Saliency) -> Saliency:
    """Rounds scores as the record does, so that a reader who selects by those gets the patches of the mosaics."""
    return replace(found, scores=found.scores.astype(np.float16).astype(np.float32))
