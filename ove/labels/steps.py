"""The steps from shards to labels of one bank; each writes files for the next, and is skipped if they exist.

Several processes call each step together: each embeds a part, the first searches duplicates, all cluster and assign on all
devices, the first writes and logs.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from ove.distributed import Processes
from ove.errors import ConfigError
from ove.files import locked, write_array, write_json
from ove.labels.clusters.kmeans import Centroids, kmeans
from ove.labels.dedup import find_duplicates
from ove.labels.dedup_report import read_kept, write_lists, write_report
from ove.labels.embed import Embedded, embed_shards
from ove.labels.label import LabelChunks, kept_points, label_records
from ove.labels.parts import WHOLE
from ove.labels.step_cache import StepCache
from ove.progress import ProgressReport
from ove.shards.labels import STEPS, write_labels
from ove.shards.schema import ImageRecord, decode_frames, decode_image


class Steps:
    """The steps of one bank."""

    def __init__(self, cache: StepCache, processes: Processes, say: Callable[[str], None]) -> None:
        """`say` logs a line, in the first process only."""
        self._cache, self._processes, self._tell = cache, processes, say
        self._inputs, self._shards, self._config = cache.inputs, cache.shards, cache.config
        self._is_first = processes.index == 0
        self._progress = ProgressReport(lambda line, is_last: self._say(line))

    def embed(self) -> None:
        """Embeds all records, or a part of them."""
        count = self._processes.count
        part = self._inputs.part if count == 1 else (self._processes.index, count)
        with self._processes.all_or_none(f"{self._cache.bank}: embeddings"):
            fresh = embed_shards(
                self._shards,
                self._cache.bank,
                self._inputs.teacher,
                self._cache.folder,
                self._config,
                part,
                self._progress.of("embedded"),
            )
        if self._inputs.alone:
            fresh = sum(map(int, self._processes.all_gather("embedded", str(fresh))))
            self._say(f"embedded {fresh:,} records, {len(self._shards):,} in all; {self._cache.folder}")

    def dedup(self) -> None:
        """Lists the records to keep, and writes a page of the duplicates."""
        if self._config.duplicates == "keep":
            if self._inputs.alone:
                raise ConfigError("labels.duplicates = 'keep': nothing to do; give --set labels.duplicates=near (or exact).")
            return
        with self._processes.all_or_none(f"{self._cache.bank}: duplicates"):
            if self._is_first:
                self._dedup()

    def _dedup(self) -> None:
        embedded, folder = self._cache.embedded(), self._cache.folder
        settings = self._cache.dedup_settings(embedded)
        there = read_kept(folder, len(self._shards)) is not None
        if there and self._cache.read("duplicates.json").get("made_with") == settings:
            return
        found = find_duplicates(
            embedded.points,
            embedded.hashes,
            embedded.pixels,
            self._config.threshold if self._config.duplicates == "near" else None,
            self._config.cells,
            self._config.seed,
            progress=self._progress.of("compared"),
        )
        write_lists(found, embedded.records, len(self._shards), lambda i: self._shards.record(i).key, folder)
        write_report(found, embedded.records, self._cache.noted("dedup", settings), self._look, folder)
        self._say(
            f"of {len(found.keep):,} samples {(~found.keep).sum():,} show what others show, in {len(found.sets):,} sets; see "
            f"{folder / 'duplicates.html'}"
        )

    def kmeans(self) -> None:
        """Computes the class centers, unless they come from another folder."""
        if self._inputs.centers_from is not None:
            if self._inputs.alone:
                raise ConfigError("--from takes over the centers of another folder: there is nothing to do for kmeans.")
            return
        folder = self._cache.folder
        with self._processes.all_or_none(f"{self._cache.bank}: points of k-means"):
            embedded = self._cache.embedded()
            chosen = kept_points(embedded, self._cache.kept(embedded))
            settings = self._cache.centers_settings(embedded, chosen)
            is_done = self._cache.read("centers.json").get("made_with") == settings and (folder / "centers.npy").is_file()
        self._processes.assert_equal("set of embeddings or of settings", settings)
        if self._processes.all_gather("centers", "done" if is_done else "lacking")[0] == "done":
            return
        found = kmeans(
            embedded.points.subset(chosen),
            self._config.n_centers,
            self._config.iterations,
            self._config.seed,
            start=self._config.start,
            scores=self._config.scores,
            workdir=folder,
            identity=settings,
            log=lambda line: self._say(line) if self._inputs.alone else None,
            progress=self._progress,
        )
        with self._processes.all_or_none(f"{self._cache.bank}: centers"):
            if self._is_first:
                self._write_centers(found, settings, len(chosen))

    def _write_centers(self, found: Centroids, settings: str, n_points: int) -> None:
        write_array(self._cache.folder / "centers.npy", found.centers)
        last = found.passes[-1]
        sizes = np.quantile(found.sizes, (0, 0.25, 0.5, 0.75, 1)).tolist()
        about = {"objective": found.objective, "imbalance": [p.imbalance for p in found.passes]}
        about |= {"empty": [p.empty for p in found.passes], "sizes_quartiles": sizes}
        write_json(self._cache.folder / "centers.json", self._cache.noted("kmeans", settings) | about)
        self._say(
            f"{n_points:,} samples, {len(found.centers):,} centers; objective {found.objective[0]:.4f} → "
            f"{found.objective[-1]:.4f} in {len(found.passes) - 1} iterations; imbalance {last.imbalance:.2f}, {last.empty} "
            f"empty; cluster sizes {sizes[0]:.0f} / {sizes[2]:.0f} / {sizes[4]:.0f} (least, median, most)"
        )

    def assign(self) -> None:
        """Writes the labels beside the shards; of several parts, the one that makes the last chunk does."""
        with self._processes.all_or_none(f"{self._cache.bank}: points and centers"):
            embedded = self._cache.embedded()
            centers, about = self._cache.centers(embedded)
            chunks = LabelChunks(
                embedded,
                kept_points(embedded, self._cache.kept(embedded)),
                centers,
                self._config.n_labels,
                len(self._shards),
                self._config.chunk_records,
                self._config.scores,
                self._cache.folder,
            )
            identity = chunks.identity
        self._processes.assert_equal("set of embeddings, centers or settings", identity)
        fresh = label_records(chunks, self._inputs.part, progress=self._progress.of("assigned"))
        with self._processes.all_or_none(f"{self._cache.bank}: labels"):
            if self._is_first:
                lacking = chunks.lacking()
                if self._inputs.part != WHOLE:
                    self._say(f"assigned {fresh:,} records; {len(lacking):,} of {chunks.count:,} pieces are lacking")
                if not lacking:
                    self._write_labels(chunks, embedded, about)
                    chunks.forget_others()

    def _write_labels(self, chunks: LabelChunks, embedded: Embedded, about: dict[str, object]) -> None:
        about |= {"made_with": self._cache.made_with(), "unreadable": len(embedded.bad)}
        steps = self._shards.folder / "labels" / STEPS
        steps.mkdir(parents=True, exist_ok=True)
        with locked(steps / f".{self._cache.bank}.lock"):
            labels = chunks.assembled()
            write_labels(self._shards.folder, self._cache.bank, labels, chunks.centers, about)
        without = int((labels[:, 0] < 0).sum())
        unreadable = f" ({len(embedded.bad):,} cannot be read)" if embedded.bad else ""
        self._say(
            f"{len(labels):,} records, {self._config.n_labels} labels each of {len(chunks.centers):,} centers"
            + (f" of {self._inputs.centers_from}" if self._inputs.centers_from else "")
            + (f"; {without:,} records have none{unreadable}" if without else "")
        )

    def _say(self, line: str) -> None:
        if self._is_first:
            self._tell(f"{self._cache.bank}: {line}")

    def _look(self, index: int) -> tuple[str, UInt8[np.ndarray, "H W 3"]]:
        record = self._shards.record(index)
        if isinstance(record, ImageRecord):
            return record.key, decode_image(record)
        return record.key, decode_frames(record, [len(record.frame_index) // 2])[0]
