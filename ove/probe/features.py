"""Tokens and embeddings of a frozen encoder for labelled samples: held in memory, kept in files, or made when asked for."""

import hashlib
import json
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
from ove.files import atomic_write, write_array, write_text
from ove.probe.dataset import Look, Looks, ahead

BATCH = 16
"""Samples that go through the encoder at once, at least; rounded up to the number of local devices."""
Report = Callable[[int, int], None]
"""Is told how many samples are done, and of how many."""


@runtime_checkable
class Source(Protocol):
    """What a probe is trained and scored on."""

    @property
    def labels(self) -> Int32[np.ndarray, "S"]:
        """Index into the classes of the training set, or `looks.UNKNOWN`."""

    def batch(self, indices: Int[np.ndarray, "B"], epoch: int | None) -> Float16[np.ndarray, "B N D"] | Float16[Array, "B N D"]:
        """Tokens of some samples; with an epoch, as training sees them in it."""


@dataclass(frozen=True)
class Features:
    """Tokens that were computed once; always the same, whatever the epoch. In memory, or mapped from files."""

    tokens: Float16[np.ndarray, "S N D"]
    labels: Int32[np.ndarray, "S"]

    def batch(self, indices: Int[np.ndarray, "B"], epoch: int | None) -> Float16[np.ndarray, "B N D"]:
        """See `Source`."""
        return self.tokens[indices]


@dataclass(frozen=True)
class Embeddings:
    """One vector a sample."""

    vectors: Float32[np.ndarray, "S E"]
    """Of length 1."""
    labels: Int32[np.ndarray, "S"]


class Encoded:
    """Tokens that are made anew whenever they are asked for, in training with the augmentation of the looks."""

    def __init__(self, encoder: Frozen, looks: Looks) -> None:
        self._encoder, self._looks = encoder, looks
        self._labels = looks.labels()

    @property
    def labels(self) -> Int32[np.ndarray, "S"]:
        """See `Source`."""
        return self._labels

    def batch(self, indices: Int[np.ndarray, "B"], epoch: int | None) -> Float16[np.ndarray, "B N D"]:
        """See `Source`."""
        parts = ahead(lambda index: self._looks(index, epoch), indices.tolist(), _rows(self._encoder))
        return np.concatenate([np.asarray(_through(self._encoder.tokens, self._encoder, looks)) for looks in parts])


def extract(encoder: Frozen, looks: Looks, report: Report = lambda done, total: None) -> Features:
    """The tokens of all samples in order, in memory; several processes share the work and each gets all of it.

    BadShard for a damaged record or one without a label, BadInput where the encoder gives numbers that are not finite.
    """
    tokens, labels = _computed(encoder.tokens, encoder, looks, report)
    return Features(of_all(tokens, len(looks), encoder.part), of_all(labels, len(looks), encoder.part))


def embed(encoder: Frozen, looks: Looks, report: Report = lambda done, total: None) -> Embeddings:
    """The embeddings of all samples in order, of length 1; otherwise as `extract`."""
    vectors, labels = _computed(encoder.embeddings, encoder, looks, report)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return Embeddings(of_all(vectors, len(looks), encoder.part), of_all(labels, len(looks), encoder.part))


def stored(encoder: Frozen, looks: Looks, folder: Path, report: Report = lambda done, total: None) -> Features:
    """The tokens of all samples in order, mapped from files in `folder`; those of an earlier call are used if all is the same.

    A file each for the encoder's parameters, the shards' bytes and the way of looking at them; written whole or not at all.
    Several processes must share the folder: each writes a part of its own. Otherwise as `extract`.
    """
    about = {"encoder": encoder.fingerprint, "looks": looks.about(), "parts": encoder.part[1]}
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    part = place / f"part-{encoder.part[0]:05d}"
    if not (part / "about.json").is_file():
        _write_part(encoder, looks, part, text, report)
    if encoder.part[1] > 1:
        multihost_utils.sync_global_devices(f"features {place.name}")
    parts = sorted(place.glob("part-?????"))
    labels = np.concatenate([np.load(p / "labels.npy") for p in parts])
    tokens = [np.load(p / "tokens.npy", mmap_mode="r") for p in parts]
    if len(labels) != len(looks):
        raise BadInput(
            f"{place}: holds {len(labels)} of {len(looks)} samples; delete it, and let all processes share the folder."
        )
    return Features(tokens[0] if len(tokens) == 1 else _Joined(tokens), labels)  # type: ignore[arg-type]


def _write_part(encoder: Frozen, looks: Looks, part: Path, about: str, report: Report) -> None:
    part.mkdir(parents=True, exist_ok=True)
    (part / "about.json").unlink(missing_ok=True)
    mine, labels, out = part_of(len(looks), encoder.part), [], None
    done = 0
    with atomic_write(part / "tokens.npy") as temporary:
        for seen in ahead(looks, mine, _rows(encoder)):
            tokens = _checked(_through(encoder.tokens, encoder, seen), encoder)
            if out is None:
                out = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(mine), *tokens.shape[1:]))
            out[done : done + len(seen)] = tokens
            labels += [look.label for look in seen]
            done += len(seen)
            report(done, len(mine))
        if out is None:
            raise BadInput(f"{part}: there are more processes than samples; use fewer.")
        out.flush()
    write_array(part / "labels.npy", np.array(labels, np.int32))
    write_text(part / "about.json", about)


class _Joined:
    """Arrays on disk that follow each other, as one."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        which = np.searchsorted(self._ends, indices, side="right")
        starts = self._ends - [len(part) for part in self._parts]
        return np.stack([self._parts[p][i - starts[p]] for p, i in zip(which, indices, strict=True)])


def _computed(make: Callable[..., Array], encoder: Frozen, looks: Looks, report: Report) -> tuple[np.ndarray, np.ndarray]:
    made, labels, indices = [], [], part_of(len(looks), encoder.part)
    for seen in ahead(looks, indices, _rows(encoder)):
        made.append(_checked(_through(make, encoder, seen), encoder))
        labels += [look.label for look in seen]
        report(len(labels), len(indices))
    return np.concatenate(made), np.array(labels, np.int32)


def _rows(encoder: Frozen) -> int:
    return -(-BATCH // encoder.mesh.size) * encoder.mesh.size


def _through(make: Callable[..., Array], encoder: Frozen, looks: Sequence[Look]) -> np.ndarray:
    """The last batch is filled up with copies, so that one program serves all."""
    full = [looks[min(place, len(looks) - 1)] for place in range(_rows(encoder))]
    made = make(np.stack([look.patches for look in full]), np.stack([look.positions for look in full]))
    return np.asarray(made)[: len(looks)]


def _checked(made: np.ndarray, encoder: Frozen) -> np.ndarray:
    if not np.isfinite(made).all():
        raise BadInput(f"{encoder.name}: gives numbers that are not finite (of half precision: up to 65,504); it is broken.")
    return made


def part_of(total: int, part: tuple[int, int]) -> range:
    """The samples of part (number, of how many): as equal as can be, one after the other, each sample in one of them."""
    index, count = part
    return range(total * index // count, total * (index + 1) // count)


def of_all(mine: Shaped[np.ndarray, "n ..."], total: int, part: tuple[int, int]) -> Shaped[np.ndarray, "S ..."]:
    """The rows of all processes in order, in each of them; `mine` are those of this process, `part` as in `part_of`."""
    count = part[1]
    if count == 1:
        return mine
    longest = math.ceil(total / count)
    padded = np.concatenate([mine, np.zeros((longest - len(mine), *mine.shape[1:]), mine.dtype)])
    parts: Any = multihost_utils.process_allgather(padded)
    lengths = [len(part_of(total, (i, count))) for i in range(count)]
    return np.concatenate([of_one[:length] for of_one, length in zip(parts, lengths, strict=True)])
