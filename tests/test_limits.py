"""Sizes and counts that files claim are checked before anything of that size is allocated."""

import gzip
import io
import json
import struct
import tarfile
import time
import tracemalloc
from pathlib import Path

import cv2
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from source_files import encoded, picture, write_tfrecord

from ove.config import LimitsConfig, ShardsConfig, bounded_json, limits
from ove.encoder.published.weight_files import read_safetensors
from ove.errors import BadCheckpoint, BadClip, BadShard, ConfigError
from ove.shards.manifest import read_manifest
from ove.shards.pictures import decode_picture
from ove.shards.schema import ImageRecord, VideoRecord, decode_frames, decode_image, pack, unpack
from ove.sources import images, inputs
from ove.sources.image_size import image_size
from ove.sources.images import read_image
from ove.sources.inputs import find_inputs, read_input
from ove.sources.parquet import rows_in_parquet
from ove.sources.tar import samples_in_tar
from ove.sources.tfrecord import records_in_tfrecord
from ove.video.bitstream import h264_syntax, hevc_syntax
from ove.video.bitstream.gray import NoBitstreamSignals
from ove.video.bitstream.h264 import GrayH264
from ove.video.bitstream.nal import BitReader, BitWriter, annex_b

SHARDS = ShardsConfig()
SHARD = {"file": "shard-00000.arrayrecord", "records": 3, "bytes": 9, "sha256": "ab"}
FORMATS = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "BMP": {},
    "GIF": {},
    "JPEG2000": {},
    "PPM": {},
    "AVIF": {},
}
KINDS = {"WEBP": "WebP", "JPEG2000": "JPEG 2000", "PPM": "PNM"}
CLIP = VideoRecord(
    key="k",
    frames=[encoded(picture(0, 28, 28))] * 4,
    size_px=28,
    patch_px=14,
    frame_index=np.arange(4, dtype=np.int32),
    pts_s=np.arange(4) / 25.0,
    is_i_frame=np.arange(4) == 0,
    saliency=np.zeros((4, 2, 2), np.float16),
    source="bitstream",
    codec="h264",
    n_decoded=4,
    fps=25.0,
    label=None,
)


def test_limits_come_from_the_environment() -> None:
    assert limits({}) == LimitsConfig()
    assert limits({"OVE_MAX_FRAME_PIXELS": "12", "OVE_STALL_FACTOR": "2.5"}) == LimitsConfig(
        max_frame_pixels=12, stall_factor=2.5
    )
    for wrong in ({"OVE_MAX_JSON_BYTES": "many"}, {"OVE_MAX_JSON_BYTES": "0"}, {"OVE_STALL_FACTOR": "0"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            limits(wrong)


@pytest.mark.parametrize("form", FORMATS)
def test_the_size_of_a_picture_is_read_as_pillow_reads_it(form: str) -> None:
    for mode in ("RGB", "RGBA", "L"):
        file = io.BytesIO()
        drawn = Image.fromarray(picture(1, 37, 53)).convert("RGB" if mode == "RGBA" and form in ("JPEG", "PPM") else mode)
        drawn.save(file, form, **FORMATS[form])
        size = image_size(KINDS.get(form, form), file.getvalue())
        with Image.open(file) as seen:
            assert size is not None and (size.width, size.height) == seen.size
        assert size.decoded_bytes >= 37 * 53 * 3


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_count_twice(suffix: str) -> None:
    deep = np.zeros((5, 7, 4), np.uint16)
    size = image_size(suffix[1:].upper(), cv2.imencode(suffix, deep)[1].tobytes())
    assert size is not None and (size.width, size.height, size.pixel_bytes) == (7, 5, 8)


@pytest.mark.parametrize(("name", "pixels"), [("OVE_MAX_PICTURE_PIXELS", 24 * 32), ("OVE_MAX_PICTURE_BYTES", 24 * 32 * 4)])
def test_a_picture_above_a_limit_is_refused_before_it_is_decoded(name: str, pixels: int, monkeypatch) -> None:
    data = encoded(picture(0), ".png")
    monkeypatch.setenv(name, str(pixels))
    assert read_image("a.png", data).shape == (24, 32, 3)
    monkeypatch.setenv(name, str(pixels - 1))
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(
        BadClip, match=rf"a\.png: its picture of 32×24 has {pixels:,} .*more than {name} = {pixels - 1:,} allows"
    ):
        read_image("a.png", data)


def test_a_picture_in_a_record_above_the_limit_is_refused_too(monkeypatch) -> None:
    data = encoded(picture(0))
    monkeypatch.setenv("OVE_MAX_PICTURE_PIXELS", "767")
    with pytest.raises(BadShard, match="768 pixels, more than OVE_MAX_PICTURE_PIXELS = 767"):
        decode_picture(data)


def test_an_image_file_above_the_limit_is_not_read(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(0), ".png"))
    monkeypatch.setenv("OVE_MAX_INPUT_BYTES", "99")
    with pytest.raises(BadClip, match=r"a\.png: has [\d,]+ bytes, more than OVE_MAX_INPUT_BYTES = 99 allows"):
        read_image(tmp_path / "a.png")


def test_blending_takes_little_memory_and_is_exact(monkeypatch) -> None:
    monkeypatch.setattr(images, "_STRIP_PIXELS", 1000)
    deep = np.random.default_rng(0).integers(0, 1 << 16, (300, 200, 4)).astype(np.uint16)
    deep[0, :2, 3] = 0, 65535
    data = cv2.imencode(".png", deep)[1].tobytes()
    tracemalloc.start()
    made = read_image("a.png", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25 * deep.shape[0] * deep.shape[1]  # of which 8 for the file's pixels; uint64 took 83
    for y, x in [(0, 0), (0, 1), (17, 3), (299, 199), (123, 45)]:
        *bgr, alpha = (int(n) for n in deep[y, x])
        blended = [min((c * alpha + 32767) // 65535 + 65535 - alpha, 65535) for c in reversed(bgr)]
        assert made[y, x].tolist() == [(c + 128) // 257 for c in blended]


def time_to_read(n_bytes: int) -> float:
    fastest = np.inf
    for _ in range(3):
        reader, started = BitReader(b"\x55" * n_bytes), time.perf_counter()
        for _ in range(8 * n_bytes):
            reader.bits(1)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def test_the_bit_reader_takes_time_by_the_length_of_what_it_reads() -> None:
    assert time_to_read(16_000) < 40 * time_to_read(1000)  # 16 where it is linear; a shift of all for each bit: 130


def sps(width_mbs: int, height_mbs: int, sps_id: int = 0, cycle: int | None = None) -> bytes:
    w = BitWriter(0x67)
    for value in (66, 0, 30):
        w.number(value, 8)
    for value in (sps_id, 0, 0 if cycle is None else 1):
        w.unsigned(value)
    if cycle is None:
        w.unsigned(0)
    else:
        w.raw("0", "1", "1")
        w.unsigned(cycle)
        w.raw("1" * cycle if cycle < 1000 else "")
    w.unsigned(1)
    w.raw("0")
    w.unsigned(width_mbs - 1)
    w.unsigned(height_mbs - 1)
    w.raw("1", "1", "0", "0")
    return w.nal()


def test_counts_in_parameter_sets_are_those_of_the_standard() -> None:
    assert h264_syntax.read_sps(sps(4, 4, 31, cycle=255)).width_mbs == 4
    with pytest.raises(ValueError, match="num_ref_frames_in_pic_order_cnt_cycle = 256 of a header is above 255"):
        h264_syntax.read_sps(sps(4, 4, 31, cycle=256))
    with pytest.raises(ValueError, match="seq_parameter_set_id = 32"):
        h264_syntax.read_sps(sps(4, 4, 32))
    with pytest.raises(ValueError, match="more than 32 bits"):
        BitReader(bytes(1000)).unsigned()
    with pytest.raises(ValueError, match="in the middle of a parameter set"):
        hevc_syntax.split_hvcc(bytes(22) + b"\xff" + b"\x21\xff\xff" + b"\0\5")


def test_a_parameter_set_of_huge_pictures_costs_no_memory() -> None:
    pps = BitWriter(0x68)
    pps.raw("1", "1", "0", "0", "1", "1", "1", "000", "1", "1", "1", "100")
    small = annex_b([sps(4, 4), pps.nal()])
    GrayH264(small)
    tracemalloc.start()
    with pytest.raises(NoBitstreamSignals, match=r"640000×640000.*more than OVE_MAX_FRAME_PIXELS"):
        GrayH264(small + annex_b([sps(40_000, 40_000, 5)]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "shape", [[1 << 32, 1 << 32], [0, (1 << 63) - 1], [(1 << 64) - 1], [4, 2, 2, 1, 1], [-1], [1 << 62, 0, 4]], ids=str
)
def test_arrays_of_a_record_cannot_claim_more_than_their_bytes(shape: list[int]) -> None:
    good = msgpack.unpackb(pack(CLIP))
    for data in (b"", good["saliency"]["data"]):
        wrong = good | {"saliency": {"dtype": "<f2", "shape": shape, "data": data}}
        with pytest.raises(BadShard, match="field saliency"):
            unpack(msgpack.packb(wrong))


def test_nested_lists_of_a_record_are_not_allocated_at_the_length_they_claim() -> None:
    tracemalloc.start()
    with pytest.raises(BadShard, match="not msgpack"):
        unpack(b"\xdd\x00\x10\x00\x00" * 500 + bytes(1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 23  # 500 lists of a million items would be 4 GB


def test_the_frames_of_a_record_together_have_a_limit(monkeypatch) -> None:
    assert decode_frames(CLIP, range(4)).nbytes == 4 * 28 * 28 * 3
    monkeypatch.setenv("OVE_MAX_CLIP_BYTES", str(4 * 28 * 28 * 3 - 1))
    with pytest.raises(
        BadShard, match="k: its 4 frames of size_px = 28 have 9,408 bytes, more than OVE_MAX_CLIP_BYTES = 9,407"
    ):
        decode_frames(CLIP, range(4))
    huge = VideoRecord(**{**vars(CLIP), "size_px": 1 << 20, "patch_px": 1 << 20, "saliency": np.zeros((4, 1, 1), np.float16)})
    with pytest.raises(BadShard, match="OVE_MAX_CLIP_BYTES"):
        decode_frames(unpack(pack(huge)), [0])


def test_json_is_bounded_in_length_and_depth(monkeypatch) -> None:
    assert bounded_json('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deeply"):
        bounded_json("[" * 100_000)
    monkeypatch.setenv("OVE_MAX_JSON_BYTES", "5")
    with pytest.raises(ValueError, match="10 bytes of JSON, more than OVE_MAX_JSON_BYTES = 5"):
        bounded_json('{"a": [1]}')


@pytest.mark.parametrize(
    "change",
    [
        *({"records": value} for value in ("3", True, -1, 1 << 53, 3.0)),
        *({"grid_tyx": value} for value in ([1, 2], [8, 2, 2], [8, 2, None])),
        *({"size_px": 28} | change for change in ({}, {"grid_tyx": [8, 2, 2]}, {"grid_tyx": [8, 2, 2], "patch_px": "14"})),
        *({name: value} for name in ("classes", "forms") for value in ("ab", {"a": 1}, [1])),
        *({name: 1} for name in ("kind", "fingerprint", "index", "made_with", "mosaics", "banks", "labels_per_record")),
        *({"banks": {"obj": value}} for value in (-1, "2", 1 << 53)),
        *({"labels_per_record": {"obj": value}} for value in ([0], [-1, 2], [0, "2"])),
        *({"shards": [SHARD | {name: value}]} for name in ("records", "bytes") for value in (-1, "3", True, 1 << 53)),
        *({"shards": [SHARD | {name: 1}]} for name in ("file", "sha256", "size")),
    ],
    ids=str,
)
def test_a_manifest_of_other_kinds_of_values_is_refused(change: dict, tmp_path: Path) -> None:
    whole = {"schema_version": 1, "shards": [SHARD], "records": 3, "kind": "image", "size_px": None, "patch_px": None}
    whole |= {"grid_tyx": None, "forms": [], "mosaics": None, "classes": [], "banks": {}, "labels_per_record": {}}
    whole |= {"made_with": {}, "fingerprint": "cd"}
    (tmp_path / "manifest.json").write_text(json.dumps(whole))
    assert read_manifest(tmp_path).records == 3
    sound = {
        "records": (1 << 53) - 1,
        "labels_per_record": {"obj": [0, 2]},
        "size_px": 28,
        "patch_px": 14,
        "grid_tyx": [8, 2, 2],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(whole | sound))
    assert read_manifest(tmp_path).records == (1 << 53) - 1
    (tmp_path / "manifest.json").write_text(json.dumps(whole | change))
    with pytest.raises(BadShard, match="is damaged"):
        read_manifest(tmp_path)


def safetensors_file(path: Path, header: dict, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_tensors_of_impossible_shape_and_long_headers_are_refused(tmp_path: Path, monkeypatch) -> None:
    for shape in ([0, 1 << 63], [0] * 33):
        spec = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        with pytest.raises(BadCheckpoint, match="its header is damaged"):
            read_safetensors(safetensors_file(tmp_path / "a.safetensors", {"t": spec}))
    monkeypatch.setenv("OVE_MAX_HEADER_BYTES", "10")
    with pytest.raises(BadCheckpoint, match=r"header would have [\d,]+ bytes, more than OVE_MAX_HEADER_BYTES = 10"):
        read_safetensors(tmp_path / "a.safetensors")


def test_archives_have_a_limit_of_inputs(tmp_path: Path, monkeypatch) -> None:
    jpeg = encoded(picture(0))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for n in range(3):
            info = tarfile.TarInfo(f"{n}.jpg")
            info.size = len(jpeg)
            tar.addfile(info, io.BytesIO(jpeg))
    write_tfrecord(tmp_path / "a.tfrecord", [{"image/encoded": jpeg}] * 3)
    pq.write_table(pa.table({"image": [jpeg] * 3}), tmp_path / "a.parquet")
    listed = (
        lambda: samples_in_tar(tmp_path / "a.tar", "a.tar", "image"),
        lambda: records_in_tfrecord(tmp_path / "a.tfrecord", "a"),
        lambda: rows_in_parquet(tmp_path / "a.parquet", "a"),
    )
    monkeypatch.setenv("OVE_MAX_ARCHIVE_INPUTS", "3")
    assert [len(found().files) for found in listed] == [3, 3, 3]
    row = rows_in_parquet(tmp_path / "a.parquet", "a").files[0]
    monkeypatch.setenv("OVE_MAX_ARCHIVE_INPUTS", "2")
    for found in listed:
        assert not found().files and "3 " in found().bad[0].reason and "OVE_MAX_ARCHIVE_INPUTS = 2" in found().bad[0].reason
    monkeypatch.setenv("OVE_MAX_ROW_GROUP_BYTES", "100")
    with pytest.raises(BadClip, match="bytes in a row group, more than OVE_MAX_ROW_GROUP_BYTES = 100"):
        read_input(row, "image", SHARDS)


def test_members_have_a_limit_and_headers_of_tars_are_not_believed(tmp_path: Path, monkeypatch) -> None:
    jpeg = encoded(picture(0))
    write_tfrecord(tmp_path / "a.tfrecord", [{"image/encoded": jpeg}])
    (record,) = records_in_tfrecord(tmp_path / "a.tfrecord", "a").files
    monkeypatch.setenv("OVE_MAX_INPUT_BYTES", "9")
    with pytest.raises(BadClip, match="more than OVE_MAX_INPUT_BYTES = 9"):
        read_input(record, "image", SHARDS)
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 44
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    tracemalloc.start()
    found = samples_in_tar(tmp_path / "a.tar", "a.tar", "image")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not found.files and peak < 1 << 20


def test_unpacking_stops_at_its_limit_and_before_the_disk_is_full(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    monkeypatch.setattr(inputs, "_CHECKED_BYTES", 1 << 16)
    monkeypatch.setenv("OVE_MAX_UNPACKED_BYTES", str(1 << 18))
    with pytest.raises(BadClip, match=r"bytes unpacked, more than OVE_MAX_UNPACKED_BYTES = 262,144"):
        find_inputs(tmp_path / "a.tar.gz", "image", SHARDS, tmp_path / "scratch")
    assert sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir()) <= (1 << 18) + (1 << 17)
    monkeypatch.delenv("OVE_MAX_UNPACKED_BYTES")
    usage = type("Usage", (), {"total": 10**9, "used": 0, "free": 10**7})
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadClip, match="has only 10,000,000 bytes free"):
        find_inputs(tmp_path / "a.tar.gz", "image", SHARDS, tmp_path / "scratch")


def test_records_of_pictures_are_read_as_before_and_named_above_a_limit(monkeypatch) -> None:
    record = ImageRecord("i", encoded(picture(0)), 24, 32)
    found = unpack(pack(record))
    assert isinstance(found, ImageRecord) and found.image == record.image
    assert decode_image(found).shape == (24, 32, 3)
    monkeypatch.setenv("OVE_MAX_PICTURE_PIXELS", "767")
    with pytest.raises(BadShard, match=r"^i: a picture of 32×24 has 768 pixels"):
        decode_image(found)
