"""Every record goes through the encoder once, in order, with its label."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, RECORDS, write_set

from ove.batches.modes import CODEC, View, see
from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.errors import BadShard
from ove.probe.features import BATCH, extract
from ove.shards.read import ShardSet

CONFIG = EncoderConfig(layers=1, width=64, heads=2, mlp=64)
VIEW = View(BUDGET, GOP, "keep")


def test_each_record_once_in_order(shard_folder: Path) -> None:
    shards, params = ShardSet.open(shard_folder), encoder.init(CONFIG, jax.random.key(0))
    told: list[tuple[int, int]] = []
    found = extract(CONFIG, params, shards, list(CLASSES), "codec", VIEW, lambda *done: told.append(done))
    assert RECORDS % BATCH  # the last batch is not full
    assert found.labels.tolist() == [n % 2 for n in range(RECORDS)]
    assert told == [(BATCH, RECORDS), (RECORDS, RECORDS)]
    for index in (0, BATCH - 1, BATCH, RECORDS - 1):
        patches, positions = see(shards.record(index), CODEC, VIEW, None)
        alone = encoder.apply(CONFIG, params, jnp.asarray(patches[None]), jnp.asarray(positions[None])).tokens[0]
        np.testing.assert_allclose(found.tokens[index], alone, atol=2e-3)
    assert len(found.tokens) == RECORDS


def test_a_label_that_the_probe_does_not_know_is_refused(shard_folder: Path, tmp_path: Path) -> None:
    params = encoder.init(CONFIG, jax.random.key(0))

    def run(folder: Path, classes: list[str]) -> None:
        extract(CONFIG, params, ShardSet.open(folder), classes, "frames", VIEW, lambda done, total: None)

    with pytest.raises(BadShard, match=r"0001 has the label 'light', the training set has dark, other; give the videos labels"):
        run(shard_folder, ["dark", "other"])
    with pytest.raises(BadShard, match=r"0000 has the label None"):
        run(write_set(tmp_path / "shards", 4, labelled=False), ["dark", "light"])
