"""Reads and writes centers as .npy or .safetensors, in one or several files, block by block.

Files contain centers (C, E) by index; in a bank they are shuffled. No function holds a whole bank in memory.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float32, Int, Shaped

from ove.centers.placement import padded
from ove.centers.shuffle import center_of
from ove.config import bounded_json, limits
from ove.errors import BadInput
from ove.files import atomic_write, map_array

ENDINGS = (".npy", ".safetensors")
TENSOR = "centers"
"""Name of the tensor in a safetensors file; a file with a single 2-D tensor may use another name."""
BLOCK_ROWS = 65536
_DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(jnp.bfloat16)}

RowBlock = tuple[int, Float32[np.ndarray, "n E"]]
"""Index of the first row, and consecutive rows of a bank."""


@dataclass(frozen=True)
class CenterFiles:
    """Centers in one or more memory-mapped files."""

    path: Path
    """File or folder given by the user."""
    parts: tuple[Shaped[np.ndarray, "_ E"], ...]

    @property
    def width(self) -> int:
        """E, the length of a center."""
        return self.parts[0].shape[1]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def read(self, centers: Int[np.ndarray, "n"]) -> Float32[np.ndarray, "n E"]:
        """Returns the given centers in order; BadInput for values that are not finite."""
        found = np.empty((len(centers), self.width), np.float32)
        order = np.argsort(centers, kind="stable")  # from the beginning of the files to their end
        ends = np.cumsum([len(part) for part in self.parts])
        for number, here in enumerate(np.split(order, np.searchsorted(centers[order], ends[:-1]))):
            found[here] = self.parts[number][centers[here] - (ends[number] - len(self.parts[number]))]
        if not np.isfinite(found).all():
            wrong = int(centers[~np.isfinite(found).all(1)][0])
            raise BadInput(f"{self.path}: center {wrong} has values that are not finite; compute the centers again.")
        return found


def open_centers(path: Path) -> CenterFiles:
    """Opens the centers in a file, or in all files of a folder in the order of their names.

    BadInput for files that are missing, damaged, of another format, of an integer type, or of different widths.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS) and not file.name.startswith("."))
    if not files or not files[0].is_file():
        raise BadInput(f"{path}: contains no centers; give a file {' or '.join(ENDINGS)}, or a folder of such files.")
    parts = tuple(_open(file) for file in files)
    for file, part in zip(files, parts, strict=True):
        if part.ndim != 2 or part.dtype not in _DTYPES.values():
            raise BadInput(f"{file}: contains {part.dtype.name}{list(part.shape)}; centers must be a 2-D floating-point array.")
        if part.shape[1] != parts[0].shape[1]:
            raise BadInput(
                f"{file}: its centers have width {part.shape[1]}, those of {files[0].name} width {parts[0].shape[1]}."
            )
    return CenterFiles(path, parts)


def read_rows(path: Path, n_centers: int, width: int, sharding: NamedSharding, n_shards: int) -> jax.Array:
    """Reads the rows of a bank from files of centers, each shard directly to its device; padding is 0.

    BadInput unless the files contain `n_centers` centers of `width`.
    """
    files = open_centers(path)
    if files.width != width:
        raise BadInput(
            f"{path}: its centers have width {files.width}, the encoder's embeddings width {width}; use centers of that "
            "width, or leave the centroids of this bank out."
        )
    if len(files) != n_centers:
        raise BadInput(
            f"{path}: contains {len(files)} centers, but the labels refer to {n_centers}; use the file that the labels "
            "were made with."
        )

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        first, past, _ = index[0].indices(padded(n_centers, n_shards))
        rows = np.zeros((past - first, width), np.float32)
        for start in range(first, min(past, n_centers), BLOCK_ROWS):
            length = min(BLOCK_ROWS, past - start, n_centers - start)
            rows[start - first : start - first + length] = files.read(_centers_in(start, length, n_centers))
        return rows

    return jax.make_array_from_callback((padded(n_centers, n_shards), width), sharding, shard)


def blocks_of(rows: jax.Array, n_centers: int) -> Iterator[RowBlock]:
    """Yields the rows of a bank on this host's devices, without replicas and padding."""
    for piece in rows.addressable_shards:
        if piece.replica_id:
            continue
        first = piece.index[0].start or 0
        for start in range(0, min(len(piece.data), n_centers - first), BLOCK_ROWS):
            past = min(start + BLOCK_ROWS, len(piece.data), n_centers - first)
            yield first + start, np.asarray(piece.data[start:past])


def write_centers(blocks: Iterable[RowBlock], n_centers: int, width: int, path: Path, n_files: int = 1) -> list[Path]:
    """Writes a bank's rows as centers by index, float32, atomically; returns the files.

    `path` ends in .npy or .safetensors. Several files are named `…-00000-of-00003` and so on before the suffix and have equal
    lengths except the last. BadInput for another suffix or more files than centers.
    """
    if path.suffix not in ENDINGS or not 1 <= n_files <= n_centers:
        raise BadInput(f"{path}: {n_files} files; end the name in {' or '.join(ENDINGS)}, and give 1…{n_centers} files.")
    length = -(-n_centers // n_files)
    starts = range(0, n_centers, length)
    names = [path] if n_files == 1 else [_part(path, number, len(starts)) for number in range(len(starts))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(atomic_write(name)) for name in names]
        tables = [
            _create(file, (min(length, n_centers - start), width), path.suffix)
            for file, start in zip(temporary, starts, strict=True)
        ]
        for first, rows in blocks:
            centers = _centers_in(first, len(rows), n_centers)
            for table, start in zip(tables, starts, strict=True):
                here = (centers >= start) & (centers < start + len(table))
                table[centers[here] - start] = rows[here]
        for table in tables:
            table.flush()
    return names


@partial(jax.jit, static_argnums=(1, 2))
def _centers_from(first: int | Int[jax.Array, ""], length: int, n_centers: int) -> jax.Array:
    return center_of(jnp.minimum(first + jnp.arange(length, dtype=jnp.int32), n_centers - 1), n_centers)


def _centers_in(first: int, length: int, n_centers: int) -> Int[np.ndarray, "n"]:
    """Returns the centers in rows first … first + length − 1; compiled for powers of two only."""
    rounded = 1 << (length - 1).bit_length()
    return np.asarray(_centers_from(first, rounded, n_centers))[:length]


def _part(path: Path, number: int, count: int) -> Path:
    return path.with_name(f"{path.stem}-{number:05d}-of-{count:05d}{path.suffix}")


def _create(path: Path, shape: tuple[int, int], ending: str) -> np.memmap:
    """Creates a file of that shape and maps it."""
    if ending == ".npy":
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)
    size = 4 * shape[0] * shape[1]
    header = json.dumps({TENSOR: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return np.memmap(path, np.float32, "r+", 8 + len(header), shape)


def _open(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return map_array(path)
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: cannot be read as {path.suffix} ({error}); it is damaged or of another format.") from error
    raise BadInput(f"{path}: has the suffix {path.suffix or '(none)'}; give a file {' or '.join(ENDINGS)}.")


def _open_safetensors(path: Path) -> np.ndarray:
    """Maps the centers of a safetensors file: 8 bytes with the length of a JSON header, the header, the data."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if excess := limits().excess("max_header_bytes", start - 8, "bytes of header"):
            raise ValueError(excess)
        if start > path.stat().st_size:
            raise ValueError("its header is truncated")
        tensors: dict[str, Any] = bounded_json(file.read(start - 8))
    tensors = {name: about for name, about in tensors.items() if name != "__metadata__" and len(about["shape"]) == 2}
    if TENSOR not in tensors and len(tensors) != 1:
        raise ValueError(f"has {len(tensors)} tensors with two axes, none of them called {TENSOR}")
    about = tensors.get(TENSOR) or next(iter(tensors.values()))
    if about["dtype"] not in _DTYPES:
        raise ValueError(f"numbers of type {about['dtype']}")
    dtype, shape, (begin, end) = _DTYPES[about["dtype"]], tuple(about["shape"]), about["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin)) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{about['data_offsets']} are no places of numbers of shape {about['shape']}")
    if start + end > path.stat().st_size:
        raise ValueError("its numbers are truncated")
    return np.memmap(path, dtype, "r", start + begin, shape)
