"""Duplicates: sets against brute force, and planted copies of real pictures, cropped, encoded again, shifted."""

import json
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ove.labels.dedup
from ove.labels.clusters.points import as_points
from ove.labels.clusters.search import row_mesh
from ove.labels.dedup import Duplicates, find_duplicates
from ove.labels.dedup_report import read_kept, write_lists, write_report
from ove.labels.teachers.thumbnails import thumbnail_image


def _find(rows: np.ndarray, threshold: float | None = 0.9, pixels: np.ndarray | None = None, **more: object) -> Duplicates:
    numbers = np.arange(len(rows), dtype=np.uint64)
    pixels = np.ones(len(rows), np.int64) if pixels is None else pixels
    return find_duplicates(as_points(rows), np.stack([numbers, numbers], 1), pixels, threshold, **more)


@given(seed=st.integers(0, 999), count=st.integers(1, 40), threshold=st.sampled_from([0.3, 0.7, 0.95]))
@settings(max_examples=25, deadline=None)
def test_sets_are_what_brute_force_finds(seed: int, count: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    rows, pixels = rng.normal(size=(count, 4)), rng.integers(1, 4, count)
    rows[rng.random(count) < 0.1] = 0
    found = _find(rows, threshold, pixels)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(length > 0, length, 1)
    reach = (unit @ unit.T >= threshold) | np.eye(count, dtype=bool)
    for _ in range(count):
        reach = reach @ reach
    groups = {tuple(np.flatnonzero(row)) for row in reach if row.sum() > 1}
    assert {tuple(sorted(members.tolist())) for members in found.sets} == groups
    for members in found.sets:
        best = max(sorted(members.tolist()), key=lambda i: pixels[i])
        assert members[0] == best and found.keep[best] and not found.keep[members[1:]].any()
    assert found.keep.sum() == count - sum(len(g) - 1 for g in groups)


def test_equal_pixels_are_joined_without_looking_at_embeddings() -> None:
    hashes = np.array([[1, 2], [1, 3], [1, 2], [4, 4], [1, 2]], np.uint64)
    pixels = np.array([5, 5, 5, 5, 9])
    found = find_duplicates(as_points(np.eye(5)), hashes, pixels, None)
    assert [members.tolist() for members in found.sets] == [[4, 0, 2]]
    assert found.keep.tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(("block", "cells", "devices"), [(8, 1, 8), (40, 1, 1), (16, 6, 8)])
def test_blocks_cells_and_devices_do_not_matter(monkeypatch: pytest.MonkeyPatch, block: int, cells: int, devices: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(60, 16)), 3, axis=0) + 0.05 * rng.normal(size=(180, 16))
    rows = rows[rng.permutation(180)]
    wanted = _find(rows)
    assert len(wanted.sets) == 60
    monkeypatch.setattr(ove.labels.dedup, "_BLOCK", block)
    found = _find(rows, cells=cells, mesh=row_mesh(jax.devices()[:devices]))
    np.testing.assert_array_equal(found.pairs, wanted.pairs)
    np.testing.assert_array_equal(found.keep, wanted.keep)


def _planted(videos: list[Path]) -> tuple[list[np.ndarray], np.ndarray]:
    """Pieces of frames of real videos, of each a crop, another encoding and two shifts; and which are of one piece."""
    pictures, pieces = [], []
    for video in videos:
        reader = cv2.VideoCapture(str(video))
        reader.set(cv2.CAP_PROP_POS_FRAMES, 30)
        frame = cv2.resize(reader.read()[1], (720, 480), interpolation=cv2.INTER_AREA)
        for top in range(0, 480, 240):
            for left in range(0, 720, 240):
                y, x = slice(top, top + 240), slice(left, left + 240)
                piece = frame[y, x]
                encoded = cv2.imdecode(cv2.imencode(".jpg", piece, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
                crop = cv2.resize(piece[3:237, 3:237], (240, 240), interpolation=cv2.INTER_CUBIC)
                shifted = [np.roll(piece, shift, (0, 1)) for shift in ((3, 0), (-2, 3))]
                for picture in (piece, encoded, crop, *shifted):
                    pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                    pieces.append(len(pictures[:-1]) // 5)
    return pictures, np.array(pieces)


def test_planted_copies_of_real_pictures_are_found(real_videos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    pictures, piece = _planted(real_videos)
    found = _find(np.stack([thumbnail_image(picture) for picture in pictures]), 0.95)
    same = piece[:, None] == piece
    together = np.zeros_like(same)
    for members in found.sets:
        together[np.ix_(members, members)] = True
    upper = np.triu(np.ones_like(same), 1)
    hits = (same & together & upper).sum()
    precision, recall = hits / max(1, (together & upper).sum()), hits / (same & upper).sum()
    with capsys.disabled():
        print(f"\n{piece.max() + 1} pieces, 5 pictures of each: precision {precision:.3f}, recall {recall:.3f}")
    assert precision == 1 and recall >= 0.95


def test_the_report_shows_sets_and_the_lists_name_what_is_dropped(tmp_path: Path) -> None:
    rows = np.repeat(np.eye(70), [3] + [2] * 49 + [1] * 20, axis=0)
    found = _find(rows)
    records = np.arange(len(rows)) * 2  # every other record could not be read
    write_lists(found, records, 2 * len(rows), lambda i: f"k{i}", tmp_path)
    write_report(found, records, {"threshold": 0.9}, lambda i: (f"<{i}>", np.full((30, 40, 3), 99, np.uint8)), tmp_path)
    keep = read_kept(tmp_path, 2 * len(rows))
    assert keep is not None and read_kept(tmp_path, 7) is None
    assert np.flatnonzero(~keep)[:3].tolist() == [2, 4, 8]
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(lines) == 51 and lines[0] == {"record": 2, "key": "k2", "kept": "k0"}
    about = json.loads((tmp_path / "duplicates.json").read_text())
    assert (about["samples"], about["kept"], about["sets"]) == (121, 70, 50)
    assert about["sets_by_size"] == {"2": 49, "3": 1} and len(about["some_sets"]) == 40
    page = (tmp_path / "duplicates.html").read_text()
    assert page.count("<img") == 81 and page.count("data:image/jpeg") == 81 and "&lt;2&gt; (1.0)" in page
