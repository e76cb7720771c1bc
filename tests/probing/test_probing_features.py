"""Every record goes through the encoder once, in order, with its label; kept, stored or made anew it gives the same."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, RECORDS, write_set

from ove.config import EncoderConfig, SelectionConfig
from ove.encoder import encoder
from ove.errors import BadInput, BadShard
from ove.features.frozen import Frozen, frozen
from ove.probing.dataset import UNKNOWN, ProbeDataset
from ove.probing.features import SAMPLES_PER_CALL, EncodedOnDemand, embed, extract, part_of, stored
from ove.records import CODEC
from ove.shards.shard_set import ShardSet
from ove.stream.modes import TokenView, to_tokens

CONFIG = EncoderConfig(layers=1, width=64, heads=2, mlp=64)
PARAMS = encoder.init(CONFIG, jax.random.key(0))
VIEW = TokenView(BUDGET, SelectionConfig(gop_frames=GOP))


@pytest.fixture(scope="module")
def model() -> Frozen:
    return frozen(CONFIG, PARAMS)


def looks_at(folder: Path, classes: tuple[str, ...] = CLASSES, mode: str = "codec", **options: object) -> ProbeDataset:
    return ProbeDataset(ShardSet.open(folder), classes, mode, VIEW, **options)


def test_each_record_once_in_order(model: Frozen, shard_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    dataset = looks_at(shard_folder)
    found = extract(model, dataset, lambda *done: told.append(done))
    assert RECORDS % SAMPLES_PER_CALL  # the last batch is not full
    assert found.labels.tolist() == [n % 2 for n in range(RECORDS)]
    assert told == [(SAMPLES_PER_CALL, RECORDS), (RECORDS, RECORDS)]
    for index in (0, SAMPLES_PER_CALL - 1, SAMPLES_PER_CALL, RECORDS - 1):
        patches, positions = to_tokens(dataset.shards.record(index), CODEC, VIEW, None)
        alone = encoder.apply(CONFIG, PARAMS, jnp.asarray(patches[None]), jnp.asarray(positions[None]))
        np.testing.assert_allclose(found.tokens[index], alone.tokens[0], atol=2e-3)
    assert len(found.tokens) == RECORDS
    near = embed(model, dataset)
    pooled = np.asarray(alone.pooled[0])
    np.testing.assert_allclose(near.vectors[-1], pooled / np.linalg.norm(pooled), atol=1e-5)
    assert near.labels.tolist() == found.labels.tolist()


def test_files_and_encoding_anew_give_the_same_tokens(model: Frozen, shard_folder: Path, tmp_path: Path) -> None:
    dataset = looks_at(shard_folder)
    kept, told = extract(model, dataset), []
    for _ in range(2):
        on_disk = stored(model, dataset, tmp_path, lambda *done: told.append(done))
        np.testing.assert_array_equal(on_disk.tokens, kept.tokens)
        np.testing.assert_array_equal(on_disk.labels, kept.labels)
    assert len(told) == 2  # batches; nothing is computed the second time
    stored(model, looks_at(shard_folder, mode="frames"), tmp_path)
    other = frozen(CONFIG, encoder.init(CONFIG, jax.random.key(1)))
    assert not np.array_equal(stored(other, dataset, tmp_path).tokens, kept.tokens)
    assert len(list(tmp_path.iterdir())) == 3
    anew = EncodedOnDemand(model, dataset)
    some = np.array([23, 0, 17])
    np.testing.assert_array_equal(anew.batch(some, None), kept.tokens[some])
    assert anew.labels.tolist() == kept.labels.tolist()


def test_labels_are_read_once_for_all_looks_at_a_set(
    model: Frozen, shard_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = looks_at(shard_folder)
    labels = EncodedOnDemand(model, dataset).labels
    monkeypatch.setattr(ShardSet, "record", None)  # whoever reads again, fails
    again = EncodedOnDemand(model, dataclasses.replace(dataset, mode="frames"))
    np.testing.assert_array_equal(again.labels, labels)


def test_a_file_that_was_not_finished_is_made_again(model: Frozen, shard_folder: Path, tmp_path: Path) -> None:
    dataset = looks_at(shard_folder)
    whole = np.array(stored(model, dataset, tmp_path).tokens)  # not the mapped file, which is about to be cut
    (part,) = tmp_path.glob("*/part-*")
    (part / "about.json").unlink()
    (part / "tokens.npy").write_bytes(b"cut")
    np.testing.assert_array_equal(stored(model, dataset, tmp_path).tokens, whole)


def test_parts_of_processes_are_every_sample_once() -> None:
    for total in (1, 7, 24):
        for count in (1, 2, 5):
            parts = [list(part_of(total, (i, count))) for i in range(count)]
            assert [index for part in parts for index in part] == list(range(total))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_augmentation_is_that_of_the_epoch_and_mirrors_clips(model: Frozen, shard_folder: Path) -> None:
    dataset = looks_at(shard_folder, mode="frames", jitter=True, flip=1.0, seed=5)
    first, again, later = dataset(3, 0), dataset(3, 0), dataset(3, 1)
    np.testing.assert_array_equal(first.patches, again.patches)
    assert not np.array_equal(first.patches, later.patches)  # other frames
    plain, turned = looks_at(shard_folder)(3), looks_at(shard_folder, flip=1.0)(3, 0)
    np.testing.assert_array_equal(turned.positions, plain.positions * [1, 1, -1] + [0, 0, 1])
    one = plain.patches[4].reshape(14, 14, 3)
    np.testing.assert_array_equal(turned.patches[4].reshape(14, 14, 3), one[:, ::-1])
    np.testing.assert_array_equal(dataset(3).patches, looks_at(shard_folder, mode="frames")(3).patches)


def test_labels(model: Frozen, shard_folder: Path, tmp_path: Path) -> None:
    found = extract(model, looks_at(shard_folder, ("dark", "other"), "frames"))
    assert found.labels.tolist() == [0, UNKNOWN] * (RECORDS // 2)
    with pytest.raises(BadShard, match=r"0000 has no label; give the files labels by subfolder or list"):
        extract(model, looks_at(write_set(tmp_path / "shards", 4, labelled=False)))


def test_a_broken_encoder_is_found_out(shard_folder: Path) -> None:
    params = jax.tree.map(lambda leaf: leaf * jnp.inf, PARAMS)
    with pytest.raises(BadInput, match="not finite"):
        extract(frozen(CONFIG, params), looks_at(shard_folder))
