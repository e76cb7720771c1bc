"""Selected patches packed into square images, with their positions, as LLaVA-style training reads a video.

The reference's training (`image` and `positions_thw` of its JSONL) and its evaluation (a folder for each video) read these
files; docs/codec.md says how.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from ove.errors import ConfigError
from ove.files import write_array, write_bytes, write_json
from ove.records import Clip, Selection
from ove.shards.pictures import MOSAIC_QUALITY
from ove.shards.schema import encode_frames
from ove.video.patches import patches_to_frames, positions, take_patches


def check_budget(budget_tokens: int, per_frame: int) -> None:
    """Raises ConfigError unless the budget fills whole mosaics."""
    if budget_tokens % per_frame or budget_tokens < per_frame:
        raise ConfigError(
            f"{budget_tokens} patches do not fill mosaics of {per_frame}; take a budget that is a multiple of {per_frame}, for "
            f"example {max(round(budget_tokens / per_frame), 1) * per_frame}."
        )


def pack_mosaics(
    frames: UInt8[np.ndarray, "T S S 3"], selection: Selection, patch_px: int
) -> tuple[UInt8[np.ndarray, "I S S 3"], Int32[np.ndarray, "N 3"]]:
    """Packs the N selected patches into I = N / (Y·X) images of S×S pixels; also returns the (t, y, x) of each patch.

    Patches are ordered by t, then y, then x, row by row from the upper left corner of the first image. ConfigError for a
    selection that does not fill its last image.
    """
    _, rows, columns = selection.grid_tyx
    check_budget(len(selection.flat), rows * columns)
    patches = take_patches(frames, selection.flat, patch_px)
    n_images = len(patches) // (rows * columns)
    return patches_to_frames(patches, (n_images, rows, columns), patch_px), positions(selection.flat, selection.grid_tyx)


def write(folder: Path, key: str, clip: Clip, selection: Selection, patch_px: int, video: Path) -> dict[str, object]:
    """Writes the mosaics of a clip into `folder`; returns its entry for a training list, whose `id` is `key`.

    `mosaic_000.jpg` and so on, `positions_thw.npy` (int32), `frame_ids.npy` (index of each sampled frame in the video) and
    `meta.json`, which is written last. The entry holds `id`, `image` and `positions_thw`, with absolute paths.
    """
    images, positions_thw = pack_mosaics(clip.frames, selection, patch_px)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("mosaic_*.jpg"):  # readers take all of them
        old.unlink()
    paths = [folder / f"mosaic_{number:03d}.jpg" for number in range(len(images))]
    for path, data in zip(paths, encode_frames(images, MOSAIC_QUALITY), strict=True):
        write_bytes(path, data)
    write_array(folder / "positions_thw.npy", positions_thw)
    write_array(folder / "frame_ids.npy", clip.frame_index)
    meta = {"video": str(video), "key": key, "size_px": clip.frames.shape[1], "patch_px": patch_px}
    write_json(folder / "meta.json", meta | {"codec": clip.codec, "source": clip.source, "cut": clip.cut})
    return {
        "id": key,
        "image": [str(path.absolute()) for path in paths],
        "positions_thw": str((folder / "positions_thw.npy").absolute()),
    }
