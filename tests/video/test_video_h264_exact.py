"""H.264 in all its kinds: the residual against a second route, and the headers against FFmpeg's own reader of them."""

import logging
import re

import av
import numpy as np
import pytest
from av import logging as av_logging
from hypothesis import given
from hypothesis import strategies as st
from second_route import explicit_weights, share_of_h264
from video_files import P_ONLY, faded, grainy, moving_texture, woven

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.video.bitstream import h264 as h264_residual
from ove.video.bitstream import h264_syntax as h264
from ove.video.bitstream.gray import NoBitstreamSignals
from ove.video.bitstream.h264 import GrayH264, slice_without_weights
from ove.video.bitstream.nal import BitReader, BitWriter, annex_b, clear_bits, cut_bits, escaped, packet_nals, unescaped
from ove.video.container import Deadline
from ove.video.decode import read_video
from ove.video.demux import decoded_frames, survey
from ove.video.signals import _whole_pairs

PLAIN, FADED = grainy(moving_texture(16, 112, 80)), grainy(faded(moving_texture(16, 112, 80)))
OPEN = "no-deblock=1:partitions=p8x8,b8x8,i8x8,i4x4:"
B = "bframes=3:b-adapt=0:ref=3:"


def sets_of(path):
    """The parameter sets of a file's header, and what they say."""
    _, nals = h264.split_avcc(survey(path, Deadline(path, 60.0)).extradata)
    sps = next(h264.read_sps(nal) for nal in nals if nal[0] & 31 == h264.NAL_SPS)
    pps = next(h264.read_pps(nal) for nal in nals if nal[0] & 31 == h264.NAL_PPS)
    return nals, sps, pps


@pytest.mark.parametrize(
    ("frames", "pix_fmt", "params"),
    [
        (PLAIN, "yuv420p", "cabac=0:8x8dct=0:bframes=0:ref=4:weightp=0"),
        (FADED, "yuv420p", "cabac=0:bframes=0:ref=3:weightp=2"),
        (FADED, "yuv420p", f"{B}weightp=2:slices=3"),
        (PLAIN, "yuv420p", f"{B}direct=temporal:cabac=0:weightp=0"),
        (FADED, "yuv420p10le", f"{B}weightp=2:direct=temporal"),
        (FADED, "yuv422p", f"{B}weightp=2:cabac=0"),
        (FADED, "yuv444p", f"{B}weightp=2"),
        (FADED, "gray", f"{B}weightp=2"),
        (PLAIN, "yuv420p", f"{B}interlaced=1:weightp=0"),
        (PLAIN, "yuv420p", f"{B}open-gop=1:keyint=8:min-keyint=8:weightp=0"),
    ],
)
def test_a_second_route_gives_the_same_residual(write_video, frames, pix_fmt, params):
    path = write_video("v.mp4", frames, pix_fmt=pix_fmt, preset="medium", crf="20", x264_params=OPEN + params)
    assert any(explicit_weights(path).values()) == ("weightp=2" in params)
    for share in share_of_h264(path, reach=10).values():
        assert share.cells > 100
        # x264 codes interlaced frames differently from run to run; FFmpeg's vectors in field macroblocks are approximate.
        assert share.explained >= (0.97 if "interlaced" in params else 0.995) * share.cells
        assert share.control < 0.1 * share.cells


def test_weights_left_in_the_stream_would_show(write_video, monkeypatch):
    path = write_video("v.mp4", FADED, preset="medium", crf="20", x264_params=f"{OPEN}bframes=0:ref=3:weightp=2")
    monkeypatch.setattr(h264_residual, "_weighted", lambda pps: False)
    (share,) = share_of_h264(path, reach=3).values()
    assert share.explained < 0.5 * share.cells


@pytest.mark.parametrize("params", ["cabac=0:slices=2", "bframes=2:b-adapt=0:ref=4", "bframes=0:ref=2"])
def test_slice_headers_end_where_ffmpeg_says(write_video, params):
    path = write_video("v.mp4", FADED, preset="medium", x264_params=f"weightp=2:{params}")
    _, sps, pps = sets_of(path)
    av_logging.set_level(av_logging.INFO)
    checked = 0
    with av.open(str(path)) as container:
        reader = av.BitStreamFilterContext("trace_headers", container.streams.video[0])
        for packet in container.demux(video=0):
            slices = [nal for nal in packet_nals(bytes(packet), 4) if nal[0] & 31 == h264.NAL_SLICE]
            with av_logging.Capture(True) as lines:
                reader.filter(packet if packet.size else None)
            told = "".join(line for _, _, line in lines).split("Slice Header")[1:]
            for nal, text in zip(slices, told, strict=False):
                fields = [(int(at), name, len(bits)) for at, name, bits in re.findall(r"\n(\d+)\s+(\S+)\s+([01]+) = ", text)]
                weights = [at for at, name, _ in fields if "weight" in name or name[:13] in ("luma_offset_l", "chroma_offset")]
                header = h264.read_slice(unescaped(nal), sps, pps)
                assert header.pps_id == pps.pps_id
                if not weights:
                    assert header.end == 0
                    continue
                after = next(at for at, _, _ in fields if at > weights[-1])
                data = [at + length for at, name, length in fields if name != "cabac_alignment_one_bit"]
                assert header.weights == (weights[0], after)
                assert header.end == max(data)
                checked += 1
    av_logging.set_level(av_logging.PANIC)
    assert checked >= 4


@pytest.mark.parametrize("cabac", [True, False])
def test_weights_of_luma_and_chroma_are_cut_out(cabac):
    sps = h264.Sps(0, 1, False, 6, 0, 5, False, 4, 4, True, False, 0, 0)
    pps = h264.Pps(3, 0, cabac, False, 1, (2, 1), True, 0, 9, True, False)
    before, table, after = BitWriter(0x61), BitWriter(), BitWriter()
    for value in (0, 5, 3):  # first macroblock, P, parameter set
        before.unsigned(value)
    before.raw("010101", "11001", "0", "1")  # frame number, order; num_ref_idx by default; lists modified:
    for value in (0, 4, 2, 1, 3):
        before.unsigned(value)
    table.unsigned(6)
    table.unsigned(5)
    table.raw("1", "00100", "011", "1", *["00101"] * 4, "0", "1", *["010"] * 4)
    after.raw("1")  # marking commands, one of each kind, then their end
    for value in (1, 7, 2, 0, 3, 9, 0, 4, 0, 5, 6, 0, 0):
        after.unsigned(value)
    after.raw(*(["1"] if cabac else []), "00110", "1", "011", "1")  # CABAC table; QP delta; deblocking on, two offsets
    pieces = ["".join(writer._bits) for writer in (before, table, after)]
    bits = "".join(pieces)
    data = "1" * (-len(bits) % 8 if cabac else 0) + "0000000000000000000000111010" + "0001" * 3
    whole = bits + data + "1"
    whole += "0" * (-len(whole) % 8)
    payload = int(whole, 2).to_bytes(len(whole) // 8, "big")
    header = h264.read_slice(payload, sps, pps)
    assert (header.weights, header.end) == ((len(pieces[0]), len(pieces[0] + pieces[1])), len(bits))
    short = pieces[0] + pieces[2]
    expected = short + ("1" * (-len(short) % 8) + whole[-(-len(bits) // 8) * 8 :] if cabac else whole[len(bits) :])
    expected += "0" * (-len(expected) % 8)
    cut = unescaped(slice_without_weights(payload, header, cabac))
    assert cut == int(expected, 2).to_bytes(len(expected) // 8, "big").rstrip(b"\x00")


@given(st.binary(min_size=1, max_size=40), st.data())
def test_cutting_bits_closes_the_gap(payload, data):
    bits = "".join(f"{byte:08b}" for byte in payload)
    start = data.draw(st.integers(0, len(bits)))
    end = data.draw(st.integers(start, len(bits)))
    left = bits[:start] + bits[end:]
    left += "0" * (-len(left) % 8)
    assert cut_bits(payload, start, end) == bytes(int(left[i : i + 8], 2) for i in range(0, len(left), 8))


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=60).map(bytes))
def test_emulation_prevention_is_undone(payload):
    nal = escaped(b"\x41" + payload + b"\x80")
    assert unescaped(nal) == b"\x41" + payload + b"\x80"
    assert not re.search(rb"\x00\x00[\x00-\x02]", nal)
    assert list(packet_nals(annex_b([nal, nal]), 0)) == [nal, nal]


@pytest.mark.parametrize(("suffix", "left"), [("yuv420p", 0), ("yuv444p", 32)])
def test_crop_at_the_left_and_top(tmp_path, write_video, suffix, left):
    whole = write_video("w.h264", PLAIN, pix_fmt=suffix, x264_params="bframes=2:qp=22")
    cropped = tmp_path / "c.h264"
    with av.open(str(whole)) as source, av.open(str(cropped), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        crop = av.BitStreamFilterContext("h264_metadata=crop_left=32:crop_top=10:crop_right=4:crop_bottom=2", stream)
        for packet in source.demux(stream):
            for changed in crop.filter(packet if packet.size else None):
                changed.stream = copy
                target.mux(changed)
    config = VideoConfig(n_frames=16)
    (_, expected), (clip, found) = read_video(whole, config), read_video(cropped, config)
    assert clip.source == "bitstream"
    # FFmpeg crops at the left only as far as its alignment lets it.
    assert found.residual.shape == (16, 68, 108 - left)
    assert found.cell_offset_px == (2, 0)
    np.testing.assert_array_equal(found.motion, expected.motion[:, 1:10, left // 8 :])
    inter = found.has_vector.repeat(8, 1).repeat(8, 2)[:, 2 : 2 + 68, : 108 - left]
    np.testing.assert_array_equal(found.residual[inter], expected.residual[:, 10:78, left:108][inter])


def test_parameter_sets_may_change_at_an_idr_picture(tmp_path, write_video):
    config = VideoConfig(n_frames=32)
    params = ("cabac=0:bframes=2:weightp=2:qp=24", "cabac=1:ref=4:8x8dct=1:bframes=3:qp=20")
    parts = [write_video(f"{i}.h264", FADED, preset="medium", x264_params=text) for i, text in enumerate(params)]
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip, signals = read_video(both, config)
    assert (clip.source, clip.n_decoded) == ("bitstream", 32)
    for half, part in enumerate(parts):
        _, expected = read_video(part, VideoConfig(n_frames=16))
        np.testing.assert_array_equal(signals.residual[16 * half : 16 * half + 16], expected.residual)


def test_another_header_may_come_in_the_middle(tmp_path, write_video):
    """Two FLV recordings one after the other: the container, not the stream, brings the second one's header."""
    params = ("cabac=0:bframes=0:weightp=0:qp=24", "cabac=1:ref=3:bframes=0:cqm=jvt:weightp=2:qp=20")
    parts = [write_video(f"{i}.flv", FADED, x264_params=text) for i, text in enumerate(params)]
    joined, second, at = bytearray(parts[0].read_bytes()), parts[1].read_bytes(), 13
    while at + 15 <= len(second):
        end = at + 11 + int.from_bytes(second[at + 1 : at + 4], "big") + 4
        tag = bytearray(second[at:end])
        tag[4:7] = (int.from_bytes(tag[4:7], "big") + 40 * len(FADED)).to_bytes(3, "big")  # milliseconds
        joined += tag if tag[0] == 9 else b""
        at = end
    both = tmp_path / "both.flv"
    both.write_bytes(joined)
    clip, signals = read_video(both, VideoConfig(n_frames=32))
    assert (clip.source, clip.n_decoded) == ("bitstream", 32)
    for half, part in enumerate(parts):
        _, expected = read_video(part, VideoConfig(n_frames=16))
        np.testing.assert_array_equal(signals.residual[16 * half : 16 * half + 16], expected.residual)


def test_parameter_sets_may_come_with_the_first_packet(write_video):
    path = write_video("v.mp4", FADED[:6], preset="medium", x264_params="weightp=2")
    header = survey(path, Deadline(path, 60.0)).extradata
    packets = [one.packet for one in decoded_frames(path, Deadline(path, 60.0), keep_packets=True)]
    _, nals = h264.split_avcc(header)
    whole, late = GrayH264(header), GrayH264(header[:5] + b"\xe0\x00")  # a header without sets, as in `avc3`
    late.observe(b"".join(len(nal).to_bytes(4, "big") + nal for nal in nals) + packets[0])
    for packet in packets[1:]:
        np.testing.assert_array_equal(late.luma(packet)[0], whole.luma(packet)[0])
    assert late.start_px(80, 112) == (0, 0)


def test_parameter_sets_that_change_in_between_are_refused(write_video):
    path = write_video("v.h264", FADED[:6], preset="medium", x264_params="weightp=2")
    data = path.read_bytes()
    gray = GrayH264(survey(path, Deadline(path, 60.0)).extradata)
    nals = list(packet_nals(data, 0))
    pps = next(nal for nal in nals if nal[0] & 31 == h264.NAL_PPS)
    other = clear_bits(pps, h264.read_pps(pps).weighted_pred_bit, 3)
    piece = next(nal for nal in nals if nal[0] & 31 == h264.NAL_SLICE)
    gray.observe(annex_b([pps, piece]))
    with pytest.raises(NoBitstreamSignals, match="change between two IDR pictures"):
        gray.observe(annex_b([other, piece]))


def test_pictures_of_single_fields_are_transcoded_and_that_is_said_once(tmp_path, write_video, caplog):
    """x264 makes none: fields of uniform gray, and fields that skip every macroblock, are written here."""
    path = write_video("i.mp4", PLAIN[:4], x264_params="interlaced=1:bframes=0:weightp=0:cabac=0:ref=1")
    nals, sps, pps = sets_of(path)
    units = list(nals)
    for number in range(16):  # fields, top ones first
        idr, intra = number == 0, number < 2
        piece = BitWriter(0x65 if idr else 0x61)
        for value in (0, 7 if intra else 5, pps.pps_id):
            piece.unsigned(value)
        piece.number(number // 2, sps.frame_num_bits)
        piece.raw("1", str(number % 2))
        if idr:
            piece.unsigned(0)
        piece.number(number, sps.poc_lsb_bits)
        piece.raw("00" if idr else "0" if intra else "000")  # default num_ref_idx, no commands
        piece.raw("1", "010" if pps.deblocking_control else "")  # QP delta 0; no deblocking
        n_macroblocks = sps.width_mbs * sps.height_mbs // 2
        if intra:
            piece.raw("00100111" * n_macroblocks)
        else:
            piece.unsigned(n_macroblocks)
        units.append(piece.nal())
    fields = tmp_path / "fields.h264"
    fields.write_bytes(annex_b(units))
    with caplog.at_level(logging.WARNING):
        clip, signals = read_video(fields, VideoConfig(n_frames=8, size_px=56))
    assert (clip.source, signals.residual_source) == ("transcode", "transcode")
    (record,) = caplog.records
    assert "single fields" in record.message
    assert str(fields) in record.message
    with pytest.raises(BadClip, match="single fields"):
        read_video(fields, VideoConfig(n_frames=8, size_px=56, source="bitstream"))


def test_interlaced_frames_keep_vectors_only_on_whole_pairs(write_video):
    frames = woven(grainy(moving_texture(24, 112, 80, pan=2)))
    path = write_video("i.mp4", frames, preset="medium", x264_params="tff=1:weightp=0:crf=20")
    clip, signals = read_video(path, VideoConfig(n_frames=12))
    assert (clip.source, signals.residual_source) == ("bitstream", "bitstream")
    mbaff = signals.has_vector[:, :8].reshape(12, 2, 4, 14)
    np.testing.assert_array_equal(mbaff.all(2), mbaff.any(2))
    assert mbaff.any()
    lonely = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool).T.repeat(2, 1)
    np.testing.assert_array_equal(_whole_pairs(lonely, 0), np.array([[1, 1, 0, 0, 0, 0, 0, 0]] * 4, bool))


def test_the_source_may_be_chosen(write_video):
    path = write_video("v.mp4", PLAIN[:8], x264_params=P_ONLY)
    found = {source: read_video(path, VideoConfig(n_frames=8, size_px=56, source=source)) for source in ("auto", "transcode")}
    (auto, of_stream), (forced, of_transcode) = found["auto"], found["transcode"]
    assert (auto.source, of_stream.residual_source, of_stream.residual.shape) == ("bitstream", "bitstream", (8, 80, 112))
    assert (forced.source, of_transcode.residual_source, of_transcode.residual.shape) == ("transcode", "transcode", (8, 56, 56))
    other = write_video("v.webm", PLAIN[:8], codec="libvpx-vp9")
    with pytest.raises(BadClip, match="codec is vp9, whose motion vectors FFmpeg does not export"):
        read_video(other, VideoConfig(n_frames=8, size_px=56, source="bitstream"))


def test_readers_refuse_headers_that_are_cut(write_video):
    _, sps, pps = sets_of(write_video("v.mp4", FADED[:4], preset="medium", x264_params="weightp=2"))
    with pytest.raises(ValueError, match="ends too early"):
        h264.read_slice(b"\x41\x9a", sps, pps)
    with pytest.raises(ValueError, match="ends too early"):
        BitReader(b"\x00\x00").unsigned()
