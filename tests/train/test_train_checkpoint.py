"""A checkpoint comes back as it was saved, or is refused with what is wrong with it."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import STEPS, abstract_on, config_of, state_on

from ove.errors import BadCheckpoint, ConfigError, DamagedCheckpoint
from ove.train.checkpoints.checkpoint import Checkpoints, restore_encoder
from ove.train.checkpoints.integrity import fingerprint_of_blocks, fingerprints


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(trained_run, tmp_path / "run")


def files_of(run: Path) -> list[Path]:
    """All files of the last checkpoint that hold something, the largest first."""
    files = [path for path in (run / "checkpoints" / str(STEPS)).rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_the_encoder_is_restored_alone(trained_run: Path) -> None:
    config, params, step = restore_encoder(trained_run)
    assert (config, step) == (config_of(Path()).encoder, STEPS)
    checkpoints = Checkpoints(trained_run)
    saved = {name: leaf.fingerprint for name, leaf in checkpoints.meta(STEPS).leaves.items() if name.startswith("params/")}
    checkpoints.close()
    assert fingerprints({"params": params}) == saved


def test_a_reader_leaves_the_folder_as_it_is(run: Path) -> None:
    unfinished = run / "checkpoints" / "20.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    restore_encoder(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_flipped_bit_in_an_array_is_refused_by_name(run: Path) -> None:
    largest = files_of(run)[0]
    whole = largest.read_bytes()
    for place in range(7, len(whole), len(whole) // 6):
        flip(largest, place)
        with pytest.raises(DamagedCheckpoint, match=r"checkpoints/14: cannot be read \(1 of its arrays .*: \w+/\w+.*\)\."):
            full_restore(run)
        largest.write_bytes(whole)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_first(path: Path) -> None:
    flip(path, 0)


def one_of_each_kind(files: list[Path]) -> list[Path]:
    """Every file with a name of its own, and the largest of each folder whose files are named after their contents."""
    kinds = {path.parent if path.parent.name == "d" else path: path for path in reversed(files)}
    return list(kinds.values())


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one of each kind", "every file"])
@pytest.mark.parametrize("damage", [cut, Path.unlink, flip_first], ids=["cut", "deleted", "flipped"])
def test_damage_to_any_file_is_refused_by_name(run: Path, damage: Callable[[Path], None], every: bool) -> None:
    for path in files_of(run) if every else one_of_each_kind(files_of(run)):
        if path.parent.name == str(STEPS) and path.name != "files.json":
            continue  # orbax's own notes on the step, which nobody reads
        if damage is flip_first and path.parent.parent.name.startswith("ocdbt"):
            continue  # arrays, some of which nobody reads any more: the test above
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(DamagedCheckpoint, match=r"checkpoints/14: cannot be read \(.*\)\.") as refused:
            full_restore(run)
        assert path.name in str(refused.value) or "1 of its arrays" in str(refused.value)
        path.write_bytes(whole)
    full_restore(run)


def full_restore(run: Path) -> None:
    checkpoints = Checkpoints(run)
    try:
        abstract, shardings = abstract_on(config_of(Path()), 8)
        checkpoints.restore(STEPS, checkpoints.meta(STEPS), abstract, shardings)
    finally:
        checkpoints.close()


def test_a_reader_is_told_what_else_there_is(run: Path) -> None:
    cut(files_of(run)[0])
    with pytest.raises(DamagedCheckpoint, match=r"checkpoints/14: cannot be read \(.*\)\. The run also holds step 7\.$"):
        restore_encoder(run)
    assert restore_encoder(run, 7)[2] == 7


def test_another_version_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ove.train.checkpoints.checkpoint.SCHEMA_VERSION", 7)
    with pytest.raises(BadCheckpoint, match="has schema version 2, this program reads 7"):
        restore_encoder(run)


def test_a_save_that_fails_says_so_and_leaves_the_one_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(self: Checkpoints) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_record_files", no_room)
    config = config_of(Path())
    checkpoints = Checkpoints(run, keep=2)
    state = state_on(config, 8)[0]
    checkpoints.save(state._replace(step=state.step + 15), config, {})
    with pytest.raises(BadCheckpoint, match=r"step 15 could not be saved \(.*No space left on device\); make room"):
        checkpoints.close()
    assert restore_encoder(run)[2] == STEPS


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="holds no checkpoints; give the --workdir"):
        restore_encoder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(BadCheckpoint, match="holds no finished checkpoint"):
        restore_encoder(tmp_path)


def test_another_shape_is_named(trained_run: Path) -> None:
    checkpoints = Checkpoints(trained_run)
    meta = checkpoints.meta(STEPS)
    abstract, shardings = abstract_on(config_of(Path()), 8)
    banks = {"vid": abstract.banks["vid"]._replace(scale=jax.ShapeDtypeStruct((3,), jnp.float32)), "doc": abstract.banks["obj"]}
    places = {"vid": shardings.banks["vid"], "doc": shardings.banks["obj"]}
    with pytest.raises(BadCheckpoint, match=r"banks/doc/bias is missing; .* and 21 more\. Use the configuration"):
        checkpoints.restore(STEPS, meta, abstract._replace(banks=banks), shardings._replace(banks=places))
    banks["obj"] = banks.pop("doc")
    places["obj"] = places.pop("doc")
    with pytest.raises(BadCheckpoint, match=r"configuration: banks/vid/scale is float32\[\], not float32\[3\]\. Use"):
        checkpoints.restore(STEPS, meta, abstract._replace(banks=banks), shardings._replace(banks=places))
    checkpoints.close()


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_every_single_bit_counts(data: st.DataObject) -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    flipped = values.copy()
    bits = flipped.reshape(-1).view(np.uint32)
    bits[data.draw(st.integers(0, 34))] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert fingerprints({"a": jnp.asarray(values)}) != fingerprints({"a": jnp.asarray(flipped)})


@pytest.mark.parametrize("change", ["swapped", "two signs", "one added to another"])
def test_changes_of_several_values_count(change: str) -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    changed = values.copy()
    if change == "swapped":
        changed = values[:, ::-1]
    elif change == "two signs":  # the highest bits, which plain sums would let cancel
        changed[1, 2], changed[3, 4] = -values[1, 2], -values[3, 4]
    else:
        bits = changed.reshape(-1).view(np.uint32)
        bits[3], bits[4] = bits[3] + np.uint32(64), bits[4] - np.uint32(64)
    assert fingerprints({"a": jnp.asarray(values)}) != fingerprints({"a": jnp.asarray(changed)})


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32])
def test_an_array_read_in_blocks_has_the_fingerprint_of_the_whole(dtype: type) -> None:
    whole = np.random.default_rng(0).integers(0, 255, (300, 4 * np.dtype(dtype).itemsize), np.uint8).view(dtype)

    def blocks(of: np.ndarray) -> list[tuple[int, np.ndarray]]:
        return [(start, of[start : start + 128]) for start in (256, 0, 128)]

    assert fingerprint_of_blocks(blocks(whole)) == fingerprints({"a": jnp.asarray(whole)})["a"]
    flipped = whole.copy()
    flipped.view(np.uint8)[200, 5] ^= 1
    assert fingerprint_of_blocks(blocks(flipped)) != fingerprint_of_blocks(blocks(whole))


def test_rows_of_zeros_at_the_end_do_not_count() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    padded = np.concatenate([values, np.zeros((3, 7), np.float32)])
    assert fingerprints({"a": jnp.asarray(values)}) == fingerprints({"a": jnp.asarray(padded)})
    assert fingerprints({"a": jnp.asarray(values)}) != fingerprints({"a": jnp.asarray(-padded)})


def test_the_newest_and_every_so_many_stay(tmp_path: Path) -> None:
    state = state_on(config_of(Path()), 8)[0]
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=2)
    for step in range(1, 6):
        checkpoints.save(state._replace(step=state.step + step), config_of(Path()), {})
    checkpoints.close()
    reader = Checkpoints(tmp_path)
    assert reader.steps() == [2, 4, 5]
    reader.close()


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.keep_period = 10 is not a multiple of train\.save_every = 7"):
        config_of(Path(), keep_period=10)
