"""Spherical k-means with sharded centers, on points that need not fit into memory."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int32

from ove.distributed import broadcast_json, broadcast_one_to_all, is_main
from ove.errors import BadShard, ConfigError
from ove.files import digest, write_array, write_json
from ove.labels.clusters.assign import nearest
from ove.labels.clusters.lloyd import assign_pass, update_centers
from ove.labels.clusters.points import Points, as_points, unit
from ove.labels.clusters.search import ScoreDtype, row_mesh
from ove.labels.clusters.starts import kmeans_plus_plus, random_points, two_level
from ove.paths import inside

Start = Literal["auto", "spread", "random", "two_level"]
_SPREAD_AT_MOST = 2**27
"""Most similarities for which `auto` takes the start `spread`."""
_COARSE_ITERATIONS = 10
_STATE = "kmeans.json"


@dataclass(frozen=True)
class Iteration:
    """Statistics of a pass over all points."""

    objective: float
    """Mean over the points of 1 − cosine with the nearest center."""
    imbalance: float
    """k · Σ size² / (Σ size)²: 1 for clusters of equal size."""
    empty: int
    """Centers without points."""


@dataclass(frozen=True)
class Centroids:
    """The result of k-means."""

    centers: Float32[np.ndarray, "k E"]
    """Of length 1 each."""
    sizes: Int32[np.ndarray, "k"]
    """Number of points of each center."""
    passes: list[Iteration] = field(default_factory=list)
    """Before the first iteration, and after each."""

    @property
    def objective(self) -> list[float]:
        """The objective of each pass; never rises."""
        return [p.objective for p in self.passes]


def kmeans(
    points: Points | Float[np.ndarray, "N E"],
    k: int,
    iterations: int,
    seed: int,
    *,
    start: Start | Float32[np.ndarray, "k E"] = "auto",
    mesh: Mesh | None = None,
    scores: ScoreDtype = "float32",
    workdir: Path | None = None,
    identity: str = "",
    log: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Centroids:
    """Clusters N points into k centers by Lloyd's iterations with cosine similarity; deterministic in the seed.

    `start`: initial centers, or `spread` (k-means++, points in memory), `random` points, `two_level` (clusters of clusters),
    `auto` (`spread` where that is fast, else `two_level`). Ends early when no center moves. A center without points takes half
    of a large cluster. Points need not have length 1; points of zeros are left out. ConfigError for k above the number of the
    others.

    With a `workdir`, centers are saved after every iteration, and a call with the same `identity` (of the points) and settings
    resumes. `mesh`: by default of all devices; all its processes must make the same call and get the same, the first one saves.
    `log` gets a line for each pass, `progress` its name, points done and points in all.
    """
    points, mesh = as_points(points), mesh or row_mesh()
    if not 1 <= k <= len(points):
        raise _too_many(k, len(points))
    given = start if isinstance(start, str) else digest(np.asarray(start).tolist())
    settings = digest([identity, len(points), points.width, k, seed, given, scores])
    done, centers, passes = _resume(workdir, settings, (k, points.width), mesh)
    if centers is None:
        log(f"k-means: {len(points):,} points, {k:,} centers, start {given if isinstance(start, str) else 'given'}")
        centers = broadcast_one_to_all(mesh, _start(points, k, seed, start, mesh, scores))
        _keep(workdir, settings, 0, centers, passes, mesh)

    def tell(n: int) -> None:
        progress(f"pass {done + 1}/{iterations + 1}", n, len(points))

    while True:
        found = assign_pass(points, centers, mesh, scores, tell)
        if k > found.count:
            raise _too_many(k, found.count)
        passes.append(Iteration(found.objective, found.imbalance, found.empty))
        log(_line(done, passes[-1]))
        after = broadcast_one_to_all(mesh, update_centers(found, centers, points))
        if done >= iterations or np.array_equal(after, centers):
            return Centroids(centers, found.sizes, passes)
        centers, done = after, done + 1
        _keep(workdir, settings, done, centers, passes, mesh)


def _start(
    points: Points, k: int, seed: int, start: Start | Float32[np.ndarray, "k E"], mesh: Mesh, scores: ScoreDtype
) -> Float32[np.ndarray, "k E"]:
    if not isinstance(start, str):
        return unit(start)
    if start == "auto":
        start = "spread" if len(points) * k <= _SPREAD_AT_MOST else "two_level"
    if start == "two_level":
        centers = two_level(
            points,
            k,
            seed,
            mesh,
            coarse=lambda few, n: kmeans(few, n, _COARSE_ITERATIONS, seed, start="spread", mesh=mesh, scores=scores).centers,
            nearest=lambda some, centers: nearest(some, centers, 1, mesh, scores)[:, 0],
        )
    elif start == "spread":
        rows = unit(points.rows(np.arange(len(points))))
        real = rows[np.any(rows, axis=1)]
        centers = kmeans_plus_plus(real, k, seed) if k <= len(real) else real
    else:
        centers = random_points(points, k, seed)
    if len(centers) < k:
        raise _too_many(k, len(centers))
    return centers


def _resume(
    workdir: Path | None, settings: str, shape: tuple[int, int], mesh: Mesh
) -> tuple[int, Float32[np.ndarray, "k E"] | None, list[Iteration]]:
    """Returns (iterations done, centers, passes) of an interrupted call with the same settings, or (0, None, [])."""
    if workdir is None:
        return 0, None, []
    path = workdir / _STATE
    found = json.loads(path.read_text(encoding="utf-8")) if is_main(mesh) and path.is_file() else None
    state: dict[str, Any] | None = broadcast_json(mesh, found)
    if state is None or state["settings"] != settings:
        return 0, None, []
    centers = np.load(inside(workdir, state["file"], path, BadShard)) if is_main(mesh) else np.empty(shape, np.float32)
    return state["done"], broadcast_one_to_all(mesh, centers), [Iteration(**p) for p in state["passes"]]


def _keep(
    workdir: Path | None, settings: str, done: int, centers: Float32[np.ndarray, "k E"], passes: list[Iteration], mesh: Mesh
) -> None:
    """Writes the centers, then the JSON that names them, so that an interruption leaves the state before."""
    if workdir is None or not is_main(mesh):
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / f"kmeans-{done % 2}.npy"
    write_array(path, centers)
    write_json(workdir / _STATE, {"settings": settings, "done": done, "file": path.name, "passes": [asdict(p) for p in passes]})


def _line(done: int, found: Iteration) -> str:
    return (
        f"after {done} iterations: objective {found.objective:.5f} (mean cosine {1 - found.objective:.5f}), imbalance "
        f"{found.imbalance:.2f}, {found.empty} empty"
    )


def _too_many(k: int, count: int) -> ConfigError:
    return ConfigError(f"k-means cannot make {k} centers of {count} points that are not 0; ask for 1…{count} centers.")
