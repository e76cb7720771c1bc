"""What a slice segment is decoded with, from its parameter sets and header."""

import numpy as np
from jaxtyping import Int64

from ove.video.bitstream.coded import NoVectors
from ove.video.bitstream.gray import check_picture
from ove.video.bitstream.hevc_pps import Pps
from ove.video.bitstream.hevc_slice_header import INTRA, B, SliceHeader
from ove.video.bitstream.hevc_syntax import Sps

_EXTENDED_PRECISION, _BYPASS_ALIGNMENT = 4, 8
"""In Sps.range_extension: they change how slice data are read, and no encoder of 8 to 12 bits uses them."""


def values_of(sps: Sps, pps: Pps, header: SliceHeader, lists: Int64[np.ndarray, "4 16"], poc: int) -> dict[str, int]:
    """Returns fields of `PARAMS`, all but the slice's address and index and whether there is a collocated picture.

    `lists`: the slice's reference lists, as in `References`; `poc`: of its picture.
    """
    refs, pcm, depth = header.lists, sps.pcm, pps.cu_qp_delta_depth
    n_refs = (*refs.num_ref_idx, 0, 0)
    used = np.concatenate([lists[which, : n_refs[which]] for which in range(2)])
    init_type = 0 if header.slice_type == INTRA else 1 + ((header.slice_type == B) ^ refs.cabac_init)
    return {
        "width": sps.width,
        "height": sps.height,
        "ctb_bits": sps.ctb_size_bits,
        "min_cb_bits": sps.min_cb_size_bits,
        "min_tb_bits": sps.min_tb_size_bits,
        "max_tb_bits": sps.max_tb_size_bits,
        "max_depth_inter": sps.max_depth_inter,
        "max_depth_intra": sps.max_depth_intra,
        "amp": sps.amp,
        "pcm": pcm is not None,
        "pcm_luma_bits": pcm.luma_bits if pcm else 0,
        "pcm_chroma_bits": pcm.chroma_bits if pcm else 0,
        "pcm_min_bits": pcm.min_size_bits if pcm else 0,
        "pcm_max_bits": pcm.max_size_bits if pcm else 0,
        "sign_hiding": pps.sign_data_hiding,
        "transform_skip": pps.transform_skip,
        "max_skip_bits": pps.max_transform_skip_size_bits,
        "transquant_bypass": pps.transquant_bypass,
        "qp_delta": depth is not None,
        "qp_group_bits": sps.ctb_size_bits - (depth or 0),
        "chroma_qp_offset": header.chroma_qp_offset,
        "chroma_qp_group_bits": sps.ctb_size_bits - (pps.chroma_qp_offset_depth or 0),
        "chroma_qp_offsets": pps.num_chroma_qp_offsets,
        "chroma_format": sps.chroma_array_type,
        "cross_component": pps.cross_component_prediction and sps.chroma_array_type == 3,
        "slice_type": header.slice_type,
        "n_refs0": n_refs[0],
        "n_refs1": n_refs[1],
        "mvd_l1_zero": refs.mvd_l1_zero,
        "init_type": init_type,
        "max_merge": header.max_merge,
        "merge_level": pps.parallel_merge_bits,
        "temporal": header.references.temporal_mvp,
        "collocated_l0": refs.collocated_from_l0,
        "collocated_poc": int(lists[0 if refs.collocated_from_l0 else 1, refs.collocated_ref_idx]),
        "poc": poc,
        "no_backward": not (used > poc).any(),
        "sao_luma": header.sao[0],
        "sao_chroma": header.sao[1],
        "sao_max_luma": (1 << (min(sps.bit_depth_luma, 10) - 5)) - 1,
        "sao_max_chroma": (1 << (min(sps.bit_depth_chroma, 10) - 5)) - 1,
        "segment_address": header.address,
        "dependent": header.dependent,
        "wavefront": pps.wavefront,
        "tiles": pps.tiles is not None,
        "dependent_enabled": pps.dependent_slice_segments,
        "slice_qp": pps.init_qp + header.qp_delta,
        "qp_bd_offset": 6 * (sps.bit_depth_luma - 8),
        "cells_wide": sps.width >> 2,
        "cells_high": sps.height >> 2,
        "blocks_wide": sps.width >> 3,
        "ctbs_wide": -(-sps.width >> sps.ctb_size_bits),
        "n_ctbs": sps.num_ctbs,
        "implicit_rdpcm": sps.range_extension[2],
        "explicit_rdpcm": sps.range_extension[3],
        "skip_context": sps.range_extension[1],
        "rice_adaptation": sps.range_extension[7],
        "motion_wide": (sps.width + 15) >> 4,
    }


def check_sps(sps: Sps) -> None:
    """Raises NoBitstreamSignals for pictures too large or of a kind that is not read, ValueError for sizes that none has."""
    check_picture(sps.width, sps.height)
    if sps.unreadable:
        raise NoVectors(sps.unreadable)
    if sps.range_extension[_EXTENDED_PRECISION] or sps.range_extension[_BYPASS_ALIGNMENT]:
        raise NoVectors("it uses the syntax of 16-bit profiles")
    smallest = 1 << sps.min_cb_size_bits
    if (
        sps.ctb_size_bits < 4
        or sps.min_tb_size_bits >= sps.min_cb_size_bits
        or sps.max_tb_size_bits > min(5, sps.ctb_size_bits)
        or max(sps.max_depth_inter, sps.max_depth_intra) > 4
        or sps.width % smallest
        or sps.height % smallest
        or not sps.width * sps.height
        or max(sps.bit_depth_luma, sps.bit_depth_chroma) > 16
    ):
        raise ValueError("sizes of its blocks or pictures are not those of the standard")
