"""Flipped bits in the files of a checkpoint: what changes a value is refused by name, and nothing else is restored."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import STEPS, abstract_on, config_of

from ove.errors import DamagedCheckpoint
from ove.train.checkpoints.checkpoint import Checkpoints, Meta
from ove.train.init import TrainState

KINDS = ("state/ocdbt.process_0/d", "state/d", "state", "meta", "")
"""Folders of a step, by what lies in them: arrays, the index of the arrays, notes of orbax, ours, and of the whole."""


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run")


class Restored:
    """What `ove train` would go on from."""

    def __init__(self, run: Path) -> None:
        abstract, shardings = abstract_on(config_of(Path()), 8)
        with Checkpoints(run) as checkpoints:
            self.meta: Meta = checkpoints.meta(STEPS)
            state: TrainState = checkpoints.restore(STEPS, self.meta, abstract, shardings)
        state = state._replace(rng=jax.random.key_data(state.rng))
        self.leaves = [np.asarray(leaf).view(np.uint8) for leaf in jax.tree.leaves(jax.tree.map(np.atleast_1d, state))]

    def equals(self, other: "Restored") -> bool:
        same = all(np.array_equal(a, b) for a, b in zip(self.leaves, other.leaves, strict=True))
        return same and self.meta == other.meta


def flips(folder: Path, count: int) -> Iterator[tuple[Path, int]]:
    """(file, bit): kinds of files in turn, among all bits of a kind at random."""
    rng = np.random.default_rng(0)
    for number in range(count):
        files = sorted(path for path in (folder / KINDS[number % len(KINDS)]).iterdir() if path.is_file())
        sizes = np.array([path.stat().st_size for path in files])
        path = files[rng.choice(len(files), p=sizes / sizes.sum())]
        yield path, int(rng.integers(8 * path.stat().st_size))


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_flipped_bits_are_found_and_named_or_change_nothing(run: Path, count: int) -> None:
    whole = Restored(run)
    refused = dict.fromkeys(KINDS, 0)
    for path, bit in flips(run / "checkpoints" / str(STEPS), count):
        data = path.read_bytes()
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            assert Restored(run).equals(whole), f"bit {bit} of {path} changes something and is not found"
        except DamagedCheckpoint as error:
            named = [path.name, *whole.meta.leaves]
            assert any(name in str(error) for name in named), f"bit {bit} of {path} is found, but not where it is: {error}"
            refused[str(path.parent.relative_to(run / "checkpoints" / str(STEPS))).removeprefix(".")] += 1
        path.write_bytes(data)
    assert Restored(run).equals(whole)
    each = count // len(KINDS)
    # Where names and fingerprints are: every bit. Of the folder itself, the list of files; the rest nobody reads.
    assert [refused[kind] for kind in KINDS[1:4]] == [each] * 3
    assert refused[KINDS[0]] >= each // 2 and refused[""] >= 1, refused
