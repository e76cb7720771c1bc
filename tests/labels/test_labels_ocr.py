"""Text on drawn pages is read, cut into words and becomes tags: English, Chinese, mixed, turned, and none."""

from pathlib import Path

import cv2
import numpy as np
import pages
import pytest

from launch import labels, shards
from ove.config import TextConfig
from ove.errors import BadShard, ConfigError
from ove.labels.text.ocr import OcrReader, reader_version
from ove.labels.text.vocabulary import read_vocabulary
from ove.labels.text.words import words
from ove.shards.labels import read_labels
from ove.shards.manifest import read_manifest
from ove.shards.shard_set import ShardSet

NO_FONTS = "only OpenCV 4 is installed, which carries no font to draw the pages with; a fresh set-up has OpenCV 5"
needs_fonts = pytest.mark.skipif(not pages.HAS_FONTS, reason=NO_FONTS)
CONFIG = TextConfig()


@pytest.fixture(scope="module")
def reader() -> OcrReader:
    return OcrReader(CONFIG.side_px, turned=True)


def recall(reader: OcrReader, lines: tuple[str, ...], picture: np.ndarray) -> float:
    """Share of the words on a page that were read."""
    read = {word for line in reader.lines(picture) if line.confidence >= CONFIG.min_confidence for word in words(line.text)}
    expected = {word for line in lines for word in words(line)}
    return len(expected & read) / len(expected)


@needs_fonts
@pytest.mark.parametrize(
    ("lines", "turned_deg", "least"),
    [
        (pages.ENGLISH, 0, 1.0),
        (pages.CHINESE, 0, 1.0),
        (pages.MIXED, 0, 0.9),
        (pages.ENGLISH, 90, 0.95),
        (pages.ENGLISH, 180, 0.95),
        (pages.ENGLISH, 270, 0.95),
        (pages.ENGLISH, 12, 0.9),
        (pages.CHINESE, 180, 0.9),
    ],
)
def test_word_recall(reader: OcrReader, lines: tuple[str, ...], turned_deg: int, least: float) -> None:
    assert recall(reader, lines, pages.page(lines, turned_deg)) >= least


@needs_fonts
def test_turned_lines_need_the_setting() -> None:
    upside_down = pages.page(pages.ENGLISH, 180)
    assert recall(OcrReader(CONFIG.side_px, turned=False), pages.ENGLISH, upside_down) < 0.5


def test_there_is_no_text_where_none_is(reader: OcrReader) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    slope = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3))
    for picture in (np.zeros((64, 64, 3), np.uint8), np.full((1, 1, 3), 9, np.uint8), noise, slope):
        found = [line for line in reader.lines(picture) if line.confidence >= CONFIG.min_confidence]
        assert not [word for line in found for word in words(line.text)]


@needs_fonts
def test_the_same_is_read_every_time(reader: OcrReader) -> None:
    picture = pages.page(pages.MIXED)
    assert reader.lines(picture) == reader.lines(picture) == OcrReader(CONFIG.side_px, turned=True).lines(picture)
    assert all(0 <= line.confidence <= 1 for line in reader.lines(picture))


def test_the_version_names_all_that_decides() -> None:
    assert reader_version(CONFIG) == reader_version(TextConfig(n_tags=3, min_confidence=0.9))
    assert reader_version(CONFIG) != reader_version(TextConfig(side_px=480))
    with pytest.raises(ConfigError, match=r"text\.side_px"):
        TextConfig(side_px=1)


LINES = ["harbour opens seven", "tickets cost twelve", "harbour tickets 天气", "", "twelve museum seven"]


@pytest.fixture(scope="module")
def picture_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of ten drawn pictures, the fourth and ninth without text."""
    if not pages.HAS_FONTS:
        pytest.skip(NO_FONTS)
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(10):
        picture = np.full((64, 320, 3), 255, np.uint8)
        if LINES[n % 5]:
            cv2.putText(picture, LINES[n % 5], (8, 40), (0, 0, 0), cv2.FontFace("uni"), 22, 400)
        cv2.imwrite(str(folder / f"{n}.png"), picture)
    out = folder.with_name("shards")
    assert shards.main(["--images", str(folder), "--out", str(out), "--records-per-shard", "4", "--workers", "0"]) == 0
    return out


def tag(folder: Path, *options: str) -> int:
    return labels.main(["ocr", "--shards", str(folder), "--workers", "0", "--set", "text.n_tags=5", *options])


def test_pictures_become_tags_and_nothing_is_read_twice(picture_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag(picture_shards) == 0
    printed = capsys.readouterr().out
    assert "8 of 10 pictures are tagged" in printed and "latin" in printed and "han" in printed
    known = read_vocabulary(picture_shards / "text" / "vocabulary.tsv")
    assert known.words == ("harbour", "seven", "tickets", "twelve", "cost", "museum", "opens", "天气")
    found = read_labels(picture_shards, "ocr")
    assert found.n_centers == 8 and found.info["vocabulary"] == known.fingerprint
    in_words = [[known.words[t] if t >= 0 else "" for t in row] for row in found.labels]
    assert in_words[0] == ["harbour", "opens", "seven", "harbour", "opens"]
    assert in_words[7] == ["harbour", "tickets", "天气", "harbour", "tickets"]
    assert in_words[3] == [""] * 5
    read = sorted((picture_shards / "text" / "read").glob("*.jsonl"))
    assert len(read) == 3
    dates = [path.stat().st_mtime_ns for path in read]
    others = ["--set", "text.vocabulary_size=2", "--set", "text.seed=1"]
    with pytest.raises(
        ConfigError, match=r"ocr\.json: was made with text\.vocabulary_size = 365187, not 2; text\.seed = 0, not 1"
    ):
        tag(picture_shards, *others)
    assert read_labels(picture_shards, "ocr").labels.max() == 7
    assert tag(picture_shards, *others, "--replace") == 0
    assert "6 of 10 pictures are tagged" in capsys.readouterr().out
    assert read_labels(picture_shards, "ocr").labels.max() == 1
    assert [path.stat().st_mtime_ns for path in read] == dates
    assert len(ShardSet.open(picture_shards)) == read_manifest(picture_shards).records == 10


def test_a_vocabulary_is_taken_over_or_shared(picture_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_text("opens\t7\nmuseum\t5\n")
    assert tag(picture_shards, "--vocabulary", str(tmp_path / "mine.tsv"), "--replace") == 0
    first = read_labels(picture_shards, "ocr").labels[:, 0].tolist()
    assert first == [0, -1, -1, -1, 1] * 2
    with pytest.raises(BadShard, match="no word was read"):
        tag(picture_shards, "--set", "text.min_confidence=1.0", "--replace")
    with pytest.raises(ConfigError, match=r"text\.ntags; did you mean text\.n_tags"):
        tag(picture_shards, "--set", "text.ntags=1")
