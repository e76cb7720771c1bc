"""Keys and class names come from the index, which agrees with the records, or is refused."""

import json
from pathlib import Path

import pytest
from test_shards_write import _write

from launch import show
from ove.errors import BadShard
from ove.shards.manifest import MANIFEST, read_manifest
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify


@pytest.fixture
def folder(video_folder: Path, tmp_path: Path) -> Path:
    _write(video_folder, tmp_path / "shards")
    return tmp_path / "shards"


def of_records(shards: ShardSet) -> tuple[tuple[str, str | None], ...]:
    return tuple((record.key, record.label) for record in map(shards.record, range(len(shards))))


def test_names_are_those_of_the_records_and_none_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = of_records(ShardSet.open(folder))
    assert len(set(expected)) == len(expected) > 3 and {label for _, label in expected} != {None}
    monkeypatch.setattr(ShardSet, "bytes_at", lambda self, index: pytest.fail("a record was read"))
    assert ShardSet.open(folder).names == expected
    assert show.find(ShardSet.open(folder), range(len(expected)), expected[-1][0]) == len(expected) - 1


def test_a_second_run_writes_the_same_index(video_folder: Path, folder: Path) -> None:
    before = (folder / "index.jsonl").read_bytes()
    (folder / MANIFEST).unlink()
    (folder / "index.jsonl").unlink()
    _write(video_folder, folder)
    assert (folder / "index.jsonl").read_bytes() == before


def test_a_second_run_mends_a_damaged_index(video_folder: Path, folder: Path) -> None:
    before = (folder / "index.jsonl").read_bytes()
    (folder / "index.jsonl").write_bytes(before.replace(b"key", b"kez", 1))
    _write(video_folder, folder)
    assert (folder / "index.jsonl").read_bytes() == before
    assert ShardSet.open(folder).names == of_records(ShardSet.open(folder))


def test_a_set_of_an_earlier_version_is_read_and_finished_without_an_index(video_folder: Path, folder: Path) -> None:
    expected = of_records(ShardSet.open(folder))
    for marker in folder.glob("*.done.json"):
        marker.write_text(json.dumps({key: value for key, value in json.loads(marker.read_text()).items() if key != "names"}))
    before = {path: path.read_bytes() for path in folder.glob("*.arrayrecord")}
    _write(video_folder, folder)
    assert {path: path.read_bytes() for path in folder.glob("*.arrayrecord")} == before  # nothing is made again
    assert not (folder / "index.jsonl").exists() and read_manifest(folder).index == ""
    (folder / MANIFEST).unlink()
    _write(video_folder, folder)  # once more, when there is no index to take away
    assert not (folder / "index.jsonl").exists() and read_manifest(folder).index == ""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["index"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert ShardSet.open(folder).names == expected and not verify(folder).problems


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "index.jsonl: is missing, though the manifest lists it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not what was written"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"key", b"kez", 1)), "is not what was written"),
    ],
)
def test_a_damaged_index_is_named(folder: Path, damage, reason: str) -> None:
    damage(folder / "index.jsonl")
    with pytest.raises(BadShard, match=reason):
        _ = ShardSet.open(folder).names
    (problem,) = verify(folder).problems
    assert problem.file == "index.jsonl" and reason in problem.reason


@pytest.mark.parametrize("line", ["[]", "{}", '{"key": "a", "label": 3}', "x", ""])
def test_a_hostile_index_is_refused_with_its_own_checksum(folder: Path, line: str) -> None:
    from ove.files import sha256_of

    path = folder / "index.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], line]) + "\n")
    manifest = json.loads((folder / MANIFEST).read_text()) | {"index": sha256_of(path)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BadShard, match=r"index\.jsonl: (is not a list of names|has \d+ names of \d+ records)"):
        _ = ShardSet.open(folder).names


def test_verify_compares_the_index_with_the_records(folder: Path) -> None:
    from ove.files import sha256_of

    path = folder / "index.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text().replace(json.dumps(first), json.dumps(first | {"label": "other"})))
    manifest = json.loads((folder / MANIFEST).read_text()) | {"index": sha256_of(path)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (problem,) = verify(folder).problems
    assert f"lacks the record {first['key']} of the class {first['label']}" in problem.reason
