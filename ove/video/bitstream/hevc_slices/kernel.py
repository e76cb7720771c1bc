"""What the compiled functions of this folder share: their argument types, their state, and the decorator that compiles them."""

import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import numba
import numpy as np

to_int: Any = np.int64
"""In compiled functions `int` keeps numbers unsigned, and mixing these with others makes floats."""
F = TypeVar("F", bound=Callable[..., Any])


def _array(dtype: str, ndim: int = 1) -> Any:
    return numba.types.Array(numba.from_dtype(np.dtype(dtype)), ndim, "C")


def _record(**fields: str) -> np.dtype:
    return np.dtype(list(fields.items()), align=True)


CODER = _record(range="i8", value="i8", spare="i8", at="i8", limit="i8", end="i8")
"""State of the arithmetic decoder (9.3.4.3): `value` holds the 9 bits of ivlOffset above `spare` bits that were read ahead;
`at` is the next word of the data and `limit` the last that may be read; `end`: of the slice segment, in bytes."""

_FIELDS = (
    "width height ctb_bits min_cb_bits min_tb_bits max_tb_bits max_depth_inter max_depth_intra amp pcm "
    "pcm_luma_bits pcm_chroma_bits pcm_min_bits pcm_max_bits sign_hiding transform_skip max_skip_bits "
    "transquant_bypass qp_delta qp_group_bits chroma_qp_offset chroma_qp_group_bits chroma_qp_offsets chroma_format "
    "cross_component slice_type n_refs0 n_refs1 mvd_l1_zero init_type max_merge merge_level temporal collocated_l0 "
    "collocated_poc has_collocated poc no_backward sao_luma sao_chroma sao_max_luma sao_max_chroma slice_address "
    "segment_address dependent wavefront tiles dependent_enabled slice_qp qp_bd_offset cells_wide cells_high "
    "blocks_wide ctbs_wide n_ctbs implicit_rdpcm explicit_rdpcm skip_context rice_adaptation slice_index "
    "motion_wide bypass qp_delta_done chroma_qp_done intra part_mode cu_x cu_y cu_bits chroma_modes depth "
    "qp_prediction qp_delta_value last_qp "
)
PARAMS = _record(**dict.fromkeys(_FIELDS.split(), "i8"), charged="f8")
"""What a slice segment is decoded with, and the state of the coding unit; sizes of blocks are log2 of pixels.

`cells` are 4×4 pixels, `blocks` 8×8, `motion` 16×16; `charged`: information (bits) that has been charged to blocks so far."""


class Picture(NamedTuple):
    """What is known of a picture, in raster order."""

    ctbs: np.ndarray
    """int32 [4, CTBs]: address of its slice (−1: not decoded), tile, index of its slice, first column of its tile."""
    vectors: np.ndarray
    """int64, cells: x and y of list 0, x and y of list 1, 16 bits each, in quarter pixels."""
    refs: np.ndarray
    """uint16, cells: ref_idx of list 0, of list 1 · 256; 255 each where the list is unused."""
    intra_modes: np.ndarray
    """uint8, cells."""
    depths: np.ndarray
    """uint8, blocks: depth in the coding quadtree, + 128 where skipped."""
    qps: np.ndarray
    """int8, blocks: QpY."""
    bits: np.ndarray
    """float32, blocks: information spent."""


class References(NamedTuple):
    """What inter prediction refers to."""

    lists: np.ndarray
    """int64 [4, 16]: POC in list 0 and list 1, then whether it is a long-term reference."""
    vectors: np.ndarray
    """int64 by 16×16 pixels: of the collocated picture, as `Picture.vectors`."""
    motion: np.ndarray
    """int32 [·, 3]: POC of its references; 1 list 0 is used, 2 list 1, 4 and 8: they are long-term."""


class Scratch(NamedTuple):
    """Places to work in; compiled functions allocate nothing."""

    vectors: np.ndarray
    refs: np.ndarray
    """int64 [6]: merge candidates, as in Picture."""
    numbers: np.ndarray
    """int64 [8]: 0, 1 a predicted vector; 2, 3 a difference; 4 … cells."""
    transforms: np.ndarray
    """int64 [32, 8]: a stack of transform tree nodes."""
    quads: np.ndarray
    """int64 [32, 4]: a stack of coding quadtree nodes."""
    saved: np.ndarray
    """uint8 [2, N_STATES]: contexts after the second CTB of a row, and at the end of a slice segment."""


INT64, UINT16, UINT8 = _array("i8"), _array("u2"), _array("u1")
_TUPLES = {
    Picture: (_array("i4", 2), INT64, UINT16, UINT8, UINT8, _array("i1"), _array("f4")),
    References: (_array("i8", 2), INT64, _array("i4", 2)),
    Scratch: (INT64, INT64, INT64, _array("i8", 2), _array("i8", 2), _array("u1", 2)),
}
_PLAIN = {int: numba.int64, float: numba.float64, type(None): numba.void}
Words = Annotated[np.ndarray, _array("u4")]
"""The bytes of a slice segment without emulation prevention, as big-endian words."""
Contexts = Annotated[np.ndarray, UINT8]
Coder = Annotated[Any, numba.from_dtype(CODER)]
Params = Annotated[Any, numba.from_dtype(PARAMS)]
Row = Annotated[np.ndarray, _array("i4")]
Table = Annotated[np.ndarray, _array("i8", 3)]
Motion = Annotated[np.ndarray, _array("i4", 2)]
Vectors = Annotated[np.ndarray, INT64]
State = tuple[int, int, int, int, int]
"""Of a decoder in registers: symbol, range, value, spare, at."""


def _numba_type(annotation: Any) -> Any:
    if annotation in _TUPLES:
        return numba.types.NamedTuple(_TUPLES[annotation], annotation)
    if typing.get_origin(annotation) is tuple:
        return numba.types.UniTuple(numba.int64, len(typing.get_args(annotation)))
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    return typing.get_args(annotation)[1]


def compiled(inline: bool = False, entry: bool = False) -> Callable[[F], F]:
    """Compiles a function for the types of its annotations alone; `entry`: one that Python calls.

    Without a signature each literal argument would make another version of the function. `_nrt` off: else references of every
    array argument are counted, atomically, in every call; the price is that nothing may be allocated. Compiled functions do
    not hold Python's lock. They check no bounds, unless NUMBA_BOUNDSCHECK=1.
    """

    def compile_it(function: F) -> F:
        plain = inspect.unwrap(function)
        hints = typing.get_type_hints(plain, include_extras=True)
        result = _numba_type(hints.pop("return"))
        signature = result(*(_numba_type(hint) for hint in hints.values()))
        options: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True, "_nrt": False, "forceinline": inline}
        if not entry:
            options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        return numba.njit(signature, **options)(plain)

    return compile_it
