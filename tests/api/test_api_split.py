"""Lists that `ove.split` makes with groups, checked file by file."""

import csv
import itertools
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ove
from ove.errors import BadClip, BadInput, ConfigError

Rows = list[dict[str, Any]]


@pytest.fixture
def rows() -> Rows:
    """90 clips of 30 source videos, which hold 1 to 5 clips of one or two of three classes."""
    rng = np.random.default_rng(0)
    sources = [
        (f"v{number}", rng.permutation(["a", "b", "c"])[: 1 + number % 2].tolist(), int(rng.integers(1, 6)))
        for number in range(30)
    ]
    return [
        {"path": f"clips/{source}_{clip}.mp4", "label": names[clip % len(names)], "video": source}
        for source, names, n_clips in sources
        for clip in range(n_clips)
    ]


def source_of(path: str) -> str:
    return Path(path).stem.split("_")[0]


@pytest.mark.parametrize("how", ["mappings", "list", "json lines", "function"])
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_on_both_sides(rows: Rows, how: str, seed: int, tmp_path: Path) -> None:
    samples: Any = iter(rows)
    groups: Any = "video"
    if how == "list":
        samples = tmp_path / "list.csv"
        with samples.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["video", "path", "label"])
            writer.writeheader()
            writer.writerows(rows)
    elif how == "json lines":
        samples = tmp_path / "list.jsonl"
        samples.write_text("".join(str(row).replace("'", '"') + "\n" for row in rows))
    elif how == "function":
        samples, groups = ((row["path"], row["label"]) for row in rows), source_of
    found = ove.split(samples, groups=groups, seed=seed, val_share=0.25)
    train, val = found
    for (first, _), (second, _) in itertools.product(train, val):
        assert source_of(first) != source_of(second)
    assert Counter((Path(path).name, label) for path, label in train + val) == Counter(
        (Path(row["path"]).name, row["label"]) for row in rows
    )
    total, scored = Counter(row["label"] for row in rows), Counter(label for _, label in val)
    assert found.shares == {name: scored[name] / total[name] for name in "abc"}
    assert found.off == max(abs(scored[name] / total[name] - 0.25) for name in "abc") < 0.04
    worst = max(found.shares, key=lambda name: found.shares[name])
    assert f"{found.shares[worst]:.1%} ({worst}) to score on, 25.0% asked for" in str(found)
    assert found == ove.split(rows, groups="video", seed=seed, val_share=0.25) or how in ("list", "json lines")


def test_a_split_is_two_lists_and_can_be_stored(rows: Rows) -> None:
    found = ove.split(rows)
    assert isinstance(found, ove.Split) and (found.train, found.val) == tuple(found)
    again = pickle.loads(pickle.dumps(found))
    assert again == found and again.shares == found.shares and again.off == found.off


def test_groups_that_cannot_be_divided_are_named(rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,a\nb.mp4,a\n")
    with pytest.raises(BadInput, match=r"class a has one group, x; give each class files of at least two groups"):
        ove.split([("1.mp4", "a"), ("2.mp4", "a")], groups=lambda path: "x")
    one_source_of_all = [
        ("1.mp4", "a", "x"),
        ("2.mp4", "b", "x"),
        ("3.mp4", "b", "y"),
        ("4.mp4", "c", "y"),
        ("5.mp4", "a", "z"),
        ("6.mp4", "c", "z"),
    ]
    samples = [{"path": path, "label": label, "of": group} for path, label, group in one_source_of_all]
    with pytest.raises(BadInput, match=r"groups: no division was found that leaves files of class . to (train|score) on"):
        ove.split(samples, groups="of")
    with pytest.raises(BadInput, match=r"groups: .*1\.mp4 is in the group None; give each file the name of one"):
        ove.split([("1.mp4", "a"), ("2.mp4", "a")], groups="video")
    with pytest.raises(BadInput, match=r"groups: .*1\.mp4 is in the group \['1'\]"):
        ove.split([("1.mp4", "a"), ("2.mp4", "a")], groups=lambda path: [Path(path).stem])
    with pytest.raises(BadClip, match=r"list\.csv: has no column video, but path, label"):
        ove.split(tmp_path / "list.csv", groups="video")
    for number in range(2):
        (tmp_path / "videos" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / "a" / f"{number}.mp4").touch()
    with pytest.raises(ConfigError, match=r"groups = 'video' names a column, but .*videos has none; give a function"):
        ove.split(tmp_path / "videos", groups="video")
    with pytest.raises(KeyError, match="mine"):
        ove.split(rows, groups=lambda path: {}["mine"])
