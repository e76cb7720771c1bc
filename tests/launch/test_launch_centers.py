"""A bank is exported and shown from the checkpoint of a run, and a new run begins with exported centers."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import CENTERS, RECORDS
from tiny_run import N_CENTERS, STEPS, config_of, state_on

from launch import centers
from ove.centers.shuffle import row_of
from ove.errors import BadCheckpoint, BadInput, ConfigError, DamagedCheckpoint
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.checkpoints.saved_bank import open_bank
from ove.train.init_from import load_centroids
from ove.train.loop import train
from ove.train.sharding import make_mesh


def rows_of(run: Path, step: int, bank: str) -> np.ndarray:
    checkpoints = Checkpoints(run)
    _, abstract, shardings = state_on(config_of(Path()), 8)
    state = checkpoints.restore(step, checkpoints.meta(step), abstract, shardings)
    checkpoints.close()
    return by_center(state.banks[bank].rows)


def by_center(rows: jax.Array) -> np.ndarray:
    return np.asarray(rows)[np.asarray(row_of(jnp.arange(CENTERS), CENTERS))]


def test_a_bank_is_exported_and_begins_another_run(
    trained_run: Path, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "obj.safetensors"
    centers.main(["export", str(trained_run), "--bank", "obj", "--out", str(out)])
    assert capsys.readouterr().out == f"8 centers of bank obj, width 64, step {STEPS}: {out}\n"
    centers.main(["export", str(trained_run), "--out", str(tmp_path / "vid.npy")])
    np.testing.assert_array_equal(np.load(tmp_path / "vid.npy"), rows_of(trained_run, STEPS, "vid"))
    config = config_of(shard_folder)
    heads = (config.batches.heads[0], dataclasses.replace(config.batches.heads[1], centroids=str(out)))
    config = dataclasses.replace(config, batches=dataclasses.replace(config.batches, heads=heads))
    fresh, _, _ = state_on(config, 8)
    random_rows = np.asarray(fresh.banks["vid"].rows)
    state = load_centroids(fresh, config, N_CENTERS, make_mesh())
    np.testing.assert_array_equal(by_center(state.banks["obj"].rows), rows_of(trained_run, STEPS, "obj"))
    np.testing.assert_array_equal(state.banks["vid"].rows, random_rows)
    assert len(state.banks["obj"].rows.addressable_shards[0].data) == 1


def test_a_run_does_not_begin_with_centers_of_another_width(shard_folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "obj.npy", np.ones((CENTERS, 20), np.float32))
    config = config_of(shard_folder)
    heads = (dataclasses.replace(config.batches.heads[0], centroids=str(tmp_path / "obj.npy")),)
    config = dataclasses.replace(config, batches=dataclasses.replace(config.batches, heads=heads))
    with pytest.raises(BadInput, match="its centers have width 20, the encoder's embeddings width 64"):
        train(config, tmp_path / "run", lambda line: None)


def test_a_page_shows_the_nearest_samples(trained_run: Path, shard_folder: Path, tmp_path: Path) -> None:
    arguments = ["report", str(trained_run), "--shards", str(shard_folder), "--out", str(tmp_path)]
    centers.main([*arguments, "--centers", "6", "--nearest", "3"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert len({entry["center"] for entry in report["centers"]}) == 6
    page = (tmp_path / "index.html").read_text()
    for entry in report["centers"]:
        cosines = [sample["cosine"] for sample in entry["samples"]]
        assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)
        assert entry["steps_as_label"] > 0 and f"center {entry['center']} " in page
        for sample in entry["samples"]:
            assert (tmp_path / "pictures" / f"{sample['record']}.jpg").is_file() and 0 <= sample["record"] < RECORDS
    centers.main([*arguments, "--bank", "obj", "--ids", "5", "2"])
    assert [entry["center"] for entry in json.loads((tmp_path / "report.json").read_text())["centers"]] == [5, 2]
    with pytest.raises(ConfigError, match="--ids 8: bank vid has the centers 0…7"):
        centers.main([*arguments, "--ids", "8"])


def test_what_is_missing_is_named(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="holds no checkpoints; give the --workdir"):
        centers.main(["export", str(tmp_path), "--out", "a.npy"])
    with pytest.raises(BadCheckpoint, match="holds no checkpoint of step 3; there are 7, 14"):
        centers.main(["export", str(trained_run), "--step", "3", "--out", "a.npy"])


@pytest.mark.parametrize("leaf", ["rows", "rows_positive"])
def test_a_bank_whose_values_are_not_those_saved_is_refused(trained_run: Path, leaf: str) -> None:
    bank = open_bank(trained_run, "vid")
    name = f"banks/vid/{leaf}"
    other = dataclasses.replace(bank.meta.leaves[name], fingerprint=bank.meta.leaves[name].fingerprint ^ 1)
    meta = dataclasses.replace(bank.meta, leaves=bank.meta.leaves | {name: other})
    with pytest.raises(DamagedCheckpoint, match=rf"checkpoints/{STEPS}: cannot be read \({name}: not what was saved"):
        dataclasses.replace(bank, meta=meta).check()
