"""Whole files of every kind that bench/fuzz.py damages, made by other libraries where there are some."""

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from safetensors.numpy import save

from ove.files import sha256_of
from ove.shards.h264_clip import encode_clip
from ove.shards.manifest import Manifest, Shard, fingerprint_of_shards, write_manifest
from ove.shards.pictures import encode_jpeg, encode_png
from ove.shards.schema import ImageRecord, Record, VideoRecord, pack
from ove.sources.tfrecord import masked_crc

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF")


def picture(seed: int, side: int = 28) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)


def _clip(key: str, form: str) -> VideoRecord:
    frames = np.stack([np.roll(picture(2), n, 1) for n in range(4)])
    return VideoRecord(
        key=key,
        frames=[encode_jpeg(frame, 90) for frame in frames] if form != "h264" else [],
        size_px=28,
        patch_px=14,
        frame_index=np.arange(4, dtype=np.int32),
        pts_s=np.arange(4) / 25.0,
        is_i_frame=np.arange(4) == 0,
        saliency=np.full((4, 2, 2), 0.5, np.float16),
        source="bitstream",
        codec="h264",
        n_decoded=4,
        fps=25.0,
        label="a",
        labels={"vid": np.arange(3, dtype=np.int32)},
        h264=encode_clip(frames, 20) if form == "h264" else b"",
        mosaics=[encode_jpeg(picture(3), 95)] if form == "mosaics" else [],
        mosaic_flat=np.array([0, 3, 9], np.uint16) if form == "mosaics" else np.zeros(0, np.uint16),
        valid=np.ones((2, 2), bool) if form == "mosaics" else None,
    )


def _records() -> list[Record]:
    images = [ImageRecord("i", encode_png(picture(4)), 28, 28, "cat"), ImageRecord("j", encode_jpeg(picture(5), 90), 28, 28)]
    return [*images, *(_clip(form, form) for form in ("frames", "h264", "mosaics"))]


def records(_: Path) -> list[bytes]:
    """Packed records of all kinds."""
    return [pack(record) for record in _records()]


def shard_set(folder: Path) -> tuple[str, bytes, list[bytes]]:
    """The text of a manifest, the one shard of its set, and the records in it."""
    packed = [pack(record) for record in _records()[:2] * 3]
    path = folder / "shard-00000.arrayrecord"
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for data in packed:
        writer.write(data)
    writer.close()
    shard = Shard(path.name, len(packed), path.stat().st_size, sha256_of(path))
    about = {"size_px": None, "patch_px": None, "grid_tyx": None, "forms": [], "mosaics": None, "classes": ["cat"], "banks": {}}
    made = {"kind": "image", "labels_per_record": {"obj": (0, 1)}, "made_with": {"kind": "image"}}
    write_manifest(folder, Manifest([shard], len(packed), fingerprint=fingerprint_of_shards([shard]), **about, **made))
    return (folder / "manifest.json").read_text(), path.read_bytes(), packed


def tars(_: Path) -> list[bytes]:
    """A tar of samples: plain, and compressed by gzip, xz and bzip2."""
    made = []
    for mode in ("w", "w:gz", "w:xz", "w:bz2"):
        with tarfile.open(fileobj=(file := io.BytesIO()), mode=mode, format=tarfile.PAX_FORMAT) as tar:
            for n in range(3):
                name = f"{'long' * 40 if n == 2 else 'a'}/{n}"
                about = json.dumps({"label": "cat", "obj": [1, 2]}).encode()
                for suffix, data in (("jpg", encode_jpeg(picture(n), 80)), ("cls", b"7"), ("json", about)):
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        made.append(file.getvalue())
    return made


def _example(features: dict[str, tuple[int, bytes]]) -> bytes:
    """A tf.train.Example of lists, each given by its kind (1 bytes, 2 floats, 3 integers) and encoded value."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + _varint(len(data)) + data

    entries = [field(1, field(1, name.encode()) + field(2, field(kind, data))) for name, (kind, data) in features.items()]
    return field(1, b"".join(entries))


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def examples(_: Path) -> list[bytes]:
    """Examples with a picture, a label and numbers."""
    jpeg = encode_jpeg(picture(6), 80)
    media = b"\x0a" + _varint(len(jpeg)) + jpeg
    packed = {"image/encoded": (1, media), "image/class/text": (1, b"\x0a\x03cat"), "obj": (3, b"\x0a\x02\x01\x02")}
    return [_example(packed), _example({"image": (1, media), "label": (3, b"\x08\x05"), "score": (2, b"\x0a\x04\0\0\x80?")})]


def tfrecords(folder: Path) -> tuple[bytes, list[bytes]]:
    """A TFRecord file, and the pictures in it."""
    data = b""
    for example in examples(folder) * 2:
        length = len(example).to_bytes(8, "little")
        data += length + masked_crc(length) + example + masked_crc(example)
    return data, [encode_jpeg(picture(6), 80)]


def parquet(_: Path) -> list[bytes]:
    """Parquet files as of Hugging Face, and a plain one, in two row groups."""
    jpeg = encode_jpeg(picture(7), 80)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    table = pa.table({"image": [{"bytes": jpeg, "path": None}] * 4, "label": [0, 1, 0, 1], "obj": [[1], [2, 3], [], [4]]})
    about = json.dumps({"info": {"features": features}})
    made = []
    for compression in ("none", "snappy", "zstd"):
        for each in (table.replace_schema_metadata({"huggingface": about}), pa.table({"jpg": [jpeg] * 4, "class": ["a"] * 4})):
            pq.write_table(each, file := io.BytesIO(), row_group_size=2, compression=compression)
            made.append(file.getvalue())
    return made


def safetensors(_: Path) -> bytes:
    """A safetensors file of three tensors."""
    return save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16), "c": np.array(7)}, {"format": "pt"})


def pictures(_: Path) -> list[bytes]:
    """Pictures of all formats, deep ones and transparent ones."""
    made = []
    for form in _FORMATS:
        for mode in ("RGB", "RGBA", "L"):
            if form in ("JPEG", "PPM") and mode == "RGBA":
                continue
            Image.fromarray(picture(8)).convert(mode).save(file := io.BytesIO(), form)
            made.append(file.getvalue())
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 24, 4)).astype(np.uint16)
    made += [cv2.imencode(suffix, deep)[1].tobytes() for suffix in (".png", ".tiff")]
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture(9)).save(file := io.BytesIO(), "JPEG", exif=turned)
    return [*made, file.getvalue()]


def feature_file(_: Path) -> bytes:
    """What `ove encode` writes, as far as probes read it."""
    file = io.BytesIO()
    np.savez(file, files=np.array(["a", "b"]), pooled=np.ones((2, 4), np.float32))
    return file.getvalue()


def json_files(_: Path) -> list[tuple[str, dict]]:
    """Descriptions of published models, by the names of their files."""
    config = {"model_type": "onevision_encoder", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 1}
    config |= {"num_hidden_layers": 2, "patch_size": 14, "rope_theta": 1e4, "layer_norm_eps": 1e-6, "use_head": True}
    ours = {"mode": "codec", "video": {"n_frames": 8, "selection": {"gop_frames": 4}}, "budget": 512}
    return [
        ("config.json", config),
        ("model.safetensors.index.json", {"weight_map": {"a": "a.safetensors"}, "metadata": {"total_size": 4}}),
        ("preprocessor_config.json", {"ove": ours}),
    ]


def lists(_: Path) -> list[tuple[str, bytes]]:
    """Lists of files, by their names."""
    return [
        ("a.csv", b'path,label,obj,start_s\na.jpg,cat,"[1, 2]",0.5\n"b,c.jpg",dog,3,\n'),
        ("a.jsonl", b'{"path": "a.jpg", "label": "cat", "obj": [1, 2], "start_s": 0, "end_s": 2}\n{"path": "b.jpg"}\n'),
        ("a.txt", b"\xef\xbb\xbfa.jpg\tcat\n# comment\nb.jpg 3\n"),
    ]
