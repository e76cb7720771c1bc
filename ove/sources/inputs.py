"""A source (folder, list or archive) → its inputs; an input → its contents."""

import bz2
import gzip
import lzma
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow

from ove.config import ShardsConfig, limits
from ove.errors import BadClip
from ove.files import DISK_FULL, short
from ove.paths import not_found
from ove.sources.folders import FoundInputs, InputFile, files_in_list, first_repeated, found_in_folder, too_few_folders
from ove.sources.lists import is_table, rows_of_list
from ove.sources.parquet import read_row, rows_in_parquet
from ove.sources.quarantine import BadFile
from ove.sources.tar import is_media, labels_of_sample, samples_in_tar
from ove.sources.tfrecord import masked_crc, media_and_labels, parse_example, records_in_tfrecord

_DECOMPRESS: dict[str, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    ".gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".tbz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".txz": lzma.LZMAFile,
}
_CHECKED_BYTES = 1 << 26
"""Between two looks at the room that is left."""
_LEAVES_BYTES, _LEAVES_SHARE = 10**10, 0.05
"""Unpacking leaves so much of the disk free, whichever is less."""
_SHARD_NAME = re.compile(r"-\d{5}-of-\d{5}$")
"""How names of TFRecord files end that TensorFlow's tools have written (train-00000-of-01024)."""


@dataclass(frozen=True)
class Contents:
    """The contents of an input."""

    media: bytes | Path
    """The encoded file, or its path."""
    suffix: str
    """Of its name, with the dot; empty without one."""
    label: str | None
    labels: dict[str, tuple[int, ...]]
    """Class centers by bank."""


def find_inputs(source: Path, kind: str, config: ShardsConfig, scratch: Path) -> FoundInputs:
    """Finds the inputs of a folder (files and archives), a list (text, CSV, JSONL) or an archive (tar, TFRecord, Parquet).

    `kind`, "video" or "image", tells what to look for in archives. Compressed tars and TFRecord files are decompressed to
    hidden files `.….tmp` in `scratch`. BadClip for a source that does not exist, holds nothing or lacks a column that `config`
    names; ConfigError for a file with fewer folders above it than `config.label_folder`.
    """
    if not source.exists():
        raise BadClip(not_found(source, "no such file or folder; give a folder, a list of paths or an archive"))
    if source.is_dir():
        below = found_in_folder(source, config.label_folder)
        found = FoundInputs([], below.bad)
        for file in below.files:
            inside = _samples(file.path, file.key, kind, config, scratch)
            if inside is None and config.label_folder and file.label is None and is_media(file.path.suffix.lower()[1:], kind):
                raise too_few_folders(file.key, config.label_folder, str(source))
            found.files.extend([file] if inside is None else inside.files)
            found.bad.extend([] if inside is None else inside.bad)
    elif is_table(source):
        found = rows_of_list(source, config)
    elif is_media(source.suffix.lower()[1:], kind):
        found = FoundInputs([InputFile(source, source.name, None)], [])
    else:
        found = _samples(source, source.name, kind, config, scratch) or _listed(source, config)
    if not found.files:
        reason = f"; the first: {found.bad[0].reason}" if found.bad else ""
        raise BadClip(f"{source}: holds no files that could be {kind}s{reason}")
    if repeated := first_repeated(file.key for file in found.files):
        raise BadClip(f"{source}: two inputs have the key {repeated}; rename one of them.")
    return found


def read_input(file: InputFile, kind: str, config: ShardsConfig) -> Contents:
    """Reads an input: its encoded file and labels; BadClip if something is damaged or missing."""
    if file.inside is None:
        return Contents(file.path, file.path.suffix, file.label, dict(file.labels))
    try:
        return ARCHIVE_FORMATS[file.inside.format].read(file, kind, config)
    except (ValueError, OSError, pyarrow.ArrowException) as error:  # Arrow's damaged pages are OSErrors
        raise BadClip(f"{file.name}: {error}.") from error


def archive_format(path: Path) -> str | None:
    """Returns the key of ARCHIVE_FORMATS by a file's name, without the suffix of a compression; None for other files."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if suffix in _DECOMPRESS:
        name = name.removesuffix(suffix) + (".tar" if suffix.startswith(".t") else "")
    return next((form for form, known in ARCHIVE_FORMATS.items() if known.fits(name)), None)


def _listed(source: Path, config: ShardsConfig) -> FoundInputs:
    if source.suffix.lower() == ".json":
        raise BadClip(f"{source}: lists in JSON have an object a line; write them so, and name the file {source.stem}.jsonl.")
    try:
        return files_in_list(source, config.label_folder, Path(config.root).expanduser() if config.root else None)
    except UnicodeDecodeError as error:
        raise BadClip(
            f"{source}: is no list of paths in UTF-8 text, and no archive by its name; give one of the two."
        ) from error


def _samples(path: Path, key: str, kind: str, config: ShardsConfig, scratch: Path) -> FoundInputs | None:
    """Finds the inputs of an archive; None for any other file."""
    form = archive_format(path)
    if form is None:
        return None
    copy, bad = _decompressed(path, scratch) if ARCHIVE_FORMATS[form].unpacks else (None, [])
    found = ARCHIVE_FORMATS[form].find(path, key, kind, config, copy)
    return FoundInputs(found.files, [*bad, *found.bad])


def _decompressed(path: Path, scratch: Path) -> tuple[Path | None, list[BadFile]]:
    """Returns a decompressed copy of a compressed file, as far as it goes, and what was wrong with the rest."""
    opener = _DECOMPRESS.get(path.suffix.lower())
    if opener is None:
        return None, []
    scratch.mkdir(parents=True, exist_ok=True)
    checked = -1
    copy = scratch / f".{zlib.crc32(str(path.absolute()).encode()):08x}-{short(path.stem)}.tmp"
    try:
        with opener(path) as packed, copy.open("wb") as plain:
            while block := packed.read1(1 << 16):  # small blocks, so that little is lost before a cut
                plain.write(block)
                if plain.tell() // _CHECKED_BYTES > checked:
                    checked = plain.tell() // _CHECKED_BYTES
                    _check_room(path, scratch, plain.tell())
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise OSError(error.errno, error.strerror, str(copy)) from error
        return copy, [BadFile(str(path), f"{path}: cannot be decompressed to its end ({error}); get a whole copy.")]
    return copy, []


def _check_room(path: Path, scratch: Path, written: int) -> None:
    """Raises BadClip for an archive that unpacks to more than allowed, or would fill the disk."""
    if excess := limits().excess("max_unpacked_bytes", written, "bytes unpacked"):
        raise BadClip(f"{path}: has {excess}; unpack it yourself, or raise the limit.")
    room = shutil.disk_usage(scratch)
    if room.free < min(_LEAVES_SHARE * room.total, _LEAVES_BYTES):
        raise BadClip(
            f"{path}: is unpacked to {written:,} bytes, and the disk of {scratch} has only {room.free:,} bytes free; make "
            "room, or unpack it yourself elsewhere."
        )


def _from_tar(file: InputFile, kind: str, config: ShardsConfig) -> Contents:
    assert file.inside is not None
    parts = file.inside.parts
    media = next(part for part in parts if is_media(part.name, kind))
    about = {part.name: _bytes_of(file, part.start, part.size) for part in parts if not is_media(part.name, kind)}
    label, labels = labels_of_sample(about, config.label_column)
    return Contents(_bytes_of(file, media.start, media.size), f".{media.name.rpartition('.')[2]}", label, labels)


def _from_tfrecord(file: InputFile, kind: str, config: ShardsConfig) -> Contents:
    assert file.inside is not None
    (part,) = file.inside.parts
    data = _bytes_of(file, part.start, part.size + 4)
    if masked_crc(data[:-4]) != data[-4:]:
        raise ValueError("does not agree with its checksum; get a whole copy")
    media, label, labels = media_and_labels(parse_example(data[:-4]), config.image_column, config.label_column)
    return Contents(media, "", label, labels)


def _from_parquet(file: InputFile, kind: str, config: ShardsConfig) -> Contents:
    assert file.inside is not None
    (part,) = file.inside.parts
    media, label, labels = read_row(file.path, part.start, part.size, config.image_column, config.label_column)
    return Contents(media, media.suffix if isinstance(media, Path) else "", label, labels)


def _bytes_of(file: InputFile, start: int, size: int) -> bytes:
    assert file.inside is not None
    archive = file.inside.archive or file.path
    if excess := limits().excess("max_input_bytes", size, "bytes"):
        raise ValueError(f"has {excess}; leave it out or raise the limit")
    with archive.open("rb") as data:
        data.seek(start)
        found = data.read(size)
    if len(found) < size:
        raise ValueError(f"the archive ends {size - len(found)} bytes too early; get a whole copy")
    return found


@dataclass(frozen=True)
class Format:
    """A kind of archive."""

    fits: Callable[[str], bool]
    """Tells by the name, in lower case and without the suffix of a compression."""
    find: Callable[[Path, str, str, ShardsConfig, Path | None], FoundInputs]
    """Path, key, kind, settings, decompressed copy (None: not compressed) → its inputs, `Inside` this format."""
    read: Callable[[InputFile, str, ShardsConfig], Contents]
    """Input, kind, settings → its contents; ValueError if something is damaged or missing."""
    unpacks: bool = True
    """Whether compressed files are decompressed first."""


ARCHIVE_FORMATS = {
    "tar": Format(
        lambda name: name.endswith(".tar"),
        lambda path, key, kind, config, copy: samples_in_tar(path, key, kind, copy),
        _from_tar,
    ),
    "parquet": Format(
        lambda name: name.endswith(".parquet"),
        lambda path, key, kind, config, copy: rows_in_parquet(path, key, config.image_column),
        _from_parquet,
        unpacks=False,
    ),
    "tfrecord": Format(
        lambda name: ".tfrecord" in name or name.endswith((".tfrec", ".tfr")) or bool(_SHARD_NAME.search(name)),
        lambda path, key, kind, config, copy: records_in_tfrecord(path, key, copy),
        _from_tfrecord,
    ),
}
"""Kinds of archives; the first that fits a name counts."""
