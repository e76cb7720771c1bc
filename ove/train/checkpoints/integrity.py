"""Finds damage to a checkpoint: its files are listed with checksums, and every array has a fingerprint."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from ove.errors import DamagedCheckpoint
from ove.train.sharding import leaf_name

NOTE = "files.json"
"""In the folder of a step: what files it consists of."""


def record_files(folder: Path) -> None:
    """Writes the list of files of a complete checkpoint."""
    files = _files(folder)
    (folder / NOTE).write_text(json.dumps({"files": files, "sha256": _digest(files)}))


def check_files(folder: Path) -> None:
    """Compares the files of a checkpoint with their list; DamagedCheckpoint names those that are missing or differ.

    Orbax answers lost files with pages of text, or with nothing, so this comes before it.
    """
    try:
        note = json.loads((folder / NOTE).read_text())
        found = _files(folder)
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{NOTE}: {error}") from error
    noted = note.get("files") if isinstance(note, dict) else None
    if not isinstance(noted, dict) or note.get("sha256") != _digest(noted):
        raise damaged(folder, f"{NOTE}: is not what was saved")
    wrong = sorted(name for name in noted if found.get(name) != noted[name])
    if wrong:
        raise damaged(folder, f"{len(wrong)} of its files are missing or not what was saved: {few(wrong)}")


def damaged(folder: Path, reason: object) -> DamagedCheckpoint:
    """Returns the error of a damaged checkpoint."""
    return DamagedCheckpoint(f"{folder}: cannot be read ({first_line(reason)}).")


def first_line(reason: object) -> str:
    """Returns the first line of an error of orbax; pages of specifications follow it."""
    return (str(reason) or type(reason).__name__).splitlines()[0].split(" See full TensorStore")[0][:300]


def few(items: list[str]) -> str:
    """Lists the first four, and how many more."""
    return "; ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")


def _digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> dict[str, str]:
    """Returns path → size, and a checksum where that is not left to the fingerprints of the arrays."""
    found = {}
    for path in sorted(path for item in ("state", "meta") for path in (folder / item).rglob("*") if path.is_file()):
        holds_arrays = path.parent.name == "d" and path.parent.parent.name != "state"
        checksum = "" if holds_arrays else hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = f"{path.stat().st_size} {checksum}"
    return found


def fingerprints(tree: Any) -> dict[str, int]:
    """Returns a 32-bit sum of every leaf: the same on any number of devices and processes, changed by any change of one value.

    The sum is of what each value's bits and its place are scrambled to, less what 0 would be there, and wraps at 2^32: no
    change of one value goes unnoticed, one in 2^32 of changes of several does, and zeros at the end do not count.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = _sums([leaf for _, leaf in leaves])
    return {leaf_name(path): int(total) for (path, _), total in zip(leaves, jax.device_get(sums), strict=True)}


def fingerprint_of_blocks(blocks: Iterable[tuple[int, Shaped[np.ndarray, "..."]]]) -> int:
    """Returns the fingerprint of an array that is read block by block: index of the first row, rows; in any order."""
    return sum(int(_sum_of_block(jnp.asarray(block), jnp.uint32(start % 2**32))) for start, block in blocks) % 2**32


@jax.jit
def _sum_of_block(block: Shaped[Array, "n ..."], first_row: UInt32[Array, ""]) -> UInt32[Array, ""]:
    return _sum(block, first_row)


@jax.jit
def _sums(leaves: list[Array]) -> list[Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(leaf: Shaped[Array, "..."], first_row: UInt32[Array, ""] | None = None) -> UInt32[Array, ""]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        place = place * jnp.uint32(leaf.shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        if axis == 0 and first_row is not None:
            place = place + first_row
    key = place * jnp.uint32(2654435769)  # 2^32 over the golden ratio
    return jnp.sum(_scrambled(bits ^ key) - _scrambled(key), dtype=jnp.uint32)


def _scrambled(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Mixes bits one to one: shifts and products with odd numbers can be undone."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)
