"""Three steps of the tiny run log what they logged when this was written: a change that nobody meant is seen."""

from pathlib import Path

import jax
import numpy as np
from tiny_run import batch, config_of, state_on

from ove.train.sharding import make_mesh
from ove.train.step import make_step

NEVER = dict.fromkeys(("skipped", "spike/obj", "spike/vid", "positive_overflow/obj", "positive_overflow/vid"), (0, 0, 0))
GOLDEN = NEVER | {
    "embedding_cosine/obj": (0.0753846, 0.0661159, 0.0513878),
    "embedding_cosine/vid": (0.355927, 0.374987, 0.475916),
    "ever_positive/obj": (8, 8, 8),
    "ever_positive/vid": (7, 8, 8),
    "grad_norm/blocks": (5.10427, 6.66636, 4.14745),
    "grad_norm/encoder": (119.172, 164.184, 113.252),
    "grad_norm/head": (109.431, 153.033, 106.032),
    "grad_norm/obj": (67.057, 79.9822, 63.8074),
    "grad_norm/patch": (46.911, 59.1026, 39.5731),
    "grad_norm/vid": (59.2817, 64.2427, 61.7886),
    "loss": (11.9814, 11.5902, 11.7498),
    "loss/obj": (6.39678, 6.15259, 6.00965),
    "loss/vid": (5.58461, 5.43759, 5.74015),
    "lr": (0, 0.0005, 0.001),
    "lr_bank/obj": (0, 0.0005, 0.001),
    "lr_bank/vid": (0, 0.0005, 0.001),
    "negative_logit/obj": (-0.616099, -0.0233222, -0.775881),
    "negative_logit/vid": (-0.90258, -0.623599, -1.17442),
    "positive_logit/obj": (-0.592616, -0.00167559, -0.64549),
    "positive_logit/vid": (-0.817916, -0.408134, -1.18026),
    "row_norm_p05/obj": (0.0714947, 0.0743725, 0.0743366),
    "row_norm_p05/vid": (0.0701626, 0.0794241, 0.0792585),
    "row_norm_p50/obj": (0.0772379, 0.0773453, 0.077583),
    "row_norm_p50/vid": (0.082645, 0.0827518, 0.0800748),
    "row_norm_p95/obj": (0.0814945, 0.0872368, 0.08745),
    "row_norm_p95/vid": (0.0865519, 0.0865519, 0.085524),
}
"""Metric → its values at the three steps. To be written anew only where a step is meant to compute something else."""


def test_three_steps_log_what_they_did() -> None:
    config = config_of(Path())
    state, _, shardings = state_on(config, 1)
    step = make_step(config, make_mesh(devices=jax.devices()[:1]), shardings)
    for number in range(3):
        state, metrics = step(state, batch(number))
        assert metrics.keys() == GOLDEN.keys()
        for name, values in GOLDEN.items():
            # Adam makes a whole step of the rounding of a gradient near 0, and versions of XLA round differently.
            np.testing.assert_allclose(float(metrics[name]), values[number], rtol=2e-4, atol=2e-4, err_msg=f"{name} {number}")
