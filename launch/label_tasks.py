"""What `launch.labels` does for one bank, task by task; each leaves in files what the next needs, and is done once.

Several processes call each task together. Each embeds a part; the first looks for duplicates; all cluster and assign on all
their devices; the first writes and speaks.
"""

import numpy as np
from jaxtyping import UInt8

from launch.cli.together import together
from launch.label_progress import Progress
from launch.label_stock import Stock
from ove.distributed import Processes
from ove.errors import ConfigError
from ove.files import write_array, write_json
from ove.labels.clusters.kmeans import Centroids, kmeans
from ove.labels.dedup import find_duplicates
from ove.labels.dedup_report import read_kept, write_lists, write_report
from ove.labels.embed import Embedded, embed_shards
from ove.labels.label import Pieces, kept_points, label_records
from ove.labels.parts import WHOLE, in_turn
from ove.shards.labels import write_labels
from ove.shards.schema import ImageRecord, decode_frames, decode_image


class Tasks:
    """The tasks of one bank."""

    def __init__(self, stock: Stock, processes: Processes) -> None:
        self._stock, self._processes = stock, processes
        self._inputs, self._shards, self._config = stock.inputs, stock.shards, stock.config
        self._is_first = processes.index == 0
        self._progress = Progress(stock.bank, lambda line: self._say(line))

    def embed(self) -> None:
        """The teacher's embeddings of all records, or of a part of them."""
        count = self._processes.count
        part = self._inputs.part if count == 1 else (self._processes.index, count)
        with together(self._processes, f"{self._stock.bank}: embeddings"):
            fresh = embed_shards(
                self._shards,
                self._stock.bank,
                self._inputs.teacher,
                self._stock.folder,
                self._config,
                part,
                self._progress.of("embedded"),
            )
        if self._inputs.alone:
            fresh = sum(map(int, self._processes.gather("embedded", str(fresh))))
            self._say(f"embedded {fresh:,} records, {len(self._shards):,} in all; {self._stock.folder}")

    def dedup(self) -> None:
        """Lists of what is kept, and a page to look at."""
        if self._config.duplicates == "keep":
            if self._inputs.alone:
                raise ConfigError("labels.duplicates = 'keep': nothing to do; give --set labels.duplicates=near (or exact).")
            return
        with together(self._processes, f"{self._stock.bank}: duplicates"):
            if self._is_first:
                self._dedup()

    def _dedup(self) -> None:
        embedded, folder = self._stock.embedded(), self._stock.folder
        settings = self._stock.dedup_settings(embedded)
        there = read_kept(folder, len(self._shards)) is not None
        if there and self._stock.read("duplicates.json").get("made_with") == settings:
            return
        found = find_duplicates(
            embedded.points,
            embedded.hashes,
            embedded.pixels,
            self._config.threshold if self._config.duplicates == "near" else None,
            self._config.cells,
            self._config.seed,
            on_rows=self._progress.of("compared"),
        )
        write_lists(found, embedded.records, len(self._shards), lambda i: self._shards.record(i).key, folder)
        write_report(found, embedded.records, {"made_with": settings}, self._look, folder)
        self._say(
            f"of {len(found.keep):,} samples {(~found.keep).sum():,} show what others show, in {len(found.sets):,} sets; see "
            f"{folder / 'duplicates.html'}"
        )

    def kmeans(self) -> None:
        """The class centers, unless they are taken over."""
        if self._inputs.centers_from is not None:
            if self._inputs.alone:
                raise ConfigError("--from takes over the centers of another folder: there is nothing to do for kmeans.")
            return
        folder = self._stock.folder
        with together(self._processes, f"{self._stock.bank}: points of k-means"):
            embedded = self._stock.embedded()
            chosen = kept_points(embedded, self._stock.kept(embedded))
            settings = self._stock.centers_settings(embedded, chosen)
            is_done = self._stock.read("centers.json").get("made_with") == settings and (folder / "centers.npy").is_file()
        self._processes.agree("set of embeddings or of settings", settings)
        if self._processes.gather("centers", "done" if is_done else "lacking")[0] == "done":
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
            report=lambda line: self._say(line) if self._inputs.alone else None,
            on_points=self._progress.named,
        )
        with together(self._processes, f"{self._stock.bank}: centers"):
            if self._is_first:
                self._write_centers(found, settings, len(chosen))

    def _write_centers(self, found: Centroids, settings: str, n_points: int) -> None:
        write_array(self._stock.folder / "centers.npy", found.centers)
        last = found.passes[-1]
        sizes = np.quantile(found.sizes, (0, 0.25, 0.5, 0.75, 1)).tolist()
        about = {"objective": found.objective, "imbalance": [p.imbalance for p in found.passes]}
        about |= {"empty": [p.empty for p in found.passes], "sizes_quartiles": sizes}
        write_json(self._stock.folder / "centers.json", {"made_with": settings, **about})
        self._say(
            f"{n_points:,} samples, {len(found.centers):,} centers; objective {found.objective[0]:.4f} → "
            f"{found.objective[-1]:.4f} in {len(found.passes) - 1} iterations; imbalance {last.imbalance:.2f}, {last.empty} "
            f"empty; cluster sizes {sizes[0]:.0f} / {sizes[2]:.0f} / {sizes[4]:.0f} (least, median, most)"
        )

    def assign(self) -> None:
        """The labels, beside the shards; or a part of them, in pieces, and who makes the last piece puts them there."""
        with together(self._processes, f"{self._stock.bank}: points and centers"):
            embedded = self._stock.embedded()
            centers, about = self._stock.centers(embedded)
            pieces = Pieces(
                embedded,
                kept_points(embedded, self._stock.kept(embedded)),
                centers,
                self._config.n_labels,
                len(self._shards),
                self._config.chunk_records,
                self._config.scores,
                self._stock.folder,
            )
            identity = pieces.identity
        self._processes.agree("set of embeddings, centers or settings", identity)
        if self._is_first:
            pieces.forget_others()
        fresh = label_records(pieces, self._inputs.part, on_point=self._progress.of("assigned"))
        with together(self._processes, f"{self._stock.bank}: labels"):
            if self._is_first:
                lacking = pieces.lacking()
                if self._inputs.part != WHOLE:
                    self._say(f"assigned {fresh:,} records; {len(lacking):,} of {pieces.count:,} pieces are lacking")
                if not lacking:
                    self._write_labels(pieces, embedded, about)

    def _write_labels(self, pieces: Pieces, embedded: Embedded, about: dict[str, object]) -> None:
        about |= {"made_with": self._stock.made_with(), "unreadable": len(embedded.bad)}
        with in_turn(self._shards.folder / "labels" / "steps" / f".{self._stock.bank}.lock"):
            labels = pieces.assembled()
            write_labels(self._shards.folder, self._stock.bank, labels, pieces.centers, about)
        without = int((labels[:, 0] < 0).sum())
        unreadable = f" ({len(embedded.bad):,} cannot be read)" if embedded.bad else ""
        self._say(
            f"{len(labels):,} records, {self._config.n_labels} labels each of {len(pieces.centers):,} centers"
            + (f" of {self._inputs.centers_from}" if self._inputs.centers_from else "")
            + (f"; {without:,} records have none{unreadable}" if without else "")
        )

    def _say(self, line: str) -> None:
        if self._is_first:
            print(f"{self._stock.bank}: {line}", flush=True)

    def _look(self, index: int) -> tuple[str, UInt8[np.ndarray, "H W 3"]]:
        record = self._shards.record(index)
        if isinstance(record, ImageRecord):
            return record.key, decode_image(record)
        return record.key, decode_frames(record, [len(record.frame_index) // 2])[0]
