"""Pictures are stored as they were found where every decoder gets the same out of them, and encoded anew elsewhere."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from source_files import encoded, picture

from ove.config import ShardsConfig, VideoConfig
from ove.errors import BadClip, BadShard
from ove.shards.make import RecordMaker
from ove.shards.pictures import picture_format, whole_picture
from ove.shards.schema import ImageRecord, decode_image, pack, unpack
from ove.sources.folders import InputFile
from ove.sources.images import is_plain, read_image

RGB = picture(1)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.fromarray(RGB), "JPEG", exif=exif, quality=95)


_OTHER = Image.fromarray(picture(2))
_ALPHA = Image.fromarray(np.dstack([RGB, np.full(RGB.shape[:2], 128, np.uint8)]))
KEPT = {
    "jpeg": encoded(RGB),
    "progressive": _saved(Image.fromarray(RGB), "JPEG", progressive=True),
    "gray jpeg": _saved(Image.fromarray(RGB[..., 0]), "JPEG"),
    "upright by EXIF": _turned(1),
    "png": encoded(RGB, ".png"),
    "gray png": _saved(Image.fromarray(RGB[..., 0]), "PNG"),
    "palette": _saved(Image.fromarray(RGB).quantize(16), "PNG"),
    "webp": encoded(RGB, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless webp": _saved(Image.fromarray(RGB), "WebP", lossless=True),
}
ANEW = {
    "turned": (_turned(6), "jpeg"),
    "cmyk": (_saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "jpeg"),
    "16 bit": (encoded(RGB.astype(np.uint16) * 257, ".png"), "png"),
    "transparent": (_saved(_ALPHA, "PNG"), "png"),
    "transparent palette": (_saved(_ALPHA.quantize(16), "PNG"), "png"),
    "transparent webp": (_saved(_ALPHA, "WebP"), "jpeg"),
    "transparent lossless webp": (_saved(_ALPHA, "WebP", lossless=True), "jpeg"),
    "animated webp": (_saved(Image.fromarray(RGB), "WebP", save_all=True, append_images=[_OTHER]), "jpeg"),
    "animated png": (_saved(Image.fromarray(RGB), "PNG", save_all=True, append_images=[_OTHER]), "png"),
    "gif": (_saved(Image.fromarray(RGB), "GIF", save_all=True, append_images=[_OTHER]), "png"),
    "bmp": (encoded(RGB, ".bmp"), "png"),
    "tiff": (encoded(RGB, ".tiff"), "png"),
}


def _record(tmp_path: Path, data: bytes, **config: int) -> ImageRecord:
    path = tmp_path / "picture"
    path.write_bytes(data)
    maker = RecordMaker("image", VideoConfig(), ShardsConfig(**config), tmp_path)
    record = maker(InputFile(path, "picture", None))
    assert isinstance(record, ImageRecord)
    return unpack(pack(record))  # type: ignore[return-value]


@pytest.mark.parametrize("name", list(KEPT))
def test_plain_files_are_kept_to_the_byte(name: str, tmp_path: Path) -> None:
    record = _record(tmp_path, KEPT[name])
    assert record.image == KEPT[name]
    np.testing.assert_array_equal(decode_image(record), read_image(tmp_path / "picture"))
    # Another decoder that knows nothing of orientation, profiles and the like sees the same picture.
    other = np.asarray(Image.open(io.BytesIO(record.image)).convert("RGB"))
    assert other.shape == (record.height_px, record.width_px, 3)
    assert np.abs(other.astype(int) - decode_image(record)).mean() < 2


@pytest.mark.parametrize("name", list(ANEW))
def test_all_others_are_encoded_anew_as_they_are_shown(name: str, tmp_path: Path) -> None:
    data, kind = ANEW[name]
    record = _record(tmp_path, data)
    assert record.image != data
    assert picture_format(record.image) == kind
    assert is_plain(record.image)
    shown = read_image(tmp_path / "picture")
    assert shown.shape == ((32, 24, 3) if name == "turned" else (24, 32, 3))
    error = np.abs(decode_image(record).astype(int) - shown)
    assert error.max() == 0 if kind == "png" else error.mean() < 4
    np.testing.assert_array_equal(decode_image(record).shape, shown.shape)


@pytest.mark.parametrize("name", list(KEPT))
def test_what_follows_a_picture_goes_and_a_cut_one_is_refused(name: str, tmp_path: Path) -> None:
    data = KEPT[name]
    assert _record(tmp_path, data + b"trailer \xff\xd9").image == data
    assert whole_picture(data) == data
    for end in (len(data) // 2, len(data) - 3):
        assert whole_picture(data[:end]) is None
        with pytest.raises(BadClip, match=f"{tmp_path}/picture.*(whole copy|cannot be decoded)"):
            _record(tmp_path, data[:end])
        with pytest.raises(BadShard, match="no whole JPEG"):
            decode_image(ImageRecord("key", data[:end], 24, 32))
    with pytest.raises(BadShard, match="of 24×33 pixels"):
        decode_image(ImageRecord("key", data, 24, 33))


def test_a_turned_picture_that_was_cut_is_refused(tmp_path: Path) -> None:
    data = ANEW["turned"][0]
    with pytest.raises(BadClip, match=r"ends before its picture does|cannot be decoded"):
        _record(tmp_path, data[:-40])


@pytest.mark.parametrize("before", [None, b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda"])
def test_a_preview_inside_is_not_taken_for_the_end(before: bytes | None) -> None:
    """Such a segment may stand before or between tables, frame and scan (ITU-T T.81, B.2.4)."""
    exif = encoded(picture(3))  # a whole JPEG within a segment
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    data = encoded(RGB)
    at = 2 if before is None else data.index(before)
    with_preview = data[:at] + segment + data[at:]
    assert np.asarray(Image.open(io.BytesIO(with_preview)).convert("RGB")).shape == RGB.shape
    assert whole_picture(with_preview + b"trailer \xff\xd9") == with_preview


def test_other_files_of_riff_are_no_webp() -> None:
    riff = b"RIFF" + (20).to_bytes(4, "little") + b"AVI " + bytes(16)
    assert whole_picture(riff) is None
    assert whole_picture(b"RIFX" + KEPT["webp"][4:]) is None


@pytest.mark.parametrize("fill", [1, 2, 7])
def test_fill_bytes_between_the_segments_of_a_jpeg_are_passed_over(fill: int, tmp_path: Path) -> None:
    """Any marker may be preceded by bytes of 0xFF (ITU-T T.81, B.1.1.2)."""
    data = encoded(RGB)
    second = 4 + int.from_bytes(data[4:6], "big")  # where the segment after the first one begins
    exif = encoded(picture(3))
    preview = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    filled = data[:second] + b"\xff" * fill + preview + b"\xff" * fill + data[second:]
    assert np.asarray(Image.open(io.BytesIO(filled)).convert("RGB")).shape == RGB.shape
    assert whole_picture(filled + b"trailer \xff\xd9") == filled
    assert whole_picture(filled[: len(filled) // 2]) is None
    record = _record(tmp_path, filled)
    assert np.abs(decode_image(record).astype(int) - RGB).mean() < 6


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_large_pictures_are_shrunk_if_asked_for(name: str, tmp_path: Path) -> None:
    assert _record(tmp_path, KEPT[name], max_side_px=32).image == KEPT[name]
    small = _record(tmp_path, KEPT[name], max_side_px=16)
    assert (small.height_px, small.width_px) == (12, 16)
    wanted = cv2.resize(RGB, (16, 12), interpolation=cv2.INTER_AREA)
    assert np.abs(decode_image(small).astype(int) - wanted).mean() < 6
    assert _record(tmp_path, encoded(picture(1, 1, 400)), max_side_px=16).height_px == 1


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "is empty"), (b"text", "not an image"), (b"\x89PNG\r\n\x1a\n" + b"x" * 99, "cannot be decoded")]
)
def test_what_is_no_picture_is_said(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadClip, match=message):
        _record(tmp_path, data)


@pytest.mark.parametrize(("change", "named"), [({"image": b""}, "image has 0 bytes"), ({"width_px": 0}, "width_px = 0")])
def test_image_records_that_say_nothing_are_refused(change: dict, named: str) -> None:
    with pytest.raises(BadShard, match=named):
        pack(ImageRecord(**{"key": "a", "image": KEPT["png"], "height_px": 24, "width_px": 32, **change}))
