"""Where the tensors of a published model lie: one file or several with an index, in safetensors or torch's format."""

import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from ove.config import bounded_json, limits, read_bounded_json
from ove.encoder.published.torch_file import read_torch
from ove.errors import BadCheckpoint
from ove.paths import inside

SAFETENSORS = "model.safetensors"
METADATA = {"format": "pt"}
"""Without this text in the file the PyTorch code does not load it."""
_USUAL = (SAFETENSORS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What weights are called in a folder, in the order in which the PyTorch code looks for them."""
_ENDINGS = (".safetensors", ".pt", ".pth", ".bin")
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""Safetensors' names of number types."""

_MOST_OF_AN_AXIS, _MOST_AXES = 1 << 48, 32
"""What NumPy can describe, also of tensors without elements."""

Tensors = dict[str, Shaped[np.ndarray, "..."]]
"""Name → read-only view of a file's bytes: nothing is read before it is used."""


@dataclass(frozen=True)
class WeightFiles:
    """The names of all tensors of a model, and the files that hold them."""

    given: Path
    """What the user named."""
    index: Path | None
    holds: Mapping[str, Path] = field(repr=False)
    """Name of a tensor → file, as the index says, or as found in the one file there is."""
    _read: Mapping[Path, Tensors] = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=lambda: METADATA)
    """Texts in the one safetensors file, if there is one."""

    @property
    def pickled(self) -> bool:
        """Whether this is torch's format."""
        return any(not path.name.endswith(".safetensors") for path in self.holds.values())

    def read(self, names: Iterable[str]) -> Tensors:
        """Reads the tensors of these names; opens only files that hold some. BadCheckpoint if one is not as the index says."""
        wanted = list(names)
        found: Tensors = {}
        for path in dict.fromkeys(self.holds[name] for name in wanted):
            here = [name for name in wanted if self.holds[name] == path]
            tensors = self._read[path] if path in self._read else self._shard(path, here)
            found |= {name: tensors[name] for name in here}
        return found

    def _shard(self, path: Path, names: list[str]) -> Tensors:
        if not path.is_file():
            raise BadCheckpoint(
                f"{self.index}: says that {path.name} holds {_few(names)}, but there is no such file beside it; download it."
            )
        tensors = read_tensors(path, set(names).__contains__)[0]
        lacking = [name for name in names if name not in tensors]
        if lacking:
            raise BadCheckpoint(
                f"{self.index}: says that {path.name} holds {_few(lacking)}, but it does not; the files are of different "
                "models or versions: download all of them again."
            )
        return tensors


def holds_weights(path: Path) -> bool:
    """Returns whether a path is a file, or a folder with a file that could hold weights."""
    return path.is_file() or (path.is_dir() and any(file.name.endswith((*_USUAL, *_ENDINGS)) for file in path.iterdir()))


def find_weights(path: Path, wanted: Callable[[str], bool]) -> WeightFiles:
    """Finds the weights in a folder, in a file, or named by an index file.

    In a folder: what is called as the PyTorch code calls it, or else the only file there that could hold weights. `wanted`
    tells by its name whether a tensor is one of the encoder's, which finds the state dict in a torch file. BadCheckpoint if
    there are no weights, or no telling which.
    """
    file = _file_in(path) if path.is_dir() else path
    if not file.is_file():
        raise BadCheckpoint(
            f"{path}: no such file or folder; give a folder with config.json and {SAFETENSORS}, or a file of weights "
            "(models on a hub have to be downloaded first)."
        )
    if not file.name.endswith(".index.json"):
        tensors, metadata = read_tensors(file, wanted)
        return WeightFiles(path, None, dict.fromkeys(tensors, file), {file: tensors}, metadata)
    holds = {name: inside(file.parent, shard, file, BadCheckpoint) for name, shard in _weight_map(file).items()}
    return WeightFiles(path, file, holds, {})


def read_tensors(path: Path, wanted: Callable[[str], bool]) -> tuple[Tensors, Mapping[str, str]]:
    """Reads all tensors of one file, and the metadata of a safetensors file."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise BadCheckpoint(
                f"{path}: is only a pointer of Git LFS ({path.stat().st_size} bytes) where weights should be; "
                "run `git lfs pull` in its folder, or download the file itself."
            )
    if path.name.endswith(".safetensors"):
        return read_safetensors(path)
    if path.name.endswith(_ENDINGS):
        return read_torch(path, wanted), METADATA
    raise BadCheckpoint(f"{path}: is not called like a file of weights ({', '.join(_ENDINGS)}).")


def _file_in(folder: Path) -> Path:
    for name in _USUAL:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.name.endswith(_ENDINGS) and path.is_file())
    if not files:
        raise BadCheckpoint(f"{folder}: holds no weights; put {SAFETENSORS} there, or give the file of weights itself.")
    if len(files) > 1:
        raise BadCheckpoint(
            f"{folder}: holds several files that could be the weights ({_few([file.name for file in files])}) and no index "
            "that joins them; give the one you mean."
        )
    return files[0]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names = read_bounded_json(index)["weight_map"]
        valid = all(isinstance(name, str) and isinstance(shard, str) for name, shard in names.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{index}: is not an index of weights ({error!r}); download it again.") from error
    if not valid:
        raise BadCheckpoint(f"{index}: is not an index of weights: it must map names of tensors to files beside it.")
    return names


def read_safetensors(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    """Reads the tensors and metadata of a safetensors file.

    By the published format: 8 bytes with the length of a JSON header, the header, the numbers of the tensors. The safetensors
    library copies, and knows bfloat16 in numpy only if another library has taught it to numpy.
    """
    size = path.stat().st_size
    if size < 8:
        raise BadCheckpoint(f"{path}: is truncated ({size} bytes); download it again.")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    if excess := limits().excess("max_header_bytes", start - 8, "bytes"):
        raise BadCheckpoint(
            f"{path}: is not a safetensors file: its header would have {excess}; download it again, or name it by its true "
            "format."
        )
    if start > size:
        raise BadCheckpoint(
            f"{path}: is truncated within its header ({size:,} of at least {start:,} bytes); download it again."
        )
    try:
        header: dict[str, Any] = bounded_json(content[8:start])
        if excess := limits().excess("max_archive_inputs", len(header), "tensors"):
            raise ValueError(excess)
        metadata = {str(name): str(text) for name, text in header.pop("__metadata__", {}).items()}
        places = {name: _place(spec) for name, spec in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{path}: its header is damaged ({error!r}); download it again.") from error
    end = start
    for place in sorted(places.values(), key=lambda place: (place.begin, place.end)):
        if start + place.begin != end:
            raise BadCheckpoint(f"{path}: its header is damaged (tensors overlap or leave gaps); download it again.")
        end = start + place.end
    if end > size:
        raise BadCheckpoint(f"{path}: is truncated ({size:,} of {end:,} bytes); download it again.")
    if end < size:
        raise BadCheckpoint(f"{path}: is damaged ({size:,} bytes where its header tells of {end:,}); download it again.")
    return {name: place.view(content, start) for name, place in places.items()}, metadata


@dataclass(frozen=True)
class _Place:
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    def view(self, content: mmap.mmap, start: int) -> np.ndarray:
        return np.frombuffer(content, self.dtype, math.prod(self.shape), start + self.begin).reshape(self.shape)


def _place(spec: Mapping[str, Any]) -> _Place:
    shape, (begin, end) = tuple(spec["shape"]), spec["data_offsets"]
    if not all(type(n) is int and 0 <= n < _MOST_OF_AN_AXIS for n in (*shape, begin, end)) or len(shape) > _MOST_AXES:
        raise ValueError(f"shape {spec['shape']}, offsets {spec['data_offsets']}")
    # Of a type that numpy lacks, only the bytes: it is no encoder's, but may be in the file of a larger model.
    dtype = np.dtype(_DTYPES.get(spec["dtype"], np.void(1).dtype))
    if spec["dtype"] not in _DTYPES:
        return _Place(dtype, (end - begin,), begin, end)
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"{end - begin} bytes for shape {list(shape)} of {spec['dtype']}")
    return _Place(dtype, shape, begin, end)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
