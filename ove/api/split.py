"""`ove.split`: labelled files → a list to train on and one to score on."""

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ove.api.arguments import arguments, folder_to_write
from ove.api.samples import PathLike, Samples, group_of_each, labelled_files, materialised, reading_of
from ove.config.section import Natural
from ove.errors import BadInput, ConfigError
from ove.files import encoded, write_text
from ove.sources.division import divide

Pairs = list[tuple[str, str]]


class Split(tuple[Pairs, Pairs]):
    """What `ove.split` returns: `train, val = split`, two lists of (path, label); print it for a sentence."""

    asked: float
    """Share of each class that was asked for, 0 to 1."""

    def __new__(cls, parts: Sequence[Pairs], asked: float) -> "Split":
        made = super().__new__(cls, parts)
        made.asked = asked
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.asked

    @property
    def train(self) -> Pairs:
        """Files to train on."""
        return self[0]

    @property
    def val(self) -> Pairs:
        """Files to score on."""
        return self[1]

    @property
    def shares(self) -> dict[str, float]:
        """Share of each class that is in `val`, 0 to 1, by class name."""
        train, val = (Counter(label for _, label in part) for part in self)
        return {name: val[name] / (train[name] + val[name]) for name in sorted(train | val)}

    @property
    def off(self) -> float:
        """How far the class that is furthest from the share asked for is off it, 0 to 1."""
        return max((abs(share - self.asked) for share in self.shares.values()), default=0.0)

    def __str__(self) -> str:
        shares = sorted((share, name) for name, share in self.shares.items())
        (low, lowest), (high, highest) = shares[0], shares[-1]
        return (
            f"{len(self.train)} files to train on, {len(self.val)} to score on, {len(shares)} classes; of each {low:.1%} "
            f"({lowest}) to {high:.1%} ({highest}) to score on, {self.asked:.1%} asked for"
        )


@arguments()
def split(
    samples: Samples,
    *,
    val_share: float = 0.2,
    seed: Natural = 0,
    groups: str | Callable[[str], Any] | None = None,
    out: PathLike | None = None,
    replace: bool = False,
    path_column: str = "",
    label_column: str = "",
    label_folder: Natural = 0,
    root: PathLike = "",
) -> Split:
    """Splits labelled files into a training and a validation list, class by class in the same proportion.

    Args:
        samples: a folder whose subfolders are class names, a list with labels, or an iterable of ``(path, label)`` pairs.
        val_share: share of each class for validation, within 0 and 1; at least one file, and never all of them.
        seed: another one draws other files.
        groups: what keeps files together, such as the clips of one source video: a column of the list (or key of the mappings),
            or a function from a file's absolute path to the name of its group. No group is in both lists; the proportions are
            then met as nearly as whole groups allow.
        out: folder to which ``train.csv`` and ``val.csv`` are written, for ``ove.probe`` and the commands.
        replace: overwrite other lists of these names in ``out``; otherwise that is refused.
        path_column, label_column, label_folder, root: how samples are listed, as in :func:`write_shards`.

    Returns:
        Two lists of ``(path, label)``, with absolute paths. ``.shares`` is the share of each class in the second, ``.off`` how
        far the worst of them is from ``val_share``; printed, it says so.

    Raises:
        BadInput: for a file without a label or group, or a class of one file or group.
        ConfigError: for a share that is not between 0 and 1.

    Examples:
        >>> train, val = ove.split("videos", val_share=0.25, out="lists")
        >>> ove.split("videos", val_share=0.5, groups=lambda path: path.split("_")[-1]).off
        0.0
    """
    check_share(val_share)
    reading = reading_of(path_column, label_column, label_folder, root)
    samples = materialised(samples, "samples")
    pairs = labelled_files(samples, **reading)
    names = None if groups is None else group_of_each(samples, groups, pairs, reading)
    sources = [Path(samples)] if isinstance(samples, (str, os.PathLike)) else []
    folder = None if out is None else folder_to_write(out, "out", sources)
    rng = np.random.default_rng(seed)
    made = Split(_single(pairs, val_share, rng) if names is None else _grouped(pairs, names, val_share, rng), val_share)
    if folder is not None:
        _write(folder, made, replace)
    return made


def _write(folder: Path, made: Split, replace: bool) -> None:
    """Writes both lists; ConfigError, and neither, if one exists with other contents and is not to be replaced."""
    texts = {}
    for name, part in zip(("train.csv", "val.csv"), made, strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("path", "label"), *part])
        texts[folder / name] = text.getvalue()
    for path, contents in texts.items():
        if path.exists() and not replace and path.read_bytes() != encoded(contents):
            raise ConfigError(
                f"out = {path}: exists with other contents; give another folder, or replace=True to overwrite it."
            )
    for path, contents in texts.items():
        write_text(path, contents)


def check_share(val_share: float) -> None:
    """Raises ConfigError for a share that leaves nothing to train or to score on."""
    if not 0 < val_share < 1:
        raise ConfigError(f"val_share = {val_share!r} must be between 0 and 1.")


def _single(pairs: Pairs, val_share: float, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    of_class: dict[str, list[str]] = defaultdict(list)
    for path, label in pairs:
        of_class[label].append(path)
    parts: tuple[Pairs, Pairs] = ([], [])
    for label in sorted(of_class):
        paths = sorted(of_class[label])
        if len(paths) < 2:
            raise BadInput(f"class {label} has one file, {paths[0]}; give each class at least two, or leave it out.")
        n_val = min(max(round(val_share * len(paths)), 1), len(paths) - 1)
        for number, index in enumerate(rng.permutation(len(paths)).tolist()):
            parts[number < n_val].append((paths[index], label))
    return parts


def _grouped(pairs: Pairs, names: Sequence[str], val_share: float, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    counts: dict[str, Counter[str]] = {}
    in_groups: dict[str, set[str]] = defaultdict(set)
    for (_, label), name in sorted(zip(pairs, names, strict=True)):
        counts.setdefault(name, Counter())[label] += 1
        in_groups[label].add(name)
    if alone := next((label for label, found in sorted(in_groups.items()) if len(found) < 2), None):
        raise BadInput(
            f"class {alone} has one group, {next(iter(in_groups[alone]))}; give each class files of at least two groups, or "
            "leave it out."
        )
    is_val = dict(zip(counts, divide(list(counts.values()), val_share, rng).tolist(), strict=True))
    parts: tuple[Pairs, Pairs] = ([], [])
    for pair, name in sorted(zip(pairs, names, strict=True), key=lambda item: (item[0][1], item[0][0])):
        parts[is_val[name]].append(pair)
    for part, said in zip(parts, ("train", "score"), strict=True):
        if lacking := sorted(set(in_groups) - {label for _, label in part}):
            raise BadInput(
                f"groups: no division was found that leaves files of class {lacking[0]} to {said} on; make the groups smaller."
            )
    return parts
