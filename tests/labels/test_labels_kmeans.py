"""k-means and the assignment against brute force in float64."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ove.labels.clusters.search
from ove.errors import ConfigError
from ove.labels.clusters.assign import nearest
from ove.labels.clusters.kmeans import Centroids, kmeans
from ove.labels.clusters.lloyd import assign_pass, update_centers
from ove.labels.clusters.points import Points, as_points
from ove.labels.clusters.search import row_mesh
from ove.labels.clusters.starts import shares_of


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _points(seed: int, count: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


@given(seed=st.integers(0, 9999), count=st.sampled_from([9, 60]), k=st.sampled_from([1, 4, 9]), iterations=st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_the_objective_never_rises_and_is_what_brute_force_finds(seed: int, count: int, k: int, iterations: int) -> None:
    points = _points(seed, count)
    found = kmeans(points, k, iterations, seed)
    assert found.centers.shape == (k, 6)
    np.testing.assert_allclose(np.linalg.norm(found.centers, axis=1), 1, atol=1e-5)
    assert all(later <= earlier + 1e-6 for earlier, later in zip(found.objective, found.objective[1:], strict=False))
    cosine = _unit(points) @ found.centers.astype(np.float64).T
    assert found.objective[-1] == pytest.approx(np.mean(1 - cosine.max(axis=1)), abs=1e-5)
    assert found.sizes.sum() == count
    np.testing.assert_array_equal(found.sizes, np.bincount(cosine.argmax(axis=1), minlength=k))


def test_one_iteration_is_lloyds() -> None:
    points = _points(1, 50)
    start = kmeans(points, 5, 0, seed=3).centers.astype(np.float64)
    cluster = (_unit(points) @ start.T).argmax(axis=1)
    means = _unit(np.stack([_unit(points)[cluster == k].sum(axis=0) for k in range(5)]))
    np.testing.assert_allclose(kmeans(points, 5, 1, seed=3).centers, means, atol=1e-5)


def test_it_starts_from_distinct_points_and_is_the_same_every_time() -> None:
    points = _points(2, 40)
    first, again, other = kmeans(points, 10, 0, seed=1), kmeans(points, 10, 0, seed=1), kmeans(points, 10, 0, seed=2)
    np.testing.assert_array_equal(first.centers, again.centers)
    assert not np.array_equal(first.centers, other.centers)
    assert kmeans(points, 40, 0, seed=1).objective[0] == pytest.approx(0, abs=1e-6)  # as many centers as points: all of them


def test_clusters_that_are_there_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(12), 20)
    points = np.eye(12)[truth] + 0.05 * rng.normal(size=(240, 12))
    found = kmeans(points, 12, 10, seed=0)
    assert sorted(found.sizes.tolist()) == [20] * 12
    assert len(set(zip(truth.tolist(), nearest(points, found.centers, 1)[:, 0].tolist(), strict=True))) == 12


def test_an_empty_cluster_takes_half_of_the_largest_that_can_be_split() -> None:
    same = np.tile([[1.0, 0, 0]], (6, 1))  # the largest, and nothing to split
    others = np.array([[0, 1, 0], [0, 0.9, 0.5], [0, 0.8, -0.5], [0, 0.5, 0.9]])
    points, centers = as_points(np.concatenate([same, others])), np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0]], np.float32)
    found = assign_pass(points, centers, row_mesh(), "float32")
    np.testing.assert_array_equal(found.sizes, [6, 4, 0])
    assert found.worst[1] == 9 and found.empty == 1
    after = update_centers(found, centers, points)
    np.testing.assert_array_equal(after[0], [1, 0, 0])
    middle = _unit(_unit(others).sum(0, keepdims=True))[0]
    np.testing.assert_allclose(after[1:], [middle, middle], atol=2e-3)
    assert after[2] @ _unit(others)[3] > middle @ _unit(others)[3] > after[1] @ _unit(others)[3]
    sizes = assign_pass(points, after, row_mesh(), "float32").sizes
    assert sizes[0] == 6 and sizes[1] and sizes[2]


def test_nothing_moves_where_nothing_can_be_split() -> None:
    points = as_points(np.tile([[0, 2.0, 0]], (5, 1)))
    centers = np.array([[0, 1, 0], [1, 0, 0]], np.float32)
    np.testing.assert_array_equal(update_centers(assign_pass(points, centers, row_mesh(), "float32"), centers, points), centers)


@pytest.mark.parametrize("tiles", [(8, 8), (24, 16)])
def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch, tiles: tuple[int, int]) -> None:
    points, centers = _points(4, 70), _points(5, 83)
    whole, labels = kmeans(points, 27, 3, seed=0), nearest(points, centers, 5)
    monkeypatch.setitem(ove.labels.clusters.search._TILES, "cpu", tiles)
    np.testing.assert_allclose(kmeans(points, 27, 3, seed=0).centers, whole.centers, atol=1e-5)
    np.testing.assert_array_equal(nearest(points, centers, 5), labels)


@pytest.mark.parametrize("start", ["random", "two_level"])
def test_the_number_of_devices_does_not_matter(start: str) -> None:
    points = np.repeat(_points(7, 300, 16), 2, axis=0) + 0.1 * _points(8, 600, 16)
    one, eight = (kmeans(points, 43, 3, 0, start=start, mesh=row_mesh(jax.devices()[:n])) for n in (1, 8))
    np.testing.assert_array_equal(one.centers, eight.centers)
    assert one.passes == eight.passes
    labels = [nearest(points, one.centers, 10, row_mesh(jax.devices()[:n])) for n in (1, 8)]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("killed_in", [0, 1, 3])
def test_killed_and_resumed_is_not_killed(tmp_path: Path, killed_in: int) -> None:
    points, done = _points(9, 400, 16), []

    def kill(line: str) -> None:
        if line.startswith("after"):
            done.append(line)
            if len(done) > killed_in:
                raise KeyboardInterrupt

    def run(workdir: Path | None = None, seed: int = 0, **more: Any) -> Centroids:
        return kmeans(points, 20, 5, seed, start="random", workdir=workdir, identity="a", **more)

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, log=kill)
    lines: list[str] = []
    resumed = run(tmp_path, log=lines.append)
    assert sum(line.startswith("after") for line in lines) == len(whole.passes) - killed_in
    np.testing.assert_array_equal(resumed.centers, whole.centers)
    np.testing.assert_array_equal(resumed.sizes, whole.sizes)
    assert resumed.passes == whole.passes
    assert not np.array_equal(run(tmp_path, seed=1).centers, whole.centers)  # what was kept is of other settings


def test_points_in_files_are_those_in_memory(tmp_path: Path) -> None:
    rows = _points(10, 90, 8).astype(np.float32)
    for number, part in enumerate(np.split(rows, [20, 21, 60])):
        np.save(tmp_path / f"{number}.npy", part)
    filed = Points([np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(4)])
    chosen = np.flatnonzero(np.arange(90) % 3)
    np.testing.assert_array_equal(filed.rows(np.array([89, 0, 20, 20, 59])), rows[[89, 0, 20, 20, 59]])
    np.testing.assert_array_equal(filed.subset(chosen).subset(np.array([1, 5])).rows(np.arange(2)), rows[chosen[[1, 5]]])
    np.testing.assert_array_equal(filed.block(80, 16), np.concatenate([rows[80:], np.zeros((6, 8))]))
    for start in ("spread", "random", "two_level"):
        np.testing.assert_array_equal(
            kmeans(filed.subset(chosen), 5, 2, 0, start=start).centers, kmeans(rows[chosen], 5, 2, 0, start=start).centers
        )


def test_two_levels_are_better_than_random_points() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(150, 24))[rng.integers(0, 150, 4000)] + 0.5 * rng.normal(size=(4000, 24))
    flat, two = (kmeans(points, 100, n, 0, start=start).objective[-1] for start, n in (("random", 6), ("two_level", 2)))
    assert two < flat


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), share=st.floats(0, 1))
def test_shares_are_in_proportion(sizes: list[int], share: float) -> None:
    k = round(share * sum(sizes))
    shares = shares_of(k, np.array(sizes))
    assert shares.sum() == k and (shares >= 0).all() and (shares <= sizes).all()
    assert np.abs(shares - k * np.array(sizes) / sum(sizes)).max() <= 1


@given(seed=st.integers(0, 9999), count=st.integers(1, 30), k=st.integers(1, 40), m=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_nearest_is_what_brute_force_finds(seed: int, count: int, k: int, m: int) -> None:
    m = min(m, k)
    points, centers = _points(seed, count), _points(seed + 1, k)
    wanted = np.argsort(-(_unit(points) @ _unit(centers).T), axis=1, kind="stable")[:, :m]
    np.testing.assert_array_equal(nearest(points, centers, m), wanted)


@pytest.mark.parametrize("tile", [1, 512])
def test_ties_go_to_the_lower_index(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setitem(ove.labels.clusters.search._TILES, "cpu", (8, tile))
    centers = np.eye(4)[[1, 0, 0, 2, 0, 1]]
    np.testing.assert_array_equal(nearest(np.eye(4)[[0, 1]], centers, 6), [[1, 2, 4, 0, 3, 5], [0, 5, 1, 2, 3, 4]])


def test_points_without_direction_harm_nobody() -> None:
    points = np.concatenate([np.zeros((3, 6)), _points(6, 20)])
    found = kmeans(points, 4, 5, seed=0)
    np.testing.assert_allclose(found.centers, kmeans(points[3:], 4, 5, seed=0).centers)
    assert found.sizes.sum() == 20


def test_too_many_centers_or_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 centers of 3 points"):
        kmeans(np.concatenate([_points(0, 3), np.zeros((2, 6))]), 4, 1, seed=0)
    with pytest.raises(ConfigError, match="9 centers of 8 points"):
        kmeans(np.concatenate([_points(0, 8), np.zeros((2, 6))]), 9, 1, seed=0, start="random")
    with pytest.raises(ConfigError, match=r"n_labels = 5 of 3 centers"):
        nearest(_points(0, 3), _points(1, 3), 5)
