"""Which groups of videos are finished: one `.done.json` beside each shard, valid as long as its inputs are the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from ove.shards.manifest import Shard, digest, write_json
from ove.shards.quarantine import BadFile
from ove.shards.schema import SCHEMA_VERSION
from ove.shards.sources import VideoFile

Form = tuple[int, int, tuple[int, int, int]]
"""(size_px, patch_px, grid_tyx): what all records of a set have in common."""


@dataclass(frozen=True)
class Group:
    """A finished group, as its marker tells."""

    inputs: str
    """Digest of the group's files, their dates and the configuration."""
    shard: Shard | None
    """None where no file of the group was usable."""
    form: Form | None
    labels: list[str]
    bad: list[BadFile]


def inputs_of(group: Sequence[VideoFile], made_with: Mapping[str, Any]) -> str:
    """Digest of all that a group's shard depends on; a file that is missing has no size and no date."""
    files = []
    for video in group:
        stat = video.path.stat() if video.path.exists() else None
        about = (stat.st_size, stat.st_mtime_ns) if stat else None
        files.append([str(video.path.absolute()), video.key, video.label, about])
    return digest({"schema_version": SCHEMA_VERSION, "made_with": dict(made_with), "files": files})


def shard_path(out: Path, n: int) -> Path:
    """The shard of group n."""
    return out / f"shard-{n:05d}.arrayrecord"


def marker_path(out: Path, n: int) -> Path:
    """The file that says that group n is finished."""
    return out / f"shard-{n:05d}.done.json"


def write_group(out: Path, n: int, group: Group) -> None:
    """Marks group n as finished; its shard must have its name by now."""
    write_json(marker_path(out, n), asdict(group))


def read_group(out: Path, n: int, inputs: str) -> Group | None:
    """The marker of a group, if it is of these inputs and its shard is still there."""
    try:
        values = loads(marker_path(out, n).read_text(encoding="utf-8"))
    except (FileNotFoundError, JSONDecodeError, UnicodeDecodeError):
        return None
    if values.get("inputs") != inputs:
        return None
    shard = Shard(**values["shard"]) if values["shard"] else None
    if shard is not None and not (out / shard.file).is_file():
        return None
    if shard is not None and (out / shard.file).stat().st_size != shard.bytes:
        return None
    form = values["form"] and (values["form"][0], values["form"][1], tuple(values["form"][2]))
    return Group(inputs, shard, form, values["labels"], [BadFile(**entry) for entry in values["bad"]])
