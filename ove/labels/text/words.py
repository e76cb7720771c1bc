"""Splits text into Unicode words, and Chinese runs by jieba's dictionary."""

import functools
import importlib
import importlib.metadata
import itertools
import unicodedata
import warnings
from typing import Any

_VERSION = 1
"""Increased with every change of the rules."""
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_HAN_SINGLES = "々〇〻"
_JOIN_LETTERS = "'·"
_JOIN_DIGITS = ".,:"
_APOSTROPHES = str.maketrans("’‘＇ʼ", "''''")
_SCRIPTS = {"CJK": "HAN", "IDEOGRAPHIC": "HAN", "FULLWIDTH": "LATIN", "KATAKANA-HIRAGANA": "KATAKANA", "DIGIT": "DIGITS"}


def words(text: str) -> list[str]:
    """Returns the words of a text in order, in lower case and normal form NFKC.

    A word is a run of letters, digits and their marks (Unicode categories L, N, M), with apostrophes between letters ("don't")
    and a point, comma or colon between digits ("3.14"). Runs of Chinese characters are segmented by jieba's dictionary without
    guessing unknown words (HMM=False), which come out as single characters. Other scripts without spaces (kana, Thai) are not
    segmented.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower())
    found: list[str] = []
    places = range(len(text))
    for kind, run in itertools.groupby(places, key=lambda place: _kind(text, place)):
        piece = "".join(text[place] for place in run)
        if kind == "han":
            found += _chinese().cut(piece, HMM=False)
        elif kind == "word":
            found.append(piece)
    return found


def words_version() -> list[str | int]:
    """Returns all that decides `words`: the versions of its rules, of Unicode's tables and of jieba's dictionary."""
    return [_VERSION, unicodedata.unidata_version, importlib.metadata.version("jieba")]


def script(word: str) -> str:
    """Returns the script of a word's first letter as Unicode names it ("LATIN", "HAN", …); "DIGITS" without a letter."""
    letter = next((character for character in word if unicodedata.category(character)[0] == "L"), None)
    if letter is None:
        return "DIGITS"
    if _is_han(letter):
        return "HAN"
    name = unicodedata.name(letter, "UNNAMED").split()[0]
    return _SCRIPTS.get(name, name)


def _kind(text: str, place: int) -> str:
    """Returns whether the character at a place belongs to a run of "han", to a "word", or to neither ("")."""
    character = text[place]
    if _is_han(character):
        return "han"
    category = unicodedata.category(character)[0]
    if category in "LN":
        return "word"
    if category == "M":  # a mark belongs to its base
        return _kind(text, place - 1) if place else ""
    if 0 < place < len(text) - 1:
        before, after = text[place - 1], text[place + 1]
        if character in _JOIN_LETTERS and all(c.isalpha() and not _is_han(c) for c in (before, after)):
            return "word"
        if character in _JOIN_DIGITS and before.isdecimal() and after.isdecimal():
            return "word"
    return ""


def _is_han(character: str) -> bool:
    if character in _HAN_SINGLES:
        return True
    # Some code points of these blocks are unassigned.
    return any(first <= ord(character) <= last for first, last in _HAN) and unicodedata.category(character) == "Lo"


@functools.cache
def _chinese() -> Any:
    """Loads jieba's tokenizer (0.6 s, 100 MB) from its dictionary, not from a cache in the shared temporary folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in jieba and pkg_resources
        tokenizer = importlib.import_module("jieba").Tokenizer()
    with tokenizer.get_dict_file() as handle:
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(handle)
    tokenizer.initialized = True
    return tokenizer
