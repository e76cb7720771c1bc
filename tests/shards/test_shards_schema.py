"""Records survive the way to bytes and back; what is not as it should be is refused by name."""

import dataclasses

import cv2
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards_material import SIZE_PX, record_of

from ove.errors import BadShard
from ove.shards.fields import pack_array, unpack_array
from ove.shards.schema import SHARD_SCHEMA_VERSION, VideoRecord, decode_frames, encode_frames, pack, unpack


def _frames(count: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC) for c in coarse])


@given(
    count=st.integers(1, 5),
    seed=st.integers(0, 99),
    key=st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable()),
    label=st.none() | st.text(max_size=5),
    fps=st.floats(0, 240),
)
@settings(max_examples=25, deadline=None)
def test_a_record_comes_back_as_it_was(count: int, seed: int, key: str, label: str | None, fps: float) -> None:
    record = dataclasses.replace(record_of(_frames(count, seed), key, label), fps=fps)
    back = unpack(pack(record))
    for field in dataclasses.fields(VideoRecord):
        was, came = getattr(record, field.name), getattr(back, field.name)
        if isinstance(was, np.ndarray):
            assert came.dtype == was.dtype
            np.testing.assert_array_equal(came, was, field.name)
        else:
            assert came == was, field.name


def test_a_record_of_before_is_read_without_the_field_that_is_gone() -> None:
    record = record_of(_frames(3), "a.mp4", None)
    before = {**msgpack.unpackb(pack(record)), "residual_exact": True}
    assert "residual_exact" not in msgpack.unpackb(pack(record))
    assert pack(unpack(msgpack.packb(before))) == pack(record)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": SHARD_SCHEMA_VERSION + 1}, "schema_version 2"),
        ({"schema_version": None}, "schema_version"),
        ({"colour": 1}, "colour"),
        ({"codec": ...}, "codec"),
        ({"n_decoded": "3"}, "n_decoded"),
        ({"n_decoded": True}, "n_decoded"),
        ({"fps": None}, "fps"),
        ({"frames": []}, "frames"),
        ({"frames": ["text"]}, "frames"),
        ({"patch_px": 13}, "patch_px"),
        ({"patch_px": 7}, "saliency"),
        ({"saliency": b""}, "saliency"),
        ({"pts_s": {"dtype": "<f4", "shape": [3], "data": bytes(12)}}, "pts_s"),
        ({"pts_s": {"dtype": "<f8", "shape": [3], "data": bytes(23)}}, "pts_s"),
        ({"pts_s": {"dtype": "<f8", "shape": [-3], "data": bytes(24)}}, "pts_s"),
        ({"frame_index": {"dtype": "<i4", "shape": [2], "data": bytes(8)}}, "frame_index"),
        ({"saliency": {"dtype": "<f2", "shape": [3, 2, 2], "data": b"\x00\x7e" * 12}}, "not finite"),
    ],
)
def test_what_is_wrong_is_named(change: dict, named: str) -> None:
    values = {**msgpack.unpackb(pack(record_of(_frames(3), "a.mp4", None))), **change}
    with pytest.raises(BadShard, match=named):
        unpack(msgpack.packb({name: value for name, value in values.items() if value is not ...}))


@pytest.mark.parametrize("data", [b"", b"\x93\x01\x02\x03", b"no msgpack at all", b"\xc1"])
def test_other_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(BadShard, match="write the shards again"):
        unpack(data)


def test_names_of_fields_are_text() -> None:
    fields = msgpack.unpackb(pack(record_of(_frames(1), "a.mp4", None)))
    with pytest.raises(BadShard, match="does not hold named fields"):
        unpack(msgpack.packb({**fields, b"key": 1}))


def test_a_cut_record_is_refused() -> None:
    packed = pack(record_of(_frames(3), "a.mp4", None))
    with pytest.raises(BadShard, match="msgpack"):
        unpack(packed[:-1])


def test_only_the_frames_asked_for_are_decoded() -> None:
    frames = _frames(4)
    record = record_of(frames, "a.mp4", None)
    record.frames[2] = b"\xff\xd8 damaged"
    decoded = decode_frames(record, [3, 0])
    assert decoded.shape == (2, SIZE_PX, SIZE_PX, 3)
    # Channels in the right order, and each frame in its place: JPEG is off by little, another frame by much.
    assert np.abs(decoded.astype(int) - frames[[3, 0]]).mean() < 4 < 30 < np.abs(decoded.astype(int) - frames[[0, 3]]).mean()
    with pytest.raises(BadShard, match="frame 2"):
        decode_frames(record, [0, 2])


def test_cut_and_foreign_pictures_are_refused() -> None:
    record = record_of(_frames(3), "a.mp4", None)
    record.frames[0] = record.frames[0][:-100]
    record.frames[1] = encode_frames(np.zeros((1, 8, 8, 3), np.uint8), 90)[0]
    for index in (0, 1):
        with pytest.raises(BadShard, match=f"frame {index}"):
            decode_frames(record, [index])


def test_chroma_is_stored_at_full_resolution() -> None:
    stripes = np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8)
    stripes[:, :, ::2] = (255, 0, 0)
    stripes[:, :, 1::2] = (0, 0, 255)
    record = dataclasses.replace(record_of(stripes, "a", None), frames=encode_frames(stripes, 95))
    # With 4:2:0 the colours of neighbouring columns would run into one purple: an error of more than 60.
    assert np.abs(decode_frames(record, [0]).astype(int) - stripes).mean() < 10


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 1, 3), (0, 1 << 31), (0, 5, 1 << 31)], ids=str)
def test_arrays_come_back_as_they_were(shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    found = unpack_array(pack_array(array, "<i4"), "<i4", "x")
    assert found.shape == shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (0, (1 << 31) + 1)], ids=str)
def test_arrays_of_more_axes_or_longer_ones_are_in_no_record(shape: tuple[int, ...]) -> None:
    stored = {"dtype": "<i4", "shape": list(shape), "data": bytes(4 * int(np.prod(shape)))}
    with pytest.raises(BadShard, match=r"field x of a record has shape .*, which no record has"):
        unpack_array(stored, "<i4", "x")


@pytest.mark.parametrize(
    "change", [{"dtype": "<f4"}, {"data": "text"}, {"shape": (2,)}, {"shape": [True, 2]}, {"data": bytes(9)}]
)
def test_arrays_that_contradict_themselves_are_refused(change: dict) -> None:
    stored = pack_array(np.zeros(2, np.int32), "<i4")
    assert unpack_array(stored, "<i4", "x").tolist() == [0, 0]
    with pytest.raises(BadShard, match="field x of a record"):
        unpack_array(stored | change, "<i4", "x")
