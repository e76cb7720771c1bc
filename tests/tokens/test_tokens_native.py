"""Pictures at their own proportions: sizes in whole patches, and image files of every kind."""

import logging
import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ove.errors import BadClip, ConfigError
from ove.sources.images import read_image
from ove.tokens.native import MAX_TOKENS, fit_size, resize

sides = st.integers(14, 5000)


def tokens(size_hw: tuple[int, int]) -> int:
    return size_hw[0] * size_hw[1] // 196


def distortion(height: int, width: int, size_hw: tuple[int, int]) -> float:
    factor = size_hw[0] * width / (size_hw[1] * height)
    return max(factor, 1 / factor)


@given(sides, sides, st.integers(1, 4096))
def test_sizes_are_whole_patches_within_the_budget_and_never_larger(height: int, width: int, most: int) -> None:
    try:
        size_hw = fit_size(height, width, max_tokens=most)
    except BadClip as error:
        assert "too narrow" in str(error) and max(height / width, width / height) > most / 2
        return
    assert size_hw[0] % 14 == 0 and size_hw[1] % 14 == 0 and 1 <= tokens(size_hw) <= most
    assert size_hw[0] <= height and size_hw[1] <= width
    assert distortion(height, width, size_hw) <= 2


@given(sides, sides)
def test_proportions_stay_and_the_budget_is_used(height: int, width: int) -> None:
    assume(max(height / width, width / height) < 8)
    size_hw = fit_size(height, width)
    available = min(MAX_TOKENS, height * width / 196)
    # Rounding to whole patches costs at most about half a patch a side of either.
    shorter = min(size_hw) / 14
    assert distortion(height, width, size_hw) <= 1 + 1 / shorter
    assert tokens(size_hw) >= available * (1 - 1 / shorter) ** 2 * 0.75


@given(sides, sides)
def test_a_turned_picture_has_the_turned_size(height: int, width: int) -> None:
    try:
        size_hw = fit_size(height, width)
    except BadClip:
        with pytest.raises(BadClip):
            fit_size(width, height)
        return
    turned = fit_size(width, height)
    assert tokens(size_hw) == tokens(turned)
    assert distortion(height, width, size_hw) == pytest.approx(distortion(width, height, turned))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))
def test_small_pictures_are_enlarged_only_when_asked(height: int, width: int, least: int) -> None:
    assume(max(height / width, width / height) < 8)
    size_hw = fit_size(height, width, min_tokens=least, max_tokens=1024)
    assert least <= tokens(size_hw) <= 1024
    if min(height, width) >= 14 and tokens(fit_size(height, width)) >= least:
        assert size_hw == fit_size(height, width)
    else:
        # A long narrow picture can only have a multiple of its shorter side's patches.
        assert tokens(size_hw) <= least + 2 * max(size_hw) / 14 + 2


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (448, 448, (448, 448)),
        (224, 224, (224, 224)),
        (1792, 224, (1232, 154)),
        (480, 640, (378, 504)),
        (1080, 1920, (336, 588)),
        (14, 14, (14, 14)),
        (20, 10000, (14, 7000)),
        (14, 14336, (14, 14336)),
    ],
)
def test_known_sizes(height: int, width: int, expected: tuple[int, int]) -> None:
    assert fit_size(height, width) == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(14, 700), st.integers(14, 700), st.integers(20, 300))
def test_the_size_is_the_best_of_all_by_the_documented_measure(height: int, width: int, most: int) -> None:
    """|log(change of the proportions)| + 0.3·log(tokens lost), over every grid of patches that is allowed."""
    assume(max(height / width, width / height) < 8)
    ideal = min(height * width / 196, most)

    def cost(rows: int, columns: int) -> float:
        return abs(math.log(rows * width / (columns * height))) + 0.3 * abs(math.log(rows * columns / ideal))

    allowed = [(r, c) for r in range(1, height // 14 + 1) for c in range(1, min(width // 14, most // r) + 1)]
    rows, columns = (side // 14 for side in fit_size(height, width, max_tokens=most))
    assert cost(rows, columns) <= min(cost(r, c) for r, c in allowed) + 1e-8


def test_what_cannot_be_kept_in_proportion_is_refused() -> None:
    with pytest.raises(BadClip, match=r"1×10000 pixels is narrower than one patch of 14; .* min_tokens"):
        fit_size(1, 10000)
    with pytest.raises(
        BadClip, match=r"1×10000 pixels is too narrow for 1024 tokens: at best 1×1024 .* factor of 9.8; crop it"
    ):
        fit_size(1, 10000, min_tokens=1)
    assert fit_size(1, 10000, min_tokens=1, max_tokens=10000) == (14, 140000)
    with pytest.raises(BadClip, match="0×5 pixels"):
        fit_size(0, 5)
    with pytest.raises(ConfigError, match=r"min_tokens = 5 must be within 0…max_tokens"):
        fit_size(100, 100, min_tokens=5, max_tokens=4)


def test_the_resolution_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    image = np.zeros((777, 1003, 3), np.uint8)
    with caplog.at_level(logging.INFO, "ove.tokens.native"):
        for _ in range(3):
            seen = resize(image, fit_size(777, 1003))
    assert [r.message for r in caplog.records] == [
        "pictures of 777×1003 pixels are encoded at 392×504 (1008 tokens; scale 0.505 down, 0.502 across)"
    ]
    assert seen.shape == (392, 504, 3)


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    stripes = np.tile(np.array([200, 0, 0, 0], np.uint8)[None, :, None], (56, 14, 3))
    assert set(np.unique(resize(stripes, (14, 14)))) == {50}  # nothing aliases
    ramp = np.repeat(np.arange(14, dtype=np.uint8)[None, :, None] * 10, 14, 0).repeat(3, 2)
    enlarged = resize(ramp, (14, 28))
    assert (np.diff(enlarged[0, :, 0].astype(int)) >= 0).all() and len(np.unique(enlarged)) > 20
    assert resize(ramp, (14, 14)) is ramp


COLOURS = np.array([[[250, 20, 30], [20, 250, 30], [20, 30, 250]], [[250, 250, 20], [120, 120, 120], [20, 250, 250]]], np.uint8)
PICTURE = COLOURS.repeat(16, 0).repeat(16, 1)
"""Two rows of three fields, all of other colours."""


def write(path: Path, rgb: np.ndarray, *options: int) -> Path:
    """A file of the kind that the name says, with channels in OpenCV's order."""
    order = [2, 1, 0, 3][: rgb.shape[2]] if rgb.ndim == 3 else ...
    data = cv2.imencode(path.suffix, rgb[..., order] if rgb.ndim == 3 else rgb, list(options))[1].tobytes()
    path.write_bytes(data)
    return path


def assert_shows(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    got = read_image(path)
    assert got.shape == expected.shape and got.dtype == np.uint8 and got.flags.c_contiguous
    middle = (slice(8, None, 16), slice(8, None, 16))
    assert np.abs(got[middle].astype(int) - expected[middle]).max() <= tolerance


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".tiff", 0), (".ppm", 0), (".webp", 6), (".jp2", 6)]
)
def test_kinds_of_files(tmp_path: Path, suffix: str, tolerance: int) -> None:
    assert_shows(write(tmp_path / f"p{suffix}", PICTURE), PICTURE, tolerance)


def test_jpeg_and_a_wrong_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jpg", PICTURE, cv2.IMWRITE_JPEG_QUALITY, 100)
    assert_shows(path, PICTURE, 8)
    assert_shows(path.rename(tmp_path / "p.png"), PICTURE, 8)


def exif(orientation: int, order: str) -> bytes:
    mark, number = (b"II*\0", "<") if order == "little" else (b"MM\0*", ">")
    entry = struct.pack(f"{number}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{number}IH", 8, 1) + entry + struct.pack(f"{number}I", 0)


def turned(orientation: int) -> np.ndarray:
    """As EXIF 2.3 words it: where the 0th row and the 0th column of the stored picture are in the one shown."""
    steps = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: np.rot90(p, 2),
        4: lambda p: p[::-1],
        5: lambda p: np.rot90(p[:, ::-1], 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p[:, ::-1], -1),
        8: lambda p: np.rot90(p, 1),
    }
    return steps[orientation](PICTURE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["little", "big"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, order: str) -> None:
    tiff = exif(orientation, order)
    jpeg = write(tmp_path / "p.jpg", PICTURE, cv2.IMWRITE_JPEG_QUALITY, 100)
    block = b"Exif\0\0" + tiff
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])
    assert_shows(jpeg, turned(orientation), 8)
    png = write(tmp_path / "p.png", PICTURE)
    data, chunk = png.read_bytes(), b"eXIf" + tiff
    png.write_bytes(data[:33] + struct.pack(">I", len(tiff)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:])
    assert_shows(png, turned(orientation))


def test_grey_palette_transparent_and_deep_pictures(tmp_path: Path) -> None:
    grey = PICTURE[..., 1]
    assert_shows(write(tmp_path / "grey.png", grey), np.repeat(grey[..., None], 3, -1))
    assert_shows(write(tmp_path / "deep.png", PICTURE.astype(np.uint16) * 257), PICTURE)
    assert_shows(write(tmp_path / "deep.tiff", PICTURE.astype(np.uint16) * 257 + 100), PICTURE)
    alpha = np.zeros(grey.shape, np.uint8)
    alpha[:, 16:32], alpha[:, 32:] = 128, 255
    for suffix in (".png", ".webp"):
        over_white = PICTURE * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
        path = write(
            tmp_path / f"alpha{suffix}", np.dstack([PICTURE, alpha]), *((cv2.IMWRITE_WEBP_QUALITY, 101) * (suffix == ".webp"))
        )
        assert_shows(path, np.round(over_white).astype(np.uint8), 1)


def test_palette_and_cmyk(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(PICTURE).quantize(6).save(tmp_path / "palette.png")
    assert_shows(tmp_path / "palette.png", PICTURE, 3)
    pillow.fromarray(PICTURE).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert_shows(tmp_path / "cmyk.jpg", PICTURE, 8)


def test_what_is_no_whole_image_is_refused_by_name(tmp_path: Path) -> None:
    whole = {suffix: write(tmp_path / f"whole{suffix}", PICTURE).read_bytes() for suffix in (".jpg", ".png", ".webp", ".bmp")}
    cases = {f"cut{suffix}": (data[: len(data) * 2 // 3], "truncated, damaged") for suffix, data in whole.items()}
    cases |= {f"end{suffix}": (data[:-3], "truncated, damaged") for suffix, data in whole.items() if suffix != ".bmp"}
    cases |= {
        "empty.png": (b"", r"is empty \(0 bytes\)"),
        "text.jpg": (b"no image\n", "not an image of an accepted format"),
        "video.jpg": (b"\0\0\0\x20ftypisom" + bytes(40), "it may be a video"),
        "mirrored.avif": (b"\0\0\0\x20ftypavif" + bytes(40) + b"irot" + bytes(9), "AVIF file to be rotated"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadClip, match=rf"{name}: .*{reason}"):
            read_image(tmp_path / name)
    with pytest.raises(BadClip, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(BadClip, match="is a folder, not an image"):
        read_image(tmp_path)
    (tmp_path / "float.tiff").write_bytes(cv2.imencode(".tiff", PICTURE.astype(np.float32))[1].tobytes())
    with pytest.raises(BadClip, match=r"float\.tiff: its pixels are of type float32"):
        read_image(tmp_path / "float.tiff")
