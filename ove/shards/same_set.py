"""Tells whether a run may go on with the shards in its folder, or would destroy those of other inputs or settings."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ove.config.mapping import merged
from ove.errors import BadShard, ConfigError
from ove.files import write_json
from ove.shards.manifest import Manifest, read_manifest
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile

MADE_OF = ".made_of.json"
"""In the folder of a set from the beginning: its settings, and the folder that holds all its inputs."""
_SAMPLE = 64
"""Records whose keys are compared, where that is needed."""
_SHOWN = 3
_KIND = "kind"
"""Key of the settings that says whether the records are videos or pictures."""


def note_inputs(out: Path, files: Sequence[InputFile], made_with: Mapping[str, Any]) -> None:
    """Writes what the shards in `out` are made of."""
    write_json(out / MADE_OF, {"made_with": dict(made_with), "root": _root(files)})


def as_noted(out: Path, made_with: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings as the set in `out` has them, if only keys of later versions are missing there; else `made_with`.

    Such a key counts as its default, under which records are what they were before there was the key.
    """
    before = _before(out, _manifest(out))
    return made_with if before is None or differences(before, made_with, defaults) else before


def check_same_set(
    out: Path, files: Sequence[InputFile], made_with: Mapping[str, Any], defaults: Mapping[str, Any], goes_on: bool
) -> None:
    """Raises ConfigError if `out` holds shards of other settings or inputs, or of more than twice as many.

    `goes_on`: a group of them is exactly what the run would make. Files may have been added, changed or removed. `defaults` as
    in `as_noted`.
    """
    manifest, note = _manifest(out), _note(out)
    if manifest is None and not any(out.glob("shard-*.arrayrecord")):
        return  # nothing that took long
    there = f"{manifest.records} records" if manifest else "an unfinished set"
    there += f" of {note['root']}" if note.get("root") else ""
    before = _before(out, manifest)
    if before is not None and (found := differences(before, made_with, defaults)):
        raise _refusal(out, f"{there}, made with {found}")
    if not goes_on and (_apart(note.get("root"), _root(files)) or _has_none_of(out, manifest, files)):
        raise _refusal(out, f"{there}, and none of the {len(files)} inputs in {_root(files)}")
    if manifest and 2 * len(files) < manifest.records:
        raise _refusal(out, f"{there}, and {len(files)} inputs are given, fewer than half")


def _refusal(out: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{out}: holds {what}; this run would destroy them. Give another folder, or --replace to write the set anew."
    )


def _manifest(out: Path) -> Manifest | None:
    try:
        return read_manifest(out)
    except BadShard:  # none, damaged or of another version: not readable as a set
        return None


def _before(out: Path, manifest: Manifest | None) -> dict[str, Any] | None:
    """Returns the settings that the shards in `out` were made with; None if that is not known."""
    return _note(out).get("made_with") or (manifest.made_with if manifest else None)


def _note(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / MADE_OF).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # made by a version that wrote none
        return {}
    return found if isinstance(found, dict) else {}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> str:
    """Returns the settings that differ, in words; empty if none does. Keys that one lacks count as their `defaults`."""
    old, new = (_flat(json.loads(json.dumps(merged(defaults or {}, made)))) for made in (before, now))
    differ = [key for key in dict.fromkeys((*new, *old)) if old.get(key) != new.get(key)]
    if _KIND in differ:
        differ = [_KIND]  # all others follow from it
    words = [f"{key} = {old.get(key)!r}, not {new.get(key)!r}" for key in differ[:_SHOWN]]
    return "; ".join(words) + (f"; and {len(differ) - _SHOWN} more settings" if len(differ) > _SHOWN else "")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _root(files: Sequence[InputFile]) -> str:
    """Returns the folder that holds all inputs."""
    return os.path.commonpath({os.path.abspath(file.path.parent) for file in files}) if files else ""


def _apart(before: str | None, now: str) -> bool:
    """Returns whether neither of two folders holds the other; False if the first is not known."""
    if not before or not now:
        return False
    return os.path.commonpath((before, now)) not in (before, now)


def _has_none_of(out: Path, manifest: Manifest | None, files: Sequence[InputFile]) -> bool:
    """Returns whether no record of a set, of those that are looked at, has the key of an input."""
    if manifest is None:
        return False
    keys = {file.key for file in files}
    try:
        shards = ShardSet.open(out)
        sample = range(0, len(shards), -(-len(shards) // _SAMPLE))
        return not any(shards.record(index).key in keys for index in sample)
    except BadShard:  # not readable as a set
        return False
