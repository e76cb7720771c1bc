"""Reads the results of earlier steps of a bank, if they were made with the present settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ove.config import LabelsConfig
from ove.config.mapping import to_mapping
from ove.errors import BadShard, ConfigError
from ove.files import digest
from ove.labels.dedup_report import read_kept
from ove.labels.embed import ABOUT, Embedded, open_embeddings
from ove.labels.label import kept_points
from ove.labels.parts import WorkPart
from ove.labels.teachers.teacher import Teacher, make_teacher, teacher_identity
from ove.records import BankName
from ove.shards.labels import fingerprint_of_array, read_centers, read_labels
from ove.shards.same_set import differences
from ove.shards.shard_set import ShardSet

_MEANS_NOTHING = (
    "threads",
    "batch_size",
    "chunk_records",
    "max_bad_share",
    "weights",
    "barrier_timeout_s",
    "heartbeat_timeout_s",
)
"""Settings that do not change the labels (weights count by content, not by place)."""
_OF_CENTERS = ("start", "n_centers", "iterations", "seed")
_OF_EMBEDDINGS = ("teacher", "store")
_OF_DUPLICATES = (*_OF_EMBEDDINGS, "duplicates", "threshold", "cells", "seed")
_DECIDE = {
    "embed": _OF_EMBEDDINGS,
    "dedup": _OF_DUPLICATES,
    "kmeans": (*_OF_DUPLICATES, *_OF_CENTERS, "scores"),
}
"""Keys of `StepCache.made_with` that decide what a task makes; of labels all do."""
_MADE_BY = {"embed": ABOUT, "dedup": "duplicates.json", "kmeans": "centers.json"}


@dataclass(frozen=True)
class LabelJob:
    """The inputs that all banks share."""

    shards: ShardSet
    config: LabelsConfig
    centers_from: Path | None
    """Labelled shard folder whose centers are used."""
    part: WorkPart
    """Which part of the embeddings or labels this command computes."""
    alone: bool
    """Whether a single task was asked for; it then logs more."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """`teacher_identity`; loads no weights."""
        return teacher_identity(self.config)

    @cached_property
    def teacher(self) -> Teacher:
        """Loaded at first use, for all banks."""
        return make_teacher(self.config)


class StepCache:
    """The folder of a bank."""

    def __init__(self, inputs: LabelJob, bank: BankName, folder: Path) -> None:
        self.inputs, self.shards, self.config = inputs, inputs.shards, inputs.config
        self.bank, self.folder = bank, folder

    def embedded(self) -> Embedded:
        """Maps the embeddings; BadShard if they are missing."""
        return open_embeddings(self.folder, self.shards, self.bank, self.inputs.identity, self.config.store)

    def kept(self, embedded: Embedded) -> Bool[np.ndarray, "R"] | None:
        """Returns which records are kept; None if duplicates are, BadShard if they have not been searched for."""
        if self.config.duplicates == "keep":
            return None
        kept = read_kept(self.folder, len(self.shards))
        if kept is None or self.read("duplicates.json").get("made_with") != self.dedup_settings(embedded):
            raise BadShard(f"{self.folder}: duplicates have not been looked for with these settings; run the task dedup first.")
        return kept

    def centers(self, embedded: Embedded) -> tuple[Float32[np.ndarray, "k E"], dict[str, Any]]:
        """Maps the class centers, and returns what is stored about them; BadShard if they are missing."""
        source: Path | None = self.inputs.centers_from
        if source is None:
            about = self.read("centers.json")
            chosen = kept_points(embedded, self.kept(embedded))
            if about.get("made_with") != self.centers_settings(embedded, chosen):
                raise BadShard(f"{self.folder}: holds no centers made with these settings; run the task kmeans first.")
            return np.load(self.folder / "centers.npy", mmap_mode="r"), {"objective": about["objective"]}
        centers = read_centers(source, self.bank)
        theirs = read_labels(source, self.bank).info.get("made_with", {}).get("teacher", embedded.teacher)
        if centers.shape[1] != embedded.points.width or theirs != embedded.teacher:
            raise BadShard(f"{source}: its {self.bank} centers are of another teacher; label it again.")
        return centers, {"objective": []}

    def is_labelled(self) -> bool:
        """Returns whether the shards have labels that were made with these settings."""
        before = self._made_before("assign")
        return before is not None and not self._differences("assign", before)

    def check_free(self, task: str) -> None:
        """Raises ConfigError if what a task would write is there, of these records and made with other settings."""
        skipped = (task == "dedup" and self.config.duplicates == "keep") or (task == "kmeans" and self.inputs.centers_from)
        before = None if skipped else self._made_before(task)
        if before is None or not (found := self._differences(task, before)):
            return
        path = self.folder / _MADE_BY[task] if task in _MADE_BY else self.shards.folder / "labels" / f"{self.bank}.json"
        other = "give another --work, or " if task in _MADE_BY else ""
        raise ConfigError(f"{path}: was made with {found}; this run would destroy it: {other}give --replace to make it anew.")

    def _differences(self, task: str, before: Mapping[str, Any]) -> str:
        kinds = before, self.made_for(task), self._made_for(task, to_mapping(LabelsConfig()))
        return differences(*({"labels": kind} for kind in kinds))

    def _made_before(self, task: str) -> Mapping[str, Any] | None:
        """Returns the settings of what is there; None if there is nothing, or it is of other records or does not tell."""
        if task not in _MADE_BY:
            try:
                return read_labels(self.shards.folder, self.bank).info.get("made_with", {})
            except BadShard:  # missing, damaged, or of other shards: they are made (again)
                return None
        about = self.read(_MADE_BY[task])
        if about.get("fingerprint") != self.shards.fingerprint or (task == "embed" and not any(self.folder.glob("chunk-*"))):
            return None
        return about.get("settings", {name: about.get(name) for name in _OF_EMBEDDINGS})

    def made_for(self, task: str) -> dict[str, Any]:
        """Returns all that decides what a task makes, besides the shards."""
        return self._made_for(task, self.made_with())

    def _made_for(self, task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in _DECIDE.get(task, settings)}

    def made_with(self) -> dict[str, Any]:
        """Returns all that decides the labels besides the shards."""
        decides: dict[str, Any] = {k: v for k, v in to_mapping(self.config).items() if k not in _MEANS_NOTHING}
        decides["teacher"] = self.inputs.identity
        if self.inputs.centers_from is not None:
            for unused in _OF_CENTERS:
                decides.pop(unused)
            decides["centers"] = fingerprint_of_array(read_centers(self.inputs.centers_from, self.bank))
        return decides

    def noted(self, task: str, digest_: str) -> dict[str, Any]:
        """Returns what is stored beside the result of a task: of which records it is, and the settings."""
        return {"made_with": digest_, "fingerprint": self.shards.fingerprint, "settings": self.made_for(task)}

    def dedup_settings(self, embedded: Embedded) -> str:
        """Returns a digest of all that decides which records are duplicates."""
        config = self.config
        near = [config.threshold, config.cells, config.seed] if config.duplicates == "near" else []
        return digest([embedded.identity, config.duplicates, near])

    def centers_settings(self, embedded: Embedded, chosen: Int64[np.ndarray, "n"]) -> str:
        """Returns a digest of all that decides the centers of these embeddings."""
        ours = {name: getattr(self.config, name) for name in (*_OF_CENTERS, "scores")}
        return digest([embedded.identity, fingerprint_of_array(chosen), ours])

    def read(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the folder; {} if it is missing."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def banks_of(shards: ShardSet, wanted: list[str] | None) -> list[BankName]:
    """Returns the banks of a shard set (pictures: `obj`; videos: `vid` and `obj`), or the wanted ones of them."""
    there: list[BankName] = ["vid", "obj"] if shards.manifest.kind == "video" else ["obj"]
    for bank in wanted or ():
        if bank not in there:
            raise ConfigError(f"--bank {bank}: {shards.folder} holds {shards.manifest.kind}s: give {' or '.join(there)}.")
    return [bank for bank in there if wanted is None or bank in wanted]


def check_size(config: LabelsConfig, n_records: int) -> None:
    """Raises ConfigError for more centers than half the records, or more labels than centers."""
    most = n_records // 2
    if config.n_centers > most:
        too_many = f"labels.n_centers = {config.n_centers} is more than half of the {n_records} records"
        if not most:
            raise ConfigError(f"{too_many}; write more records into the shards.")
        if config.n_labels > most:
            raise ConfigError(
                f"{too_many}, and labels.n_labels = {config.n_labels} is more than that; give --centers {most} and --labels "
                f"{most}, or fewer."
            )
        raise ConfigError(f"{too_many}; give --centers {most} or fewer.")
    if config.n_labels > config.n_centers:
        raise ConfigError(
            f"labels.n_labels = {config.n_labels} is more than the {config.n_centers} centers; "
            f"give --labels {config.n_centers} or fewer."
        )
