"""Shards, batches and lists through the front door, compared with the files that they were made from."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clips import BUDGET, SIZE_PX
from synthetic import CLASSES, RECORDS

import ove
from ove.errors import BadInput, ConfigError
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
    for batch in ove.batches(shard_folder, mode="frames", gop_frames=4):
        level = batch["patches"].astype(float).mean(axis=(1, 2))
        assert batch["labels"].tolist() == [CLASSES.index("light" if one > 120 else "dark") for one in level]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size = 0 must be at least 1"),
        ({"mode": "best"}, "mode = 'best' does not fit"),
        ({"budget": 10**6}, "1000000"),
        ({"iframe": "keep"}, "selection.iframe"),
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
    with pytest.raises(ConfigError, match="s3://bucket/shards: shards are written on this machine only"):
        ove.write_shards("s3://bucket/shards", ["a.mp4"])
    assert not list(tmp_path.iterdir())
