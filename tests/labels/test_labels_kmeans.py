"""k-means and the assignment against brute force in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ove.labels.assign
import ove.labels.kmeans
from ove.errors import ConfigError
from ove.labels.assign import nearest
from ove.labels.kmeans import kmeans


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


def test_an_empty_cluster_takes_a_point_of_the_largest() -> None:
    points = np.concatenate([np.tile([[1.0, 0, 0]], (3, 1)), [[0, 1, 0], [0, 0.9, 0.5], [0, 0.5, 0.9], [0, 0, 1]]])
    centers = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0]], np.float32)
    cosine = _unit(points) @ centers.T
    cluster = cosine.argmax(axis=1)
    sums = np.stack([_unit(points)[cluster == k].sum(axis=0) for k in range(3)]).astype(np.float32)
    sizes = np.bincount(cluster, minlength=3).astype(np.int32)
    unit = _unit(points).astype(np.float32)
    moved = ove.labels.kmeans._moved(
        sums, sizes, cluster.astype(np.int32), cosine.max(axis=1).astype(np.float32), unit, centers
    )
    np.testing.assert_array_equal(moved[2], unit[6])  # of the second cluster, the one of four points, the worst


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = _points(4, 50), _points(5, 23)
    whole, labels = kmeans(points, 7, 3, seed=0), nearest(points, centers, 5)
    monkeypatch.setattr(ove.labels.kmeans, "BLOCK", 60)  # 8 points of 7 centers, and the last block not full
    monkeypatch.setattr(ove.labels.assign, "BLOCK", 8)
    np.testing.assert_allclose(kmeans(points, 7, 3, seed=0).centers, whole.centers, atol=1e-5)
    np.testing.assert_array_equal(nearest(points, centers, 5), labels)


@given(seed=st.integers(0, 9999), count=st.integers(1, 30), k=st.integers(1, 40), m=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_nearest_is_what_brute_force_finds(seed: int, count: int, k: int, m: int) -> None:
    m = min(m, k)
    points, centers = _points(seed, count), _points(seed + 1, k)
    wanted = np.argsort(-(_unit(points) @ _unit(centers).T), axis=1, kind="stable")[:, :m]
    np.testing.assert_array_equal(nearest(points, centers, m), wanted)


@pytest.mark.parametrize("block", [3, 4096])
def test_ties_go_to_the_lower_index(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(ove.labels.assign, "BLOCK", block)
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
    with pytest.raises(ConfigError, match=r"n_labels = 5 of 3 centers"):
        nearest(_points(0, 3), _points(1, 3), 5)
