"""`ove import_tfio`: what can be told without TensorFlow; slowly, every format for real in its environment."""

import argparse
import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from remote_servers import serving

from launch import import_tfio
from launch.tensorflow_environment import install as tfio_environment
from launch.tensorflow_environment.install import ENVIRONMENT, environment
from ove.errors import BadClip, ConfigError, Unavailable
from ove.shards.schema import decode_image
from ove.shards.shard_set import ShardSet

RECORDS = 10


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def options(*inputs: str, **given: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{"inputs": list(inputs), **dict.fromkeys(("format", "image", "video", "label", "key")), **given}
    )


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (["s3://b/a.parquet", "x/b.PARQUET"], "parquet"),
        (["a.tfrecord.gz"], "tfrecord"),
        (["folder.lmdb/"], "lmdb"),
        (["s3://b/*/x.h5"], "hdf5"),
        (["s3://b/*.jpg", "s3://b/*.png"], "files"),
    ],
)
def test_names_tell_the_format(names: list[str], form: str) -> None:
    assert import_tfio.format_of(names) == form


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (options("a.parquet", "b.avro", image="x"), "do not tell one format"),
        (options("data", image="x"), "give --format"),
        (options("a.parquet"), "give either --image COLUMN or --video COLUMN"),
        (options("a.parquet", image="x", video="y"), "give either"),
        (options("a.lmdb", image="x"), "has one column, value"),
        (options("a.jpg", label="x"), "has one column, bytes"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused(given: argparse.Namespace, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        import_tfio.make_job(given)


def test_inputs_that_are_not_there_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(BadClip, match="nowhere: no such file"):
        import_tfio.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])


def test_no_python_that_tensorflow_knows_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", "/no/such/python")
    with pytest.raises(Unavailable, match=r"needs Python 3\.11 or 3\.12.*PYTHON="):
        environment(tmp_path / "env", print)


def test_an_installation_without_a_network_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setattr(tfio_environment, "_USABLE", "")
    monkeypatch.setattr(tfio_environment, "_NEEDED_GB", 1e9)
    with pytest.raises(Unavailable, match=r"needs 1000000000 GB.*--environment"):
        environment(tmp_path / "env", print)
    monkeypatch.setattr(tfio_environment, "_NEEDED_GB", 0.1)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    said: list[str] = []
    with pytest.raises(Unavailable, match=r"cannot be installed.*is there a network"):
        environment(tmp_path / "env", said.append)
    assert len(said) == 1 and not (tmp_path / "env" / "installed").exists()


# An LMDB file with the keys k0, k1 and k2, and PNG files of 8 × 8 pixels as values; nothing that the tests need can write one.
LMDB = zlib.decompress(
    base64.b85decode(
        "c-muNfB_CLdGEmceT)pq0Ll{ps&HT+2>wF>1Caoxo{?b`jDk@x3P!;w7zLwX6pVsVFbYP&C>RB_0*o~6|1)B-2LhO(G!q&<Iu0-jM!_f;1*2dT"
        "jDk@x3P!;w7zLwX6i^>9A+f|5F7Pejx8T3PHySRZU=)mkQ7{Td!6+C7qhJ(_f>AIE1~-U>_GPn;Is^RNdAX#xfLvZr50@YY$P_mR2dK;IovV2V"
        "NU3<bIEHY@<{o4O%{wzH{F|S#ih0$E;3t}&L@K*%T<0nIPfV{<<L5kXAgT{C*wfX|Wt~$(6T%)ta_o`&R^N+ZkE11f=c}jEGAQ<h!R#?0#vWOS"
        "J*5zP9Dx4W=5TU?qH`OMq)`eBiw^_mx7{VI$QA$q%pqkZ"
    )
)

READER = """
import json, os, sys, tarfile, io, time
job = json.load(open(sys.argv[3])); os.chdir(os.path.dirname(sys.argv[3]))
open("runs.txt", "a").write("x")
def finish():
    with tarfile.open("parts/part-00000.tar", "w") as tar:
        for name, data in (("0.jpg", bytes.fromhex(os.environ["PICTURE"])), ("0.cls", b"cat")):
            member = tarfile.TarInfo(name); member.size = len(data); tar.addfile(member, io.BytesIO(data))
    json.dump({"digest": job["digest"], "records": 1, "finished": True}, open("progress.json", "w"))
open("doing.txt", "w").write("the file a, row 3")
"""
ENDS = {
    "abort after all is done": "finish(); os.abort()",
    "crash": "print('terminate called', file=sys.stderr); sys.stderr.flush(); os.abort()",
    "hang": "time.sleep(60)",
    "error": "json.dump({'message': 'a: has no column x; it has y.'}, open('error.json', 'w')); sys.exit(2)",
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the command start, in place of the interpreter with TensorFlow, a script that ends in a given way."""

    def make(end: str) -> list[str]:
        script = tmp_path / "reader.py"
        script.write_text(READER + ENDS[end])
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(import_tfio, "environment", lambda folder, say: python)
        monkeypatch.setenv("PICTURE", picture(0).hex())
        (tmp_path / "a.parquet").write_bytes(b"x")
        inputs = [str(tmp_path / "a.parquet"), "--image", "x", "--out", str(tmp_path / "out"), "--stall", "1"]
        return [*inputs, "--workers", "0", "--max-side", "20"]

    return make


def test_outputs_count_and_not_the_exit_code(stand_in: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = stand_in("abort after all is done")
    assert import_tfio.main(arguments) == 0
    shards = ShardSet.open(tmp_path / "out")
    record = shards.image(0)
    assert (record.key, record.label, record.width_px) == ("part-00000.tar/0", "cat", 20)
    assert not (tmp_path / "out" / ".import").exists()
    assert import_tfio.main(arguments) == 0 and "already" in capsys.readouterr().out
    (tmp_path / "a.parquet").write_bytes(b"changed")
    assert import_tfio.main(arguments) == 0 and "read by TensorFlow" in capsys.readouterr().out


def test_shards_that_failed_are_made_without_reading_again(stand_in: Any, tmp_path: Path) -> None:
    arguments = stand_in("abort after all is done")
    for _ in range(2):
        with pytest.raises(SystemExit):
            import_tfio.main([*arguments, "--no-such-option"])
    assert (tmp_path / "out" / ".import" / "runs.txt").read_text() == "x"
    assert import_tfio.main(arguments) == 0


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [
        ("crash", Unavailable, r"the file a, row 3: .* ended by SIGABRT. It said: terminate called.*log\.txt"),
        ("hang", Unavailable, r"the file a, row 3: nothing came for 1 s.*--stall"),
        ("error", BadClip, "a: has no column x; it has y"),
    ],
)
def test_a_reader_that_fails_is_explained(stand_in: Any, end: str, error: type[Exception], words: str) -> None:
    arguments = stand_in(end)
    with pytest.raises(error, match=words):
        import_tfio.main(arguments)


def avro_file(path: Path) -> None:
    """Records of bytes, a string or null, and a number."""

    def number(value: int) -> bytes:
        value, out = (value << 1) ^ (value >> 63), b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def text(value: bytes) -> bytes:
        return number(len(value)) + value

    kinds = {"image": "bytes", "label": ["null", "string"], "n": "long"}
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    schema = json.dumps({"type": "record", "name": "row", "fields": fields}).encode()
    rows = b"".join(text(picture(n)) + (number(1) + text(b"cat") if n % 2 else number(0)) + number(n) for n in range(RECORDS))
    mark = bytes(range(16))
    header = b"Obj\x01" + number(1) + text(b"avro.schema") + text(schema) + number(0) + mark
    path.write_bytes(header + number(RECORDS) + number(len(rows)) + rows + mark)


OTHERS = """
import sys, h5py, numpy as np, tensorflow as tf
folder, pictures = sys.argv[1], [open(name, "rb").read() for name in sys.argv[2:]]
def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
for name, kind in (("a.tfrecord", ""), ("b.tfrecord", "GZIP")):
    with tf.io.TFRecordWriter(f"{folder}/{name}", kind) as out:
        for n, data in enumerate(pictures):
            row = {"image": feature(data), "label": feature(n % 2)}
            out.write(tf.train.Example(features=tf.train.Features(feature=row)).SerializeToString())
with h5py.File(f"{folder}/a.h5", "w") as out:
    out["pixels"] = np.arange(len(pictures) * 20 * 30 * 3).astype(np.uint8).reshape(-1, 20, 30, 3)
    encoded = out.create_dataset("encoded", (len(pictures),), dtype=h5py.special_dtype(vlen=np.uint8))
    for n, data in enumerate(pictures):
        encoded[n] = np.frombuffer(data, np.uint8)
    out["names"] = np.array([b"dog", b"cat"] * (len(pictures) // 2))
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every format, in the folder of a bucket."""
    folder = tmp_path_factory.mktemp("tfio") / "bucket"
    (folder / "cats").mkdir(parents=True)
    for n in range(RECORDS):
        (folder / "cats" / f"{n}.jpg").write_bytes(picture(n))
    avro_file(folder / "a.avro")
    (folder / "a.lmdb").write_bytes(LMDB)
    with av.open(str(folder / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for n in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * n, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    rows = {
        "image": [picture(n) for n in range(RECORDS)],
        "label": ["dog", "cat"] * 5,
        "id": [f"a.{n}" for n in range(RECORDS)],
    }
    rows["video"] = [(folder / "v.mp4").read_bytes()] * RECORDS
    rows["gaps"] = [None if n % 3 else "x" for n in range(RECORDS)]
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "a.parquet", row_group_size=4)
    python = environment(ENVIRONMENT, print)
    pictures = [str(folder / "cats" / f"{n}.jpg") for n in range(RECORDS)]
    subprocess.run([python, "-c", OTHERS, str(folder), *pictures], check=True, capture_output=True, timeout=800)
    return folder


CASES = {
    "tfrecord": (["{}/a.tfrecord", "{}/b.tfrecord", "--image", "image", "--label", "label"], 20, ["0", "1"]),
    "parquet": (["{}/a.parquet", "--image", "image", "--label", "label", "--key", "id"], 10, ["cat", "dog"]),
    "avro": (["{}/a.avro", "--image", "image", "--label", "label", "--key", "n"], 10, ["cat"]),
    "lmdb": (["{}/a.lmdb", "--image", "value"], 3, []),
    "hdf5, encoded": (["{}/a.h5", "--image", "encoded", "--label", "names"], 10, ["cat", "dog"]),
    "hdf5, pixels": (["{}/a.h5", "--image", "/pixels"], 10, []),
    "files": (["{}/cats/*.jpg"], 10, ["cats"]),
    "video": (["{}/a.parquet", "--video", "video", "--size", "28", "--frames", "8", "--gop", "4"], 10, []),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.parametrize("case", list(CASES))
def test_every_format_is_read_for_real(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, where: str
) -> None:
    arguments, count, classes = CASES[case]
    with serving(material.parent) as server:
        base = str(material)
        if where == "s3":
            base = "s3://bucket"
            for name, value in {"ENDPOINT": server.url, "USE_HTTPS": "0", "VERIFY_SSL": "0"}.items():
                monkeypatch.setenv(f"S3_{name}", value)
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "anything")
        given = [argument.format(base) for argument in arguments]
        assert import_tfio.main([*given, "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    shards = ShardSet.open(tmp_path / "out")
    assert len(shards) == count and shards.classes == classes
    assert shards.kind == ("video" if case == "video" else "image")
    record = shards.record(1)
    if case in ("parquet", "files", "avro"):
        assert record.image == picture(1)
    if case == "parquet":
        assert record.key.endswith("000000001_a%2E1") and record.label == "cat"
    if case == "hdf5, pixels":
        wanted = np.arange(600 * 3, 1200 * 3).astype(np.uint8).reshape(20, 30, 3)
        np.testing.assert_array_equal(decode_image(record), wanted)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/a.parquet", "--image", "imge"], "has no column imge; it has gaps, id, image, label, video"),
        (["{}/a.parquet", "--image", "image", "--label", "gaps"], "a.parquet, column gaps, rows 0 to 9: .*ended by SIG"),
        (["{}/nothing.avro", "--image", "x"], "nothing.avro"),
        (["{}/*.nothing", "--format", "avro", "--image", "x"], "matches no file"),
        (["{}/a.parquet", "--format", "avro", "--image", "x"], "is no Avro container file"),
    ],
)
def test_what_cannot_be_read_is_named(material: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    given = [argument.format(material) for argument in arguments]
    with pytest.raises((BadClip, Unavailable), match=words):
        import_tfio.main([*given, "--out", str(tmp_path / "out"), "--workers", "0"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_was_stopped_goes_on_after_the_last_part(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_tfio, "_RECORDS_PER_PART", 4)
    arguments = [str(material / "a.parquet"), str(material / "a.parquet"), "--image", "image", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        import_tfio.main([*arguments, "--no-such-option"])
    work = tmp_path / "out" / ".import"
    progress = json.loads((work / "progress.json").read_text())
    assert [part["records"] for part in progress["parts"]] == [4] * 5
    before = {path.name: path.read_bytes() for path in (work / "parts").iterdir()}
    cut = {**progress, "parts": progress["parts"][:3], "input": 1, "row": 2, "records": 12, "finished": False}
    (work / "progress.json").write_text(json.dumps(cut))
    with pytest.raises(SystemExit):
        import_tfio.main([*arguments, "--no-such-option"])
    assert {path.name: path.read_bytes() for path in (work / "parts").iterdir()} == before
