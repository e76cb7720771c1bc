"""What the steps of a bank have left in its folder; used only if it was made with the present settings."""

import json
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
from ove.labels.embed import Embedded, open_embeddings
from ove.labels.label import kept_points
from ove.labels.parts import WorkPart
from ove.labels.teachers.teacher import Teacher, make_teacher, teacher_identity
from ove.records import BankName
from ove.shards.labels import fingerprint_of_array, read_centers, read_labels
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
"""Settings that do not change the labels (of the weights, what is in them does, not where they lie)."""
_OF_CENTERS = ("start", "n_centers", "iterations", "seed")


@dataclass(frozen=True)
class LabelJob:
    """What the tasks of all banks share."""

    shards: ShardSet
    config: LabelsConfig
    centers_from: Path | None
    """Labelled shard folder whose centers are taken over."""
    part: WorkPart
    """Of the embeddings, or of the labels, that this command makes."""
    alone: bool
    """Whether one task was asked for, not all: then it says more."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Of the teacher; its weights are not loaded for it."""
        return teacher_identity(self.config)

    @cached_property
    def teacher(self) -> Teacher:
        """Loaded when it is needed first, for all banks."""
        return make_teacher(self.config)


class StepCache:
    """The folder of a bank."""

    def __init__(self, inputs: LabelJob, bank: BankName, folder: Path) -> None:
        self.inputs, self.shards, self.config = inputs, inputs.shards, inputs.config
        self.bank, self.folder = bank, folder

    def embedded(self) -> Embedded:
        """The embeddings; BadShard if they are not there."""
        return open_embeddings(self.folder, self.shards, self.bank, self.inputs.identity, self.config.store)

    def kept(self, embedded: Embedded) -> Bool[np.ndarray, "R"] | None:
        """The records that are no duplicates; None if all are to be kept, BadShard if nobody has looked for them."""
        if self.config.duplicates == "keep":
            return None
        kept = read_kept(self.folder, len(self.shards))
        if kept is None or self.read("duplicates.json").get("made_with") != self.dedup_settings(embedded):
            raise BadShard(f"{self.folder}: duplicates have not been looked for with these settings; run the task dedup first.")
        return kept

    def centers(self, embedded: Embedded) -> tuple[Float32[np.ndarray, "k E"], dict[str, Any]]:
        """The class centers, mapped from their file, and what is to be told of them; BadShard if they are not there."""
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
        """Whether labels lie beside the shards that were made with the same options."""
        try:
            return read_labels(self.shards.folder, self.bank).info.get("made_with") == self.made_with()
        except BadShard:  # none, damaged, or of other shards: they are made (again)
            return False

    def made_with(self) -> dict[str, Any]:
        """All that decides the labels besides the shards themselves."""
        decides: dict[str, Any] = {k: v for k, v in to_mapping(self.config).items() if k not in _MEANS_NOTHING}
        decides["teacher"] = self.inputs.identity
        if self.inputs.centers_from is not None:
            for unused in _OF_CENTERS:
                decides.pop(unused)
            decides["centers"] = fingerprint_of_array(read_centers(self.inputs.centers_from, self.bank))
        return decides

    def dedup_settings(self, embedded: Embedded) -> str:
        """Changes with all that decides which records are duplicates."""
        config = self.config
        near = [config.threshold, config.cells, config.seed] if config.duplicates == "near" else []
        return digest([embedded.identity, config.duplicates, near])

    def centers_settings(self, embedded: Embedded, chosen: Int64[np.ndarray, "n"]) -> str:
        """Changes with all that decides the centers of these embeddings."""
        ours = {name: getattr(self.config, name) for name in (*_OF_CENTERS, "scores")}
        return digest([embedded.identity, fingerprint_of_array(chosen), ours])

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder, empty if there is none."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def banks_of(shards: ShardSet, wanted: list[str] | None) -> list[BankName]:
    """Returns the banks of a shard set, or those that are wanted: of pictures only `obj`, of videos also `vid`."""
    there: list[BankName] = ["vid", "obj"] if shards.manifest.kind == "video" else ["obj"]
    for bank in wanted or ():
        if bank not in there:
            raise ConfigError(f"--bank {bank}: {shards.folder} holds {shards.manifest.kind}s: give {' or '.join(there)}.")
    return [bank for bank in there if wanted is None or bank in wanted]


def check_size(config: LabelsConfig, n_records: int) -> None:
    """Raises ConfigError for more centers than k-means can make of so many records, or more labels than centers."""
    most = n_records // 2
    if config.n_centers > most:
        advice = f"give --centers {most} or fewer" if most else "write more records into the shards"
        raise ConfigError(f"labels.n_centers = {config.n_centers} is more than half of the {n_records} records; {advice}.")
    if config.n_labels > config.n_centers:
        raise ConfigError(
            f"labels.n_labels = {config.n_labels} is more than the {config.n_centers} centers; "
            f"give --labels {config.n_centers} or fewer."
        )
