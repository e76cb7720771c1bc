"""MPEG-1, MPEG-2 and MPEG-4 part 2: the residual against a second route, and what cannot be read."""

import logging

import numpy as np
import pytest
from second_route import share_of_mpeg
from video_files import grainy, moving_texture, woven

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.video.bitstream.codecs import GRAY_DECODERS
from ove.video.bitstream.gray import NoBitstreamSignals, decode_one, luma_of, open_decoder
from ove.video.bitstream.mpeg4 import GrayMpeg4, gray_vop
from ove.video.bitstream.mpeg12 import GrayMpeg12, gray_picture
from ove.video.bitstream.nal import BitWriter
from ove.video.container import Deadline
from ove.video.decode import read_video
from ove.video.demux import decoded_frames, survey

PLAIN = grainy(moving_texture(16, 110, 78))
CONFIG = VideoConfig(n_frames=16, size_px=56)
KINDS = [
    ("mpeg1video", "mpg", {"bf": "2"}),
    ("mpeg1video", "mkv", {"bf": "0"}),
    ("mpeg2video", "ts", {"bf": "2"}),
    ("mpeg2video", "mkv", {"bf": "2", "pix_fmt": "yuv422p"}),
    ("mpeg2video", "mkv", {"bf": "1", "alternate_scan": "1", "intra_vlc": "1", "non_linear_quant": "1"}),
    ("mpeg4", "mp4", {"bf": "0"}),
    ("mpeg4", "avi", {"bf": "0", "flags": "+mv4", "mpeg_quant": "1"}),
]


@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS)
def test_a_second_route_gives_the_same_residual(write_video, codec, suffix, options):
    path = write_video(f"v.{suffix}", PLAIN, codec=codec, qmin="3", qmax="6", **options)
    shares = share_of_mpeg(path)
    assert set(shares) == ({"P"} if options["bf"] == "0" else {"P", "B"})
    for share in shares.values():
        assert share.cells > 100
        assert share.explained >= 0.995 * share.cells
        assert share.control < 0.05 * share.cells
    clip, signals = read_video(path, CONFIG)
    assert (clip.source, signals.residual_source, signals.residual.shape) == ("bitstream", "bitstream", (16, 78, 110))
    # FFmpeg attaches no vectors to the last frame of a stream with B-pictures.
    assert signals.has_vector[-1].mean() > 0.3
    np.testing.assert_allclose(np.median(signals.motion[-1][signals.has_vector[-1]], axis=0), [-0.5, 0], atol=1)


@pytest.mark.parametrize(("codec", "options"), [("mpeg2video", {"bf": "2"}), ("mpeg4", {"bf": "0"})])
def test_interlaced_frames(write_video, codec, options):
    frames = woven(grainy(moving_texture(24, 112, 80, pan=2)))
    path = write_video("i.mkv", frames, codec=codec, flags="+ilme+ildct", **options)
    clip, signals = read_video(path, VideoConfig(n_frames=12))
    assert clip.source == "bitstream"
    # Where nothing predicts the gray picture otherwise, what is added has no mean of its own.
    inter = signals.has_vector.repeat(8, 1).repeat(8, 2)
    assert inter.mean() > 0.4
    assert abs(signals.residual[inter].mean()) < 1


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize("side", [(110, 78), (48, 33)])
def test_gray_picture_is_uniform(write_video, codec, side):
    flags = {"flags": "+ilme+ildct"} if codec != "mpeg1video" else {}
    path = write_video("g.mkv", moving_texture(3, *side), codec=codec, bf="0", **flags)
    header = survey(path, Deadline(path, 60.0)).extradata
    if codec == "mpeg4":
        gray = gray_vop(header[header.index(b"\x00\x00\x01\x20") + 4 :])
    else:
        gray = gray_picture(header)
    luma, bits = luma_of(decode_one(open_decoder(codec, b"", err_detect="explode"), [header + gray, gray], which=0))
    assert (luma.shape, bits) == (side[::-1], 8)
    assert (luma == 128).all()


@pytest.mark.parametrize("height", [2800, 2801, 2864])
def test_gray_pictures_of_more_rows_than_a_start_code_can_name(write_video, height):
    """Above 2,800 lines the number of a slice's row has three more bits, behind the start code (H.262, 6.3.16)."""
    path = write_video("tall.mkv", np.zeros((1, height, 32, 3), np.uint8), codec="mpeg2video")
    header = survey(path, Deadline(path, 60.0)).extradata
    gray = gray_picture(header)
    luma, _ = luma_of(decode_one(open_decoder("mpeg2video", b"", err_detect="explode"), [header + gray, gray], which=0))
    assert luma.shape == (height, 32)
    assert (luma == 128).all()


@pytest.mark.parametrize("side", [(4112, 32), (32, 4128)])
def test_gray_pictures_of_sides_of_more_than_twelve_bits(write_video, side):
    """The sequence extension has two more bits of either side (H.262, 6.2.2.3)."""
    path = write_video("large.mkv", np.zeros((1, side[1], side[0], 3), np.uint8), codec="mpeg2video")
    header = survey(path, Deadline(path, 60.0)).extradata
    gray = gray_picture(header)
    luma, _ = luma_of(decode_one(open_decoder("mpeg2video", b"", err_detect="explode"), [header + gray, gray], which=0))
    assert luma.shape == side[::-1]
    assert (luma == 128).all()


def mpeg4_layer(rng, width, height):
    """A VideoObjectLayer (ISO/IEC 14496-2:2004, 6.2.3) of rectangles of 8 bits, everything else drawn; and how it is told."""
    w, told = BitWriter(0, 0, 1, 0x20), []

    def flag(share=0.5):
        w.raw("1" if rng.random() < share else "0")
        return w._bits[-1] == "1"

    flag()  # random_accessible_vol
    w.number(int(rng.choice([1, 17])), 8)
    version = 1
    if flag():
        version = int(rng.choice([2, 4, 5]))
        w.number(version, 4)
        w.number(int(rng.integers(1, 8)), 3)
        told.append("version")
    aspect = int(rng.choice([1, 2, 15]))
    w.number(aspect, 4)
    if aspect == 15:
        w.number(int(rng.integers(1, 256)), 8)
        w.number(int(rng.integers(1, 256)), 8)
    if flag(0.7):  # vol_control_parameters
        w.raw("01")
        flag()
        if flag(0.7):
            for halves in ((15, 15), (15, 3), (11, 15)):  # rate, size and occupancy of the buffer
                for bits in halves:
                    w.number(int(rng.integers(1, 1 << bits)), bits)
                    w.raw("" if halves == (15, 3) and bits == 3 else "1")
            told.append("buffer")
    w.raw("00", "1")
    resolution = int(rng.choice([1, 2, 3, 25, 30000, 32768, 65535]))
    w.number(resolution, 16)
    w.raw("1")
    if flag():
        w.number(0 if resolution == 1 else 1, max(1, (resolution - 1).bit_length()))
    w.raw("1")
    w.number(width, 13)
    w.raw("1")
    w.number(height, 13)
    w.raw("1")
    interlaced = flag()
    w.raw("1")  # no overlapped compensation
    sprite = 2 if version != 1 and rng.random() < 0.4 else 0
    w.number(sprite, 1 if version == 1 else 2)
    if sprite:
        w.number(int(rng.integers(0, 4)), 6)
        w.raw("00", "0")
        told.append("sprite")
    w.raw("0")
    if flag():  # matrices, of full length or ended by a 0
        for _ in range(2):
            if flag(0.7):
                length = int(rng.choice([1, 20, 63, 64]))
                for value in [8, *rng.integers(1, 256, length - 1).tolist()]:
                    w.number(value, 8)
                w.raw("0" * 8 if length < 64 else "")
                told.append("matrix")
    if version != 1:
        flag()  # quarter_sample
    w.raw("1", "1", "0")
    w.raw("00" if version != 1 else "", "0")
    told += ["interlaced"] * interlaced
    return w.aligned(stop="0", fill="1"), told


def test_layers_of_mpeg4_are_read_as_ffmpeg_reads_them():
    """FFmpeg decodes the gray picture that our reading of a drawn header gives, to the size and the gray it should have."""
    rng, seen = np.random.default_rng(0), []
    for _ in range(60):
        width, height = (int(side) for side in rng.integers(16, 90, 2))
        layer, told = mpeg4_layer(rng, width, height)
        gray = gray_vop(layer[4:])
        luma, _ = luma_of(decode_one(open_decoder("mpeg4", b"", err_detect="explode"), [layer + gray, gray], which=0))
        assert luma.shape == (height, width), told
        assert (luma == 128).all(), told
        seen += told
    assert {name: seen.count(name) for name in set(seen)}.keys() == {"version", "buffer", "sprite", "matrix", "interlaced"}


def test_mpeg4_with_b_pictures_is_transcoded_and_that_is_said_once(write_video, caplog):
    path = write_video("b.mp4", PLAIN, codec="mpeg4", bf="2")
    with caplog.at_level(logging.WARNING):
        clip, signals = read_video(path, CONFIG)
    assert (clip.source, signals.residual_source) == ("transcode", "transcode")
    (record,) = caplog.records
    assert "B-pictures" in record.message
    with pytest.raises(BadClip, match="B-pictures"):
        read_video(path, VideoConfig(n_frames=16, size_px=56, source="bitstream"))


@pytest.mark.parametrize(("codec", "suffix", "options"), [KINDS[2], KINDS[5]])
def test_packets_that_cannot_be_decoded_alone_are_refused(write_video, codec, suffix, options):
    path = write_video(f"v.{suffix}", PLAIN, codec=codec, **options)
    header = survey(path, Deadline(path, 60.0)).extradata
    decoded = list(decoded_frames(path, Deadline(path, 60.0), keep_packets=True))
    packet = next(one.packet for one in decoded if int(one.frame.pict_type) == 2)
    gray = GRAY_DECODERS[codec](header)
    gray.luma(packet)
    with pytest.raises(NoBitstreamSignals, match="several pictures"):
        gray.observe(packet + packet)
        gray.luma(packet + packet)
    with pytest.raises(NoBitstreamSignals, match="without a header"):
        GRAY_DECODERS[codec](b"").luma(packet)
    with pytest.raises(NoBitstreamSignals, match=r"fails to decode alone|does not come out"):
        gray.luma(packet[: len(packet) // 3])


def test_changes_within_mpeg2_are_refused(write_video):
    path = write_video("v.ts", PLAIN, codec="mpeg2video", bf="0")
    header = survey(path, Deadline(path, 60.0)).extradata
    packets = [one.packet for one in decoded_frames(path, Deadline(path, 60.0), keep_packets=True)]
    gray = GrayMpeg12("mpeg2video", header)
    other = bytearray(packets[0])
    other[7] ^= 1  # the frame rate
    with pytest.raises(NoBitstreamSignals, match="sequence header changes"):
        gray.observe(bytes(other))
    # The same in a header that comes beside a packet, as where recordings were joined.
    gray.observe(packets[1], header)
    with pytest.raises(NoBitstreamSignals, match="sequence header changes"):
        gray.observe(packets[1], bytes(other[: len(header)]))
    at = packets[1].index(b"\x00\x00\x01\xb5")
    field = bytearray(packets[1])
    field[at + 6] ^= 2  # picture_structure: one field
    with pytest.raises(NoBitstreamSignals, match="single fields"):
        gray.luma(bytes(field))
    with pytest.raises(NoBitstreamSignals, match="matrices"):
        gray.observe(packets[1][:at] + b"\x00\x00\x01\xb5\x30\x00\x00\x00" + packets[1][at:])


def test_an_extension_without_its_first_bytes_is_not_read(write_video):
    path = write_video("v.mkv", PLAIN[:2], codec="mpeg1video", bf="0")
    header = survey(path, Deadline(path, 60.0)).extradata
    extension = b"\x00\x00\x01\xb5\x14\x82\x00\x01\x00\x00"  # of MPEG-2, whose gray picture is another
    assert gray_picture(header + extension) != gray_picture(header)
    for length in (4, 5, 6):
        assert gray_picture(header + extension[:length]) == gray_picture(header)


def test_mpeg4_layers_of_other_kinds_are_refused(write_video):
    path = write_video("v.mp4", PLAIN[:2], codec="mpeg4", bf="0")
    header = survey(path, Deadline(path, 60.0)).extradata
    for end in (b"", b"\x10"):  # a picture of which nothing, or next to nothing, is there
        cut = GrayMpeg4("mpeg4", b"")
        cut.observe(header + b"\x00\x00\x01\xb6" + end)
        assert cut._gray == GrayMpeg4("mpeg4", header)._gray != b""
    at = header.index(b"\x00\x00\x01\x20") + 4
    GrayMpeg4("mpeg4", header)
    with pytest.raises(NoBitstreamSignals, match="cannot be read"):
        GrayMpeg4("mpeg4", header[: at + 4])
    bits = f"{int.from_bytes(header[at:], 'big'):0{8 * len(header[at:])}b}"
    assert (bits[9], bits[21], bits[25]) == ("1", "1", "0")  # with a version and control parameters, but no buffer model
    changed = bits[:26] + "01" + bits[28:]  # video_object_layer_shape: binary
    with pytest.raises(NoBitstreamSignals, match="rectangular"):
        GrayMpeg4("mpeg4", header[:at] + int(changed, 2).to_bytes(len(header) - at, "big"))
