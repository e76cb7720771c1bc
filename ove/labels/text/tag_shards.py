"""Shard sets → the bank `ocr`: reads text, counts words, builds a vocabulary, writes tags beside the shards.

Files are in `FOLDER/text/`: `read/`, `count/` and `tag/` with a file for each shard, `vocabulary.tsv`, `report.json`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from ove.config import EnginesConfig, TextConfig
from ove.errors import BadShard, ConfigError
from ove.files import digest, write_json
from ove.labels.engines.jobs import Done, Job, Process
from ove.labels.engines.run import Outcomes, StepProgress, run
from ove.labels.parts import working
from ove.labels.text.ocr import reader_version
from ove.labels.text.shard_steps import ShardText, count, read, tag
from ove.labels.text.vocabulary import Vocabulary, build_vocabulary, merged_counts, read_vocabulary, write_vocabulary
from ove.labels.text.words import words_version
from ove.shards.labels import NONE, read_labels, write_labels
from ove.shards.same_set import differences
from ove.shards.shard_set import ShardSet

VOCABULARY = "vocabulary.tsv"
REPORT = "report.json"
_TAGS_VERSION = 1
"""Increased with every change of `ove.labels.text.vocabulary.tags_of`."""
_SUFFIX = {"read": "jsonl", "count": "tsv", "tag": "npy"}


@dataclass(frozen=True)
class TextReport:
    """Counts of the text in one shard set."""

    pictures: int
    with_words: int
    """Pictures with at least one word in a line of sufficient confidence."""
    tagged: int
    """Pictures with a word of the vocabulary; only these are used for the bank ocr."""
    words: int
    """Words in all pictures, repetitions counted."""
    scripts: dict[str, int]
    """Words by script, most first."""
    vocabulary: int
    """Size of the vocabulary."""
    vocabulary_fingerprint: str
    dead: list[str]
    """Shards set aside (docs/scale_out.md); their records have no tags."""


@dataclass(frozen=True)
class _Runner:
    """Runs steps with given engines."""

    config: TextConfig
    read_by: Mapping[str, str | int | bool]
    """`reader_version`."""
    engines: EnginesConfig
    engine: Outcomes | None
    progress: Callable[[str, StepProgress], None]

    @property
    def made_with(self) -> dict[str, Any]:
        """Returns all that decides the tags, besides the shards and the vocabulary."""
        return {"text": dataclasses.asdict(self.config), "reader": dict(self.read_by), "words": words_version()}

    def step(
        self, folder: Path, name: str, process: Process, shards: Mapping[int, ShardText], inputs: Mapping[int, str]
    ) -> dict[int, Done]:
        """Runs a step on some shards of a set, by number; returns the markers of those that finished."""
        jobs = {n: Job(_file(folder, name, n).name, shard, inputs[n]) for n, shard in shards.items()}
        found = run(process, list(jobs.values()), folder / name, self.engines, lambda p: self.progress(name, p), self.engine)
        return {n: found.done[job.name] for n, job in jobs.items() if job.name in found.done}


def tag_shards(
    folders: Sequence[Path],
    config: TextConfig,
    engines: EnginesConfig,
    progress: Callable[[str, StepProgress], None],
    engine: Outcomes | None = None,
    vocabulary: Path | None = None,
    replace: bool = False,
) -> list[TextReport]:
    """Tags the records of shard sets with the words in them; returns a report for each set, which is also in its folder.

    All sets share one vocabulary: their most frequent words, or that of the file `vocabulary`. Finished shards are kept.
    `progress` is called with "read", "count" or "tag" and the progress within a set. BadShard if no picture has a word,
    ConfigError for a folder given twice or, unless `replace`, one with tags of other settings.
    """
    sets = [ShardSet.open(folder.absolute()) for folder in folders]
    places = [shards.folder.resolve() for shards in sets]
    if len(set(places)) < len(places):
        raise ConfigError(f"{max(places, key=places.count)}: is given more than once; its words would be counted as often.")
    with ExitStack() as held:
        for shards in sets:
            held.enter_context(working(shards.folder / "text", remedy="wait for it to end"))
        runner = _Runner(config, reader_version(config), engines, engine, progress)
        for shards in () if replace else sets:
            _check_free(shards, runner)
        counted = [_read_and_count(shards, runner) for shards in sets]
        if vocabulary is not None:
            known = read_vocabulary(vocabulary)
        else:
            files = [_file(s.folder / "text", "count", n) for s, done in zip(sets, counted, strict=True) for n in done]
            known = build_vocabulary(merged_counts(files), config.vocabulary_size)
            if not len(known):
                raise BadShard(
                    f"{', '.join(str(s.folder) for s in sets)}: no word was read in any picture with a confidence of "
                    f"{config.min_confidence:g} or more: nothing to tag. Lower text.min_confidence, or use other pictures."
                )
        return [_tag(shards, done, known, runner) for shards, done in zip(sets, counted, strict=True)]


def _check_free(shards: ShardSet, runner: _Runner) -> None:
    """Raises ConfigError if the shards have tags that were made with other settings."""
    try:
        before = read_labels(shards.folder, "ocr").info.get("made_with", {})
    except BadShard:  # missing, damaged, or of other shards: they are made (again)
        return
    if found := differences(before, runner.made_with, {"text": dataclasses.asdict(TextConfig())}):
        raise ConfigError(
            f"{shards.folder / 'labels' / 'ocr.json'}: was made with {found}; this run would destroy it: give --replace to "
            "make it anew."
        )


def _read_and_count(shards: ShardSet, runner: _Runner) -> dict[int, Done]:
    folder, texts = shards.folder / "text", _texts(shards, runner.config)
    of_shard = {n: digest([shard.sha256, dict(runner.read_by)]) for n, shard in enumerate(shards.manifest.shards)}
    readable = runner.step(folder, "read", read, texts, of_shard)
    cut_by = [words_version(), runner.config.min_confidence]
    of_texts = {n: digest([done.sha256, cut_by]) for n, done in readable.items()}
    return runner.step(folder, "count", count, {n: texts[n] for n in readable}, of_texts)


def _tag(shards: ShardSet, counted: Mapping[int, Done], known: Vocabulary, runner: _Runner) -> TextReport:
    folder, config = shards.folder / "text", runner.config
    write_vocabulary(folder / VOCABULARY, known)
    texts = {
        n: dataclasses.replace(text, vocabulary=folder / VOCABULARY, vocabulary_fingerprint=known.fingerprint)
        for n, text in _texts(shards, config).items()
        if n in counted
    }
    # The inputs of the counts already cover the texts and the settings of words.
    by = [known.fingerprint, config.n_tags, config.seed, _TAGS_VERSION]
    tagged = runner.step(folder, "tag", tag, texts, {n: digest([done.inputs, by]) for n, done in counted.items()})
    scripts: Counter[str] = Counter()
    for done in counted.values():
        scripts.update(done.about["scripts"])
    report = TextReport(
        pictures=len(shards),
        with_words=sum(done.about["with_words"] for done in counted.values()),
        tagged=sum(done.about["tagged"] for done in tagged.values()),
        words=scripts.total(),
        scripts=dict(sorted(scripts.items(), key=lambda entry: (-entry[1], entry[0]))),
        vocabulary=len(known),
        vocabulary_fingerprint=known.fingerprint,
        dead=[shard.file for n, shard in enumerate(shards.manifest.shards) if n not in tagged],
    )
    write_json(folder / REPORT, dataclasses.asdict(report))
    about = {"made_with": runner.made_with, "vocabulary": known.fingerprint, "report": dataclasses.asdict(report)}
    write_labels(shards.folder, "ocr", _assembled(shards, tagged, config.n_tags), None, about, len(known))
    return report


def _assembled(shards: ShardSet, tagged: Mapping[int, Done], n_tags: int) -> Int32[np.ndarray, "N M"]:
    """Returns the tags of all shards concatenated, mapped from an unlinked file; −1 for shards without."""
    folder = shards.folder / "text"
    path = folder / ".tags.tmp"
    rows = np.lib.format.open_memmap(path, "w+", np.int32, (len(shards), n_tags))
    path.unlink()
    first = 0
    for n, shard in enumerate(shards.manifest.shards):
        here = slice(first, first + shard.records)
        rows[here] = np.load(_file(folder, "tag", n)) if n in tagged else NONE
        first += shard.records
    return rows


def _texts(shards: ShardSet, config: TextConfig) -> dict[int, ShardText]:
    found, first = {}, 0
    for n, shard in enumerate(shards.manifest.shards):
        path = _file(shards.folder / "text", "read", n)
        found[n] = ShardText(shards.folder, shards.fingerprint, first, shard.records, config, path)
        first += shard.records
    return found


def _file(folder: Path, step: str, n: int) -> Path:
    return folder / step / f"{n:05d}.{_SUFFIX[step]}"
