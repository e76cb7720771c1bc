"""What the processes of one job tell each other, through their devices: arrays made whole, what the first has decided.

A mesh may be of one process or of all. In a mesh of one every function here gives back what it was given.
"""

import json
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Shaped

from ove.labels.clusters.search import ROWS, shard_mapped

_AT_ONCE_BYTES = 2**26
"""How much of an array is on its way at a time, and so on every device."""


def processes_of(mesh: Mesh) -> list[int]:
    """The processes whose devices make up a mesh, ascending."""
    return sorted({device.process_index for device in mesh.devices.flat})


def leads(mesh: Mesh) -> bool:
    """Whether this process is the one that reads and writes what the processes of a mesh have in common."""
    return processes_of(mesh)[0] == jax.process_index()


def whole(mesh: Mesh, rows: Array) -> Shaped[np.ndarray, "n ..."]:
    """An array that is cut by row over the mesh, in the memory of every process."""
    if rows.is_fully_addressable:
        return np.asarray(rows)
    n = mesh.devices.size
    mine = len(rows) // n
    piece = max(1, min(mine, _AT_ONCE_BYTES * mine // rows.nbytes))
    found = np.empty((n, mine, *rows.shape[1:]), rows.dtype)
    for start in range(0, mine, piece):
        start = min(start, mine - piece)
        found[:, start : start + piece] = np.asarray(_gather(mesh, piece)(rows, np.int32(start)))
    return found.reshape(rows.shape)


@lru_cache(maxsize=16)
def _gather(mesh: Mesh, piece: int) -> Any:
    @shard_mapped(mesh, (PartitionSpec(ROWS), PartitionSpec()), PartitionSpec())
    def gather(mine: Array, start: Array) -> Array:
        return jax.lax.all_gather(jax.lax.dynamic_slice_in_dim(mine, start, piece), ROWS)

    return jax.jit(gather)


def told(mesh: Mesh, rows: Shaped[np.ndarray, "n ..."], source: int | None = None) -> Shaped[np.ndarray, "n ..."]:
    """An array of the process `source` (by default the first of the mesh), bit for bit, on all.

    The others give one of the same shape and type, for example their own: machines of different kinds may compute from the
    same numbers what differs in the last bit.
    """
    processes = processes_of(mesh)
    if len(processes) == 1:
        return rows
    is_source = jax.process_index() == (processes[0] if source is None else source)
    bits = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    found = np.empty_like(bits)
    for start in range(0, len(bits), _AT_ONCE_BYTES):
        piece = bits[start : start + _AT_ONCE_BYTES]
        words = np.zeros(-(-len(piece) // 4), np.uint32)  # which every kind of device can add up
        words.view(np.uint8)[: len(piece)] = piece
        words = np.asarray(multihost_utils.broadcast_one_to_all(words, is_source))
        found[start : start + len(piece)] = words.view(np.uint8)[: len(piece)]
    return found.view(rows.dtype).reshape(rows.shape)


def told_json(mesh: Mesh, value: Any) -> Any:
    """What the first process of the mesh has: a JSON value, on all."""
    if len(processes_of(mesh)) == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(told(mesh, np.array([len(text)]))[0])
    return json.loads(told(mesh, text if leads(mesh) else np.zeros(length, np.uint8)).tobytes())
