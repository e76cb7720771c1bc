"""Measures CLIP towers of full size with random weights, and one pass of k-means at their width.

`python bench/teacher.py [--quick] [--towers B/32 H/14] [--compute float32]`. Towers are those of
`ove.labels.teachers.clip` with batches as `ove labels embed` makes them; decoding and cutting are timed apart, per picture
of 640×480. Rates are those of the median call: programs have been compiled before. An operation is an addition or a
multiplication; those of a tower are counted from its sizes. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ove.labels.clusters.assign import nearest
from ove.labels.clusters.lloyd import assign_pass
from ove.labels.clusters.points import as_points
from ove.labels.clusters.search import row_mesh
from ove.labels.teachers.clip import ClipConfig, ClipTower, tower_skeleton
from ove.labels.teachers.preprocess import cut
from ove.labels.teachers.teacher import Tower
from ove.shards.pictures import decode_picture, encode_jpeg

TOWERS = {
    "B/32": ClipConfig(12, 768, 12, 3072, 32, 224, 512),
    "L/14": ClipConfig(24, 1024, 16, 4096, 14, 224, 768),
    "H/14": ClipConfig(32, 1280, 16, 5120, 14, 224, 1024),
}
PICTURES = {"B/32": 32, "L/14": 4, "H/14": 2}
"""At once."""
POINTS, CENTERS, WIDTH = 8_192, 4_096, 1_024
"""Of the pass of k-means, and of the assignment."""
PICTURE_HW = (480, 640)


def operations(config: ClipConfig) -> float:
    """Additions and multiplications of matrix products for one picture."""
    tokens, width = config.patches + 1, config.width
    layer = 2 * tokens * width * (4 * width + 2 * config.mlp) + 4 * tokens**2 * width
    return config.layers * layer + 2 * config.patches * width * 3 * config.patch_px**2 + 2 * width * config.projection


def random_tower(config: ClipConfig, dtype: Any) -> ClipTower:
    """A tower with random weights, scaled so that numbers stay near 1."""
    graphdef, shapes = tower_skeleton(config)
    rng = np.random.default_rng(0)

    def leaf(shape: jax.ShapeDtypeStruct) -> jax.Array:
        scale = shape.shape[-2] ** -0.5 if len(shape.shape) > 1 else 0.1
        return jnp.asarray(scale * rng.standard_normal(shape.shape, np.float32), dtype)

    return nnx.merge(graphdef, jax.tree.map(leaf, shapes))


def timed(call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Seconds of the wall and of the CPU, all threads, of the median call after one that is not counted."""
    call()
    found = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found)


def of_tower(name: str, compute: str, rounds: int) -> dict[str, float]:
    """Rates of one tower."""
    config, dtype = TOWERS[name], jnp.dtype(compute)
    count = PICTURES[name]
    tower = Tower(config.image_px, random_tower(config, dtype), lambda t, p: t(p, dtype), -(-count // len(jax.devices())))
    pictures = list(np.random.default_rng(1).integers(0, 256, (count, 1, 224, 224, 3), dtype=np.uint8))
    wall, cpu = timed(lambda: tower.embed(pictures), rounds)
    return {
        "pictures_at_once": count,
        "operations_a_picture": operations(config),
        "pictures_a_second": count / wall,
        "cpu_s_a_picture": cpu / count,
        "operations_a_second": operations(config) * count / wall,
        "operations_a_cpu_s": operations(config) * count / cpu,
    }


def of_preparation(rounds: int) -> dict[str, float]:
    """Measures decoding one JPEG, and cropping it to 224 px."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (PICTURE_HW[0] // 16, PICTURE_HW[1] // 16, 3), dtype=np.uint8)
    file = encode_jpeg(np.kron(coarse, np.ones((16, 16, 1), np.uint8)), 90)
    picture = decode_picture(file)
    assert picture is not None
    return {
        "decode_cpu_s": timed(lambda: decode_picture(file), rounds)[1],
        "cut_cpu_s": timed(lambda: cut(picture, 224), rounds)[1],
    }


def of_search(rounds: int) -> dict[str, float]:
    """Operations a second, and a CPU-second, of a pass of k-means and of an assignment of 10 labels."""
    rng, mesh = np.random.default_rng(3), row_mesh()
    points = as_points(rng.standard_normal((POINTS, WIDTH), np.float32))
    centers = rng.standard_normal((CENTERS, WIDTH), np.float32)
    work = 2.0 * POINTS * CENTERS * WIDTH
    found = {}
    for name, call in (
        ("pass", lambda: assign_pass(points, centers, mesh, "float32")),
        ("assign", lambda: nearest(points, centers, 10, mesh)),
    ):
        wall, cpu = timed(call, rounds)
        found |= {f"{name}_operations_a_second": work / wall, f"{name}_operations_a_cpu_s": work / cpu}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="B/32 alone, 3 rounds")
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=["B/32", "H/14"])
    parser.add_argument("--compute", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    names, rounds = (["B/32"], 3) if options.quick else (options.towers, 5)
    devices = f"{len(jax.devices())} × {jax.devices()[0].device_kind}"
    result: dict[str, Any] = {"devices": devices, "cores": os.cpu_count(), "jax": jax.__version__, "compute": options.compute}
    print(f"{devices}, {os.cpu_count()} cores, jax {jax.__version__}, {options.compute}; {rounds} rounds")
    for name in names:
        found = result[name] = of_tower(name, options.compute, rounds)
        print(
            f"{name}: {found['pictures_a_second']:.3g} pictures/s, {found['cpu_s_a_picture']:.3g} CPU-s a picture, "
            f"{found['operations_a_picture']:.3g} operations a picture, {found['operations_a_second']:.3g} a second, "
            f"{found['operations_a_cpu_s']:.3g} a CPU-s"
        )
    result["preparation"] = found = of_preparation(10 * rounds)
    print(f"JPEG of 640×480: {1e3 * found['decode_cpu_s']:.2f} CPU-ms to decode, {1e3 * found['cut_cpu_s']:.2f} to cut")
    result["search"] = found = of_search(rounds)
    print(f"{POINTS:,} points × {CENTERS:,} centers × {WIDTH:,}, operations a second (a CPU-s):")
    for name in ("pass", "assign"):
        print(f"  {name}: {found[f'{name}_operations_a_second']:.3g} ({found[f'{name}_operations_a_cpu_s']:.3g})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
