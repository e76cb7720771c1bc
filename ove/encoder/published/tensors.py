"""Compares the tensors of a file with those of an encoder."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from ove.encoder.published.layout import Published

_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}
"""Bits of the exponent, all set in NaN and infinities."""
FLOATS = tuple(_EXPONENT)
"""Number types that weights may have."""


def differences(wanted: list[Published], tensors: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[str]:
    """Lists, a line each, missing, unexpected and misshapen tensors, and those of another type or with values not finite."""
    shapes = {tensor.name: tensor.shape for tensor in wanted}
    lines = [f"missing: {name} {list(shapes[name])}" for name in shapes if name not in tensors]
    lines += [f"unexpected: {name} {list(tensors[name].shape)}" for name in sorted(tensors) if name not in shapes]
    for name, tensor in ((name, tensors[name]) for name in shapes if name in tensors):
        if tensor.shape != shapes[name]:
            lines.append(f"wrong shape: {name} is {list(tensor.shape)}, not {list(shapes[name])}")
        elif tensor.dtype.name not in FLOATS:
            lines.append(f"wrong type: {name} is {tensor.dtype.name}, not one of {', '.join(FLOATS)}")
        elif not _is_finite(tensor):
            lines.append(f"not finite: {name} has NaN or infinite values")
    return lines


def _is_finite(tensor: Shaped[np.ndarray, "..."]) -> bool:
    unsigned = f"u{tensor.dtype.itemsize}"
    exponent = np.array(_EXPONENT[tensor.dtype.name], unsigned)
    return not np.any(tensor.view(unsigned) & exponent == exponent)
