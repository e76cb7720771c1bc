"""Damaged files of every kind are refused or read, a few of the many of bench/fuzz.py; and what it found stays mended."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import encoded, picture

from ove.config import ShardsConfig, VideoConfig
from ove.errors import BadClip, BadInput, BadShard, ConfigError
from ove.features.feature_file import read_arrays
from ove.shards.shard_set import ShardSet
from ove.sources import inputs
from ove.sources.parquet import read_row
from ove.sources.tfrecord import parse_example
from ove.tokens.read import InputConfig
from ove.video.select import i_frame_flags

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))

from fuzz import _LIMITS  # noqa: E402
from fuzz_samples import shard_set  # noqa: E402
from fuzz_targets import EXPECTED, TARGETS  # noqa: E402

INPUTS = 25
OWN_TARGET = """
import os, signal
from dataclasses import dataclass
EXPECTED = (ValueError,)
class Accepted(Exception): pass
@dataclass
class Target:
    sample: object
    run: object
def run(sample, rng, folder):
    n = len(list(folder.iterdir()))
    (folder / str(n)).touch()
    match sample:
        case "refuse": raise ValueError
        case "fail" if n % 2: raise KeyError("x")
        case "fill" if n % 2: bytearray(1 << 40)
        case "believe" if n % 2: raise Accepted
        case "crash" if n == 1: os.kill(os.getpid(), signal.SIGSEGV)
        case "hang" if n == 1: os.kill(os.getpid(), signal.SIGPROF)
NAMES = "refuse read fail fill believe crash hang".split()
TARGETS = {name: Target(lambda _, name=name: name, run) for name in NAMES}
"""


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_or_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in _LIMITS.items():
        monkeypatch.setenv(f"OVE_{limit}", str(value))
    target = TARGETS[name]
    sample = target.sample(tmp_path)
    for number in range(INPUTS):
        try:
            target.run(sample, np.random.default_rng((17, zlib.crc32(name.encode()), number)), tmp_path)
        except EXPECTED as error:
            assert str(error)


def test_every_kind_of_find_is_found_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    shutil.copy(ROOT / "bench" / "fuzz.py", tmp_path / "bench")
    (tmp_path / "bench" / "fuzz_targets.py").write_text(OWN_TARGET)
    command = [sys.executable, "bench/fuzz.py", "--inputs", "10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # A process that died is followed by one with a folder of its own, in which the second input is at fault again.
    assert found["by_kind"] == {"exception": 5, "memory": 5, "accepted": 5, "crash": 5, "hang": 5}
    assert found["executions"] == 70 and found["finds"] == 25
    assert found["targets"]["refuse"] == {"refused": 10} and found["targets"]["read"] == {"read": 10}
    assert "fail 1: exception: KeyError at " in done.stderr and "crash 3" not in done.stderr.replace("crash 1", "")


def test_a_parquet_file_that_ends_within_a_row_group_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [encoded(picture(0))] * 2}), tmp_path / "a.parquet")
    assert read_row(tmp_path / "a.parquet", 0, 1, "", "")[0]
    with pytest.raises(ValueError, match="its row group is shorter than the footer says"):
        read_row(tmp_path / "a.parquet", 0, 2, "", "")


def test_a_parquet_file_whose_classes_have_no_names_is_told(tmp_path: Path) -> None:
    for number, names in enumerate(({}, {"names": 3}, {"names": [1]})):
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", **names}}
        table = pa.table({"image": [{"bytes": b"x", "path": None}], "label": [0]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, tmp_path / f"{number}.parquet")
        with pytest.raises(ValueError, match="class labels without their names"):
            read_row(tmp_path / f"{number}.parquet", 0, 0, "", "")


def test_floats_of_an_example_are_four_bytes_each() -> None:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    def example(floats: bytes) -> bytes:
        return field(1, field(1, field(1, b"a") + field(2, field(2, field(1, floats)))))

    assert parse_example(example(b"\0\0\x80?")) == {"a": [1.0]}
    with pytest.raises(ValueError, match="cut off"):
        parse_example(example(b"\0\0\x80"))


def test_a_manifest_of_more_records_than_its_shards_hold_is_told(tmp_path: Path) -> None:
    text, _, packed = shard_set(tmp_path)
    assert len(ShardSet.open(tmp_path)) == len(packed)
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(text) | {"records": len(packed) + 1}))
    with pytest.raises(BadShard, match="says 7 records, and its shards together have 6"):
        ShardSet.open(tmp_path)


def test_arrays_of_features_are_as_long_as_they_say(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, files=np.array(["a", "b"]), pooled=np.ones((2, 4), np.float32))
    files, pooled = read_arrays(path, ["files", "pooled"])
    assert files.tolist() == ["a", "b"] and pooled.shape == (2, 4)
    with pytest.raises(BadInput, match=r"a\.npz: holds no tokens"):
        read_arrays(path, ["tokens"])
    with zipfile.ZipFile(path) as archive:
        array = archive.read("pooled.npy")
    for claim in (b"(1099511627776, 4)", b"(2, 4" + b"0" * 30 + b")", b"((((((2, 4)"):
        with zipfile.ZipFile(path, "w") as archive:
            at, end = array.index(b"(2, 4)"), array.index(b"\n")
            header = (array[10:at] + claim + array[at + 6 : end]).rstrip()
            archive.writestr("pooled.npy", array[:8] + len(header).to_bytes(2, "little") + header + array[end + 1 :])
        with pytest.raises(BadInput, match=r"a\.npz: is no feature file"):
            read_arrays(path, ["pooled"])
    np.savez(path, files=np.frombuffer(b"\xff\xff\xff\x7f", "<U1"))
    with pytest.raises(BadInput, match="characters that there are not"):
        read_arrays(path, ["files"])


def test_settings_that_no_machine_could_hold_are_refused() -> None:
    assert i_frame_flags(8, 1 << 70).tolist() == [True] + [False] * 7
    with pytest.raises(
        ConfigError, match=r"video\.n_frames = 2147483648 and video\.size_px = 224 make 549,755,813,888 patches"
    ):
        VideoConfig(n_frames=1 << 31)
    with pytest.raises(ConfigError, match="pixels, more than OVE_MAX_PICTURE_PIXELS"):
        InputConfig("image", max_tokens=1 << 31)
    assert VideoConfig(n_frames=64, size_px=1792).grid == 128


def test_what_arrow_says_of_damaged_pages_sets_a_row_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(
        pa.table(
            {"image": [encoded(picture(0))]},
        ),
        tmp_path / "a.parquet",
        compression="snappy",
    )
    (row,) = inputs.find_inputs(tmp_path / "a.parquet", "image", ShardsConfig(), tmp_path).files
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    at = data.index(b"\xff\xd8\xff")
    data[at - 12 : at - 4] = bytes(8)
    (tmp_path / "a.parquet").write_bytes(bytes(data))
    with pytest.raises(BadClip, match=r"a\.parquet/00000000: "):
        inputs.read_input(row, "image", ShardsConfig())
