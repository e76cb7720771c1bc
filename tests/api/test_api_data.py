"""Shards, batches and lists through the front door, compared with the files that they were made from."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clips import BUDGET, SIZE_PX
from synthetic import CLASSES, RECORDS

import ove
from ove.errors import BadClip, BadInput, ConfigError
from ove.shards.shard_set import ShardSet


@pytest.fixture(scope="module")
def shards(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    samples: list[Any] = [(str(path), path.parent.name) for path in videos[:2]]
    samples += [{"path": videos[2], "label": "first half", "start_s": 0, "end_s": 2}, out / "missing.mp4"]
    summary = ove.write_shards(out, samples, size=SIZE_PX, workers=0, sampling="consecutive")
    assert (summary.n_good, len(summary.bad)) == (3, 1) and "missing.mp4" in summary.bad[0].reason
    assert ove.write_shards(out, samples, size=SIZE_PX, workers=0, sampling="consecutive").n_earlier == 4
    return out


def test_samples_become_records_with_their_labels(shards: Path, videos: list[Path]) -> None:
    found = ShardSet.open(shards)
    assert dict(found.names) == {
        str(videos[0]): videos[0].parent.name,
        str(videos[1]): videos[1].parent.name,
        str(videos[2]): "first half",
    }
    half = next(found.video(index) for index in range(3) if found.names[index][1] == "first half")
    assert half.pts_s.max() < 2  # the list's span was kept


def test_batches_hold_what_reading_the_files_gives(shards: Path, videos: list[Path]) -> None:
    (batch,) = ove.batches(shards, batch_size=4, budget=BUDGET)
    assert batch["patches"].shape == (3, BUDGET, 588) and sorted(batch["keys"]) == sorted(str(path) for path in videos[:3])
    at = batch["keys"].index(str(videos[0]))
    assert batch["labels"].tolist() == [ShardSet.open(shards).classes.index(name) for _, name in ShardSet.open(shards).names]
    direct = ove.read(videos[0], size=SIZE_PX, budget=BUDGET, sampling="consecutive")
    same = [(batch["positions"][at] == position).all(axis=1).any() for position in direct.positions]
    assert np.mean(same) > 0.95  # saliency is stored in half precision
    error = np.abs(batch["patches"][at, :16].astype(int) - direct.patches[:16])  # the first frame, whole in both
    assert error.mean() < 6  # JPEG


def test_epochs_are_whole_and_shuffled_by_the_seed(shard_folder: Path) -> None:
    def keys(**options: Any) -> list[str]:
        return [
            key
            for batch in ove.batches(shard_folder, batch_size=7, gop_frames=4, budget=16, **options)
            for key in batch["keys"]
        ]

    plain, shuffled = keys(), keys(shuffle=True, epochs=2)
    assert plain == [f"{number:04d}" for number in range(RECORDS)]
    assert Counter(shuffled) == Counter(2 * plain) and set(shuffled[:RECORDS]) == set(plain)
    assert shuffled[:RECORDS] != shuffled[RECORDS:] != plain
    assert keys(shuffle=True, epochs=2) == shuffled != keys(shuffle=True, epochs=2, seed=1)
    assert len(keys(drop_last=True)) == RECORDS // 7 * 7


def test_the_labels_index_the_classes(shard_folder: Path) -> None:
    for batch in ove.batches(shard_folder, mode="frames"):
        level = batch["patches"].astype(float).mean(axis=(1, 2))
        assert batch["labels"].tolist() == [CLASSES.index("light" if one > 120 else "dark") for one in level]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size = 0 must be at least 1"),
        ({"mode": "best"}, "mode = 'best' is none of codec, frames, tiling, image"),
        ({"budget": 10**6}, "1000000"),
        ({"iframe": "keep"}, r"unexpected argument iframe; did you mean iframe_policy\?"),
        ({"bach_size": 3}, r"unexpected argument bach_size; did you mean batch_size\?"),
        ({"qqq": 3}, "unexpected argument qqq; known: batch_size, mode, budget, .*, threads, rule, gop_frames"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(shard_folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ove.batches(shard_folder, **({"gop_frames": 4} | options))


def test_a_split_keeps_the_proportions_of_the_classes(tmp_path: Path) -> None:
    pairs = [(f"{label}/{number}.mp4", label) for label, count in (("a", 10), ("b", 5), ("c", 2)) for number in range(count)]
    train, val = ove.split(pairs, val_share=0.2, out=tmp_path)
    assert Counter(label for _, label in val) == {"a": 2, "b": 1, "c": 1}
    assert sorted(train + val) == sorted((str(Path(path).absolute()), label) for path, label in pairs)
    assert ove.split(reversed(pairs), val_share=0.2) == (train, val) != ove.split(pairs, val_share=0.2, seed=1)
    assert (tmp_path / "val.csv").read_text().splitlines() == ["path,label", *(f"{path},{label}" for path, label in val)]


def test_a_split_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"b\.mp4: has no class name"):
        ove.split([("a.mp4", "a"), "b.mp4"])
    with pytest.raises(BadInput, match=r"class a has one file, .*a\.mp4"):
        ove.split([("a.mp4", "a")])
    with pytest.raises(ConfigError, match="val_share = 1 must be between 0 and 1"):
        ove.split([], val_share=1)


@pytest.mark.parametrize("sample", [3, ("a", "b", "c"), {"file": "a.mp4"}])
def test_what_is_no_sample_is_named(tmp_path: Path, sample: Any) -> None:
    with pytest.raises(BadInput, match="is neither a path, a pair"):
        ove.write_shards(tmp_path, [sample])


def test_shards_are_not_written_to_a_folder_named_like_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="out = s3://bucket/shards: results are written on this machine only"):
        ove.write_shards("s3://bucket/shards", ["a.mp4"])
    assert not list(tmp_path.iterdir())


def test_classes_and_paths_may_be_named_otherwise(tmp_path: Path) -> None:
    for name in ("a/run/x/1.mp4", "a/run/x/2.mp4", "b/jump/x/1.mp4", "b/jump/x/2.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    halves = [(f"{place}/x", place.split("/")[1]) for place in ("a/run", "b/jump")]
    for part in ove.split(tmp_path / "videos", val_share=0.5, label_folder=2):
        assert sorted((Path(path).parent, label) for path, label in part) == [
            (tmp_path / "videos" / place, label) for place, label in halves
        ]
    (tmp_path / "list.csv").write_text("clip,verb,label\n" + "".join(f"{n}.mp4,{'pq'[n % 2]},z\n" for n in range(4)))
    rows = [{"clip": f"{n}.mp4", "verb": "pq"[n % 2], "label": "z"} for n in range(4)]
    named: dict[str, Any] = {"path_column": "clip", "label_column": "verb", "root": tmp_path / "elsewhere"}
    expected = [(str(tmp_path / "elsewhere" / f"{n}.mp4"), "pq"[n % 2]) for n in range(4)]
    for samples in (tmp_path / "list.csv", rows, [(row["clip"], row["verb"]) for row in rows]):
        train, val = ove.split(samples, val_share=0.5, **named)
        assert sorted(train + val) == expected
    with pytest.raises(BadInput, match="has no key noun, but clip, verb, label"):
        ove.split(rows, path_column="clip", label_column="noun")
    with pytest.raises(BadClip, match=r"list\.csv: has no column noun, but clip, verb, label"):
        ove.split(tmp_path / "list.csv", path_column="clip", label_column="noun")
    assert [part[0][1] for part in ove.split(["x/p/1.mp4", "y/p/2.mp4"], label_folder=1)] == ["p", "p"]


def test_lines_of_a_list_that_name_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,a\nb.mp4,a\na.mp4,a\n")
    with pytest.raises(BadInput, match=r"list\.csv: line 4: names a\.mp4 a second time.*; correct the list"):
        ove.split(tmp_path / "list.csv")


def test_shards_take_their_classes_from_other_columns_and_folders(videos: list[Path], tmp_path: Path) -> None:
    root = videos[0].parents[1]
    first, second = (path.relative_to(root).as_posix() for path in videos[:2])
    (tmp_path / "list.csv").write_text(f"file name,action\n{first},\n{second},jump\n")
    own: dict[str, Any] = {"path_column": "file name", "label_column": "action"}
    quick: dict[str, Any] = {"size": SIZE_PX, "workers": 0, "sampling": "consecutive"}
    with pytest.raises(ConfigError, match=rf"list\.csv: {first} has fewer than 2 folders"):
        ove.write_shards(tmp_path / "1", tmp_path / "list.csv", label_folder=2, root=root, **own, **quick)
    ove.write_shards(tmp_path / "1", tmp_path / "list.csv", root=root, **own, **quick)
    assert dict(ShardSet.open(tmp_path / "1").names) == {first: None, second: "jump"}
    rows = [{"file name": str(videos[0]), "action": ""}, {"file name": videos[1], "action": "jump"}]
    ove.write_shards(tmp_path / "2", rows, label_folder=1, **own, **quick)
    assert dict(ShardSet.open(tmp_path / "2").names) == {str(videos[0]): videos[0].parent.name, str(videos[1]): "jump"}


def test_a_script_without_a_guard_is_told_so(videos: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import ove\nove.write_shards('out', [({str(videos[0])!r}, 'a')], size=56)\n")
    environment = os.environ | {"PYTHONPATH": str(Path(ove.__file__).parents[1])}
    made = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert made.returncode == 1
    last = made.stderr.strip().splitlines()[-1]
    assert last.startswith("ove.errors.ConfigError: worker processes import your script") and "__main__" in last
    assert made.stderr.count("Traceback") == 1


@pytest.mark.parametrize("samples", [None, 3])
def test_what_cannot_be_gone_through_is_refused(tmp_path: Path, samples: Any) -> None:
    for call in (lambda: ove.write_shards(tmp_path, samples), lambda: ove.split(samples)):
        with pytest.raises(BadInput, match="give a folder, a list file, or an iterable"):
            call()
    with pytest.raises(BadInput, match="samples is empty"):
        ove.split([])


def test_a_finished_set_of_other_samples_or_settings_is_not_replaced(shards: Path, videos: list[Path], tmp_path: Path) -> None:
    out, quick = tmp_path / "out", {"size": SIZE_PX, "workers": 0}
    ove.write_shards(out, [(videos[0], "a")], **quick)  # type: ignore[arg-type]
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    for samples, options, said in (
        ([(videos[1], "a")], {}, "holds 1 records"),
        ([(videos[0], "a")], {"sampling": "consecutive"}, "sampling = 'uniform', not 'consecutive'"),
    ):
        with pytest.raises(ConfigError, match=rf"{said}.* Give another folder, or replace=True to write the set anew"):
            ove.write_shards(out, samples, **quick, **options)  # type: ignore[arg-type]
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    ove.write_shards(out, [(videos[1], "a")], replace=True, **quick)  # type: ignore[arg-type]
    assert dict(ShardSet.open(out).names) == {str(videos[1]): "a"}


def test_settings_of_shards_are_taken_where_they_matter(videos: list[Path], tmp_path: Path) -> None:
    sizes = []
    for quality in (50, 92):
        out = tmp_path / str(quality)
        ove.write_shards(out, [(videos[0], "a")], size=SIZE_PX, workers=0, jpeg_quality=quality)
        sizes.append(sum(map(len, ShardSet.open(out).video(0).frames)))
    assert sizes[0] < 0.6 * sizes[1]
