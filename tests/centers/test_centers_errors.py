"""What does not go together is refused in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bank_problem import C, L, embeddings_of, fresh_bank, labels_of, placement_on, take

from ove.centers.gradient import BankPlan
from ove.centers.objective import bank_step
from ove.centers.placement import BankPlacement
from ove.centers.rows import RowAdamW
from ove.centers.sample import check_labels
from ove.config import CentersConfig
from ove.errors import BadInput, ConfigError

PLAN = BankPlan("vid", C, 20, L)


def step(labels: np.ndarray, plan: BankPlan = PLAN, embeddings: np.ndarray | None = None) -> None:
    placement = placement_on(1)
    e = embeddings_of(0) if embeddings is None else embeddings
    arguments = fresh_bank(placement), jnp.asarray(e), jnp.asarray(labels), jax.random.key(0), 0, RowAdamW(0.1)
    bank_step(*arguments, plan=plan, placement=placement, config=CentersConfig())


def test_labels_are_checked_on_the_host() -> None:
    labels = labels_of(0)
    check_labels(labels, C, "vid")
    for wrong in (C, -2, 2**31 - 1):
        labels[3, 1] = wrong
        with pytest.raises(BadInput, match=rf"vid: 1 of 96 are not within −1…202 \(sample 3, place 1: {wrong}\)"):
            check_labels(labels, C, "vid")
    with pytest.raises(BadInput, match="labels of bank vid: are float32; numbers of centers are integers"):
        check_labels(labels.astype(np.float32), C, "vid")


def test_float_labels_are_refused_when_a_step_is_compiled() -> None:
    with pytest.raises(BadInput, match="labels of bank vid: are float32"):
        step(labels_of(0).astype(np.float32))


def test_a_label_past_the_bank_makes_the_loss_nan() -> None:
    labels = labels_of(0)
    labels[5, 0] = C
    placement = placement_on(2)
    assert np.isnan(take(fresh_bank(placement), 0, placement, PLAN, CentersConfig(), labels).loss)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="300 negatives cannot be drawn from a bank of 203 centers"):
        BankPlan("vid", C, 300, L)
    with pytest.raises(ConfigError, match="labels_per_step = 7, but the samples have 6 labels"):
        step(labels_of(0), BankPlan("vid", C, 20, 7))
    with pytest.raises(ConfigError, match="bank vid: its rows have width 24, the embeddings width 30"):
        step(labels_of(0), embeddings=np.zeros((16, 30), np.float32))
    with pytest.raises(ConfigError, match="has 203 rows, but 500 centers in 1 shards need 500; make it with init_bank"):
        step(labels_of(0), BankPlan("vid", 500, 20, L))
    with pytest.raises(ConfigError, match="the mesh has no axis 'rows', only data"):
        BankPlacement(placement_on(2).mesh, ("rows",), ())
    with pytest.raises(ConfigError, match=r"softmax_scale = 100 .* at most 87"):
        CentersConfig(softmax_scale=100.0)
