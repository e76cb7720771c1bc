"""A bank, batches with shared, repeated and missing labels, and one step of it on a number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from dense_reference import DenseBank
from jax.sharding import Mesh

from ove.centers.bank import Bank, init_bank
from ove.centers.gradient import BankPlan
from ove.centers.objective import BankStep, bank_step
from ove.centers.placement import BankPlacement
from ove.centers.rows import RowAdamW
from ove.centers.sample import draw_rows
from ove.centers.shuffle import center_of
from ove.config import CentersConfig

B, L, C, E = 16, 6, 203, 24
SETTINGS: dict[str, float] = {"lr": 0.02, "weight_decay": 0.2, "clip_norm": 5.0}


def placement_on(n_devices: int) -> BankPlacement:
    return BankPlacement(Mesh(np.array(jax.devices()[:n_devices]), ("data",)), ("data",), ("data",))


def place(bank: Bank, placement: BankPlacement) -> Bank:
    shardings = {n: placement.sharding(placement.rows if n.startswith("rows") else jax.P()) for n in Bank._fields}
    return Bank(**{n: jax.device_put(np.asarray(getattr(bank, n)), shardings[n]) for n in Bank._fields})


def fresh_bank(placement: BankPlacement, n_centers: int = C, init_std: float = 0.01) -> Bank:
    return place(_make(n_centers, init_std, placement.n_shards), placement)


@functools.cache
def _make(n_centers: int, init_std: float, n_shards: int) -> Bank:
    config = CentersConfig(init_std=init_std)
    make = functools.partial(
        init_bank, n_centers=n_centers, width=E, config=config, positives=L, negatives=20, n_shards=n_shards
    )
    return jax.jit(make)(jax.random.key(0))


def labels_of(seed: int, n_centers: int = C) -> np.ndarray:
    """Shared by two samples, repeated in one, missing in two."""
    labels = np.random.default_rng(seed).integers(0, n_centers, (B, L)).astype(np.int32)
    labels[1] = labels[0]
    labels[2, :3] = labels[2, 3]
    labels[3, 2:] = -1
    labels[4] = -1
    return labels


def embeddings_of(seed: int) -> np.ndarray:
    return np.random.default_rng(100 + seed).normal(size=(B, E)).astype(np.float32)


@functools.cache
def step_of(placement: BankPlacement, plan: BankPlan, config: CentersConfig) -> jax.stages.Wrapped:
    """The compiled step(bank, embeddings, labels, key, step); the bank is donated."""

    def step(bank: Bank, embeddings: jax.Array, labels: jax.Array, key: jax.Array, step: jax.Array) -> BankStep:
        adamw = RowAdamW(SETTINGS["lr"], weight_decay=SETTINGS["weight_decay"], clip_norm=SETTINGS["clip_norm"])
        return bank_step(bank, embeddings, labels, key, step, adamw, plan=plan, placement=placement, config=config)

    # Half of the time of these tests would be LLVM's.
    return jax.jit(step, donate_argnums=0, compiler_options={"xla_backend_optimization_level": 0})


def take(
    bank: Bank, seed: int, placement: BankPlacement, plan: BankPlan, config: CentersConfig, labels: np.ndarray | None = None
) -> BankStep:
    sharding = placement.sharding(placement.samples)
    e = jax.device_put(embeddings_of(seed), sharding)
    labels = jax.device_put(labels_of(seed, plan.n_centers) if labels is None else labels, sharding)
    return step_of(placement, plan, config)(bank, e, labels, jax.random.key(seed), jnp.int32(seed))


@functools.cache
def centers_in_rows(n_centers: int) -> np.ndarray:
    """The center that lies in each row."""
    return np.asarray(jax.jit(center_of, static_argnums=1)(jnp.arange(n_centers), n_centers))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(key: jax.Array, n_centers: int, n: int, sampler: str) -> jax.Array:
    return draw_rows(key, n_centers, n, 0, n_centers, sampler)


def drawn_centers(seed: int, plan: BankPlan, config: CentersConfig) -> np.ndarray:
    """The centers that step `seed` draws as negatives."""
    key_rows = jax.random.split(jax.random.key(seed))[1]
    rows = np.asarray(_draw(key_rows, plan.n_centers, plan.n_negatives, config.sampler))
    return centers_in_rows(plan.n_centers)[rows[rows < plan.n_centers]]


def by_center(table: jax.Array, n_centers: int = C) -> np.ndarray:
    """A table of the bank in the order of its centers, without padding."""
    found = np.asarray(table)[:n_centers]
    ordered = np.empty_like(found)
    ordered[centers_in_rows(n_centers)] = found
    return ordered


def dense(bank: Bank, n_centers: int = C) -> DenseBank:
    return DenseBank(by_center(bank.rows, n_centers).astype(np.float64), float(bank.scale), float(bank.bias))
