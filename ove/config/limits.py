"""Bounds on sizes and counts that files claim; checked before anything of that size is allocated."""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ove.config.section import Count, Positive, Section
from ove.errors import ConfigError


@dataclass(frozen=True)
class LimitsConfig(Section):
    """What this machine takes from a file; each is set by the environment variable of its name (OVE_MAX_FRAME_PIXELS)."""

    max_frame_pixels: Count = 1 << 26
    """Pixels of a video's frame: 8192 × 8192. Damaged headers announce larger ones."""
    max_picture_pixels: Count = 1 << 28
    """Pixels of a picture: 16384 × 16384."""
    max_picture_bytes: Count = 1 << 30
    """Bytes of a picture as it is decoded, with its own depth and channels: 16 bits and an alpha channel take 8 a pixel."""
    max_clip_bytes: Count = 1 << 32
    """Bytes of the decoded frames, or mosaics, of one record."""
    max_record_items: Count = 1 << 16
    """Items of a list in a record: frames, mosaics."""
    max_input_bytes: Count = 1 << 32
    """Bytes of one encoded file or record that are read into memory: pictures, members of tars, records of TFRecord files."""
    max_archive_inputs: Count = 1 << 24
    """Members, rows or records of one archive; tensors of one file of weights."""
    max_row_group_bytes: Count = 1 << 33
    """Bytes of one row group of a Parquet file, uncompressed."""
    max_unpacked_bytes: Count = 1 << 40
    """Bytes of one decompressed archive. It also leaves 10 GB of its disk free, or 5 % of a small one."""
    max_json_bytes: Count = 1 << 28
    """Bytes of a JSON text: manifests, config.json, descriptions of labels, lines of lists."""
    max_header_bytes: Count = 100_000_000
    """Bytes of the header of a safetensors file, or of the pickle in a torch file."""
    record_limit_s: Positive = 120.0
    """Processor seconds that `ove verify --decode` and `ove show` give to one record."""
    stall_factor: Positive = 10.0
    """Time limits count processor time, so that the same files are set aside on a busy machine as on an idle one. Work that
    stalls, on a disk or a lock, ends after so many times its limit by the clock on the wall."""

    @classmethod
    def key(cls, name: str) -> str:
        """Returns the environment variable of a limit."""
        return f"OVE_{name.upper()}"

    def excess(self, name: str, value: int, unit: str) -> str:
        """Returns "" if a size is within the limit, else words for an error: the size, the limit, and what sets it."""
        limit = getattr(self, name)
        return f"{value:,} {unit}, more than {self.key(name)} = {limit:,} allows" if value > limit else ""


def limits(environment: Mapping[str, str] = os.environ) -> LimitsConfig:
    """Returns the limits of this machine; ConfigError for a variable that is no number."""
    return _limits(tuple(environment.get(variable) for variable in _VARIABLES))


def bounded_json(text: bytes | str) -> Any:
    """Parses a JSON text from a file; ValueError if it is none, too long, or nested too deeply."""
    if excess := limits().excess("max_json_bytes", len(text), "bytes of JSON"):
        raise ValueError(excess)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def read_bounded_json(path: Path) -> Any:
    """Parses a JSON file; errors as in `bounded_json`, before a file that is too long is read."""
    if excess := limits().excess("max_json_bytes", path.stat().st_size, "bytes of JSON"):
        raise ValueError(excess)
    return bounded_json(path.read_bytes())


_VARIABLES = {LimitsConfig.key(field.name): field for field in fields(LimitsConfig)}


@functools.lru_cache(maxsize=16)
def _limits(texts: tuple[str | None, ...]) -> LimitsConfig:
    given: dict[str, int | float] = {}
    for (variable, field), text in zip(_VARIABLES.items(), texts, strict=True):
        if text:
            try:
                given[field.name] = int(text) if isinstance(field.default, int) else float(text)
            except ValueError as error:
                raise ConfigError(f"{variable} = {text!r} must be a number.") from error
    return LimitsConfig(**given)  # type: ignore[arg-type]
