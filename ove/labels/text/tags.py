"""Exactly so many tags for each picture (spec §5)."""

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int32

from ove.labels.text.vocabulary import Vocabulary
from ove.shards.labels import NONE


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
