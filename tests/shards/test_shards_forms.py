"""A clip as H.264, as JPEG frames and as mosaics: the same pictures, decoded no further than needed, damage named."""

import dataclasses
import re
from pathlib import Path

import av
import cv2
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards_material import record_of, write_video

from launch import shards as command
from ove.config import SelectionConfig, ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import BadShard, ConfigError
from ove.records import Saliency
from ove.shards import h264_clip
from ove.shards.make import mosaic_selection
from ove.shards.schema import VideoRecord, decode_frames, decode_mosaics, pack, unpack
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify
from ove.video.patches import take_patches
from ove.video.select import choose_patches

T, SIZE_PX = 70, 56


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A smooth picture that drifts, and changes altogether at frame 40; three GOPs."""
    coarse = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    one, other = (cv2.resize(c, (160, 160), interpolation=cv2.INTER_CUBIC) for c in coarse)
    return np.stack([(one if t < 40 else other)[t : t + SIZE_PX, t // 2 : t // 2 + SIZE_PX] for t in range(T)])


@pytest.fixture(scope="module")
def stream(frames: np.ndarray) -> bytes:
    """The frames as H.264."""
    return h264_clip.encode_clip(frames, 18)


@pytest.fixture(scope="module")
def decoded(stream: bytes) -> np.ndarray:
    """All frames of the stream."""
    return h264_clip.decode_clip(stream, T, SIZE_PX, range(T))


def test_the_pictures_come_back(frames: np.ndarray, stream: bytes, decoded: np.ndarray) -> None:
    error = decoded.astype(int) - frames
    assert np.abs(error).mean(axis=(1, 2, 3)).max() < 5
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.8  # no tint: matrix and range are those that decoders take
    assert [n for n, (_, is_idr) in enumerate(h264_clip.access_units(stream)) if is_idr] == [0, 32, 64]
    assert h264_clip.encode_clip(frames, 18) == stream


def test_the_stream_says_what_its_colours_are(stream: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.h264").write_bytes(stream)
    with av.open(str(tmp_path / "clip.h264")) as container:  # what any player does
        pictures = list(container.decode(video=0))
    assert len(pictures) == T
    assert {int(picture.pict_type) for picture in pictures} == {1, 2}  # I and P
    assert (pictures[0].colorspace, pictures[0].color_range) == (6, 1)  # SMPTE 170M, limited range


@given(which=st.lists(st.integers(0, T - 1), max_size=6))
@settings(max_examples=30, deadline=None)
def test_any_frames_in_any_order(which: list[int], stream: bytes, decoded: np.ndarray) -> None:
    np.testing.assert_array_equal(h264_clip.decode_clip(stream, T, SIZE_PX, which), decoded[which])


def test_no_more_is_decoded_than_needed(stream: bytes, decoded: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    original = h264_clip._decoded
    monkeypatch.setattr(h264_clip, "_decoded", lambda units: handed.append(len(units)) or original(units))
    np.testing.assert_array_equal(h264_clip.decode_clip(stream, T, SIZE_PX, [66, 2, 5, 2]), decoded[[66, 2, 5, 2]])
    assert sorted(handed) == [3, 6]


@pytest.mark.parametrize("size_px", [27, 28])
def test_odd_sizes_and_pure_colours(size_px: int) -> None:
    pure = np.zeros((4, size_px, size_px, 3), np.uint8)
    pure[0], pure[1, ..., 0], pure[2, ..., 1], pure[3, ..., 2] = 255, 255, 255, 255
    back = h264_clip.decode_clip(h264_clip.encode_clip(pure, 10), 4, size_px, range(4))
    assert np.abs(back.astype(int) - pure).max() <= 4


def test_damaged_streams_are_refused(stream: bytes) -> None:
    record = dataclasses.replace(record_of(np.zeros((T, 28, 28, 3), np.uint8), "a.mp4", None), frames=[], h264=stream)
    units = [data for data, _ in h264_clip.access_units(stream)]
    assert b"".join(units) == stream
    broken = bytearray(units[1])
    broken[-len(units[1]) // 2 :] = bytes(len(units[1]) // 2 + len(units[1]) % 2)
    cases = {
        "pictures of 56×56 pixels, not 28×28": stream,
        "has 69 pictures and must have 70": b"".join(units[:-1]),
        "has 0 pictures": b"no stream at all",
        "the first of them an IDR picture": b"".join([*units[1:], units[-1]]),
        "does not decode|is damaged|pictures decode": b"".join([units[0], bytes(broken), *units[2:]]),
    }
    for words, data in cases.items():
        with pytest.raises(BadShard, match=f"a.mp4: .*({words}).*write the shards again"):
            decode_frames(dataclasses.replace(record, h264=data), [40, 3])


def _write(videos: Path, out: Path, *options: str) -> ShardSet:
    small = ["--size", "56", "--frames", "8", "--gop", "4", "--workers", "0", "--budget", "50"]
    assert command.main(["--videos", str(videos), "--out", str(out), *small, *options]) == 0
    found = verify(out, decode=True)
    assert found.problems == []
    assert dict(found.forms) == {form: len(ShardSet.open(out)) for form in ShardSet.open(out).manifest.forms}
    return ShardSet.open(out)


def test_what_is_stored_does_not_change_the_saliency(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", seed=1, n_frames=20)
    sets = {s: _write(tmp_path / "in", tmp_path / s, "--store", s) for s in ("frames", "h264", "frames,h264,mosaics")}
    records = {name: found.video(0) for name, found in sets.items()}
    plain = records["frames"]
    for name, record in records.items():
        assert record.forms == tuple(name.split(","))
        assert sets[name].manifest.forms == name.split(",")
        np.testing.assert_array_equal(record.saliency, plain.saliency)
        luma, other = (decode_frames(r, range(8)) @ np.array([0.299, 0.587, 0.114]) for r in (record, plain))
        assert np.abs(luma - other).mean() < 4  # sharp colours are another matter: H.264 has a quarter of them
    every = records["frames,h264,mosaics"]
    np.testing.assert_array_equal(decode_frames(every, [5, 1], "h264"), decode_frames(records["h264"], [5, 1]))
    assert every.frames == plain.frames
    assert every.h264 == records["h264"].h264


def test_mosaics_hold_what_the_stored_saliency_selects(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", seed=1, n_frames=20)
    shards = _write(tmp_path / "in", tmp_path / "out", "--store", "frames,mosaics", "--set", "shards.jpeg_quality=100")
    record, told = shards.video(0), shards.manifest.mosaics
    assert told is not None
    config = from_mapping(SelectionConfig, {key: value for key, value in told.items() if key != "budget_tokens"})
    chosen = choose_patches(Saliency(record.saliency.astype(np.float32)), record.is_i_frame, told["budget_tokens"], config)
    np.testing.assert_array_equal(record.mosaic_flat, chosen.flat)
    assert (len(record.mosaics), len(record.mosaic_flat)) == (4, 50)  # 16 patches each, the last one with two
    wanted = take_patches(decode_frames(record, range(8)), chosen.flat, 14)
    assert np.abs(decode_mosaics(record).astype(int) - wanted).mean() < 3


def test_letterboxed_clips_say_what_is_picture(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4", seed=1, n_frames=20, size_px=64)
    with av.open(str(tmp_path / "in" / "b.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for t in range(12):
            picture = np.full((64, 128, 3), 20 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    shards = _write(tmp_path / "in", tmp_path / "out", "--preset", "lmm", "--store", "h264,mosaics", "--budget", "32")
    square, wide = shards.video(0), shards.video(1)
    assert square.valid is not None
    assert square.valid.all()
    assert wide.valid is not None
    assert wide.valid.sum(axis=1).tolist() == [0, 4, 4, 0]
    assert ((wide.saliency == -1) == ~wide.valid).all()
    assert wide.valid.ravel()[wide.mosaic_flat % 16].all()
    np.testing.assert_array_equal(unpack(pack(wide)).valid, wide.valid)
    stretched = _write(tmp_path / "in", tmp_path / "stretched", "--store", "h264")
    assert stretched.video(1).valid is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--store", "mosaics"], "must have frames or h264"),
        (["--store", "frames,frames"], "each once"),
        (["--store", "png"], "none of 'frames', 'h264', 'mosaics'"),
        (["--store", "h264", "--set", "shards.h264_crf=99"], "within 0…51"),
        (["--store", "frames,mosaics", "--budget", "100"], "below the 512 patches"),
        (["--store", "h264,mosaics", "--size", "1120"], "more than 65536"),
    ],
)
def test_what_cannot_be_stored_is_told_at_once(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigError, match=message):
        command.main(["--videos", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])


def test_mosaics_of_as_many_patches_as_can_be_indexed_are_stored() -> None:
    video, shards = VideoConfig(n_frames=64, size_px=448), ShardsConfig(store=("frames", "mosaics"), budget_tokens=8192)
    found = mosaic_selection(video, shards)  # 64 × 32 × 32 = 2^16, the last of which is 65535, the largest of uint16
    assert found is not None and found["budget_tokens"] == 8192
    with pytest.raises(ConfigError, match="128×32×32 patches are more than 65536"):
        mosaic_selection(dataclasses.replace(video, n_frames=128), shards)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mosaic_flat": np.array([3, 3], np.uint16)}, "mosaic_flat must ascend"),
        ({"mosaic_flat": np.array([0, 5, 5], np.uint16)}, "mosaic_flat must ascend"),
        ({"mosaic_flat": np.array([0, 32], np.uint16)}, "mosaic_flat must ascend within 0…31"),
        ({"mosaic_flat": np.array([], np.uint16)}, "mosaics holds 1 pictures for 0 patches, not 0"),
        ({"frames": []}, "at least one of the two"),
        ({"labels": {"obj": np.array([-1], np.int32)}}, "labels.obj holds -1"),
        ({"labels": {"obj": np.zeros(0, np.int32)}}, "labels.obj"),
        ({"labels": {"": np.zeros(2, np.int32)}}, "has the bank ''"),
    ],
)
def test_records_that_contradict_themselves(change: dict, named: str) -> None:
    whole: VideoRecord = record_of(np.zeros((8, 28, 28, 3), np.uint8), "a.mp4", None)
    whole = dataclasses.replace(whole, mosaics=[whole.frames[0]], mosaic_flat=np.array([0, 31], np.uint16))
    assert unpack(pack(whole)).mosaics == whole.mosaics
    with pytest.raises(BadShard, match=re.escape(named)):
        pack(dataclasses.replace(whole, **change))


def _array(dtype: str, *shape: int) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data": bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "sound"}, "kind 'sound'"),
        ({"kind": "image"}, "lacks the fields"),
        ({"mosaics": ["text"]}, "mosaics must be a list of JPEG"),
        ({"valid": _array("|b1", 2, 3)}, "valid is bool of shape (2, 3)"),
        ({"valid": None}, ""),
        ({"labels": {"obj": _array("<i8", 2)}}, "labels.obj of a record has dtype '<i8'"),
        ({"labels": {"obj": _array("<i4", 2, 1)}}, "labels.obj is int32 of shape (2, 1)"),
        ({"labels": []}, "labels of a record is []"),
        ({"h264": "text"}, "h264 of a record is 'text'"),
    ],
)
def test_stored_records_that_are_wrong_are_refused_by_name(change: dict, named: str) -> None:
    whole = dataclasses.replace(record_of(np.zeros((8, 28, 28, 3), np.uint8), "a.mp4", None), valid=np.ones((2, 2), bool))
    data = msgpack.packb({**msgpack.unpackb(pack(whole)), **change})
    if not named:
        unpack(data)
        return
    with pytest.raises(BadShard, match=re.escape(named)):
        unpack(data)
