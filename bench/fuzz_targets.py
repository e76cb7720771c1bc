"""What bench/fuzz.py feeds with damaged files: for each reader, samples to damage and a function that reads one."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from fuzz_arrays import center_files, embeddings, label_files, read_center_files, read_embeddings, read_label_files
from fuzz_mutations import Accepted, damaged, damaged_tree, nested
from fuzz_samples import (
    examples,
    feature_file,
    json_files,
    lists,
    parquet,
    pictures,
    records,
    safetensors,
    shard_set,
    tars,
    tfrecords,
)
from fuzz_streams import hevc_stream, read_parameter_sets, read_slice_data, read_slices, streams

from ove.api.encoded_files import labelled_features
from ove.config import ShardsConfig
from ove.encoder.published.config import parse_config, to_encoder_config
from ove.encoder.published.weight_files import find_weights, read_tensors
from ove.errors import OveError
from ove.shards.manifest import read_manifest
from ove.shards.pictures import decode_picture
from ove.shards.schema import ImageRecord, decode_frames, decode_image, decode_mosaics, unpack
from ove.shards.shard_set import ShardSet
from ove.sources.folders import FoundInputs, files_in_list
from ove.sources.images import read_image
from ove.sources.inputs import find_inputs, read_input
from ove.sources.tfrecord import masked_crc
from ove.tokens.preprocessing import read_preprocessing
from ove.video.bitstream.coded import DamagedSlices
from ove.video.bitstream.gray import NoBitstreamSignals

ROOT = Path(__file__).resolve().parents[1]
SHARDS = ShardsConfig()
_MOST_READ = 8
"""Inputs of an archive that are read."""


@dataclass(frozen=True)
class Target:
    """A reader under test; its name is its key in `TARGETS`."""

    sample: Callable[[Path], Any]
    """Makes what is damaged, once, given an empty folder."""
    run: Callable[[Any, np.random.Generator, Path], None]
    """Damages a sample and reads it; the folder is for files, and the next input finds it as this one left it."""


def _bytes_of(data: Sequence[bytes], rng: np.random.Generator) -> bytes:
    return damaged(data[int(rng.integers(len(data)))], rng, data)


def _record(data: bytes) -> None:
    record = unpack(data)
    if isinstance(record, ImageRecord):
        decode_image(record)
        return
    decode_frames(record, range(min(4, len(record.frame_index))))
    decode_mosaics(record)


def _records(samples: list[bytes], rng: np.random.Generator, _: Path) -> None:
    _record(_bytes_of(samples, rng))


def _msgpack(samples: list[bytes], rng: np.random.Generator, _: Path) -> None:
    tree = damaged_tree(msgpack.unpackb(samples[int(rng.integers(len(samples)))]), rng)
    try:
        data = msgpack.packb(tree)
    except (OverflowError, ValueError, UnicodeEncodeError):  # no MessagePack has such a number
        return
    _record(data)


def _manifests(samples: str, rng: np.random.Generator, folder: Path) -> None:
    text = samples.encode()
    if (how := rng.random()) < 0.6:
        text = json.dumps(damaged_tree(json.loads(text), rng)).encode()
    elif how < 0.98:
        text = damaged(text, rng, [text])
    else:
        text = nested(100_000, rng)
    (folder / "manifest.json").write_bytes(text)
    read_manifest(folder)
    shards = ShardSet.open(folder)
    if len(shards):
        shards.record(0)


def _shard_files(samples: tuple[str, bytes, list[bytes]], rng: np.random.Generator, folder: Path) -> None:
    manifest, data, originals = samples
    changed = damaged(data, rng, [data])
    about = json.loads(manifest)
    (name,) = (shard["file"] for shard in about["shards"])
    about["shards"][0]["bytes"] = len(changed)
    (folder / "manifest.json").write_text(json.dumps(about))
    (folder / name).write_bytes(changed)
    shards = ShardSet.open(folder)
    for index in range(len(shards)):
        try:
            found = shards.bytes_at(index)
        except OveError:
            continue
        if found != originals[index]:
            raise Accepted(f"record {index} is not what was written")


def _inputs(name: str, data: bytes, folder: Path, kind: str = "image") -> list[Any]:
    """Finds the inputs of an archive and reads a few of them."""
    path = folder / name
    path.write_bytes(data)
    found: FoundInputs = find_inputs(path, kind, SHARDS, folder / "scratch")
    contents = []
    for file in found.files[:_MOST_READ]:
        try:
            contents.append(read_input(file, kind, SHARDS))
        except OveError:
            continue
    return contents


def _tars(samples: list[bytes], rng: np.random.Generator, folder: Path) -> None:
    name = ("a.tar", "b.tar.gz", "c.tar.xz", "d.tar.bz2")[int(rng.integers(4)) if rng.random() < 0.4 else 0]
    _inputs(name, damaged(samples[("a.tar", "b.tar.gz", "c.tar.xz", "d.tar.bz2").index(name)], rng, samples), folder)


def _tfrecords(samples: tuple[bytes, list[bytes]], rng: np.random.Generator, folder: Path) -> None:
    data, media = samples
    for contents in _inputs("a.tfrecord", damaged(data, rng, [data]), folder):
        if contents.media not in media:
            raise Accepted(f"a record with {len(contents.media)} bytes that nobody wrote")


def _examples(samples: list[bytes], rng: np.random.Generator, folder: Path) -> None:
    """Examples that are damaged, in records whose checksums are right."""
    data = b""
    for _ in range(2):
        example = _bytes_of(samples, rng)
        length = len(example).to_bytes(8, "little")
        data += length + masked_crc(length) + example + masked_crc(example)
    _inputs("b.tfrecord", data, folder)


def _parquet(samples: list[bytes], rng: np.random.Generator, folder: Path) -> None:
    data = samples[int(rng.integers(len(samples)))]
    if rng.random() < 0.6:  # the footer
        at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        footer = damaged(data[at:-8], rng, [data[at:-8]])
        data = data[:at] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    else:
        data = damaged(data, rng, samples)
    _inputs("a.parquet", data, folder)


def _read_weights(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    tensors, _ = read_tensors(folder / name, lambda name: True)
    for tensor in tensors.values():
        np.array(tensor)


def _weight_files(samples: bytes, rng: np.random.Generator, folder: Path) -> None:
    start = 8 + int.from_bytes(samples[:8], "little")
    data = damaged(samples, rng, [samples])
    if rng.random() < 0.6:
        header = json.dumps(damaged_tree(json.loads(samples[8:start]), rng)).encode()
        data = len(header).to_bytes(8, "little") + header + samples[start:]
    _read_weights("a.safetensors", data, folder)


def _torch_files(samples: bytes, rng: np.random.Generator, folder: Path) -> None:
    if rng.random() < 0.4:
        _read_weights("a.pt", damaged(samples, rng, [samples]), folder)
        return
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(samples)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, damaged(part, rng, [part]) if name.endswith("data.pkl") else part)
    _read_weights("b.pt", changed.getvalue(), folder)


def _json_files(samples: list[tuple[str, dict]], rng: np.random.Generator, folder: Path) -> None:
    name, value = samples[int(rng.integers(len(samples)))]
    text = json.dumps(damaged_tree(value, rng)).encode()
    if rng.random() < 0.3:
        text = damaged(json.dumps(value).encode(), rng, [text])
    (folder / name).write_bytes(text)
    if name == "config.json":
        values, _ = parse_config(folder / name)
        to_encoder_config(values, {"embeddings.patch_embedding.weight": (64, 3, 14, 14)})
    elif name.endswith("index.json"):
        weights = find_weights(folder / name, lambda name: True)
        weights.read(list(weights.holds))
    else:
        read_preprocessing(folder)
    (folder / name).unlink()


def _lists(samples: list[tuple[str, bytes]], rng: np.random.Generator, folder: Path) -> None:
    name, text = samples[int(rng.integers(len(samples)))]
    (folder / name).write_bytes(damaged(text, rng, [each for _, each in samples]))
    if name.endswith(".txt"):
        try:
            files_in_list(folder / name)
        except UnicodeDecodeError:  # its callers say so
            return
    find_inputs(folder / name, "image", SHARDS, folder / "scratch")


def _pictures(samples: list[bytes], rng: np.random.Generator, _: Path) -> None:
    data = _bytes_of(samples, rng)
    try:
        picture = read_image("a", data)
    except OveError:
        picture = np.zeros((1, 1, 3), np.uint8)
    assert picture.ndim == 3 and picture.dtype == np.uint8
    decode_picture(data)


def _features(samples: bytes, rng: np.random.Generator, folder: Path) -> None:
    path = folder / "a.npz"
    if rng.random() < 0.5:
        path.write_bytes(damaged(samples, rng, [samples]))
    else:
        with zipfile.ZipFile(io.BytesIO(samples)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, damaged(old.read(name), rng, [old.read(name)]))
    labelled_features(path, {"a": "x", "b": "y"}, {"label_folder": 0})


TARGETS = {
    "parameter_sets": Target(streams, read_parameter_sets),
    "slices": Target(streams, read_slices),
    "slice_data": Target(hevc_stream, read_slice_data),
    "records": Target(records, _records),
    "msgpack": Target(records, _msgpack),
    "manifests": Target(lambda folder: shard_set(folder)[0], _manifests),
    "shards": Target(shard_set, _shard_files),
    "tars": Target(tars, _tars),
    "tfrecords": Target(tfrecords, _tfrecords),
    "examples": Target(examples, _examples),
    "parquet": Target(parquet, _parquet),
    "safetensors": Target(safetensors, _weight_files),
    "torch": Target(lambda _: (ROOT / "tests/encoder/published/torch_saved.pt").read_bytes(), _torch_files),
    "json": Target(json_files, _json_files),
    "lists": Target(lists, _lists),
    "pictures": Target(pictures, _pictures),
    "features": Target(feature_file, _features),
    "centers": Target(center_files, read_center_files),
    "labels": Target(label_files, read_label_files),
    "embeddings": Target(embeddings, read_embeddings),
}
EXPECTED = (OveError, NoBitstreamSignals, DamagedSlices)
"""How a reader refuses a file; NoBitstreamSignals has its file transcoded."""
