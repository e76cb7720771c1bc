"""Arrays in files of their own, for bench/fuzz_targets.py: centers, labels beside shards, embeddings of `ove labels`."""

import io
import json
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from fuzz_mutations import Accepted, damaged, damaged_tree
from fuzz_samples import shard_set
from safetensors.numpy import save

from ove.centers.center_files import open_centers
from ove.config import LabelsConfig
from ove.labels.embed import ABOUT, embed_shards, open_embeddings
from ove.labels.teachers.teacher import Thumbnails, teacher_identity
from ove.shards.labels import read_centers, read_labels, verify_labels, write_labels
from ove.shards.shard_set import ShardSet

_ROWS = 40
_MOST_READ = 1 << 12
"""Rows that are read of what a file claims to hold."""
_LABELS = LabelsConfig(chunk_records=3)


def center_files(_: Path) -> dict[str, list[bytes]]:
    """By their ending: files of centers of all kinds of numbers, in both orders of their axes."""
    rows = np.random.default_rng(0).normal(size=(_ROWS, 8))
    made: dict[str, list[bytes]] = {".npy": [], ".safetensors": []}
    for dtype in (np.float64, np.float32, np.float16):
        for array in (rows.astype(dtype), np.asfortranarray(rows.astype(dtype))):
            np.save(file := io.BytesIO(), array)
            made[".npy"].append(file.getvalue())
        made[".safetensors"].append(save({"centers": rows.astype(dtype), "n": np.array(3)}, {"format": "pt"}))
    made[".safetensors"].append(save({"other": rows.astype(ml_dtypes.bfloat16)}))
    return made


def read_center_files(samples: dict[str, list[bytes]], rng: np.random.Generator, folder: Path) -> None:
    """Reads a damaged file of centers to its end."""
    ending = (".npy", ".safetensors")[int(rng.integers(2))]
    (folder / f"a{ending}").write_bytes(_damaged_array(samples[ending], rng, is_npy=ending == ".npy"))
    found = open_centers(folder / f"a{ending}")
    rows = found.read(np.arange(min(len(found), _MOST_READ)))
    assert rows.dtype == np.float32 and rows.shape[1] == found.width


def _damaged_array(samples: list[bytes], rng: np.random.Generator, is_npy: bool) -> bytes:
    """Damages the header of one of the files more often than by chance, for it is short."""
    data = samples[int(rng.integers(len(samples)))]
    if rng.random() < 0.3:
        return damaged(data, rng, samples)
    if is_npy:
        start = 10 + int.from_bytes(data[8:10], "little")
        header = damaged(data[10:start], rng, [data[10:start]])
        return data[:8] + len(header).to_bytes(2, "little") + header + data[start:]
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(damaged_tree(json.loads(data[8:start]), rng)).encode()
    return len(header).to_bytes(8, "little") + header + data[start:]


def label_files(folder: Path) -> dict[str, bytes]:
    """The files of the labels of a shard set, by their names."""
    n_records = len(shard_set(folder)[2])
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 5, (n_records, 3)).astype(np.int32)
    write_labels(folder, "obj", labels, rng.normal(size=(5, 4)).astype(np.float32), {"made_with": {}})
    return {path.name: path.read_bytes() for path in (folder / "labels").iterdir()}


def read_label_files(samples: dict[str, bytes], rng: np.random.Generator, folder: Path) -> None:
    """Reads labels and centers of which one file is damaged; what their checksums let pass is what was written."""
    name = sorted(samples)[int(rng.integers(len(samples)))]
    data = samples[name]
    if name.endswith(".json") and rng.random() < 0.7:
        data = json.dumps(damaged_tree(json.loads(data), rng)).encode()
    else:
        data = damaged(data, rng, list(samples.values()))
    for each, whole in samples.items():
        (folder / "labels" / each).write_bytes(data if each == name else whole)
    found = read_labels(folder, "obj")
    verify_labels(folder, "obj")
    whole_labels = next(np.load(io.BytesIO(samples[each])) for each in samples if ".labels-" in each)
    whole_centers = next(np.load(io.BytesIO(samples[each])) for each in samples if ".centers-" in each)
    if not np.array_equal(found.labels, whole_labels):
        raise Accepted("labels that nobody wrote")
    if found.info["centers"] and not np.array_equal(read_centers(folder, "obj"), whole_centers):
        raise Accepted("centers that nobody wrote")


def embeddings(folder: Path) -> dict[str, bytes]:
    """The files of the embeddings of a shard set, by their names."""
    shard_set(folder)
    with tempfile.TemporaryDirectory() as out:
        embed_shards(ShardSet.open(folder), "obj", Thumbnails(), Path(out), _LABELS)
        return {path.name: path.read_bytes() for path in Path(out).iterdir()}


def read_embeddings(samples: dict[str, bytes], rng: np.random.Generator, folder: Path) -> None:
    """Reads embeddings of which one file is damaged."""
    name = sorted(samples)[int(rng.integers(len(samples)))]
    data = samples[name]
    if name == ABOUT:
        how = rng.random() < 0.7
        data = json.dumps(damaged_tree(json.loads(data), rng)).encode() if how else damaged(data, rng, [data])
    else:
        data = _damaged_array([data], rng, is_npy=False)
    out = folder / "steps"
    out.mkdir(exist_ok=True)
    for each, whole in samples.items():
        (out / each).write_bytes(data if each == name else whole)
    found = open_embeddings(out, ShardSet.open(folder), "obj", teacher_identity(_LABELS), "float32")
    n_points = len(found.records)
    assert len(found.hashes) == len(found.pixels) == len(found.points) == n_points
    assert found.points.rows(np.arange(n_points)).shape == (n_points, found.points.width)
    found.points.block(0, 16)
