"""Embeddings in files: taken up after a kill, shared among machines, of clips and pictures, some of which cannot be read."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import image_record_of, write_image_set

import ove.labels.clusters.search
from ove.config import LabelsConfig
from ove.errors import BadShard, ConfigError
from ove.labels.clusters.assign import nearest
from ove.labels.embed import Embedded, embed_shards, open_embeddings
from ove.labels.label import LabelChunks, kept_points, label_records
from ove.labels.parts import WHOLE, name_of
from ove.labels.teachers.teacher import Thumbnails, teacher_identity
from ove.labels.teachers.thumbnails import thumbnail_image
from ove.shards.pictures import encode_png
from ove.shards.schema import ImageRecord, decode_image
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile

Write = Callable[[Path, int], None]
CONFIG = LabelsConfig(chunk_records=5)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _open(out: Path, shards: ShardSet, teacher: Thumbnails) -> Embedded:
    return open_embeddings(out, shards, "obj", teacher_identity(CONFIG), "float32")


def test_killed_and_started_again_gives_the_same_bytes(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path / "set", 17)
    shards, teacher = ShardSet.open(tmp_path / "set"), Thumbnails()
    assert embed_shards(shards, "vid", teacher, tmp_path / "whole", CONFIG) == 17
    told: list[tuple[int, int]] = []

    def kill(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 9:  # in the middle of the second file: it tells of each record, and of each file
            raise KeyboardInterrupt

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        embed_shards(shards, "vid", teacher, killed, CONFIG, progress=kill)
    first = next(killed.glob("chunk-*"))
    half = first.name.replace("000000", "000001")
    first.with_name(f".{half}.{name_of(WHOLE)}.tmp").write_bytes(b"half of a file")
    written = first.stat().st_mtime_ns
    with pytest.raises(BadShard, match=r"lacks 3 of 4 files of embeddings.*run `ove labels embed"):
        open_embeddings(killed, shards, "vid", teacher_identity(CONFIG), "float32")
    assert embed_shards(shards, "vid", teacher, killed, CONFIG, progress=lambda done, total: told.append((done, total))) == 12
    assert first.stat().st_mtime_ns == written and told[-1] == (17, 17)
    assert _bytes(killed) == _bytes(tmp_path / "whole")
    assert embed_shards(shards, "vid", teacher, killed, CONFIG) == 0


def _embed_part(folder: Path, out: Path, part: int) -> None:
    shards = ShardSet.open(folder)
    embed_shards(shards, "obj", Thumbnails(), out, CONFIG, (part, 3))


def test_parts_together_are_the_whole_in_whatever_order(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path / "set", 17)
    embed_shards(ShardSet.open(tmp_path / "set"), "obj", Thumbnails(), tmp_path / "whole", CONFIG)
    for part in (2, 0, 1):
        _embed_part(tmp_path / "set", tmp_path / "parts", part)
    assert _bytes(tmp_path / "parts") == _bytes(tmp_path / "whole")


def test_parts_that_begin_at_once_do_not_harm_each_other(
    write_kinds: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_kinds(tmp_path / "set", 17)
    folder, out = tmp_path / "set", tmp_path / "parts"
    _embed_part(folder, tmp_path / "whole", 0)

    def second_comes_between(temporary: Path, path: Path, replace: Callable[..., None] = os.replace) -> None:
        """The other part begins and ends between the writing of a file and its renaming."""
        monkeypatch.setattr(os, "replace", replace)
        for other in (1, 2):
            _embed_part(folder, out, other)
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", second_comes_between)
    _embed_part(folder, out, 0)
    embed_shards(ShardSet.open(folder), "obj", Thumbnails(), tmp_path / "whole", CONFIG)
    assert _bytes(out) == _bytes(tmp_path / "whole")


def test_pictures_of_any_size_with_bad_ones_among_them(tmp_path: Path) -> None:
    sizes = {2: (1, 90), 3: (90, 1), 4: (200, 320)}

    def make(file: InputFile) -> ImageRecord:
        record = image_record_of(file)
        number = int(file.key)
        if number in sizes:
            height, width = sizes[number]
            picture = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            record = dataclasses.replace(record, image=encode_png(picture), height_px=height, width_px=width)
        return dataclasses.replace(record, image=record.image[:-40]) if number in (5, 6, 7, 8, 9, 11) else record

    shards, teacher = ShardSet.open(write_image_set(tmp_path / "set", 17, make)), Thumbnails()
    with pytest.raises(BadShard, match=r"5 of 5 records cannot be read \(record 5: 0005: is no whole .*max_bad_share = 0\.05"):
        embed_shards(shards, "obj", teacher, tmp_path / "work", CONFIG)
    embed_shards(shards, "obj", teacher, tmp_path / "work", dataclasses.replace(CONFIG, max_bad_share=1.0))
    found = _open(tmp_path / "work", shards, teacher)
    assert sorted(found.bad) == [5, 6, 7, 8, 9, 11]
    assert found.records.tolist() == [n for n in range(17) if n not in found.bad]
    assert len(np.unique(found.hashes, axis=0)) == 11
    assert found.pixels[2:5].tolist() == [90, 90, 64000]
    for place in (0, 2, 4, 10):
        wanted = thumbnail_image(decode_image(shards.image(int(found.records[place]))))
        np.testing.assert_array_equal(found.points.rows(np.array([place]))[0], wanted)
    labels = _labels(found, None, np.eye(3, found.points.width, dtype=np.float32), 2, 17, tmp_path / "work")
    assert np.flatnonzero((labels < 0).any(1)).tolist() == sorted(found.bad)


def test_where_nothing_can_be_read_it_says_so(tmp_path: Path) -> None:
    def make(file: InputFile) -> ImageRecord:
        record = image_record_of(file)
        return dataclasses.replace(record, image=record.image[:-40])

    shards, teacher = ShardSet.open(write_image_set(tmp_path / "set", 3, make)), Thumbnails()
    embed_shards(shards, "obj", teacher, tmp_path / "work", dataclasses.replace(CONFIG, max_bad_share=1.0))
    with pytest.raises(BadShard, match=r"none of its 3 records can be read"):
        _open(tmp_path / "work", shards, teacher)


def test_embeddings_of_something_else_are_not_used(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path / "set", 9)
    shards, teacher, out = ShardSet.open(tmp_path / "set"), Thumbnails(), tmp_path / "work"
    embed_shards(shards, "obj", teacher, out, CONFIG)
    with pytest.raises(BadShard, match="holds no embeddings of the bank obj"):
        _open(tmp_path, shards, teacher)
    with pytest.raises(BadShard, match="embeddings of other records"):
        open_embeddings(out, shards, "vid", teacher_identity(CONFIG), "float32")
    for identity, store in (({"teacher": "clip", "weights": "12"}, "float32"), (teacher_identity(CONFIG), "float16")):
        with pytest.raises(BadShard, match=r"made with .*thumbnails.*float32.* and the settings say .*with these settings"):
            open_embeddings(out, shards, "obj", identity, store)
    before = _open(out, shards, teacher).identity
    embed_shards(shards, "obj", teacher, out, dataclasses.replace(CONFIG, store="float16"))
    halves = open_embeddings(out, shards, "obj", teacher_identity(CONFIG), "float16")
    assert halves.points.dtype == np.float16 and halves.identity != before
    assert len(list(out.glob("chunk-*"))) == 2, "the old ones are gone, now that the new ones are whole"
    path = next(out.glob("chunk-*000000*"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadShard, match=r"is damaged .*delete it, then run"):
        open_embeddings(out, shards, "obj", teacher_identity(CONFIG), "float16")


def test_embeddings_stay_until_those_with_other_settings_are_whole(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path / "set", 9)
    shards, teacher, out = ShardSet.open(tmp_path / "set"), Thumbnails(), tmp_path / "work"
    embed_shards(shards, "obj", teacher, out, CONFIG)
    before = {path.name: path.read_bytes() for path in out.glob("chunk-*")}
    other = dataclasses.replace(CONFIG, store="float16")

    def interrupt(done: int, total: int) -> None:
        if done > CONFIG.chunk_records:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_shards(shards, "obj", teacher, out, other, progress=interrupt)
    assert (
        len(list(out.glob("chunk-*"))) > len(before)
        and before.items() <= {p.name: p.read_bytes() for p in out.glob("chunk-*")}.items()
    )
    assert embed_shards(shards, "obj", teacher, out, CONFIG) == 0, "back to the former settings, nothing is computed again"
    assert {path.name for path in out.glob("chunk-*")} == set(before)
    embed_shards(shards, "obj", teacher, out, other, part=(0, 2))
    assert set(before) < {path.name for path in out.glob("chunk-*")}, "a part of them is not the whole"
    embed_shards(shards, "obj", teacher, out, other, part=(1, 2))
    assert len(list(out.glob("chunk-*"))) == len(before) and not set(before) & {path.name for path in out.glob("chunk-*")}


def test_embeddings_that_are_not_finite_stop_it(write_kinds: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kinds(tmp_path / "set", 6)
    monkeypatch.setattr(Thumbnails, "embed", lambda self, prepared: np.full((len(prepared), 4), np.nan, np.float32))
    with pytest.raises(ConfigError, match=r"not finite for 5 of 5 samples, the first 0000; check its weights"):
        embed_shards(ShardSet.open(tmp_path / "set"), "obj", Thumbnails(), tmp_path / "work", CONFIG)
    assert not list((tmp_path / "work").glob("chunk-*"))


def _labels(found: Embedded, keep: np.ndarray | None, centers: np.ndarray, m: int, n: int, out: Path) -> np.ndarray:
    chunks = LabelChunks(found, kept_points(found, keep), centers, m, n, 4, "float32", out)
    label_records(chunks)
    return np.array(chunks.assembled())


@pytest.fixture
def embedded(write_kinds: Write, tmp_path: Path) -> Embedded:
    """Of 17 records, in `tmp_path / "work"`."""
    write_kinds(tmp_path / "set", 17)
    shards, teacher = ShardSet.open(tmp_path / "set"), Thumbnails()
    embed_shards(shards, "obj", teacher, tmp_path / "work", CONFIG)
    return _open(tmp_path / "work", shards, teacher)


def test_labels_are_made_in_pieces_each_once_whatever_the_parts(
    embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, centers = tmp_path / "work", np.random.default_rng(0).normal(size=(4, embedded.points.width)).astype(np.float32)
    keep = np.arange(17) % 5 != 1
    keep[8:12] = False  # a piece without any point
    chunks = LabelChunks(embedded, kept_points(embedded, keep), centers, 2, 17, 4, "float32", out)
    monkeypatch.setitem(ove.labels.clusters.search._TILES, "cpu", (8, 8))  # blocks that end elsewhere than pieces
    assert label_records(chunks, (1, 2)) == 8 and chunks.lacking() == [0, 2, 4]
    dates = [path.stat().st_mtime_ns for path in sorted(out.glob("labels-*"))]
    told: list[tuple[int, int]] = []
    assert label_records(chunks, progress=lambda done, total: told.append((done, total))) == 9
    assert told == [(3, 3), (3, 3), (3, 3)]
    assert not chunks.lacking() and label_records(chunks, (0, 2)) == 0
    assert [chunks.path(number).stat().st_mtime_ns for number in (1, 3)] == dates
    np.testing.assert_array_equal(chunks.assembled(), np.where(keep[:, None], nearest(embedded.points, centers, 2), -1))
    other = LabelChunks(embedded, kept_points(embedded, None), centers, 2, 17, 4, "float32", out)
    assert other.lacking() == [0, 1, 2, 3, 4]  # what lies there is of other records
    other.forget_others()
    assert not list(out.glob("labels-*")) and list(out.glob("chunk-*"))
    assert (_labels(embedded, np.zeros(17, bool), centers, 2, 17, out) == -1).all()
    assert not list(out.glob(".*.tmp"))


def test_labelling_goes_on_after_a_kill(embedded: Embedded, tmp_path: Path) -> None:
    out, centers = tmp_path / "work", np.random.default_rng(0).normal(size=(4, embedded.points.width)).astype(np.float32)
    chunks = LabelChunks(embedded, kept_points(embedded, None), centers, 2, 17, 4, "float32", out)

    def kill(done: int, total: int) -> None:
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_records(chunks, progress=kill)
    assert chunks.lacking() == [2, 3, 4]
    np.testing.assert_array_equal(_labels(embedded, None, centers, 2, 17, out), nearest(embedded.points, centers, 2))
    assert kept_points(embedded, np.arange(17) < 4).tolist() == [0, 1, 2, 3]
