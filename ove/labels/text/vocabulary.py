"""The vocabulary of the most frequent words, and the tags of a picture: indices into it (spec §5)."""

import functools
import hashlib
import heapq
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from ove.errors import BadShard
from ove.files import atomic_write
from ove.shards.labels import NONE

_MERGED_AT_ONCE = 200
"""Files merged at once; systems allow about a thousand open ones."""


@dataclass(frozen=True)
class Vocabulary:
    """Words, the most frequent first; a word's tag is its index."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    """Occurrences of each word in all pictures that the vocabulary was built from."""
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {word: place for place, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the words, one a line, hexadecimal."""
        return hashlib.sha256("".join(f"{word}\n" for word in self.words).encode()).hexdigest()


def build_vocabulary(counts: Iterable[tuple[str, int]], size: int) -> Vocabulary:
    """Returns the `size` most frequent of unique words, ties by code point; memory grows with `size` only."""
    best = heapq.nsmallest(size, counts, key=lambda entry: (-entry[1], entry[0]))
    return Vocabulary(tuple(word for word, _ in best), tuple(count for _, count in best))


def write_counts(path: Path, counts: Counter[str]) -> None:
    """Writes `word<TAB>count` lines, sorted by code point."""
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(f"{word}\t{counts[word]}\n" for word in sorted(counts))


def merged_counts(paths: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Yields each word of files that `write_counts` wrote, sorted, with the sum of its counts; streams many files in groups."""
    if len(paths) <= _MERGED_AT_ONCE:
        yield from _side_by_side(paths)
        return
    with tempfile.TemporaryDirectory(dir=paths[0].parent, prefix=".merge-") as folder:
        groups = range(0, len(paths), _MERGED_AT_ONCE)
        between = [Path(folder) / str(start) for start in groups]
        for start, path in zip(groups, between, strict=True):
            with path.open("w", encoding="utf-8", newline="\n") as handle:
                handle.writelines(f"{w}\t{n}\n" for w, n in _side_by_side(paths[start : start + _MERGED_AT_ONCE]))
        yield from merged_counts(between)


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Writes `word<TAB>count` lines in the order of tags, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(f"{word}\t{count}\n" for word, count in zip(vocabulary.words, vocabulary.counts, strict=True))


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads a vocabulary; BadShard if it is missing or empty, or has a line that is not `word<TAB>count`."""
    if not path.is_file():
        raise BadShard(f"{path}: no such vocabulary; make one with `ove labels ocr --shards …`.")
    found: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, _, count = line.partition("\t")
        if not word or not count.isdecimal() or word in found:
            raise BadShard(f"{path}: line {number} is {line!r:.80}, expected a new word, a tab and its count.")
        found[word] = int(count)
    if not found:
        raise BadShard(f"{path}: holds no words; make a vocabulary from pictures with text in them.")
    return Vocabulary(tuple(found), tuple(found.values()))


@functools.lru_cache(maxsize=1)
def cached_vocabulary(path: Path, fingerprint: str) -> Vocabulary:
    """Reads a vocabulary once per process; BadShard for another fingerprint."""
    found = read_vocabulary(path)
    if found.fingerprint != fingerprint:
        raise BadShard(f"{path}: has changed since its tags were asked for; start the command again.")
    return found


def tags_of(words: Iterable[str], vocabulary: Vocabulary, n_tags: int, seed: int, key: str) -> Int32[np.ndarray, "M"]:
    """Returns the M = `n_tags` tags of a picture from its words: indices into the vocabulary, or all −1.

    Words count once, in order of first appearance; unknown ones are left out. Fewer than M are repeated cyclically; of more, M
    are drawn at random and keep their order. The draw depends on the seed, the picture's key and the words alone.
    """
    found = list(dict.fromkeys(vocabulary.index[word] for word in words if word in vocabulary.index))
    if not found:
        return np.full(n_tags, NONE, np.int32)
    if len(found) > n_tags:

        def lot(place: int) -> bytes:  # by hashing, which no version of a library changes
            return hashlib.sha256(f"{seed}\0{key}\0{vocabulary.words[found[place]]}".encode()).digest()

        drawn = sorted(range(len(found)), key=lot)[:n_tags]
        found = [found[place] for place in sorted(drawn)]
    return np.resize(np.array(found, np.int32), n_tags)


def _side_by_side(paths: Sequence[Path]) -> Iterator[tuple[str, int]]:
    with ExitStack() as stack:
        files = [stack.enter_context(path.open(encoding="utf-8", newline="\n")) for path in paths]
        entries = heapq.merge(*(map(_entry, file) for file in files))
        for word, same in itertools.groupby(entries, key=lambda entry: entry[0]):
            yield word, sum(count for _, count in same)


def _entry(line: str) -> tuple[str, int]:
    word, _, count = line.rstrip("\n").partition("\t")
    return word, int(count)
