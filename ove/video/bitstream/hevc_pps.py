"""The HEVC picture parameter set (7.3.2.3), and the order of coding tree blocks that it tells.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from ove.video.bitstream.hevc_syntax import MAX_SPS_ID, Sps, skip_scaling_lists
from ove.video.bitstream.nal import BitReader, unescaped

_MAX_PPS_ID, _MAX_TILES, _MAX_OFFSETS = 63, 1024, 5
"""Of pps_pic_parameter_set_id, chroma_qp_offset_list_len_minus1 (7.4.3.3), and far above the tiles across or down of any level
(A.4.1)."""


@dataclass(frozen=True)
class Tiles:
    """Columns and rows of tiles; their sizes in CTBs but for the last, None if they are uniform."""

    columns: int
    rows: int
    widths: tuple[int, ...] | None
    heights: tuple[int, ...] | None


@dataclass(frozen=True)
class Pps:
    """Fields of the PPS (7.3.2.3)."""

    pps_id: int
    sps_id: int
    dependent_slice_segments: bool
    output_flag_present: bool
    num_extra_slice_header_bits: int
    sign_data_hiding: bool
    cabac_init_present: bool
    num_ref_idx: tuple[int, int]
    """num_ref_idx_default_active of list 0 and list 1."""
    init_qp: int
    transform_skip: bool
    cu_qp_delta_depth: int | None
    """diff_cu_qp_delta_depth; None: the QP does not change within a slice."""
    slice_chroma_qp_offsets: bool
    weighted_pred_bit: int
    """Bits before weighted_pred_flag, counted without emulation prevention."""
    weighted_pred: bool
    weighted_bipred: bool
    transquant_bypass: bool
    tiles: Tiles | None
    wavefront: bool
    """entropy_coding_sync_enabled_flag."""
    loop_filter_across_slices: bool
    deblocking_override: bool
    deblocking_disabled: bool
    lists_modification_present: bool
    parallel_merge_bits: int
    slice_header_extension: bool
    max_transform_skip_size_bits: int = 2
    cross_component_prediction: bool = False
    chroma_qp_offset_depth: int | None = None
    """diff_cu_chroma_qp_offset_depth; None: there are no lists of chroma QP offsets."""
    num_chroma_qp_offsets: int = 0
    """chroma_qp_offset_list_len_minus1."""
    other_extensions: bool = False
    """Layers, depth or screen content."""


def read_pps(nal: bytes) -> Pps:
    """Reads the PPS in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16)
    pps_id, sps_id = r.count(_MAX_PPS_ID, "pps_pic_parameter_set_id"), r.count(MAX_SPS_ID, "pps_seq_parameter_set_id")
    dependent_slice_segments = r.flag()
    output_flag_present, num_extra_slice_header_bits = r.flag(), r.bits(3)
    sign_data_hiding, cabac_init_present, num_ref_idx = r.flag(), r.flag(), (r.unsigned() + 1, r.unsigned() + 1)
    init_qp = 26 + r.signed()
    _, transform_skip = r.bits(1), r.flag()
    cu_qp_delta_depth = r.unsigned() if r.flag() else None
    r.signed()
    r.signed()
    slice_chroma_qp_offsets, weighted_pred_bit = r.flag(), r.position
    weighted_pred, weighted_bipred, transquant_bypass, tiled, wavefront = (r.flag() for _ in range(5))
    tiles = _read_tiles(r) if tiled else None
    loop_filter_across_slices, deblocking_override, deblocking_disabled = r.flag(), False, False
    if r.flag():
        deblocking_override, deblocking_disabled = r.flag(), r.flag()
        for _ in range(0 if deblocking_disabled else 2):
            r.signed()
    if r.flag():
        skip_scaling_lists(r)
    lists_modification_present, parallel_merge_bits, slice_header_extension = r.flag(), r.unsigned() + 2, r.flag()
    skip_bits, cross_component, offset_depth, num_offsets, other_extensions = 2, False, None, 0, False
    if r.flag():
        range_extension, other_extensions = r.flag(), r.bits(7) != 0
        if range_extension:
            skip_bits = r.unsigned() + 2 if transform_skip else 2
            cross_component = r.flag()
            if r.flag():
                offset_depth, num_offsets = r.unsigned(), r.count(_MAX_OFFSETS, "chroma_qp_offset_list_len_minus1")
    return Pps(
        pps_id=pps_id,
        sps_id=sps_id,
        dependent_slice_segments=dependent_slice_segments,
        output_flag_present=output_flag_present,
        num_extra_slice_header_bits=num_extra_slice_header_bits,
        sign_data_hiding=sign_data_hiding,
        cabac_init_present=cabac_init_present,
        num_ref_idx=num_ref_idx,
        init_qp=init_qp,
        transform_skip=transform_skip,
        cu_qp_delta_depth=cu_qp_delta_depth,
        slice_chroma_qp_offsets=slice_chroma_qp_offsets,
        weighted_pred_bit=weighted_pred_bit,
        weighted_pred=weighted_pred,
        weighted_bipred=weighted_bipred,
        transquant_bypass=transquant_bypass,
        tiles=tiles,
        wavefront=wavefront,
        loop_filter_across_slices=loop_filter_across_slices,
        deblocking_override=deblocking_override,
        deblocking_disabled=deblocking_disabled,
        lists_modification_present=lists_modification_present,
        parallel_merge_bits=parallel_merge_bits,
        slice_header_extension=slice_header_extension,
        max_transform_skip_size_bits=skip_bits,
        cross_component_prediction=cross_component,
        chroma_qp_offset_depth=offset_depth,
        num_chroma_qp_offsets=num_offsets,
        other_extensions=other_extensions,
    )


def _read_tiles(r: BitReader) -> Tiles:
    columns, rows = r.count(_MAX_TILES, "num_tile_columns_minus1") + 1, r.count(_MAX_TILES, "num_tile_rows_minus1") + 1
    widths = heights = None
    if not r.flag():
        widths = tuple(r.unsigned() + 1 for _ in range(columns - 1))
        heights = tuple(r.unsigned() + 1 for _ in range(rows - 1))
    r.bits(1)
    return Tiles(columns, rows, widths, heights)


@dataclass(frozen=True)
class CtbOrder:
    """Coding tree blocks in raster and in tile scan (6.5.1)."""

    raster: Int32[np.ndarray, "ctbs"]
    """Tile scan → raster scan."""
    tile_scan: Int32[np.ndarray, "ctbs"]
    """Raster scan → tile scan."""
    tile: Int32[np.ndarray, "ctbs"]
    """Tile of each, in raster scan."""
    first_column: Int32[np.ndarray, "ctbs"]
    """First column of its tile, in raster scan."""


def ctb_order(sps: Sps, pps: Pps) -> CtbOrder:
    """Returns the order of a picture's coding tree blocks; ValueError for tiles that do not fit into it."""
    wide, high = -(-sps.width >> sps.ctb_size_bits), -(-sps.height >> sps.ctb_size_bits)
    tiles = pps.tiles or Tiles(1, 1, None, None)
    lefts, tops = _borders(wide, tiles.columns, tiles.widths), _borders(high, tiles.rows, tiles.heights)
    column, row = np.searchsorted(lefts, np.arange(wide), "right") - 1, np.searchsorted(tops, np.arange(high), "right") - 1
    tile = (row[:, None] * tiles.columns + column).ravel().astype(np.int32)
    raster = np.argsort(tile, kind="stable").astype(np.int32)
    tile_scan = np.empty_like(raster)
    tile_scan[raster] = np.arange(len(raster), dtype=np.int32)
    return CtbOrder(raster, tile_scan, tile, np.tile(lefts[column], high).astype(np.int32))


def _borders(ctbs: int, number: int, sizes: tuple[int, ...] | None) -> np.ndarray:
    """Returns where each of the columns or rows of tiles begins (6-3, 6-4)."""
    if sizes is None:
        begins = np.arange(number) * ctbs // number
    else:
        begins = np.cumsum([0, *sizes])
    if (np.diff([*begins, ctbs]) < 1).any():
        raise ValueError(f"{number} tiles across or down do not fit into {ctbs} coding tree blocks")
    return begins
