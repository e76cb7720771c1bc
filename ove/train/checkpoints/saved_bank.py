"""Reads a saved bank block by block, without loading it whole."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore
from jaxtyping import Int32, Shaped

from ove.centers.shuffle import row_of
from ove.errors import BadCheckpoint
from ove.train.checkpoints.checkpoint import Checkpoints, Meta
from ove.train.checkpoints.integrity import damaged, few, fingerprint_of_blocks

_BLOCK_ROWS = 65536


@dataclass(frozen=True)
class SavedBank:
    """One bank of the newest checkpoint of a run."""

    workdir: Path
    name: str
    step: int
    n_centers: int
    meta: Meta

    @property
    def width(self) -> int:
        """Numbers of a center."""
        return self._table("rows").shape[1]

    def check(self) -> None:
        """Compares all values with their fingerprints, as every other reader of a checkpoint does; DamagedCheckpoint."""
        leaves = {f"banks/{self.name}/{leaf}": leaf for leaf in ("rows", "rows_positive")}
        altered = [
            name
            for name, leaf in leaves.items()
            if fingerprint_of_blocks(self.blocks(leaf)) != self.meta.leaves[name].fingerprint
        ]
        if altered:
            folder = self.workdir.resolve() / "checkpoints" / str(self.step)
            raise damaged(folder, f"{few(altered)}: not what was saved; --step takes an earlier one")

    def blocks(self, leaf: str = "rows") -> Iterator[tuple[int, Shaped[np.ndarray, "..."]]]:
        """Yields the rows in their order, without padding, with the number of the first."""
        table = self._table(leaf)
        for start in range(0, self.n_centers, _BLOCK_ROWS):
            yield start, self._read(table, slice(start, min(start + _BLOCK_ROWS, self.n_centers)))

    def centers(self, numbers: Int32[np.ndarray, "n"]) -> Shaped[np.ndarray, "n E"]:
        """Reads some centers."""
        return self._read(self._table("rows"), self._rows(numbers))

    def positive_steps(self) -> Int32[np.ndarray, "C"]:
        """Returns in how many steps each center was a positive."""
        return self._read(self._table("rows_positive"), self._rows(np.arange(self.n_centers, dtype=np.int32)))

    def _rows(self, numbers: Int32[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        return np.asarray(jax.jit(row_of, static_argnums=1)(jnp.asarray(numbers), self.n_centers))

    def _table(self, leaf: str) -> Any:
        folder = self.workdir.resolve() / "checkpoints" / str(self.step) / "state"
        place = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}, "path": f"banks.{self.name}.{leaf}/"}
        try:
            return tensorstore.open({"driver": "zarr", "kvstore": place}, read=True).result()
        except ValueError as error:
            raise self._unreadable(error) from error

    def _read(self, table: Any, which: Any) -> np.ndarray:
        try:
            return table[which].read().result()
        except ValueError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: ValueError) -> BadCheckpoint:
        return BadCheckpoint(
            f"{self.workdir}: bank {self.name} of step {self.step} cannot be read ({str(error).splitlines()[0][:200]}); "
            "delete the folder of this step to go on from the one before."
        )


def open_bank(workdir: Path, name: str, step: int | None = None) -> SavedBank:
    """Opens a bank of a run's checkpoint of `step` (by default the newest), once its values are checked.

    BadCheckpoint if there is none of that name, DamagedCheckpoint if a value is not what was saved.
    """
    if not (workdir / "checkpoints").is_dir():
        raise BadCheckpoint(f"{workdir}: holds no checkpoints; give the --workdir of a training run.")
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        steps = checkpoints.steps()
        if not steps or step not in (None, *steps):
            raise BadCheckpoint(
                f"{workdir}: holds no checkpoint of step {step}; there are {', '.join(map(str, steps)) or 'none'}."
            )
        step = steps[-1] if step is None else step
        meta = checkpoints.meta(step)
    banks = sorted({leaf.split("/")[1] for leaf in meta.leaves if leaf.startswith("banks/")})
    if name not in banks:
        raise BadCheckpoint(f"{workdir}: has no bank {name}; its banks are {', '.join(banks) or 'none'}.")
    if "n_centers" not in meta.data or f"banks/{name}/rows_positive" not in meta.leaves:
        raise BadCheckpoint(f"{workdir}: was trained by an older version, whose banks lie in another order; train it again.")
    bank = SavedBank(workdir, name, step, meta.data["n_centers"][name], meta)
    bank.check()
    return bank
