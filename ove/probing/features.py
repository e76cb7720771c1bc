"""Computes tokens and embeddings of labelled samples with a frozen encoder: in memory, in files, or on demand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float16, Float32, Int, Int32, Shaped

from ove.errors import BadInput
from ove.features.frozen import Frozen
from ove.files import atomic_write, digest, write_array, write_json
from ove.probing.dataset import Example, ProbeDataset, ahead

SAMPLES_PER_CALL = 16
"""Samples per encoder call; rounded up to a multiple of the local devices."""
OnProgress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


@runtime_checkable
class TokenSource(Protocol):
    """Tokens and labels that an attentive probe is trained and scored on."""

    @property
    def labels(self) -> Int32[np.ndarray, "S"]:
        """Class index of each sample, or `dataset.UNKNOWN`."""

    def batch(self, indices: Int[np.ndarray, "B"], epoch: int | None) -> Float16[np.ndarray, "B N D"] | Float16[Array, "B N D"]:
        """Returns tokens of some samples; with an epoch, augmented for it."""


@dataclass(frozen=True)
class Features:
    """Precomputed tokens, in memory or mapped from files; never augmented."""

    tokens: Float16[np.ndarray, "S N D"]
    labels: Int32[np.ndarray, "S"]

    def batch(self, indices: Int[np.ndarray, "B"], epoch: int | None) -> Float16[np.ndarray, "B N D"]:
        """See `TokenSource`."""
        return self.tokens[indices]


@dataclass(frozen=True)
class Embeddings:
    """One vector per sample."""

    vectors: Float32[np.ndarray, "S E"]
    """L2-normalised."""
    labels: Int32[np.ndarray, "S"]


class EncodedOnDemand:
    """Tokens that are computed at each access, with the augmentation of the dataset."""

    def __init__(self, encoder: Frozen, dataset: ProbeDataset) -> None:
        self._encoder, self._dataset = encoder, dataset
        self.labels = dataset.labels()

    def batch(self, indices: Int[np.ndarray, "B"], epoch: int | None) -> Float16[np.ndarray, "B N D"]:
        """See `TokenSource`."""
        parts = ahead(lambda index: self._dataset.read(index, epoch), indices.tolist(), _rows(self._encoder))
        return np.concatenate([np.asarray(_through(self._encoder.tokens, self._encoder, batch)) for batch in parts])


def extract(encoder: Frozen, dataset: ProbeDataset, progress: OnProgress = lambda done, total: None) -> Features:
    """Returns the tokens of all samples, in memory. Processes share the work; each gets all tokens.

    BadShard for a damaged record or one without a label, BadInput for tokens that are not finite.
    """
    return Features(*_computed(encoder.tokens, encoder, dataset, progress))


def embed(encoder: Frozen, dataset: ProbeDataset, progress: OnProgress = lambda done, total: None) -> Embeddings:
    """Returns the L2-normalised embeddings of all samples; otherwise as `extract`."""
    vectors, labels = _computed(encoder.embeddings, encoder, dataset, progress)
    return Embeddings(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30), labels)


def stored(encoder: Frozen, dataset: ProbeDataset, folder: Path, progress: OnProgress = lambda done, total: None) -> Features:
    """Returns the tokens of all samples, mapped from files in `folder`; files made earlier from the same inputs are reused.

    The file names depend on the encoder's parameters, the shards' bytes and the view. Files are written atomically. Processes
    must share the folder; each writes its own part. Otherwise as `extract`.
    """
    about = {"encoder": encoder.fingerprint, "looks": dataset.cache_key(), "parts": encoder.part[1]}
    place = folder / digest(about)[:16]
    part = place / f"part-{encoder.part[0]:05d}"
    if not (part / "about.json").is_file():
        _write_part(encoder, dataset, part, about, progress)
    if encoder.part[1] > 1:
        multihost_utils.sync_global_devices(f"features {place.name}")
    parts = sorted(place.glob("part-?????"))
    labels = np.concatenate([np.load(p / "labels.npy") for p in parts])
    tokens = [np.load(p / "tokens.npy", mmap_mode="r") for p in parts]
    if len(labels) != len(dataset):
        raise BadInput(
            f"{place}: contains {len(labels)} of {len(dataset)} samples; delete it, and let all processes share the folder."
        )
    return Features(tokens[0] if len(tokens) == 1 else _Joined(tokens), labels)  # type: ignore[arg-type]


def _write_part(encoder: Frozen, dataset: ProbeDataset, part: Path, about: dict[str, Any], progress: OnProgress) -> None:
    part.mkdir(parents=True, exist_ok=True)
    (part / "about.json").unlink(missing_ok=True)
    mine, labels, out = part_of(len(dataset), encoder.part), [], None
    done = 0
    with atomic_write(part / "tokens.npy") as temporary:
        for seen in ahead(dataset.read, mine, _rows(encoder)):
            tokens = _checked(_through(encoder.tokens, encoder, seen), encoder)
            if out is None:
                out = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(mine), *tokens.shape[1:]))
            out[done : done + len(seen)] = tokens
            labels += [example.label for example in seen]
            done += len(seen)
            progress(done, len(mine))
        if out is None:
            raise BadInput(f"{part}: there are more processes than samples; use fewer.")
        out.flush()
    write_array(part / "labels.npy", np.array(labels, np.int32))
    write_json(part / "about.json", about)


class _Joined:
    """Concatenation of arrays on disk, along the first axis."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        which = np.searchsorted(self._ends, indices, side="right")
        starts = self._ends - [len(part) for part in self._parts]
        return np.stack([self._parts[p][i - starts[p]] for p, i in zip(which, indices, strict=True)])


def _computed(
    make: Callable[..., Array], encoder: Frozen, dataset: ProbeDataset, progress: OnProgress
) -> tuple[np.ndarray, np.ndarray]:
    made, labels, indices = [], [], part_of(len(dataset), encoder.part)
    for seen in ahead(dataset.read, indices, _rows(encoder)):
        made.append(_checked(_through(make, encoder, seen), encoder))
        labels += [example.label for example in seen]
        progress(len(labels), len(indices))
    mine = np.concatenate(made), np.array(labels, np.int32)
    of_tokens, of_labels = (of_all(rows, len(dataset), encoder.part) for rows in mine)
    return of_tokens, of_labels


def _rows(encoder: Frozen) -> int:
    return -(-SAMPLES_PER_CALL // encoder.mesh.size) * encoder.mesh.size


def _through(make: Callable[..., Array], encoder: Frozen, batch: Sequence[Example]) -> np.ndarray:
    """Applies `make` to a batch, padded with copies to the compiled size."""
    full = [batch[min(row, len(batch) - 1)] for row in range(_rows(encoder))]
    made = make(np.stack([example.patches for example in full]), np.stack([example.positions for example in full]))
    return np.asarray(made)[: len(batch)]


def _checked(made: np.ndarray, encoder: Frozen) -> np.ndarray:
    if not np.isfinite(made).all():
        raise BadInput(f"{encoder.name}: gives numbers that are not finite (float16 holds up to 65,504); check its weights.")
    return made


def part_of(total: int, part: tuple[int, int]) -> range:
    """Returns the samples of `part` = (index, count): contiguous parts of nearly equal length."""
    index, count = part
    return range(total * index // count, total * (index + 1) // count)


def of_all(mine: Shaped[np.ndarray, "n ..."], total: int, part: tuple[int, int]) -> Shaped[np.ndarray, "S ..."]:
    """Gathers the rows of all processes, in order, on each of them; `part` as in `part_of`."""
    count = part[1]
    if count == 1:
        return mine
    longest = math.ceil(total / count)
    padded = np.concatenate([mine, np.zeros((longest - len(mine), *mine.shape[1:]), mine.dtype)])
    parts: Any = multihost_utils.process_allgather(padded)
    lengths = [len(part_of(total, (i, count))) for i in range(count)]
    return np.concatenate([of_one[:length] for of_one, length in zip(parts, lengths, strict=True)])
