"""The vocabulary is the same however the counting was cut up; tags are exactly as many as they must be."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ove.labels.text.vocabulary as module
from ove.errors import BadShard
from ove.labels.text.vocabulary import (
    Vocabulary,
    build_vocabulary,
    cached_vocabulary,
    merged_counts,
    read_vocabulary,
    tags_of,
    write_counts,
    write_vocabulary,
)

WORDS = st.lists(st.text(alphabet="abcé汉", min_size=1, max_size=3), max_size=60)


def vocabulary_of(*words: str) -> Vocabulary:
    return Vocabulary(words, tuple(range(len(words), 0, -1)))


@given(shards=st.lists(WORDS, min_size=1, max_size=7), size=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_counting_in_shards_is_counting_at_once(
    shards: list[list[str]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    paths = [folder / f"{n}.tsv" for n in range(len(shards))]
    for path, words in zip(paths, shards, strict=True):
        write_counts(path, Counter(words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MERGED_AT_ONCE", 2)
        merged = list(merged_counts(paths))
        found = build_vocabulary(merged_counts(paths), size)
    total = Counter(word for words in shards for word in words)
    assert merged == sorted(total.items())
    best = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))[:size]
    assert list(zip(found.words, found.counts, strict=True)) == best
    assert [path.name for path in folder.iterdir() if path not in paths] == []  # nothing is left behind


def test_ties_are_broken_by_the_word_wherever_it_came_from() -> None:
    counts = [("b", 2), ("a", 2), ("汉", 5), ("c", 2), ("Z", 1)]
    assert build_vocabulary(counts, 3).words == build_vocabulary(reversed(counts), 3).words == ("汉", "a", "b")


def test_a_vocabulary_comes_back_and_its_fingerprint_tells_it_apart(tmp_path: Path) -> None:
    vocabulary = vocabulary_of("the", "公园", "don't")
    path = tmp_path / "vocabulary.tsv"
    write_vocabulary(path, vocabulary)
    assert path.read_text() == "the\t3\n公园\t2\ndon't\t1\n"
    assert read_vocabulary(path) == vocabulary
    assert vocabulary.fingerprint != vocabulary_of("公园", "the", "don't").fingerprint
    assert cached_vocabulary(path, vocabulary.fingerprint).index["公园"] == 1
    with pytest.raises(BadShard, match="has changed"):
        cached_vocabulary(path, "of another")


@pytest.mark.parametrize("text", ["the\t3\nthe\t2\n", "no count\n", "word\tmany\n", "\t3\n", ""])
def test_damaged_vocabularies_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.tsv"
    path.write_text(text)
    with pytest.raises(BadShard, match=r"vocabulary\.tsv: (line \d|holds no words)"):
        read_vocabulary(path)
    with pytest.raises(BadShard, match="no such vocabulary"):
        read_vocabulary(tmp_path / "none.tsv")


@given(words=st.lists(st.sampled_from("abcdefghijklmnop"), max_size=40), n_tags=st.integers(1, 12), seed=st.integers(0, 5))
def test_exactly_so_many_tags(words: list[str], n_tags: int, seed: int) -> None:
    vocabulary = vocabulary_of(*"abcdefghijkl")
    tags = tags_of(words, vocabulary, n_tags, seed, "key")
    known = [vocabulary.index[word] for word in dict.fromkeys(words) if word in vocabulary.index]
    assert tags.shape == (n_tags,) and tags.dtype == np.int32
    if not known:
        assert (tags == -1).all()
    elif len(known) <= n_tags:
        assert tags.tolist() == [known[place % len(known)] for place in range(n_tags)]
    else:
        assert len(set(tags.tolist())) == n_tags
        places = [known.index(tag) for tag in tags]
        assert places == sorted(places)
        np.testing.assert_array_equal(tags, tags_of(words, vocabulary, n_tags, seed, "key"))


def test_the_draw_is_even_and_differs_by_seed_and_picture() -> None:
    words = [chr(ord("a") + place) for place in range(20)]
    vocabulary = vocabulary_of(*words)
    times = sum(np.bincount(tags_of(words, vocabulary, 5, 0, f"picture {n}"), minlength=20) for n in range(2000))
    assert np.abs(times - 500).max() < 5 * np.sqrt(500 * 0.75)
    one, other_seed, other_key = (
        tags_of(words, vocabulary, 5, seed, key).tolist() for seed, key in ((0, "a"), (1, "a"), (0, "b"))
    )
    assert one != other_seed and one != other_key


def test_the_draw_stays_what_it_was() -> None:
    words = [chr(ord("a") + place) for place in range(20)]
    assert tags_of(words, vocabulary_of(*words), 5, 0, "a").tolist() == [3, 4, 14, 18, 19]
