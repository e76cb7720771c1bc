"""Reads text from drawn pages: word recall, invented words and time a picture, under several settings.

python bench/ocr.py [--pages 12] [--quick]

Pages of random words are drawn with the font that OpenCV 5 carries (tests/labels/pages.py), at the size of training pictures
(448 px) and, one kind, at 1280 px. Every page is read under every setting in turn, on one thread. Recall: share of a page's
distinct words that were read; precision: share of the distinct words read that stand on the page. English words are written
out below, Chinese ones are frequent words of jieba's dictionary. The last line is one JSON object.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "labels")]

import cv2  # noqa: E402
import jieba  # noqa: E402
import pages  # noqa: E402

from ove.config import TextConfig  # noqa: E402
from ove.labels.text.ocr import OcrReader  # noqa: E402
from ove.labels.text.words import words  # noqa: E402

ENGLISH = """
harbour ticket kitchen window garden bridge market museum station library holiday engine morning evening summer winter
coffee bread butter orange apple river mountain island forest village city street corner number seven twelve hundred open
closed please welcome exit entrance parking private public danger warning fresh organic daily weekly special offer price
dollars platform departure arrival delayed express service customer telephone computer science history music theatre cinema
restaurant hospital school university student teacher doctor police office company product quality natural water energy
power light colour
"""
ACCENTS = "größer Straße Mädchen Öffnung täglich Fußgänger Schlüssel Gebäude französisch élève déjà garçon niño mañana"
CYRILLIC = "привет город улица рынок музей вокзал библиотека открыто закрыто хлеб молоко сегодня завтра"
KOREAN = "안녕하세요 도서관 시장 박물관 오늘 내일 학교 병원 커피 우유"
JAPANESE = "ありがとう さようなら コーヒー レストラン ひらがな カタカナ タクシー ホテル"


@dataclass(frozen=True)
class Kind:
    """Pages of one kind."""

    name: str
    lines: Callable[[np.random.Generator], list[str]]
    turned_deg: int = 0
    size_px: int = 448
    text_px: int = 20
    on_photo: bool = False
    """Light letters on coloured blobs, blurred, noisy, and stored as a JPEG file of quality 40."""


def spaced(vocabulary: str, rng: np.random.Generator, each: int = 3, lines: int = 6) -> list[str]:
    """Lines of a few words."""
    return [" ".join(rng.choice(vocabulary.split(), each)) for _ in range(lines)]


@functools.cache
def chinese_words() -> str:
    """The 2,000 most frequent words of two characters or more in jieba's dictionary."""
    jieba.setLogLevel(60)
    jieba.initialize()
    known = [(n, word) for word, n in jieba.dt.FREQ.items() if n and len(word) > 1 and all("一" <= c <= "鿿" for c in word)]
    return " ".join(word for _, word in sorted(known, reverse=True)[:2000])


def chinese(rng: np.random.Generator) -> list[str]:
    """Lines without spaces."""
    return ["".join(line.split()) for line in spaced(chinese_words(), rng)]


def mixed(rng: np.random.Generator) -> list[str]:
    """A Chinese and an English word and a number a line."""
    return [f"{rng.choice(chinese_words().split())} {rng.choice(ENGLISH.split())} {rng.integers(10, 9999)}" for _ in range(6)]


english = functools.partial(spaced, ENGLISH)
KINDS = (
    Kind("English, 20 px", english),
    Kind("English, 12 px", english, text_px=12),
    Kind("English, 9 px", english, text_px=9),
    Kind("English, 16 px on a page of 1280", functools.partial(spaced, ENGLISH, lines=20), size_px=1280, text_px=16),
    Kind("Chinese, 20 px", chinese),
    Kind("Chinese, 12 px", chinese, text_px=12),
    Kind("mixed, 20 px", mixed),
    Kind("English on a noisy picture", english, on_photo=True),
    Kind("Chinese on a noisy picture", chinese, on_photo=True),
    Kind("English, turned by 10°", english, 10),
    Kind("English, turned by 90°", english, 90),
    Kind("English, turned by 180°", english, 180),
    Kind("English, turned by 270°", english, 270),
    Kind("Chinese, turned by 180°", chinese, 180),
    Kind("Latin letters with accents", functools.partial(spaced, ACCENTS, each=2)),
    Kind("Japanese kana", functools.partial(spaced, JAPANESE, each=1)),
    Kind("Cyrillic", functools.partial(spaced, CYRILLIC, each=2)),
    Kind("Korean", functools.partial(spaced, KOREAN, each=2)),
    Kind("no text", lambda rng: []),
)
SETTINGS = {
    "default": TextConfig(),
    "side 480": TextConfig(side_px=480),
    "not turned": TextConfig(turned=False),
}


def picture(kind: Kind, lines: list[str], rng: np.random.Generator) -> np.ndarray:
    """The page; without text, blobs of colour."""
    drawn = pages.page(lines, kind.turned_deg, kind.size_px, kind.text_px)
    if lines and not kind.on_photo:
        return drawn
    blobs = cv2.resize(rng.integers(0, 130, (6, 6, 3)).astype(np.uint8), drawn.shape[:2], interpolation=cv2.INTER_CUBIC)
    ink = (255 - drawn) / 255 * 0.7
    photo = cv2.GaussianBlur(blobs * (1 - ink) + 220 * ink, (0, 0), 0.7) + rng.normal(0, 8, drawn.shape)
    jpeg = cv2.imencode(".jpg", np.clip(photo, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)


def main() -> None:
    """Reads all pages under all settings and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=12, help="of each kind")
    parser.add_argument("--quick", action="store_true", help="3 pages of each kind")
    options = parser.parse_args()
    count = 3 if options.quick else options.pages
    readers = {name: OcrReader(config.side_px, config.turned) for name, config in SETTINGS.items()}
    least = TextConfig().min_confidence
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for number, kind in enumerate(KINDS):
        found: dict[str, list[tuple[int, int, int, float]]] = {name: [] for name in readers}
        for page in range(count):
            rng = np.random.default_rng((number, page))
            lines = kind.lines(rng)
            there = {word for line in lines for word in words(line)}
            drawn = picture(kind, lines, rng)
            for name, reader in readers.items():
                started = time.perf_counter()
                read = reader.lines(drawn)
                spent_ms = (time.perf_counter() - started) * 1e3
                seen = {word for line in read if line.confidence >= least for word in words(line.text)}
                found[name].append((len(there), len(seen), len(there & seen), spent_ms))
        result[kind.name] = {}
        for name, rows in found.items():
            n_there, n_seen, n_both = (sum(row[i] for row in rows) for i in range(3))
            result[kind.name][name] = {
                "recall": round(n_both / n_there, 3) if n_there else None,
                "precision": round(n_both / n_seen, 3) if n_seen else None,
                "words_read": n_seen,
                "ms": round(statistics.median(row[3] for row in rows), 1),
            }
        shown = (f"{name} {r['recall']}/{r['precision']} {r['ms']:.0f} ms" for name, r in result[kind.name].items())
        print(f"{kind.name}: {'; '.join(shown)}", flush=True)
    print(json.dumps({"pages": count, "kinds": result}, ensure_ascii=False))


if __name__ == "__main__":
    main()
