"""Names read from files or from the network never become paths out of their folder, wherever they are read."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remote_servers import serving
from synthetic import write_set

from ove.config import ShardsConfig
from ove.encoder.published.weight_files import find_weights
from ove.errors import BadCheckpoint, BadClip, BadShard, OveError
from ove.features.feature_file import is_feature_file
from ove.labels.clusters.kmeans import kmeans
from ove.paths import inside
from ove.shards.labels import read_centers, read_labels
from ove.shards.manifest import read_manifest
from ove.shards.markers import read_group
from ove.shards.shard_set import ShardSet
from ove.sources.inputs import find_inputs, read_input

HOSTILE = {
    "absolute": "/tmp/evil",
    "above": "../evil",
    "far above": "../../../../evil",
    "above by a detour": "a/../../evil",
    "empty": "",
    "the folder": ".",
    "the folder above": "..",
    "a folder": "evil/",
    "NUL": "evil\0.bin",
    "newline": "evil\n.bin",
    "line separator": "evil\u2028.bin",
    "long": "e" * 300,
    "long in bytes": "é" * 128,
    "backslash": "..\\evil",
    "drive": "C:\\evil",
    "hidden": ".lease",
    "not UTF-8": "caf\udce9",
    "number": 7,
    "nothing": None,
    "list": ["evil"],
}
every = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


@every
@pytest.mark.parametrize("nested", [False, True])
def test_a_hostile_name_is_refused_with_its_source(name: object, nested: bool, tmp_path: Path) -> None:
    with pytest.raises(BadShard, match=r"^manifest\.json: names the file .*; it is not used") as caught:
        inside(tmp_path, name, "manifest.json", BadShard, nested)
    assert len(str(caught.value)) < 350 and str(caught.value).isprintable()


def test_usual_names_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("shard-00000.arrayrecord", "vid.labels-0a1b.npy", "Ünï cödé 動画.mp4", "a[b]*?.bin", "..evil"[2:], "e" * 255):
        assert inside(tmp_path, name, "x", BadShard) == tmp_path / name
    with pytest.raises(BadShard, match="lies in another folder"):
        inside(tmp_path, "a/b.mp4", "x", BadShard)
    assert inside(tmp_path, "a/b.mp4", "x", BadShard, nested=True) == tmp_path / "a" / "b.mp4"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("names") / "shards")


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "deep" / "down" / "shards"))


def _change(path: Path, change: Callable[[dict], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@every
def test_of_shards_in_a_manifest(name: object, copied: Path) -> None:
    _change(copied / "manifest.json", lambda values: values["shards"][0].update(file=name))
    with pytest.raises(BadShard, match=r"manifest\.json: (names the file|is damaged)"):
        read_manifest(copied)


@pytest.mark.parametrize("name", ["{tmp}/evil.pth", "../../evil.pth", "..%2f..%2fevil.pth", "a/../../../evil.pth"])
def test_of_a_remote_manifest_write_nothing_outside_of_the_cache(
    name: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVE_CACHE", str(tmp_path / "cache" / "in" / "side"))
    monkeypatch.setenv("OVE_ATTEMPTS", "1")
    _change(copied / "manifest.json", lambda values: values["shards"][0].update(file=name.format(tmp=tmp_path)))
    before = {path for path in tmp_path.rglob("*") if tmp_path / "cache" not in path.parents}
    with serving(copied) as server, pytest.raises(OveError, match=f"^{server.url}/"):
        ShardSet.open(server.url).record(0)
    assert {path for path in tmp_path.rglob("*") if tmp_path / "cache" not in path.parents} - before <= {tmp_path / "cache"}
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert all(tmp_path / "cache" / "in" / "side" in path.parents and "evil" not in path.name for path in kept)


@every
@pytest.mark.parametrize(("which", "read"), [("labels", read_labels), ("centers", read_centers)])
def test_of_label_files(name: object, which: str, read: Callable, copied: Path) -> None:
    _change(copied / "labels" / "obj.json", lambda values: values[which].update(file=name))
    with pytest.raises(BadShard, match=r"obj\.json: (names the file|is damaged)"):
        read(copied, "obj")


@every
def test_of_files_in_an_index_of_weights(name: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(BadCheckpoint, match=r"names the file|is not an index of weights"):
        find_weights(tmp_path, lambda _: True)


@pytest.mark.parametrize("name", ["/etc/hostname", "../photo.png", "a/../../photo.png", "photo\0.png", "..\\photo.png"])
def test_of_files_that_a_parquet_file_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"private")
    (tmp_path / "data").mkdir()
    table = pa.table({"image": [{"bytes": None, "path": name}, {"bytes": None, "path": "pictures/1.png"}]})
    pq.write_table(table, tmp_path / "data" / "rows.parquet")
    config = ShardsConfig()
    hostile, harmless = find_inputs(tmp_path / "data" / "rows.parquet", "image", config, tmp_path / "scratch").files
    with pytest.raises(BadClip, match=r"rows\.parquet: names the file"):
        read_input(hostile, "image", config)
    assert read_input(harmless, "image", config).media == tmp_path / "data" / "pictures" / "1.png"


@pytest.mark.parametrize("name", [name for name in HOSTILE.values() if isinstance(name, str)])
def test_of_the_shard_in_a_marker(name: str, tmp_path: Path) -> None:
    marker = {
        "inputs": "same", "shard": {"file": name, "records": 1, "bytes": 4, "sha256": ""}, "form": None, "classes": [],
        "banks": {}, "bad": [],
    }  # fmt: skip
    (tmp_path / "shard-00000.done.json").write_text(json.dumps(marker))
    assert read_group(tmp_path, 0, "same") is None
    (tmp_path / "shard-00000.arrayrecord").write_bytes(b"1234")
    assert read_group(tmp_path, 0, "same") is None
    _change(tmp_path / "shard-00000.done.json", lambda values: values["shard"].update(file="shard-00000.arrayrecord"))
    assert read_group(tmp_path, 0, "same") is not None


def test_of_the_centers_of_an_interrupted_k_means(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    kmeans(rows, 3, 2, 0, workdir=tmp_path, identity="same")
    _change(tmp_path / "kmeans.json", lambda values: values.update(file="../other.npy"))
    with pytest.raises(BadShard, match=r"kmeans\.json: names the file '\.\./other\.npy'"):
        kmeans(rows, 3, 2, 0, workdir=tmp_path, identity="same")


_DEEP = "x/" * 200
MEMBERS = (
    "/evil.png",
    "../evil.png",
    "a/../../e.png",
    "..\\evil.png",
    f"{_DEEP}evil.png",
    "a\n.png",
    ".hidden.png",
    "c.d/e.png",
)


def test_of_members_of_archives_are_only_keys(tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    with tarfile.open(deep / "evil.tar.gz", "w:gz") as tar:
        for name in MEMBERS:
            member = tarfile.TarInfo(name)
            member.size = len(picture)
            tar.addfile(member, io.BytesIO(picture))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    found = find_inputs(deep / "evil.tar.gz", "image", ShardsConfig(), deep / "scratch")
    read = [read_input(file, "image", ShardsConfig()).media for file in found.files]
    assert read == [picture] * len(read) and 5 <= len(read) < len(MEMBERS) + 1
    assert sorted(path.relative_to(tmp_path).parts[:4] for path in tmp_path.rglob("*") if path.is_file()) == [
        ("a", "b", "c", "evil.tar.gz"),
        ("a", "b", "c", "scratch"),
    ]


def test_of_members_of_a_feature_file_are_not_unpacked(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros(2, np.float32))
    with zipfile.ZipFile(tmp_path / "evil.npz", "w") as archive:
        for name in ("files.npy", "weights.npy", "settings.npy", "../evil.npy", "/evil.npy"):
            archive.writestr(name, array.getvalue())
    assert is_feature_file(tmp_path / "evil.npz")
    with np.load(tmp_path / "evil.npz") as found:
        assert [found[name].shape for name in found] == [(2,)] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["evil.npz"]


def test_of_members_of_a_torch_file_are_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        for name in ("../evil/data.pkl", "/evil/version", "../evil/data/0"):
            archive.writestr(name, b"3")
    with pytest.raises(BadCheckpoint):
        find_weights(tmp_path / "evil.pt", lambda _: True)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]
