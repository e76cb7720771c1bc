"""What `launch.labels` does for one bank, task by task; each leaves in files what the next needs, and is done once."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from ove.config import LabelsConfig
from ove.config.mapping import to_mapping
from ove.errors import BadShard, ConfigError
from ove.labels.dedup import find_duplicates
from ove.labels.dedup_report import read_kept, write_lists, write_report
from ove.labels.embed import Embedded, embed_shards, open_embeddings
from ove.labels.kmeans import kmeans
from ove.labels.label import kept_points, label_records
from ove.labels.teachers import Teacher, make_teacher, teacher_identity
from ove.shards.labels import Bank, fingerprint_of_array, read_centers, read_labels, write_labels
from ove.shards.manifest import digest, publish, temporary_name, write_json
from ove.shards.read import ShardSet
from ove.shards.schema import ImageRecord, decode_frames, decode_image

_EVERY_S = 10.0
_MEANS_NOTHING = ("threads", "batch_size", "chunk_records", "max_bad_share", "weights")
"""Settings that do not change the labels (of the weights, what is in them does, not where they lie)."""
_OF_CENTERS = ("start", "n_centers", "iterations", "seed")


@dataclass(frozen=True)
class Inputs:
    """What the tasks of all banks share."""

    shards: ShardSet
    config: LabelsConfig
    centers_from: Path | None
    """Labelled shard folder whose centers are taken over."""
    part: tuple[int, int]
    """(i, n): the i-th of n parts of the embeddings."""
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


class Tasks:
    """The tasks of one bank; what they leave for each other lies in a folder of its own."""

    def __init__(self, inputs: Inputs, bank: Bank, work: Path) -> None:
        self.inputs, self.shards, self.config = inputs, inputs.shards, inputs.config
        self.bank, self.work = bank, work
        self._progress = Progress(bank)

    def embed(self) -> None:
        """The teacher's embeddings of all records, or of this machine's part of them."""
        teacher = self.inputs.teacher
        fresh = embed_shards(
            self.shards, self.bank, teacher, self.work, self.config, self.inputs.part, self._progress.of("embedded")
        )
        if self.inputs.alone:
            print(f"{self.bank}: embedded {fresh:,} records, {len(self.shards):,} in all; {self.work}")

    def dedup(self) -> None:
        """Lists of what is kept, and a page to look at."""
        if self.config.duplicates == "keep":
            if self.inputs.alone:
                raise ConfigError("labels.duplicates = 'keep': nothing to do; give --set labels.duplicates=near (or exact).")
            return
        embedded, settings = self._embedded(), self._dedup_settings()
        if self._read("duplicates.json").get("made_with") == settings and read_kept(self.work, len(self.shards)) is not None:
            return
        threshold = self.config.threshold if self.config.duplicates == "near" else None
        found = find_duplicates(
            embedded.points,
            embedded.hashes,
            embedded.pixels,
            threshold,
            self.config.cells,
            self.config.seed,
            on_rows=self._progress.of("compared"),
        )
        write_lists(found, embedded.records, len(self.shards), lambda i: self.shards.record(i).key, self.work)
        write_report(found, embedded.records, {"made_with": settings}, self._look, self.work)
        print(
            f"{self.bank}: of {len(found.keep):,} samples {(~found.keep).sum():,} show what others show, in "
            f"{len(found.sets):,} sets; see {self.work / 'duplicates.html'}"
        )

    def kmeans(self) -> None:
        """The class centers, unless they are taken over."""
        if self.inputs.centers_from is not None:
            if self.inputs.alone:
                raise ConfigError("--from takes over the centers of another folder: there is nothing to do for kmeans.")
            return
        embedded = self._embedded()
        chosen = kept_points(embedded, self._kept())
        settings = self._centers_settings(embedded, chosen)
        if self._read("centers.json").get("made_with") == settings and (self.work / "centers.npy").is_file():
            return
        found = kmeans(
            embedded.points.subset(chosen),
            self.config.n_centers,
            self.config.iterations,
            self.config.seed,
            start=self.config.start,
            scores=self.config.scores,
            workdir=self.work,
            identity=settings,
            report=lambda line: print(f"{self.bank}: {line}", flush=True) if self.inputs.alone else None,
            on_points=self._progress.named,
        )
        temporary = temporary_name(self.work / "centers.npy")
        with temporary.open("wb") as handle:
            np.save(handle, found.centers)
        publish(temporary, self.work / "centers.npy")
        last = found.passes[-1]
        sizes = np.quantile(found.sizes, (0, 0.25, 0.5, 0.75, 1)).tolist()
        about = {"objective": found.objective, "imbalance": [p.imbalance for p in found.passes]}
        about |= {"empty": [p.empty for p in found.passes], "sizes_quartiles": sizes}
        write_json(self.work / "centers.json", {"made_with": settings, **about})
        print(
            f"{self.bank}: {len(chosen):,} samples, {len(found.centers):,} centers; objective {found.objective[0]:.4f} → "
            f"{found.objective[-1]:.4f} in {len(found.passes) - 1} iterations; imbalance {last.imbalance:.2f}, {last.empty} "
            f"empty; cluster sizes {sizes[0]:.0f} / {sizes[2]:.0f} / {sizes[4]:.0f} (least, median, most)"
        )

    def assign(self) -> None:
        """The labels, beside the shards."""
        embedded = self._embedded()
        centers, about = self._centers(embedded)
        labels = label_records(
            embedded,
            self._kept(),
            centers,
            self.config.n_labels,
            len(self.shards),
            self.work,
            self.config.scores,
            self._progress.of("assigned"),
        )
        about |= {"made_with": self._made_with(), "unreadable": len(embedded.bad)}
        write_labels(self.shards.folder, self.bank, labels, centers, about)
        without = int((labels[:, 0] < 0).sum())
        unreadable = f" ({len(embedded.bad):,} cannot be read)" if embedded.bad else ""
        print(
            f"{self.bank}: {len(labels):,} records, {self.config.n_labels} labels each of {len(centers):,} centers"
            + (f" of {self.inputs.centers_from}" if self.inputs.centers_from else "")
            + (f"; {without:,} records have none{unreadable}" if without else "")
        )

    def is_done(self) -> bool:
        """Whether labels lie there that were made with the same options."""
        try:
            return read_labels(self.shards.folder, self.bank).info.get("made_with") == self._made_with()
        except BadShard:  # none, damaged, or of other shards: they are made (again)
            return False

    def _embedded(self) -> Embedded:
        return open_embeddings(self.work, self.shards, self.bank, self.inputs.identity, self.config.store)

    def _kept(self) -> Bool[np.ndarray, "R"] | None:
        if self.config.duplicates == "keep":
            return None
        kept = read_kept(self.work, len(self.shards))
        if kept is None or self._read("duplicates.json").get("made_with") != self._dedup_settings():
            raise BadShard(f"{self.work}: duplicates have not been looked for with these settings; run the task dedup first.")
        return kept

    def _centers(self, embedded: Embedded) -> tuple[Float32[np.ndarray, "k E"], dict[str, Any]]:
        source: Path | None = self.inputs.centers_from
        if source is None:
            about = self._read("centers.json")
            chosen = kept_points(embedded, self._kept())
            if about.get("made_with") != self._centers_settings(embedded, chosen):
                raise BadShard(f"{self.work}: holds no centers made with these settings; run the task kmeans first.")
            return np.load(self.work / "centers.npy", mmap_mode="r"), {"objective": about["objective"]}
        centers = read_centers(source, self.bank)
        theirs = read_labels(source, self.bank).info.get("made_with", {}).get("teacher", embedded.teacher)
        if centers.shape[1] != embedded.points.width or theirs != embedded.teacher:
            raise BadShard(f"{source}: its {self.bank} centers are of another teacher; label it again.")
        return centers, {"objective": []}

    def _made_with(self) -> dict[str, Any]:
        """All that decides the labels besides the shards themselves."""
        decides: dict[str, Any] = {k: v for k, v in to_mapping(self.config).items() if k not in _MEANS_NOTHING}
        decides["teacher"] = self.inputs.identity
        if self.inputs.centers_from is not None:
            for unused in _OF_CENTERS:
                decides.pop(unused)
            decides["centers"] = fingerprint_of_array(read_centers(self.inputs.centers_from, self.bank))
        return decides

    def _dedup_settings(self) -> str:
        config = self.config
        near = [config.threshold, config.cells, config.seed] if config.duplicates == "near" else []
        return digest([self._embedded().identity, config.duplicates, near])

    def _centers_settings(self, embedded: Embedded, chosen: Int64[np.ndarray, "n"]) -> str:
        ours = {name: getattr(self.config, name) for name in (*_OF_CENTERS, "scores")}
        return digest([embedded.identity, fingerprint_of_array(chosen), ours])

    def _read(self, name: str) -> dict[str, Any]:
        path = self.work / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _look(self, index: int) -> tuple[str, UInt8[np.ndarray, "H W 3"]]:
        record = self.shards.record(index)
        if isinstance(record, ImageRecord):
            return record.key, decode_image(record)
        return record.key, decode_frames(record, [len(record.frame_index) // 2])[0]


class Progress:
    """How much is done and how long the rest will take, a line every few seconds."""

    def __init__(self, bank: str) -> None:
        self._bank, self._what = bank, ""
        self._started = self._printed = 0.0
        self._before = 0

    def of(self, what: str) -> Callable[[int, int], None]:
        """The callback (done, total) of something."""
        return lambda done, total: self.named(what, done, total)

    def named(self, what: str, done: int, total: int) -> None:
        """Notes that so much of something is done."""
        now = time.monotonic()
        if what != self._what or done < self._before:
            self._what, self._before, self._started, self._printed = what, done, now, now
        if now - self._printed < _EVERY_S or done == self._before:
            return
        self._printed = now
        left_s = (now - self._started) / (done - self._before) * (total - done)
        print(f"{self._bank}: {what} {done:,}/{total:,}, {left_s:.0f} s left", flush=True)
