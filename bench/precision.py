"""Errors of a bank's loss and gradients in the precisions of accelerators, emulated on a CPU against float64.

python bench/precision.py [--quick]

512 embeddings of width 1,024 against 8,192 rows, sigmoid, scale 10; rows are random, or (`trained`) those of labels lie near
their embeddings. The products of `ove.centers.losses` are replaced by products of what each precision keeps of its operands,
added up in float32: bf16 keeps 8 bits, tf32 11; x3 adds the products with the two remainders. `embeddings in bf16`: exact
products of what the encoder hands over. Errors are ‖g − g64‖ / ‖g64‖. The last line is one JSON object.
"""

import argparse
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ove.centers import losses
from ove.centers.bank import init_bank
from ove.centers.placement import BankPlacement
from ove.centers.sample import RowSample
from ove.config import CentersConfig

SCALE, BIAS = 10.0, -4.0
Arrays = dict[str, np.ndarray]
Dot = Callable[[CentersConfig, str, jax.Array, jax.Array], jax.Array]


def kept(bits: int, x: jax.Array) -> jax.Array:
    """Rounds to so many bits of the mantissa, the leading one included."""
    drop = 24 - bits
    words = jax.lax.bitcast_convert_type(x, jnp.uint32)
    even = (words >> drop) & 1
    words = (words + ((1 << (drop - 1)) - 1) + even) >> drop << drop
    return jax.lax.bitcast_convert_type(words, jnp.float32)


def emulated(bits: int, products: int) -> Dot:
    """Returns what takes the place of `losses.dot`."""

    def dot(config: CentersConfig, axes: str, a: jax.Array, b: jax.Array) -> jax.Array:
        exact = lambda x, y: jnp.einsum(axes, x, y, precision="highest")  # noqa: E731
        if not bits:
            return exact(a, b)
        high = kept(bits, a), kept(bits, b)
        if products == 1:
            return exact(*high)
        low = kept(bits, a - high[0]), kept(bits, b - high[1])
        return exact(low[0], high[1]) + exact(high[0], low[1]) + exact(*high)

    return dot


def in_float64(e: np.ndarray, rows: np.ndarray, label: np.ndarray) -> Arrays:
    """The sigmoid loss and its gradients, written down plainly."""
    e, rows = e.astype(np.float64), rows.astype(np.float64)
    ne, nr = (np.linalg.norm(x, axis=1, keepdims=True) for x in (e, rows))
    cosine, y = (e / ne) @ (rows / nr).T, np.full((len(e), len(rows)), -1.0)
    y[np.arange(len(e)), label] = 1
    z = SCALE * cosine + BIAS
    slope = -y / (1 + np.exp(y * z)) / len(e)
    by_cosine = SCALE * slope
    by_e = (by_cosine @ (rows / nr) - (by_cosine * cosine).sum(1, keepdims=True) * e / ne) / ne
    by_rows = (by_cosine.T @ (e / ne) - (by_cosine * cosine).sum(0)[:, None] * rows / nr) / nr
    logit = np.array([(slope * cosine).sum(), slope.sum()])
    return {"loss": np.logaddexp(0, -y * z).sum() / len(e), "embeddings": by_e, "rows": by_rows, "logit": logit}


def in_precision(e: np.ndarray, rows: np.ndarray, label: np.ndarray, dot: Dot) -> Arrays:
    """The same by `losses.sigmoid_parts` with other products."""
    config, (n, width) = CentersConfig(), rows.shape
    bank = init_bank(jax.random.key(0), n, width, config, positives=1, negatives=1)
    bank = bank._replace(rows=jnp.asarray(rows), scale=jnp.float32(SCALE), bias=jnp.float32(BIAS))
    ids, every, slot = jnp.arange(n, dtype=jnp.int32), jnp.ones(n, bool), jnp.asarray(label[:, None], jnp.int32)
    sizes = jnp.float32(len(e)), jnp.float32(len(e))
    place = BankPlacement(Mesh(np.array(jax.devices()[:1]), ("data",)), ("data",), ("data",))
    sample, usual = RowSample(ids, every, every, jnp.int32(0)), losses.dot
    try:
        losses.dot = dot
        at = losses.LossInputs(jnp.asarray(e), bank, sample, slot, slot, *sizes, 1.0, place, config)
        parts = jax.jit(lambda e, bank: losses.sigmoid_parts(at._replace(embeddings=e, bank=bank)))(at.embeddings, bank)
    finally:
        losses.dot = usual
    return {"loss": parts.loss, "embeddings": parts.embeddings, "rows": parts.rows, "logit": parts.logit}


def main() -> None:
    """Prints a table of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the rows")
    quick = parser.parse_args().quick
    n, width, batch = (512, 256, 64) if quick else (8192, 1024, 512)
    rng, found = np.random.default_rng(0), {}
    for state in ("random", "trained"):
        e, rows = (rng.normal(size=(size, width)).astype(np.float32) for size in (batch, n))
        label = rng.permutation(n)[:batch]
        if state == "trained":
            rows[label] = e + 0.5 * rows[label]
        expected = in_float64(e, rows, label)
        kinds = {"float32": (0, 1), "tf32 x3": (11, 3), "bf16 x3": (8, 3), "tf32": (11, 1), "bf16": (8, 1)}
        runs = {name: (e, emulated(*kind)) for name, kind in kinds.items()}
        runs["embeddings in bf16"] = np.asarray(kept(8, jnp.asarray(e))), emulated(0, 1)
        for name, (given, dot) in runs.items():
            got = in_precision(given, rows, label, dot)
            errors = {k: float(np.linalg.norm(got[k] - v) / np.linalg.norm(v)) for k, v in expected.items()}
            found[f"{state}, {name}"] = errors
            print(f"{state:8s} {name:20s} " + "  ".join(f"{k} {v:.1e}" for k, v in errors.items()), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
