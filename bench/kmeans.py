"""Compares k-means with faiss (same start and iterations), and the two-level start with a flat one.

`python bench/kmeans.py [--quick]` (needs requirements-bench.txt). Points: a mixture of clusters of clusters. Times are of the
wall; programs have been compiled before, on other points, but for those whose sizes go by the points. The last line is JSON.
"""

import argparse
import json
import os
import time

import jax
import numpy as np
from needs import need

from ove.labels.clusters.kmeans import kmeans

need("faiss")
import faiss  # noqa: E402

FULL = (200_000, 256, 2_000, 10)
QUICK = (40_000, 128, 500, 5)
"""Points, width, centers, iterations."""
FLAT_ITERATIONS, TWO_LEVEL_ITERATIONS = 20, 2


def mixture(n: int, width: int, groups: int, seed: int) -> np.ndarray:
    """Unit vectors in clusters whose own centers lie in clusters; as hard to tell apart as embeddings of pictures."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(max(2, groups // 40), width))
    fine = coarse[rng.integers(0, len(coarse), groups)] + 0.8 * rng.normal(size=(groups, width))
    weights = rng.exponential(size=groups)
    which = rng.choice(groups, n, p=weights / weights.sum())
    points = (fine[which] + 1.2 * rng.normal(size=(n, width))).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def faiss_kmeans(points: np.ndarray, start: np.ndarray, iterations: int) -> tuple[float, float]:
    """Seconds, and the mean cosine of the points with their nearest center afterwards."""
    train = faiss.Kmeans(
        points.shape[1], len(start), niter=iterations, spherical=True, max_points_per_centroid=10**9, min_points_per_centroid=1
    )
    began = time.perf_counter()
    train.train(points, init_centroids=start)
    seconds = time.perf_counter() - began
    index = faiss.IndexFlatIP(points.shape[1])
    index.add(train.centroids)
    return seconds, float(index.search(points, 1)[0].mean(dtype=np.float64))


def ours(points: np.ndarray, k: int, iterations: int, start: object) -> tuple[float, float]:
    """As `faiss_kmeans`; the last pass, which only tells the objective, is not an iteration and is taken off."""
    began = time.perf_counter()
    found = kmeans(points, k, iterations, 0, start=start)
    seconds = time.perf_counter() - began
    return seconds * iterations / (iterations + 1) if not isinstance(start, str) else seconds, 1 - found.objective[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    n, width, k, iterations = QUICK if parser.parse_args().quick else FULL
    points, other = mixture(n, width, k, 0), mixture(n, width, k, 1)
    start = points[np.random.default_rng(0).choice(n, k, replace=False)]
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    for name in (start, "random", "two_level"):
        ours(other, k, 1, name)
    result: dict[str, object] = {"points": n, "width": width, "centers": k, "iterations": iterations}
    result["faiss_s"], result["faiss_cosine"] = faiss_kmeans(points, start, iterations)
    result["ours_s"], result["ours_cosine"] = ours(points, k, iterations, start)
    result["time_ratio"] = result["ours_s"] / result["faiss_s"]
    result["flat_s"], result["flat_cosine"] = ours(points, k, FLAT_ITERATIONS, "random")
    result["two_level_s"], result["two_level_cosine"] = ours(points, k, TWO_LEVEL_ITERATIONS, "two_level")
    result["two_level_time_ratio"] = result["two_level_s"] / result["flat_s"]
    versions = f"jax {jax.__version__}, faiss {faiss.__version__}, {os.cpu_count()} cores"
    print(f"{n:,} points of width {width}, {k:,} centers; {versions}")
    print(f"faiss, {iterations} iterations:          {result['faiss_s']:7.2f} s, mean cosine {result['faiss_cosine']:.6f}")
    print(f"ours, from the same start:      {result['ours_s']:7.2f} s, mean cosine {result['ours_cosine']:.6f}")
    print(f"ours, random, {FLAT_ITERATIONS} iterations:     {result['flat_s']:7.2f} s, mean cosine {result['flat_cosine']:.6f}")
    print(
        f"ours, two levels, {TWO_LEVEL_ITERATIONS} iterations:  {result['two_level_s']:7.2f} s, mean cosine "
        f"{result['two_level_cosine']:.6f}"
    )
    print(json.dumps({"bench": "kmeans"} | {name: round(v, 6) if isinstance(v, float) else v for name, v in result.items()}))


if __name__ == "__main__":
    main()
