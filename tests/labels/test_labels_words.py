"""What counts as a word, in which script it is written."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ove.labels.text.words import script, words, words_version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The quick, brown FOX.", ["the", "quick", "brown", "fox"]),
        ("don't stop — rock’n’roll!", ["don't", "stop", "rock'n'roll"]),
        ("costs $3.14 or 1,000; at 10:30.", ["costs", "3.14", "or", "1,000", "at", "10:30"]),
        ("'quoted' end. 5.", ["quoted", "end", "5"]),
        ("snake_case a-b x/y", ["snake", "case", "a", "b", "x", "y"]),
        ("Grüße aus MÜNCHEN", ["grüße", "aus", "münchen"]),
        ("cafe\u0301 ﬁne ＡＢＣ１２", ["café", "fine", "abc12"]),
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("", []),
        (" …!? ", []),
        ("今天天气很好", ["今天天气", "很", "好"]),
        ("我们去公园散步", ["我们", "去", "公园", "散步"]),
        ("北京Open24小时", ["北京", "open24", "小时"]),
        ("咖啡，15.50", ["咖啡", "15.50"]),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_unknown_chinese_words_come_out_character_by_character() -> None:
    # jieba's guesses (HMM) would make one word of the fifth and the sixth
    assert words("他来到了网易杭研大厦") == ["他", "来到", "了", "网易", "杭", "研", "大厦"]


@given(st.text())
@example("\U0003134b")  # a place that is not taken among the Chinese characters
def test_words_hold_no_white_space_and_nothing_is_made_up(text: str) -> None:
    found = words(text)
    assert all(word and not any(c.isspace() or unicodedata.category(c)[0] in "CZ" for c in word) for word in found)
    assert words(" ".join(found)) == found or any(script(word) == "HAN" for word in found)


@given(st.text(alphabet="abcXYZ äöé", max_size=30))
def test_case_and_composition_make_no_difference(text: str) -> None:
    assert words(text) == words(text.upper()) == words(unicodedata.normalize("NFD", text)) == text.lower().split()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("the", "LATIN"),
        ("мир", "CYRILLIC"),
        ("公园", "HAN"),
        ("こんにちは", "HIRAGANA"),
        ("カタ", "KATAKANA"),
        ("안녕", "HANGUL"),
        ("هلا", "ARABIC"),
        ("15.50", "DIGITS"),
        ("3d", "LATIN"),
        ("κόσμε", "GREEK"),
        ("में", "DEVANAGARI"),
    ],
)
def test_script_of_a_word(word: str, expected: str) -> None:
    assert script(word) == expected


def test_the_version_names_what_words_depend_on() -> None:
    assert len(words_version()) == 3 and unicodedata.unidata_version in words_version()
