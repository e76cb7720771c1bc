"""A loss that must fall falls: by the encoder alone before centers that stand still, and by the centers alone."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_run import config_of, replace_encoder

from ove.train.loop import train

STEPS = 24


@pytest.mark.parametrize(("lr", "lr_bank"), [(2e-3, 0.0), (0.0, 1e-2)], ids=["the encoder alone", "the centers alone"])
def test_training_on_shards_lowers_the_loss(shard_folder: Path, tmp_path: Path, lr: float, lr_bank: float) -> None:
    config = config_of(shard_folder, steps=STEPS, save_every=STEPS, lr=lr, lr_bank=lr_bank, schedule="cosine", log_images=0)
    config = dataclasses.replace(config, batches=dataclasses.replace(config.batches, heads=config.batches.heads[:1]))
    state = train(replace_encoder(config, layers=1, init_std=0.125), tmp_path / "run", lambda line: None)
    losses = [json.loads(line)["loss/vid"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert int(state.step) == len(losses) == STEPS
    # The first two steps see what was there at the beginning, for the first has a learning rate of 0.
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:2])
