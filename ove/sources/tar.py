"""WebDataset tars: files with one name up to the first dot are one sample (`000123.jpg`, `000123.cls`, …)."""

import io
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ove.config import bounded_json, limits
from ove.sources.folders import ByteRange, FoundInputs, InputFile, Inside
from ove.sources.lists import LABEL_COLUMNS, bank_labels, class_name
from ove.sources.quarantine import BadFile

MEDIA = {
    "image": ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jp2", "avif", "ppm"),
    "video": ("mp4", "mkv", "webm", "mov", "avi", "m4v", "mpg", "mpeg", "ts", "flv", "wmv", "3gp", "ogv", "h264", "264"),
}
"""Last part of the extension of a sample's picture or video."""


class _NoLonger(io.BufferedReader):
    """A file that is never asked for more than it holds: tarfile asks for what a header claims, and Python allocates that."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._length = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads up to `size` bytes."""
        return super().read(min(size, self._length) if size is not None and size >= 0 else -1)


def samples_in_tar(path: Path, key: str, kind: str, copy: Path | None = None) -> FoundInputs:
    """Lists the samples of a tar file with a picture or a video (`kind`); `copy` is the same file decompressed.

    Keys are `key`, a slash and the name of the sample in the archive. Bad are samples without one, samples that occur twice,
    and an archive that ends early; whole samples before its end are used.
    """
    bad: list[BadFile] = []
    samples: dict[str, list[ByteRange]] = {}
    archive = copy or path
    length = archive.stat().st_size
    position = n_members = 0
    try:
        with _NoLonger(io.FileIO(archive)) as content, tarfile.open(fileobj=content, mode="r:") as tar:
            while (member := tar.next()) is not None:
                n_members += 1
                if excess := limits().excess("max_archive_inputs", n_members, "members"):
                    return FoundInputs([], [BadFile(str(path), f"{path}: has {excess}; split it or raise the limit.")])
                tar.members.clear()  # type: ignore[attr-defined]  # kept by tarfile, a kilobyte each
                position = member.offset
                folder, _, file = member.name.removeprefix("./").rpartition("/")
                if not member.isfile() or file.startswith("."):
                    continue
                stem, _, extension = file.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if member.offset_data + member.size > length:
                    bad.append(_bad(path, name, "the archive ends within it; get a whole copy"))
                    samples.pop(name, None)
                    break
                samples.setdefault(name, []).append(ByteRange(sys.intern(extension.lower()), member.offset_data, member.size))
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        reason = f"{path}: is no whole tar file ({error}); {len(samples)} samples before byte {position} can be read."
        bad.append(BadFile(str(path), reason, position))
    files = []
    for name, parts in samples.items():
        extensions = [part.name for part in parts]
        if len(set(extensions)) < len(extensions):
            bad.append(_bad(path, name, "occurs more than once in the archive; sample names must be unique"))
        elif not any(is_media(extension, kind) for extension in extensions):
            bad.append(_bad(path, name, f"has no {kind} among its files ({', '.join(extensions)})"))
        else:
            files.append(InputFile(path, f"{key}/{name}", None, {}, Inside("tar", tuple(parts), copy)))
    return FoundInputs(files, bad)


def is_media(extension: str, kind: str) -> bool:
    """Returns whether an extension ("jpg", "left.png") is that of a picture or a video (`kind`)."""
    return extension.rpartition(".")[2] in MEDIA[kind]


def labels_of_sample(parts: Mapping[str, bytes], label_column: str) -> tuple[str | None, dict[str, tuple[int, ...]]]:
    """Returns class name and labels by bank of a sample, from its `.cls`, its `.json` or `label_column`.

    `label_column` is an extension ("txt") or a key of the JSON. ValueError for files with other contents.
    """
    about: dict[str, Any] = {}
    if "json" in parts:
        about = bounded_json(parts["json"])
        if not isinstance(about, dict):
            raise ValueError("its .json holds no object")
    candidates: Sequence[str] = (label_column,) if label_column else ("cls", *LABEL_COLUMNS)
    for candidate in candidates:
        if candidate in parts:
            return class_name(parts[candidate].decode("utf-8")), bank_labels(about)
        if about.get(candidate) is not None:
            return class_name(about[candidate]), bank_labels(about)
    return None, bank_labels(about)


def _bad(path: Path, name: str, reason: str) -> BadFile:
    return BadFile(f"{path}/{name}", f"{path}/{name}: {reason}.")
