"""Fields of a record to MessagePack and back: arrays as maps, other values of exactly the expected type."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ove.errors import BadShard

_MOST_AXES, _MOST_OF_AN_AXIS = 4, 1 << 31


def pack_array(value: Shaped[np.ndarray, "..."], dtype: str) -> dict[str, Any]:
    """Returns an array as a map: `dtype` (NumPy's notation, little endian), `shape`, and `data` in C order."""
    return {"dtype": dtype, "shape": list(value.shape), "data": np.ascontiguousarray(value.astype(dtype)).tobytes()}


def unpack_array(value: Any, dtype: str, name: str) -> Shaped[np.ndarray, "..."]:
    """Returns the array in a map; BadShard, naming the field, if there is none or it has another dtype."""
    if not isinstance(value, Mapping) or value.keys() != {"dtype", "shape", "data"}:
        raise BadShard(f"field {name} of a record is no array with dtype, shape and data; write the shards again.")
    shape = value["shape"]
    if value["dtype"] != dtype or not isinstance(value["data"], bytes):
        raise BadShard(f"field {name} of a record has dtype {value['dtype']!r}, expected {dtype!r}; write the shards again.")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise BadShard(f"field {name} of a record has shape {shape!r}, expected a list of sizes; write the shards again.")
    # In Python's integers, for NumPy's overflow; the largest axis also of an empty array, which NumPy cannot make.
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if len(shape) > _MOST_AXES or max(shape, default=0) > _MOST_OF_AN_AXIS:
        raise BadShard(f"field {name} of a record has shape {shape!r:.80}, which no record has; write the shards again.")
    if len(value["data"]) != wanted:
        raise BadShard(f"field {name} of a record has {len(value['data'])} bytes, expected {wanted}; write the shards again.")
    native = np.dtype(dtype).newbyteorder("=")
    return np.frombuffer(value["data"], dtype).reshape(shape).astype(native)


def check_types(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Raises BadShard, naming the field, unless each value has one of its types (a bool is no int)."""
    for name, allowed in kinds.items():
        if type(values[name]) not in allowed:
            expected = " or ".join(kind.__name__ for kind in allowed)
            raise BadShard(f"field {name} of a record is {values[name]!r:.80}, expected {expected}; write the shards again.")


def check_array(key: str, name: str, value: Shaped[np.ndarray, "..."], dtype: str, shape: tuple[int, ...]) -> None:
    """Raises BadShard, naming record and field, unless an array has this dtype and shape."""
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != np.dtype(dtype):
        found = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise BadShard(f"{key}: field {name} is {found}, expected {np.dtype(dtype)} of shape {shape}; write the shards again.")


def check_record_labels(key: str, labels: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Raises BadShard, naming record and bank, unless the labels of every bank are one or more int32 numbers ≥ 0."""
    for bank, values in labels.items():
        if not isinstance(bank, str) or not bank:
            raise BadShard(f"{key}: field labels has the bank {bank!r}, expected a name; write the shards again.")
        check_array(key, f"labels.{bank}", values, "<i4", (max(np.size(values), 1),))
        if (values < 0).any():
            raise BadShard(f"{key}: field labels.{bank} holds {values.min()}; labels are numbers of class centers, from 0 on.")
