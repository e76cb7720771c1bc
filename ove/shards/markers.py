"""Which groups of inputs are finished: a `.done.json` beside each shard, valid as long as its inputs are unchanged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from ove.files import digest, write_json
from ove.shards.manifest import Shard
from ove.shards.schema import SHARD_SCHEMA_VERSION
from ove.sources.folders import InputFile
from ove.sources.quarantine import BadFile


@dataclass(frozen=True)
class Form:
    """What all records of a set have in common: of pictures only the kind."""

    kind: str
    size_px: int | None = None
    patch_px: int | None = None
    grid_tyx: tuple[int, int, int] | None = None
    forms: tuple[str, ...] = ()


@dataclass(frozen=True)
class BankLabels:
    """Statistics of the labels of one bank in some records."""

    records: int
    """With any label."""
    fewest: int
    most: int
    """Of one record."""
    largest: int
    """Of all labels."""


@dataclass(frozen=True)
class Group:
    """A finished group, as in its marker."""

    inputs: str
    """Digest of the group's files, their dates and the configuration."""
    shard: Shard | None
    """None if no file of the group was usable."""
    form: Form | None
    classes: list[str]
    banks: dict[str, BankLabels]
    bad: list[BadFile]
    names: list[tuple[str, str | None]] | None = None
    """Key and class name of each record; None in markers of earlier versions."""


def inputs_of(group: Sequence[InputFile], made_with: Mapping[str, Any]) -> str:
    """Returns the digest of all that a group's shard depends on; a missing file has no size and no date."""
    stats: dict[Path, tuple[str, list[int] | None]] = {}  # an archive holds many inputs
    files = []
    for file in group:
        if file.path not in stats:
            try:
                stat = file.path.stat()
                stats[file.path] = str(file.path.absolute()), [stat.st_size, stat.st_mtime_ns]
            except (OSError, ValueError):  # missing, or a name that no file can have: told when it is read
                stats[file.path] = str(file.path.absolute()), None
        inside = file.inside and [file.inside.format, [[part.name, part.start, part.size] for part in file.inside.parts]]
        labels = {bank: list(values) for bank, values in file.labels.items()}
        span = file.span_s and list(file.span_s)
        files.append([*stats[file.path], file.key, file.label, labels, inside, span])
    return digest({"schema_version": SHARD_SCHEMA_VERSION, "made_with": dict(made_with), "files": files})


def shard_path(out: Path, n: int) -> Path:
    """Returns the shard of group n."""
    return out / f"shard-{n:05d}.arrayrecord"


def marker_path(out: Path, n: int) -> Path:
    """Returns the marker of group n."""
    return out / f"shard-{n:05d}.done.json"


def write_group(out: Path, n: int, group: Group) -> None:
    """Marks group n as finished, after its shard was written."""
    write_json(marker_path(out, n), asdict(group))


def read_group(out: Path, n: int, inputs: str) -> Group | None:
    """Reads the marker of a group; None unless it has these inputs and its shard is there."""
    try:
        values = loads(marker_path(out, n).read_text(encoding="utf-8"))
    except (FileNotFoundError, JSONDecodeError, UnicodeDecodeError):
        return None
    if values.get("inputs") != inputs:
        return None
    shard = Shard(**values["shard"]) if values["shard"] else None
    path = shard_path(out, n)
    if shard is not None and (shard.file != path.name or not path.is_file() or path.stat().st_size != shard.bytes):
        return None
    form = values["form"]
    if form is not None:
        form = Form(**form | {"grid_tyx": form["grid_tyx"] and tuple(form["grid_tyx"]), "forms": tuple(form["forms"])})
    banks = {bank: BankLabels(**found) for bank, found in values["banks"].items()}
    names = values.get("names") and [(key, label) for key, label in values["names"]]
    return Group(inputs, shard, form, values["classes"], banks, [BadFile(**entry) for entry in values["bad"]], names)


def merged_labels(found: Iterable[Mapping[str, BankLabels]]) -> dict[str, BankLabels]:
    """Merges the statistics of several groups (or records), by bank."""
    together: dict[str, BankLabels] = {}
    for banks in found:
        for bank, b in banks.items():
            a = together.get(bank, b)
            records = b.records + (a.records if bank in together else 0)
            together[bank] = BankLabels(records, min(a.fewest, b.fewest), max(a.most, b.most), max(a.largest, b.largest))
    return dict(sorted(together.items()))
