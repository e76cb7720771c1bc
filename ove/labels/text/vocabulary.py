"""The words that tags are indices of, the most frequent ones of however many; and the tags of a picture (spec §5)."""

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
"""Files; systems allow about a thousand open ones."""


@dataclass(frozen=True)
class Vocabulary:
    """Words, the most frequent first; a word's tag is its index."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    """How often each word was read, over all pictures that the vocabulary was built from."""
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {word: place for place, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    @property
    def fingerprint(self) -> str:
        """Changes with any word and its place: the SHA-256 of the words, one a line, hexadecimal."""
        return hashlib.sha256("".join(f"{word}\n" for word in self.words).encode()).hexdigest()


def build_vocabulary(counts: Iterable[tuple[str, int]], size: int) -> Vocabulary:
    """The `size` most frequent of words that each come once; of equally frequent ones those that sort first, by code point.

    Memory grows with `size`, not with the number of words.
    """
    best = heapq.nsmallest(size, counts, key=lambda entry: (-entry[1], entry[0]))
    return Vocabulary(tuple(word for word, _ in best), tuple(count for _, count in best))


def write_counts(path: Path, counts: Counter[str]) -> None:
    """Writes `word<TAB>count` lines, sorted by code point."""
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(f"{word}\t{counts[word]}\n" for word in sorted(counts))


def merged_counts(paths: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Each word of files that `write_counts` wrote, sorted, with the sum of its counts.

    The files are read side by side, line by line, in groups where there are many.
    """
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
    """Writes `word<TAB>count` lines in the order of tags, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(f"{word}\t{count}\n" for word, count in zip(vocabulary.words, vocabulary.counts, strict=True))


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a file; a missing or empty one, or a line that is no `word<TAB>count`, raises BadShard."""
    if not path.is_file():
        raise BadShard(f"{path}: no such vocabulary; make one with `python -m launch.labels ocr --shards …`.")
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
    """As `read_vocabulary`, kept in memory by this process; another fingerprint than the one given raises BadShard."""
    found = read_vocabulary(path)
    if found.fingerprint != fingerprint:
        raise BadShard(f"{path}: has changed since its tags were asked for; start the command again.")
    return found


def tags_of(words: Iterable[str], vocabulary: Vocabulary, n_tags: int, seed: int, key: str) -> Int32[np.ndarray, "M"]:
    """The M = `n_tags` tags of a picture from the words in it: indices into the vocabulary, −1 in all places if there are none.

    Every word counts once, in the order in which it first appears; words that the vocabulary lacks are left out. Fewer than M
    are repeated cyclically, of more M are drawn at random and keep their order. The draw depends on nothing but the seed,
    the picture's key and the words, so neither on the shard nor on the machine.
    """
    found = list(dict.fromkeys(vocabulary.index[word] for word in words if word in vocabulary.index))
    if not found:
        return np.full(n_tags, NONE, np.int32)
    if len(found) > n_tags:
        drawn = sorted(range(len(found)), key=lambda place: _lot(seed, key, vocabulary.words[found[place]]))[:n_tags]
        found = [found[place] for place in sorted(drawn)]
    return np.resize(np.array(found, np.int32), n_tags)


def _lot(seed: int, key: str, word: str) -> bytes:
    """A number drawn by hashing: unlike those of a generator it is the same in every version of every library."""
    return hashlib.sha256(f"{seed}\0{key}\0{word}".encode()).digest()


def _side_by_side(paths: Sequence[Path]) -> Iterator[tuple[str, int]]:
    with ExitStack() as stack:
        files = [stack.enter_context(path.open(encoding="utf-8", newline="\n")) for path in paths]
        entries = heapq.merge(*(map(_entry, file) for file in files))
        for word, same in itertools.groupby(entries, key=lambda entry: entry[0]):
            yield word, sum(count for _, count in same)


def _entry(line: str) -> tuple[str, int]:
    word, _, count = line.rstrip("\n").partition("\t")
    return word, int(count)
