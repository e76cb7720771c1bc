"""Detects loss spikes, values that are not finite, collapse of embeddings, and dropped positives."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from ove.config import RunConfig, TrainConfig
from ove.errors import TrainingStopped
from ove.files import write_json
from ove.records import MODES, Batch

WINDOW = 128
"""Losses of each bank that are remembered. Not a setting: the state of every run has the same shape."""
ENOUGH = 32
"""Losses that must be known before one can be a spike."""
_LEAST_SPREAD = 0.01
"""Of the median: losses that hardly differ would make a spike of any change."""

KeyOf = Callable[[str, int, int], str]
"""Bank, source and index of a record → what it is called."""


def init_loss_window(n_banks: int) -> Float32[Array, "banks window"]:
    """Returns the loss window of a new run: all NaN (unknown)."""
    return jnp.full((n_banks, WINDOW), jnp.nan, jnp.float32)


def detect_spikes(
    recent: Float32[Array, "banks window"], losses: Float32[Array, "banks"], spike_mads: float
) -> tuple[Bool[Array, "banks"], Float32[Array, "banks window"]]:
    """Returns which banks' losses are spikes, and the loss window with these losses appended; works under jit.

    A spike is more than median + `spike_mads` · MAD of the last `WINDOW` losses of the same bank (MAD: median of the distances
    from the median, at least 1 % of it), if at least `ENOUGH` are known. Spikes are remembered like any loss: the median bears
    with less than half of them, and a loss that has risen for good stops being a spike after half a window. Losses that
    are not finite are no spikes, and are not remembered.
    """
    median = jnp.nanmedian(recent, axis=1)
    spread = jnp.nanmedian(jnp.abs(recent - median[:, None]), axis=1)
    limit = median + spike_mads * jnp.maximum(spread, _LEAST_SPREAD * jnp.abs(median))
    is_known = jnp.isfinite(recent).sum(axis=1) >= ENOUGH
    is_finite = jnp.isfinite(losses)
    is_spike = is_known & is_finite & (losses > limit)
    appended = jnp.concatenate([recent[:, 1:], losses[:, None]], axis=1)
    return is_spike, jnp.where(is_finite[:, None], appended, recent)


def apply_update(config: TrainConfig, is_spike: Bool[Array, "banks"]) -> Bool[Array, ""]:
    """Returns whether a step changes parameters, moments and banks: not if it is skipped for a spike."""
    return ~is_spike.any() if config.on_spike == "skip" else jnp.asarray(True)


def check_step(
    config: TrainConfig, step: int, values: Mapping[str, float], batches: Mapping[str, Batch], folder: Path, key_of: KeyOf
) -> list[str]:
    """Raises TrainingStopped if a loss or gradient is not finite, or over a spike if `train.on_spike` is "stop".

    `values`: the metrics of the step. What the batch consisted of is then in a file in `folder`, named in the message of
    TrainingStopped. Otherwise the sentences to report of spikes.
    """
    for prefix, called in (("loss/", "loss of bank"), ("grad_norm/", "gradient of")):
        wrong = [name for name in values if name.startswith(prefix) and not math.isfinite(values[name])]
        if wrong:
            path = note_batch(folder, "not_finite", step, batches, key_of)
            raise TrainingStopped(
                f"the {called} {wrong[0].removeprefix(prefix)} is {values[wrong[0]]} at step {step}; the records of its batch "
                f"are in {path}. Lower train.lr or train.lr_bank, or look at these records; the checkpoints before this step "
                "are sound."
            )
    banks = [name.removeprefix("spike/") for name in values if name.startswith("spike/") and values[name] > 0]
    if not banks:
        return []
    losses = ", ".join(f"{bank} {values[f'loss/{bank}']:.4g}" for bank in banks)
    found = f"step {step}: the loss has jumped ({losses})"
    path = note_batch(folder, "spike", step, batches, key_of)
    if config.on_spike == "stop":
        raise TrainingStopped(
            f"{found} by more than train.spike_mads = {config.spike_mads:g} of its usual spread; the records of its batch are "
            f"in {path}. Lower train.lr or train.lr_bank, look at these records, or set train.on_spike to skip; "
            "the checkpoints before this step are sound."
        )
    return [f"{found}; {'the step is skipped' if config.on_spike == 'skip' else 'nothing is done'}, see {path.name}"]


def note_batch(folder: Path, what: str, step: int, batches: Mapping[str, Batch], key_of: KeyOf) -> Path:
    """Writes `WHAT_step_STEP.json`: of each bank the key, source, index and mode of every record in this process's batch.

    Processes after the first write `process_I_WHAT_step_STEP.json`, for each has samples of its own.
    """
    process = f"process_{jax.process_index()}_" if jax.process_index() else ""
    path = folder / f"{process}{what}_step_{step}.json"
    banks = {
        bank: [
            {"key": key_of(bank, *where), "source": where[0], "record": where[1], "mode": MODES[mode]}
            for *where, mode in zip(batch.source.tolist(), batch.record.tolist(), batch.mode.tolist(), strict=True)
        ]
        for bank, batch in batches.items()
    }
    write_json(path, {"step": step, "banks": banks})
    return path


PATIENCE = 50
"""Steps in a row after which a collapse, or the end of something, counts."""


class Alarms:
    """Warnings with hysteresis: raised when a condition has lasted, cleared when it has been over for long enough."""

    def __init__(self, config: RunConfig) -> None:
        self._collapse_cosine = config.centers.collapse_cosine
        self._quiet_steps = config.train.warmup_steps
        self._banks = [str(head.bank) for head in config.batches.heads]
        self._given: set[str] = set()
        self._changed_for: dict[str, int] = defaultdict(int)

    def check(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """Yields warnings; sets `collapse/BANK` in `values` to 1 if the bank's embeddings are nearly all equal, else 0.

        Fresh encoders make nearly the same embedding of everything: nothing is a collapse before the end of the warm-up.
        """
        for bank in self._banks:
            cosine = values[f"embedding_cosine/{bank}"]
            collapsed = cosine > self._collapse_cosine and step > self._quiet_steps
            values[f"collapse/{bank}"] = float(collapsed)
            yield from self._look(
                f"collapse of {bank}",
                collapsed,
                f"ALARM at step {step}: the embeddings of bank {bank} have been nearly all the same for {PATIENCE} steps (mean "
                f"cosine {cosine:.3f}, more than centers.collapse_cosine = {self._collapse_cosine:g}); lower train.lr.",
                step,
                PATIENCE,
            )
            lost = values[f"positive_overflow/{bank}"]
            yield from self._look(
                f"overflow of {bank}",
                lost > 0,
                f"ALARM at step {step}: {lost:.0f} positives of bank {bank} had no room and were left out; raise "
                "centers.positives_capacity, or set it to 0.",
                step,
                1,
            )

    def _look(self, name: str, is_on: bool, words: str, step: int, patience: int) -> Iterator[str]:
        """Yields `words` when something has been on for `patience` steps, and that it is over after PATIENCE steps without."""
        is_given = name in self._given
        self._changed_for[name] = self._changed_for[name] + 1 if is_on != is_given else 0
        if self._changed_for[name] >= (PATIENCE if is_given else patience):
            self._changed_for[name] = 0
            self._given ^= {name}
            yield f"step {step}: {name} is over." if is_given else words
