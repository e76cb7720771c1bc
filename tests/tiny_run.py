"""A run that is as small as it can be."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from synthetic import BUDGET, CENTERS, GOP, LABELS, SIZE_PX

from ove.config import BatchesConfig, EncoderConfig, HeadConfig, RunConfig, SelectionConfig, TrainConfig
from ove.train.encoder_grads import BatchArrays
from ove.train.init import TrainState, init_state
from ove.train.sharding import make_mesh, state_shardings

STEPS = 14
N_CENTERS = {"vid": CENTERS, "obj": CENTERS}


def config_of(folder: Path, **train: Any) -> RunConfig:
    """A run over both banks of tests/synthetic.py."""
    heads = tuple(HeadConfig(bank, 8, negatives=0.5, labels_per_step=2) for bank in ("vid", "obj"))
    return RunConfig(
        BatchesConfig(shards=str(folder), budget_tokens=BUDGET, selection=SelectionConfig(gop_frames=GOP), heads=heads),
        EncoderConfig(layers=2, width=64, heads=2, mlp=128),
        train=TrainConfig(**({"steps": STEPS, "warmup_steps": 2, "log_every": 1, "save_every": 7} | train)),
    )


def replace_encoder(config: RunConfig, **encoder: Any) -> RunConfig:
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **encoder))


def state_on(config: RunConfig, n_devices: int, n_centers: int = CENTERS) -> tuple[TrainState, TrainState, TrainState]:
    """(state, abstract state, shardings) of a fresh run on the first devices."""
    abstract, shardings = abstract_on(config, n_devices, n_centers)
    return jax.device_put(_init(config, n_centers, _n_shards(n_devices, n_centers))(), shardings), abstract, shardings


@functools.cache
def abstract_on(config: RunConfig, n_devices: int, n_centers: int = CENTERS) -> tuple[TrainState, TrainState]:
    """(abstract state, shardings): what a checkpoint is restored to."""
    abstract = jax.eval_shape(_init(config, n_centers, _n_shards(n_devices, n_centers)))
    return abstract, state_shardings(abstract, make_mesh(devices=jax.devices()[:n_devices]))


def _n_shards(n_devices: int, n_centers: int) -> int:
    return n_devices if n_centers % n_devices else 1


@functools.cache
def _init(config: RunConfig, n_centers: int, n_shards: int) -> jax.stages.Wrapped:
    return jax.jit(functools.partial(init_state, config, dict.fromkeys(N_CENTERS, n_centers), n_shards))


def batch(seed: int) -> BatchArrays:
    """Random patches and labels for both banks."""
    rng = np.random.default_rng(seed)
    grid = SIZE_PX // 14

    def of(tokens: int) -> dict[str, np.ndarray]:
        return {
            "patches": rng.integers(0, 256, (8, tokens, 588), dtype=np.uint8),
            "positions": rng.integers(0, grid, (8, tokens, 3), dtype=np.int32),
            "labels": rng.integers(0, CENTERS, (8, LABELS), dtype=np.int32),
        }

    return jax.tree.map(jax.numpy.asarray, {"vid": of(BUDGET), "obj": of(grid * grid)})
