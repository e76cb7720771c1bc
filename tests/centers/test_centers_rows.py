"""The row-sparse update is AdamW on the sampled rows and nothing on the others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ove.centers.bank import Bank, init_bank
from ove.centers.rows import RowAdamW, RowGradient, update_rows
from ove.config import CentersConfig
from ove.errors import ConfigError

C, E = 12, 5
ADAMW = RowAdamW(1e-2)
TABLES = ("rows", "rows_m", "rows_v", "rows_count", "rows_step", "rows_positive")


def fresh() -> Bank:
    return init_bank(jax.random.key(0), C, E, CentersConfig(), positives=1, negatives=4)


def gradient(*ids: int, seed: int = 1) -> RowGradient:
    """Of the rows `ids`, ascending; those from C on are unused slots."""
    rows = jax.random.normal(jax.random.key(seed), (len(ids), E))
    is_used = jnp.array(ids) < C
    return RowGradient(jnp.array(ids, jnp.int32), is_used, rows * is_used[:, None], jnp.array([0.3, -0.2]))


@pytest.mark.parametrize("chunk_rows", [4096, 2])
def test_two_steps_equal_optax_on_the_sampled_rows(chunk_rows: int) -> None:
    bank, ids = fresh(), jnp.array([2, 5, 7])
    params = {"rows": bank.rows[ids], "logit": jnp.stack([bank.scale, bank.bias])}
    make = optax.adamw(1e-2, weight_decay=0.2, mask={"rows": True, "logit": False})
    state = make.init(params)
    for step in (0, 1):
        grads = gradient(2, 5, 7, C, seed=step)
        bank = update_rows(bank, grads, ADAMW, 0.5, step=step, chunk_rows=chunk_rows)
        updates, state = make.update({"rows": 0.5 * grads.rows[:3], "logit": 0.5 * grads.logit}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(bank.rows[ids], params["rows"], atol=1e-6)
    np.testing.assert_allclose([bank.scale, bank.bias], params["logit"], rtol=1e-6)
    np.testing.assert_array_equal(bank.rows_count[ids], [2, 2, 2])
    np.testing.assert_array_equal(bank.rows_step[ids], [2, 2, 2])


def test_rows_that_were_not_sampled_stay_bit_for_bit() -> None:
    before = fresh()
    after = update_rows(before, gradient(0, 3, C, C + 1), ADAMW, step=4)
    others = np.setdiff1d(np.arange(C), [3, 0])
    for name in TABLES:
        old, new = np.asarray(getattr(before, name)), np.asarray(getattr(after, name))
        np.testing.assert_array_equal(old[others], new[others])
        assert np.all(old[[0, 3]] != new[[0, 3]])


def test_the_first_update_of_a_row_is_as_large_at_any_step() -> None:
    late = fresh()
    for step in range(20):
        late = update_rows(late, gradient(1, seed=step), ADAMW, step=step)
    first = update_rows(fresh(), gradient(4), ADAMW, step=0)
    then = update_rows(late, gradient(4), ADAMW, step=20)
    np.testing.assert_allclose(then.rows[4], first.rows[4], rtol=1e-6)


def test_elapsed_decay_makes_up_for_the_steps_in_which_a_row_was_not_sampled() -> None:
    nothing = gradient(4)._replace(rows=jnp.zeros((1, E)), logit=jnp.zeros(2))
    row = np.asarray(fresh().rows[4])
    for decay, times in (("sampled", 2), ("elapsed", 7)):
        bank = update_rows(fresh(), nothing, ADAMW, step=2, decay=decay)
        bank = update_rows(bank, nothing, ADAMW, step=6, decay=decay)
        np.testing.assert_allclose(bank.rows[4], row * (1 - 1e-2 * 0.2) ** times, rtol=1e-6)


def test_a_fresh_bank_expects_the_labels_frequency_and_has_no_history() -> None:
    bank = init_bank(jax.random.key(0), 1, E, CentersConfig(init_scale=7.0), positives=3, negatives=12, n_shards=4)
    assert (bank.rows.shape, float(bank.scale)) == ((4, E), 7.0)
    # Where cosines are 0, the probability of a pair is exp(bias) : 1, as there are 3 positives to 12 negatives.
    np.testing.assert_allclose(np.exp(bank.bias), 3 / 12, rtol=1e-6)
    assert (np.asarray(bank.rows[0]) != 0).all() and (np.asarray(bank.rows[1:]) == 0).all()
    for name, value in bank._asdict().items():
        assert name in ("rows", "scale", "bias") or not np.any(value), name
    assert (bank.logit_m.shape, bank.logit_v.shape, bank.logit_count.shape) == ((2,), (2,), ())
    with pytest.raises(ConfigError, match="n_centers = 0; a bank needs at least 1"):
        init_bank(jax.random.key(0), 0, E, CentersConfig(), positives=1, negatives=1)
