"""The row-sparse update is AdamW on the drawn rows and nothing on the others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ove.centers.bank import Bank, Sampled, init_bank
from ove.centers.rows import update_rows
from ove.centers.sample import Drawn
from ove.config import CentersConfig

C, E = 12, 5
ADAMW = {"lr": 1e-2, "weight_decay": 0.2, "b1": 0.9, "b2": 0.999, "eps": 1e-8}


def drawn_rows(*ids: int) -> Drawn:
    none = jnp.zeros((1, 1), jnp.int32)
    return Drawn(jnp.array(ids, jnp.int32), jnp.ones(len(ids), bool), none, none)


def fresh() -> Bank:
    return init_bank(jax.random.key(0), C, E, CentersConfig(), positives=1, negatives=4)


def gradient(n: int, seed: int = 1) -> Sampled:
    rows = jax.random.normal(jax.random.key(seed), (n, E))
    return Sampled(rows, jnp.float32(0.3), jnp.float32(-0.2))


@pytest.mark.parametrize("clip_norm", [1e9, 0.5])
def test_two_steps_equal_optax_on_the_drawn_rows(clip_norm: float) -> None:
    bank, drawn = fresh(), drawn_rows(7, 2, C, 5, C)
    params = Sampled(bank.rows[jnp.array([7, 2, 5])], bank.scale, bank.bias)
    decays = Sampled(True, False, False)
    make = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(ADAMW["lr"], ADAMW["b1"], ADAMW["b2"], ADAMW["eps"], weight_decay=ADAMW["weight_decay"], mask=decays),
    )
    state = make.init(params)
    for seed in (1, 2):
        grads = gradient(5, seed)
        grads = grads._replace(rows=grads.rows.at[jnp.array([2, 4])].set(0.0))
        bank = update_rows(bank, drawn, grads, **ADAMW, clip_norm=clip_norm)
        updates, state = make.update(grads._replace(rows=grads.rows[jnp.array([0, 1, 3])]), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(bank.rows[jnp.array([7, 2, 5])], params.rows, atol=1e-6)
    np.testing.assert_allclose(bank.scale, params.scale, rtol=1e-6)
    np.testing.assert_allclose(bank.bias, params.bias, rtol=1e-6)


def test_rows_that_were_not_drawn_stay_bit_for_bit() -> None:
    before = fresh()
    after = update_rows(before, drawn_rows(3, C, 0), gradient(3), **ADAMW, clip_norm=5.0)
    others = np.setdiff1d(np.arange(C), [3, 0])
    for name in ("rows", "rows_m", "rows_v", "rows_count"):
        old, new = np.asarray(getattr(before, name)), np.asarray(getattr(after, name))
        np.testing.assert_array_equal(old[others], new[others])
        assert np.all(old[[0, 3]] != new[[0, 3]])


def test_the_first_update_of_a_row_is_as_large_at_any_step() -> None:
    late = fresh()
    for seed in range(20):
        late = update_rows(late, drawn_rows(1), gradient(1, seed), **ADAMW, clip_norm=1e9)
    first = update_rows(fresh(), drawn_rows(4), gradient(1), **ADAMW, clip_norm=1e9)
    then = update_rows(late, drawn_rows(4), gradient(1), **ADAMW, clip_norm=1e9)
    np.testing.assert_allclose(then.rows[4], first.rows[4], rtol=1e-6)
