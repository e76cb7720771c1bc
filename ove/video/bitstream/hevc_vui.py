"""HEVC video usability information (E.2): nothing of it is kept, but what stands behind it in the SPS is.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from ove.video.bitstream.nal import BitReader

_EXTENDED_SAR, _MAX_CPB = 255, 31


def skip_vui(r: BitReader, sub_layers: int) -> None:
    """Reads past vui_parameters (E.2.1). `sub_layers`: sps_max_sub_layers_minus1."""
    if r.flag() and r.bits(8) == _EXTENDED_SAR:
        r.bits(32)
    if r.flag():  # overscan
        r.bits(1)
    if r.flag():  # video signal type
        r.bits(4)
        r.bits(24 if r.flag() else 0)
    if r.flag():  # places of chroma samples
        r.unsigned()
        r.unsigned()
    r.bits(3)
    for _ in range(4 if r.flag() else 0):  # default display window
        r.unsigned()
    if r.flag():  # timing
        r.bits(64)
        if r.flag():
            r.unsigned()
        if r.flag():
            _skip_hrd(r, sub_layers)
    if r.flag():  # bitstream restriction
        r.bits(3)
        for _ in range(5):
            r.unsigned()


def _skip_hrd(r: BitReader, sub_layers: int) -> None:
    """Reads past hrd_parameters with common information (E.2.2, E.2.3)."""
    nal, vcl = r.flag(), r.flag()
    sub_pictures = (nal or vcl) and r.flag()
    if nal or vcl:
        r.bits(19 * sub_pictures + 8 + 4 * sub_pictures + 15)
    for _ in range(sub_layers + 1):
        low_delay, fixed = False, r.flag()
        if fixed or r.flag():
            r.unsigned()
        else:
            low_delay = r.flag()
        count = 1 if low_delay else 1 + r.count(_MAX_CPB, "cpb_cnt_minus1")
        for _ in range(count * (nal + vcl)):
            for _ in range(4 if sub_pictures else 2):
                r.unsigned()
            r.bits(1)
