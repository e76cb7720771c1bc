"""One record: the sampled frames of a video, its saliency map and where they come from; as bytes and back.

docs/data_format.md describes the layout so that a reader can be written without this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import msgpack
import numpy as np
from jaxtyping import Bool, Float16, Float64, Int32, UInt8

from ove.errors import BadShard

SCHEMA_VERSION = 1
"""Grows with every change that an old reader would misread."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


@dataclass(frozen=True)
class VideoRecord:
    """One video as it lies in a shard."""

    key: str
    """Unique in its shard set: the path of the file relative to the folder or list it was found by."""
    frames: list[bytes]
    """T JPEG files of S×S RGB pixels, 4:4:4."""
    size_px: int
    """S."""
    patch_px: int
    """Side of the patches that `saliency` scores."""
    frame_index: Int32[np.ndarray, "T"]
    """Index of each frame among the decoded frames of the file, in display order."""
    pts_s: Float64[np.ndarray, "T"]
    """Presentation time of each frame in seconds."""
    is_i_frame: Bool[np.ndarray, "T"]
    """Frames that the selection treats as I-frames."""
    saliency: Float16[np.ndarray, "T Y X"]
    """0 (as predicted) … 1 (all news) of each patch."""
    source: str
    """Where the saliency comes from: "bitstream" or "transcode"."""
    codec: str
    """Name of the file's codec in FFmpeg's terms."""
    n_decoded: int
    """Number of frames that the file decodes to."""
    fps: float
    """Average frame rate; 0 where the container does not tell."""
    label: str | None
    """Class name, where the input gave one."""
    residual_exact: bool = True
    """False where the stream may use weighted prediction, which blurs the residual behind the saliency (docs/codec.md)."""
    cut: str = ""
    """What was wrong with the rest of a damaged file of which only the first frames were kept; empty for whole files."""

    @property
    def grid_tyx(self) -> tuple[int, int, int]:
        """(T, Y, X): frames, and patches down and across."""
        return _grid(len(self.frames), self.size_px, self.patch_px)


_ARRAYS = {"frame_index": "<i4", "pts_s": "<f8", "is_i_frame": "|b1", "saliency": "<f2"}
_SCALARS: dict[str, tuple[type, ...]] = {
    "key": (str,),
    "frames": (list,),
    "size_px": (int,),
    "patch_px": (int,),
    "source": (str,),
    "codec": (str,),
    "n_decoded": (int,),
    "fps": (float,),
    "label": (str, type(None)),
    "residual_exact": (bool,),
    "cut": (str,),
}


def pack(record: VideoRecord) -> bytes:
    """The bytes of a record; one that does not agree with itself raises BadShard naming the field."""
    _check(vars(record))
    packed: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for field in fields(VideoRecord):
        value = getattr(record, field.name)
        packed[field.name] = _pack_array(value, _ARRAYS[field.name]) if field.name in _ARRAYS else value
    return msgpack.packb(packed, use_bin_type=True)


def unpack(data: bytes) -> VideoRecord:
    """The record of some bytes.

    Another version, a missing or unknown field, a wrong type, shape or dtype raises BadShard naming the field.
    """
    try:
        packed = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadShard(f"a record of {len(data)} bytes is not msgpack ({error}); write the shards again.") from error
    if not isinstance(packed, dict):
        raise BadShard(f"a record holds {type(packed).__name__} instead of named fields; write the shards again.")
    version = packed.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise BadShard(f"a record has schema_version {version!r}; this code reads {SCHEMA_VERSION}: write the shards again.")
    names = {field.name for field in fields(VideoRecord)}
    if packed.keys() != names:
        missing, unknown = sorted(names - packed.keys()), sorted(packed.keys() - names)
        raise BadShard(f"a record lacks the fields {missing} and has the unknown fields {unknown}; write the shards again.")
    for name, dtype in _ARRAYS.items():
        packed[name] = _unpack_array(packed[name], dtype, name)
    _check(packed)
    return VideoRecord(**packed)


def encode_frames(frames: UInt8[np.ndarray, "T S S 3"], quality: int) -> list[bytes]:
    """Each RGB frame as a JPEG file of the given quality (1…100), chroma at full resolution."""
    # 4:2:0 would smear colour over the borders of patches, which are cut out and seen alone.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    encoded = []
    for frame in frames:
        done, buffer = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
        if not done:
            raise BadShard(f"OpenCV could not encode a frame of shape {frame.shape} as JPEG; check that its build has libjpeg.")
        encoded.append(buffer.tobytes())
    return encoded


def decode_frames(record: VideoRecord, which: Sequence[int]) -> UInt8[np.ndarray, "n S S 3"]:
    """The RGB frames with the given indices (0…T−1), in that order; only those are decoded.

    A JPEG that is cut off, of another size or none raises BadShard. Flipped bits inside of one are the business of the
    shard's own checksums: a JPEG decoder passes over most of them.
    """
    size = record.size_px
    decoded = np.empty((len(which), size, size, 3), np.uint8)
    for place, index in enumerate(which):
        data = record.frames[index]
        # Some versions of OpenCV fill up a JPEG that was cut off with gray instead of refusing it.
        whole = data.startswith(_JPEG_START) and data.endswith(_JPEG_END)
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if whole else None
        if frame is None or frame.shape != (size, size, 3):
            raise BadShard(f"{record.key}: frame {index} is no whole JPEG of {size}×{size} pixels; write the shards again.")
        decoded[place] = frame
    return decoded


def _pack_array(value: np.ndarray, dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(value.shape), "data": np.ascontiguousarray(value.astype(dtype)).tobytes()}


def _unpack_array(value: Any, dtype: str, name: str) -> np.ndarray:
    if not isinstance(value, Mapping) or value.keys() != {"dtype", "shape", "data"}:
        raise BadShard(f"field {name} of a record is no array with dtype, shape and data; write the shards again.")
    shape = value["shape"]
    if value["dtype"] != dtype or not isinstance(value["data"], bytes):
        raise BadShard(f"field {name} of a record has dtype {value['dtype']!r}, expected {dtype!r}; write the shards again.")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadShard(f"field {name} of a record has shape {shape!r}, expected a list of sizes; write the shards again.")
    wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(value["data"]) != wanted:
        raise BadShard(f"field {name} of a record has {len(value['data'])} bytes, expected {wanted}; write the shards again.")
    native = np.dtype(dtype).newbyteorder("=")
    return np.frombuffer(value["data"], dtype).reshape(shape).astype(native)


def _check(values: Mapping[str, Any]) -> None:
    """Types first, then the shapes that follow from the number of frames and the patch grid."""
    for name, kinds in _SCALARS.items():
        if type(values[name]) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise BadShard(f"field {name} of a record is {values[name]!r:.80}, expected {expected}; write the shards again.")
    key, size, patch, frames = (values[name] for name in ("key", "size_px", "patch_px", "frames"))
    if not frames or not all(isinstance(frame, bytes) for frame in frames):
        raise BadShard(f"{key}: field frames must be a list of at least one JPEG file.")
    if patch < 1 or size < 1 or size % patch:
        raise BadShard(f"{key}: field size_px = {size} is no multiple of patch_px = {patch}.")
    grid = _grid(len(frames), size, patch)
    for name, dtype in _ARRAYS.items():
        value, shape = values[name], grid if name == "saliency" else grid[:1]
        if value.shape != shape or value.dtype != np.dtype(dtype):
            found, expected = f"{value.dtype} of shape {value.shape}", f"{np.dtype(dtype)} of shape {shape}"
            raise BadShard(f"{key}: field {name} is {found}, expected {expected}; write the shards again.")
    if not np.isfinite(values["saliency"]).all():
        raise BadShard(f"{key}: field saliency holds numbers that are not finite.")


def _grid(n_frames: int, size_px: int, patch_px: int) -> tuple[int, int, int]:
    return n_frames, size_px // patch_px, size_px // patch_px
