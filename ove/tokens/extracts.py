"""Extracts of videos on disk: which file is of which video, and what an .npz holds."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ove.errors import ConfigError
from ove.files import atomic_write, digest, printable, reopen_json_lines, short, write_json_lines
from ove.paths import exists_already, harmless, inside
from ove.records import Clip, CodecSignals, Saliency, Selection
from ove.sources.folders import InputFile
from ove.sources.quarantine import QUARANTINE

LIST = "extracts.jsonl"
"""In the folder of extracts: a line for each video, with its path, the name of its extracts, and their files."""
_LONGEST_STEM = 200
"""Bytes of a name; longer ones are shortened, to leave room for endings and temporary names."""
_DIGITS = 8
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp")
"""Names that `atomic_write` gives."""


@dataclass(frozen=True)
class Extract:
    """What is written for a video."""

    video: str
    """Absolute path."""
    name: str
    """Of its files, without their ending, below the folder of extracts."""
    files: tuple[str, ...]
    """Files and, with a slash at the end, folders."""


def read_list(out: Path) -> list[Extract]:
    """Reads what earlier calls have written or begun to write into a folder; ConfigError for a list with harmful names."""
    found = reopen_json_lines(out / LIST, keep=lambda entry: {"video", "name", "files"} <= entry.keys())
    for entry in found:
        inside(out, entry["name"], out / LIST, ConfigError, nested=True)
    return [Extract(str(entry["video"]), entry["name"], tuple(map(str, entry["files"]))) for entry in found]


def write_list(out: Path, extracts: Iterable[Extract]) -> None:
    """Writes the list of extracts, by name."""
    entries = sorted(extracts, key=lambda extract: extract.name)
    write_json_lines(out / LIST, ({"video": e.video, "name": e.name, "files": list(e.files)} for e in entries))


def plan_extracts(files: Sequence[InputFile], earlier: Sequence[Extract], endings: Sequence[str]) -> list[Extract]:
    """Returns what is to be written for each file, `endings` such as ".npz" or "/".

    A name is the file's key without its suffix, so class folders stay folders; it is shortened and cleaned where necessary. If
    it belongs to another video, of this call or of `earlier` ones, a digest of the path is appended: a name never changes its
    meaning, and a video keeps its name.
    """
    owners = {extract.name: extract.video for extract in earlier}
    names = {extract.video: extract.name for extract in earlier}
    plan = []
    for file in files:
        video = printable(os.path.abspath(file.path))
        name = names.get(video, _name(file.key))
        if owners.setdefault(name, video) != video:
            name += f"-{digest(video)[:_DIGITS]}"
            owners[name] = video
        names[video] = name
        plan.append(Extract(video, name, tuple(name + ending for ending in endings)))
    return plan


def check_free(
    out: Path, plan: Sequence[Extract], earlier: Sequence[Extract], files: Sequence[InputFile], replace: bool
) -> None:
    """Raises ConfigError if a file to be written is one of the inputs or, unless `replace`, exists without being an extract."""
    ours = {name for extract in earlier for name in extract.files}
    sources = {os.path.realpath(file.path) for file in files}
    for name in (name for extract in plan for name in extract.files):
        path = out / name
        if os.path.realpath(path) in sources:
            raise ConfigError(f"--out {path}: is one of the videos, which are never written to; give another folder.")
        there = any(path.glob("*")) if name.endswith("/") and path.is_dir() else os.path.lexists(path)
        if there and not replace and name not in ours:
            raise exists_already(path, "--out")


def remove_unfinished(out: Path, plan: Sequence[Extract]) -> None:
    """Deletes what killed calls have left half-written of these extracts and of the lists; only while holding the folder."""
    names: dict[Path, set[str]] = {out: {LIST, QUARANTINE}}
    for path in (Path(f"{out / name}/*" if name.endswith("/") else out / name) for extract in plan for name in extract.files):
        names.setdefault(path.parent, set()).add(short(path.name))
    for folder, ours in names.items():
        for left in folder.glob(".*.tmp"):
            of = _UNFINISHED.fullmatch(left.name)
            if of and (of[1] in ours or "*" in ours):
                left.unlink(missing_ok=True)


def merged(earlier: Sequence[Extract], plan: Sequence[Extract], failed: Sequence[int] = ()) -> list[Extract]:
    """Returns all extracts of a folder: earlier ones, and those planned, without those that `failed` (indices of the plan)."""
    found = {extract.name: extract for extract in earlier}
    for index, extract in enumerate(plan):
        before = found.get(extract.name)
        if index in failed:
            continue
        kept = () if before is None else before.files
        found[extract.name] = Extract(extract.video, extract.name, tuple(dict.fromkeys((*kept, *extract.files))))
    return list(found.values())


def write_npz(path: Path, video: str, clip: Clip, scores: Saliency, selection: Selection, signals: CodecSignals | None) -> None:
    """Writes the .npz of a video, whole or not at all; docs/codec.md describes it."""
    arrays = {
        "video": np.array(video),
        "frame_index": clip.frame_index,
        "n_distinct": np.array(len(np.unique(clip.frame_index))),
        "pts_s": clip.pts_s,
        "is_i_frame": clip.is_i_frame,
        "saliency": scores.scores,
        "selected_flat": selection.flat,
        "grid_tyx": np.array(selection.grid_tyx, np.int32),
        "source": np.array(clip.source),
        "codec": np.array(clip.codec),
        "n_decoded": np.array(clip.n_decoded),
        "cut": np.array(clip.cut),
    }
    if clip.valid is not None:
        arrays["valid"] = clip.valid
    if signals is not None:
        every = signals.of_frames(np.arange(len(clip.frame_index)))
        arrays |= {name: getattr(signals, name)[every] for name in ("motion", "has_vector", "residual")}
        arrays |= {"cell_offset_px": np.array(signals.cell_offset_px, np.int32)}
        arrays |= {"residual_exact": np.array(signals.residual_exact), "residual_source": np.array(signals.residual_source)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _name(key: str) -> str:
    """Returns a key without its suffix, as a path that any file system takes."""
    path = PurePosixPath(key)
    return "/".join(_plain(part) for part in (*path.parent.parts, path.stem))


def _plain(part: str) -> str:
    """Returns a part of a path; with a digest if it is hidden, too long, or has characters that do not belong in a name."""
    data, plain = part.encode(), harmless(part)
    if plain.startswith("."):
        plain = f"_{plain}"
    if plain == part and len(data) <= _LONGEST_STEM:
        return part
    kept = plain.encode()[: _LONGEST_STEM - _DIGITS - 1].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}"
