"""TFRecord files of tf.train.Example without TensorFlow: the framing with its checksums, and the protocol buffer within.

A record is a length (8 bytes, little endian), the masked CRC-32C of these 8 bytes, the data, and the masked CRC-32C of the
data. An Example is a map from names to lists of bytes, floats or integers (tensorflow/core/example/example.proto).
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c

from ove.config import limits
from ove.sources.folders import ByteRange, FoundInputs, InputFile, Inside
from ove.sources.lists import LABEL_COLUMNS, bank_labels, class_name
from ove.sources.quarantine import BadFile

IMAGE_COLUMNS = ("image/encoded", "image", "jpg", "png", "webp", "video/encoded", "video", "mp4", "encoded")
_LABEL_COLUMNS = ("image/class/text", "image/class/label", *LABEL_COLUMNS, "cls", "video/class/text", "video/class/label")
_HEAD, _CRC = 12, 4
_MASK = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""


def records_in_tfrecord(path: Path, key: str, copy: Path | None = None) -> FoundInputs:
    """Lists the records of a file; only their lengths are read. `copy` is the same file decompressed.

    Keys are `key`, a slash and the number of the record. A file that ends early, or with a damaged length, is bad from there
    on: nothing tells where the next record begins.
    """
    archive = copy or path
    files: list[InputFile] = []
    length = archive.stat().st_size
    position = 0
    with archive.open("rb") as data:
        while position < length:
            data.seek(position)
            head = data.read(_HEAD)
            whole = len(head) == _HEAD and masked_crc(head[:8]) == head[8:]
            size = int.from_bytes(head[:8], "little") if whole else 0
            if excess := limits().excess("max_archive_inputs", len(files) + 1, "records"):
                return FoundInputs([], [BadFile(str(path), f"{path}: has {excess}; split it or raise the limit.")])
            if not whole or position + _HEAD + size + _CRC > length:
                reason = (
                    "it ends within a record" if whole or len(head) < _HEAD else "a length does not agree with its checksum"
                )
                words = (
                    f"{path}: is no whole TFRecord file: {reason}, at byte {position}; {len(files)} records lie before that."
                )
                return FoundInputs(files, [BadFile(str(path), words, position)])
            part = ByteRange("", position + _HEAD, size)
            files.append(InputFile(path, f"{key}/{len(files):08d}", None, {}, Inside("tfrecord", (part,), copy)))
            position += _HEAD + size + _CRC
    return FoundInputs(files, [])


def masked_crc(data: bytes) -> bytes:
    """Returns the masked CRC-32C that follows some data in a TFRecord file."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def parse_example(data: bytes) -> dict[str, list[Any]]:
    """Parses the features of an Example: lists of bytes, floats or ints by name; ValueError if it is no Example."""
    features: dict[str, list[Any]] = {}
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            for _, entry in _fields(value):
                pair = dict(_fields(_message(entry)))
                features[_message(pair.get(1, b"")).decode("utf-8")] = _values(_message(pair.get(2, b"")))
    if not features:
        raise ValueError("holds no features; is it a tf.train.Example?")
    return features


def media_and_labels(
    features: Mapping[str, list[Any]], image_column: str, label_column: str
) -> tuple[bytes, str | None, dict[str, tuple[int, ...]]]:
    """Returns the encoded file, class name and labels by bank of an Example; ValueError if it has no file."""
    columns = (image_column,) if image_column else IMAGE_COLUMNS
    media = next((values[0] for c in columns if (values := features.get(c)) and isinstance(values[0], bytes)), None)
    if media is None:
        raise ValueError(f"has no feature {columns[0]} with bytes, but {', '.join(sorted(features))}; give --image-column")
    first = {name: values[0] for name, values in features.items() if values}
    labels = (first[column] for column in ((label_column,) if label_column else _LABEL_COLUMNS) if column in first)
    texts = (value.decode("utf-8") if isinstance(value, bytes) else value for value in labels)
    label = next((name for value in texts if (name := class_name(value)) is not None), None)
    return media, label, bank_labels(features)


def _values(feature: bytes) -> list[Any]:
    """Parses the numbers or byte strings of a Feature."""
    values: list[Any] = []
    for kind, content in _fields(feature):
        for _, value in _fields(_message(content)):
            if kind == 1:
                values.append(_message(value))
            elif kind == 2:
                values += _floats(value) if isinstance(value, bytes) else [value]
            elif kind == 3:
                values += _varints(value) if isinstance(value, bytes) else [_signed(value)]
    return values


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value) of a protocol buffer message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if wire not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError("is no protocol buffer")
        if wire == _BYTES:
            size, position = _varint(data, position)
        else:
            size = 8 if wire == _FIXED64 else 4
        if position + size > len(data):
            raise ValueError("is a protocol buffer that was cut off")
        content = data[position : position + size]
        position += size
        yield tag >> 3, content if wire == _BYTES else struct.unpack("<d" if wire == _FIXED64 else "<f", content)[0]


def _message(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("is a protocol buffer of another kind than tf.train.Example")
    return value


def _floats(data: bytes) -> list[float]:
    if len(data) % 4:
        raise ValueError("is a protocol buffer that was cut off")
    return [number for (number,) in struct.iter_unpack("<f", data)]


def _varints(data: bytes) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(_signed(value))
    return values


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
    raise ValueError("is a protocol buffer that was cut off")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
