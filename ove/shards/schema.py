"""One record of a shard, a picture or the sampled frames of a video with all that is known of them, as bytes and back.

docs/data_format.md describes the layout, so that a reader can be written without this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float16, Float64, Int32, UInt8, UInt16

from ove.config import limits
from ove.errors import BadShard
from ove.records import Saliency
from ove.shards import h264_clip
from ove.shards.fields import check_array, check_record_labels, check_types, pack_array, unpack_array
from ove.shards.pictures import decode_picture, encode_jpeg

SHARD_SCHEMA_VERSION = 1
"""Grows with every change that an old reader would misread."""
MAX_PATCHES = 1 << 16
"""Patches of a clip (T·Y·X) that the indices of mosaics can tell apart."""


@dataclass(frozen=True)
class ImageRecord:
    """One picture as it lies in a shard."""

    key: str
    """Unique in its shard set: the file's path relative to its folder or list, or its name in an archive."""
    image: bytes
    """A JPEG, PNG or WebP file of 8 bits a channel, upright, gray or RGB, without transparency."""
    height_px: int
    width_px: int
    label: str | None = None
    """Class name, where the input gave one."""
    labels: dict[str, Int32[np.ndarray, "M"]] = field(default_factory=dict)
    """Class centers by bank, nearest first, where the input gave any; banks without labels are left out."""


@dataclass(frozen=True)
class VideoRecord:
    """One video as it lies in a shard."""

    key: str
    """As in `ImageRecord`."""
    frames: list[bytes]
    """T JPEG files of S×S RGB pixels, 4:4:4; empty if there is only `h264`."""
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
    """Score of each patch, 0 (as predicted) … 1 (all new), computed from the file's own pictures; −1 on patches not valid."""
    source: str
    """Where the saliency comes from: "bitstream" or "transcode"."""
    codec: str
    """FFmpeg's name of the file's codec."""
    n_decoded: int
    """Number of frames that the file decodes to."""
    fps: float
    """Average frame rate; 0 where the container does not give one."""
    label: str | None
    """Class name, where the input gave one."""
    cut: str = ""
    """Of a damaged file of which the first frames were kept: what was wrong; empty for whole files."""
    labels: dict[str, Int32[np.ndarray, "M"]] = field(default_factory=dict)
    """As in `ImageRecord`."""
    h264: bytes = b""
    """The same T frames as an H.264 stream (`ove.shards.h264_clip`); empty if there are only `frames`."""
    mosaics: list[bytes] = field(default_factory=list)
    """JPEG files (4:4:4) of S×S pixels that hold the patches of `mosaic_flat` row by row; the places left over are black."""
    mosaic_flat: UInt16[np.ndarray, "N"] = field(default_factory=lambda: np.zeros(0, np.uint16))
    """Flat index t·Y·X + y·X + x of each patch in the mosaics, ascending."""
    valid: Bool[np.ndarray, "Y X"] | None = None
    """Of letterboxed frames: patches that lie wholly within the picture; None: all."""

    @property
    def grid_tyx(self) -> tuple[int, int, int]:
        """(T, Y, X): frames, patches down and across."""
        return _grid(len(self.frame_index), self.size_px, self.patch_px)

    @property
    def n_distinct(self) -> int:
        """Number of different frames: fewer than T in videos of fewer frames, whose frames are stored more than once."""
        return len(np.unique(self.frame_index))

    @property
    def scored(self) -> Saliency:
        """The scores as the selection of patches takes them."""
        return Saliency(self.saliency.astype(np.float32), self.valid, self.frame_index)

    @property
    def forms(self) -> tuple[str, ...]:
        """Which of "frames", "h264" and "mosaics" are stored."""
        return tuple(name for name in ("frames", "h264", "mosaics") if getattr(self, name))


Record = VideoRecord | ImageRecord
_KINDS: dict[str, type[VideoRecord] | type[ImageRecord]] = {"video": VideoRecord, "image": ImageRecord}
_MOST_FIELDS = 256
"""Of a record, or of the labels by bank in it."""
_FORMER = ("residual_exact",)
"""Fields of older records, which are skipped (this one was always true)."""


def _types_of(record: type) -> tuple[dict[str, str], dict[str, tuple[type, ...]]]:
    """Returns the dtype (little endian) of each array field, and the types that each other field may have."""
    arrays: dict[str, str] = {}
    others: dict[str, tuple[type, ...]] = {}
    for name, hint in get_type_hints(record).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if dtypes := getattr(kinds[0], "dtypes", None):  # of a jaxtyping array
            arrays[name] = np.dtype(dtypes[0]).newbyteorder("<").str
        else:
            others[name] = tuple(get_origin(kind) or kind for kind in kinds)
    return arrays, others


_ARRAYS = {kind: _types_of(record)[0] for kind, record in _KINDS.items()}
_OTHERS = {kind: _types_of(record)[1] for kind, record in _KINDS.items()}


def kind_of(record: Record) -> str:
    """Returns the kind of a record as stored: "video" or "image"."""
    return "video" if isinstance(record, VideoRecord) else "image"


def pack(record: Record) -> bytes:
    """Returns the bytes of a record; BadShard, naming the field, for one whose fields do not fit each other."""
    kind = kind_of(record)
    _check(kind, vars(record))
    packed: dict[str, Any] = {"schema_version": SHARD_SCHEMA_VERSION, "kind": kind}
    for name, value in vars(record).items():
        packed[name] = pack_array(value, _ARRAYS[kind][name]) if isinstance(value, np.ndarray) else value
    packed["labels"] = {bank: pack_array(values, "<i4") for bank, values in sorted(record.labels.items())}
    return msgpack.packb(packed, use_bin_type=True)


def unpack(data: bytes) -> Record:
    """Returns the record that some bytes hold.

    BadShard, naming the field, for another version or kind, a missing or unknown field, a wrong type, shape or dtype.
    """
    try:
        # Without the bound, a list is allocated at the length that it claims.
        most = limits().max_record_items
        packed = msgpack.unpackb(data, raw=False, strict_map_key=True, max_array_len=most, max_map_len=_MOST_FIELDS)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadShard(f"a record of {len(data)} bytes is not msgpack ({error}); write the shards again.") from error
    if not isinstance(packed, dict) or not all(isinstance(name, str) for name in packed):
        raise BadShard(f"a record of {len(data)} bytes does not hold named fields; write the shards again.")
    version = packed.pop("schema_version", None)
    if version != SHARD_SCHEMA_VERSION:
        raise BadShard(
            f"a record has schema_version {version!r}, this code reads {SHARD_SCHEMA_VERSION}; write the shards again."
        )
    kind = packed.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadShard(f"a record has kind {kind!r}, which is none of {', '.join(_KINDS)}; write the shards again.")
    for name in _FORMER:
        packed.pop(name, None)
    names = {field.name for field in fields(_KINDS[kind])}
    if packed.keys() != names:
        missing, unknown = sorted(names - packed.keys()), sorted(packed.keys() - names)
        raise BadShard(f"a record lacks the fields {missing} and has the unknown fields {unknown}; write the shards again.")
    for name, dtype in _ARRAYS[kind].items():
        if name != "valid" or packed[name] is not None:
            packed[name] = unpack_array(packed[name], dtype, name)
    check_types(packed, _OTHERS[kind])
    packed["labels"] = {bank: unpack_array(values, "<i4", f"labels.{bank}") for bank, values in packed["labels"].items()}
    _check(kind, packed)
    return _KINDS[kind](**packed)


def encode_frames(frames: UInt8[np.ndarray, "T S S 3"], quality: int) -> list[bytes]:
    """Encodes each RGB frame as a JPEG file of the given quality (1…100), chroma at full resolution."""
    return [encode_jpeg(frame, quality) for frame in frames]


def decode_frames(record: VideoRecord, which: Sequence[int], form: str = "") -> UInt8[np.ndarray, "n S S 3"]:
    """Decodes the RGB frames with the given indices (0…T−1), in that order, from JPEG files if stored, else from H.264.

    `form`, "frames" or "h264", chooses in a record that has both. Only those frames are decoded, of H.264 also what they are
    predicted from. BadShard for a JPEG that is cut off, of another size or none, and for a stream that does not hold exactly
    T pictures of that size. Flipped bits are left to the shard's checksums: decoders pass over many of them.
    """
    _check_clip(record, len(which), "frames")
    if not record.frames or form == "h264":
        try:
            return h264_clip.decode_clip(record.h264, len(record.frame_index), record.size_px, which)
        except BadShard as error:
            raise BadShard(f"{record.key}: {error}; write the shards again.") from error
    size = record.size_px
    decoded = np.empty((len(which), size, size, 3), np.uint8)
    for place, index in enumerate(which):
        decoded[place] = _square(record, record.frames[index], f"frame {index}")
    return decoded


def decode_mosaics(record: VideoRecord) -> UInt8[np.ndarray, "N P"]:
    """Decodes the patches of `mosaic_flat`, flattened as (row, column, channel); BadShard as in `decode_frames`."""
    size, patch = record.size_px, record.patch_px
    _check_clip(record, len(record.mosaics), "mosaics")
    images = np.empty((len(record.mosaics), size, size, 3), np.uint8)
    for place in range(len(record.mosaics)):
        images[place] = decode_mosaic(record, place)
    patches = rearrange(images, "i (y p) (x q) c -> (i y x) (p q c)", p=patch, q=patch)
    return patches[: len(record.mosaic_flat)]


def decode_mosaic(record: VideoRecord, index: int) -> UInt8[np.ndarray, "S S 3"]:
    """Decodes one mosaic to RGB; BadShard as in `decode_frames`."""
    return _square(record, record.mosaics[index], f"mosaic {index}")


def decode_image(record: ImageRecord) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image record to RGB; BadShard for a file that is cut off, of another size or none."""
    picture = _decoded(record, record.image)
    if picture is None or picture.shape[:2] != (record.height_px, record.width_px):
        raise BadShard(
            f"{record.key}: is no whole JPEG, PNG or WebP file of {record.height_px}×{record.width_px} pixels; "
            "write the shards again."
        )
    return picture


def _check_clip(record: VideoRecord, n_pictures: int, what: str) -> None:
    """Raises BadShard for pictures that together take more memory than allowed."""
    if excess := limits().excess("max_clip_bytes", n_pictures * record.size_px**2 * 3, "bytes"):
        raise BadShard(f"{record.key}: its {n_pictures} {what} of size_px = {record.size_px} have {excess}; raise the limit.")


def _decoded(record: Record, data: bytes) -> UInt8[np.ndarray, "H W 3"] | None:
    try:
        return decode_picture(data)
    except BadShard as error:
        raise BadShard(f"{record.key}: {error}") from error


def _square(record: VideoRecord, data: bytes, what: str) -> UInt8[np.ndarray, "S S 3"]:
    size, picture = record.size_px, _decoded(record, data)
    if picture is None or picture.shape != (size, size, 3):
        raise BadShard(f"{record.key}: {what} is no whole JPEG of {size}×{size} pixels; write the shards again.")
    return picture


def _check(kind: str, values: Mapping[str, Any]) -> None:
    """Checks types, then the shapes that follow from the number of frames and the patch grid."""
    check_types(values, _OTHERS[kind])
    check_record_labels(values["key"], values["labels"])
    (_check_video if kind == "video" else _check_image)(values)


def _check_image(values: Mapping[str, Any]) -> None:
    if not values["image"] or values["height_px"] < 1 or values["width_px"] < 1:
        raise BadShard(
            f"{values['key']}: field image has {len(values['image'])} bytes, height_px = {values['height_px']}, width_px = "
            f"{values['width_px']}; a picture has at least one byte and one pixel."
        )


def _check_video(values: Mapping[str, Any]) -> None:
    key, size, patch, frames, flat = (values[name] for name in ("key", "size_px", "patch_px", "frames", "mosaic_flat"))
    if patch < 1 or size < 1 or size % patch:
        raise BadShard(f"{key}: field size_px = {size} is no multiple of patch_px = {patch}.")
    grid = _grid(np.size(values["frame_index"]), size, patch)
    for name in ("frames", "mosaics"):
        if not all(isinstance(data, bytes) for data in values[name]):
            raise BadShard(f"{key}: field {name} must be a list of JPEG files.")
    if not grid[0] or (not frames and not values["h264"]) or (frames and len(frames) != grid[0]):
        raise BadShard(
            f"{key}: field frames holds {len(frames)} and h264 {len(values['h264'])} bytes for {grid[0]} of frame_index; "
            "at least one of the two must hold all frames, one or more."
        )
    shapes = {"saliency": grid, "valid": grid[1:], "mosaic_flat": (np.size(flat),)}
    for name, dtype in _ARRAYS["video"].items():
        if name != "valid" or values[name] is not None:
            check_array(key, name, values[name], dtype, shapes.get(name, grid[:1]))
    if not np.isfinite(values["saliency"]).all():
        raise BadShard(f"{key}: field saliency holds numbers that are not finite.")
    held, needed = len(values["mosaics"]), -(-len(flat) // (grid[1] * grid[2]))
    if held != needed:
        raise BadShard(f"{key}: field mosaics holds {held} pictures for {len(flat)} patches, not {needed}.")
    if len(flat) and (np.prod(grid) > MAX_PATCHES or flat[-1] >= np.prod(grid) or (np.diff(flat.astype(np.int64)) < 1).any()):
        raise BadShard(f"{key}: field mosaic_flat must ascend within 0…{np.prod(grid) - 1}, {MAX_PATCHES} patches at most.")


def _grid(n_frames: int, size_px: int, patch_px: int) -> tuple[int, int, int]:
    return n_frames, size_px // patch_px, size_px // patch_px
