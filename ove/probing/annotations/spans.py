"""Benchmarks whose samples are spans of longer videos: Charades-Ego, EPIC-KITCHENS-100, Perception Test."""

import re
from pathlib import Path

from ove.errors import BadInput
from ove.probing.annotations.match import AnnotationRow, Table, field_of, first_of, read_csv, read_json

_US = 1e-6


def charades_ego(annotations: Path, split: str, view: str = "all") -> Table:
    """Charades-Ego: `CharadesEgo_v1_train.csv` or `…_test.csv`, and `Charades_v1_classes.txt`; videos `ID.mp4`.

    Each annotated action is a sample of its own. `view`: "first", "third" (person) or "all".
    """
    name = {"train": "train", "val": "test"}[split]
    suffix = {"all": "", "first": "_only1st", "third": "_only3rd"}[view]
    path = first_of(annotations, [f"CharadesEgo_v1_{name}{suffix}.csv", f"CharadesEgo/CharadesEgo_v1_{name}{suffix}.csv"])
    names = _charades_classes(first_of(annotations, ["Charades_v1_classes.txt", "CharadesEgo/Charades_v1_classes.txt"]))
    rows, unusable = [], []
    for line in read_csv(path, ("id", "actions")):
        actions = [action for action in line["actions"].split(";") if action.strip()]
        if not actions:
            unusable.append(f"{line['id']}: no action is annotated")
        for number, action in enumerate(actions):
            parts = action.split()
            if len(parts) != 3 or parts[0] not in names:
                raise BadInput(f"{path}: {line['id']} has the action {action!r}, expected CLASS START END.")
            span = _span(parts[1], parts[2])
            if span is None:
                unusable.append(f"{line['id']}: the action {action.strip()} lasts no time")
            else:
                rows.append(AnnotationRow(line["id"], names[parts[0]], f"{line['id']}#{number}", span))
    return Table(rows, tuple(names.values()), unusable)


def epic_kitchens(annotations: Path, split: str, target: str = "verb") -> Table:
    """EPIC-KITCHENS-100: `EPIC_100_train.csv` or `…_validation.csv`, and the classes of verbs or of nouns.

    `target`: "verb" or "noun" (the first noun of an action). Videos `P01_01.MP4`.
    """
    name = {"train": "train", "val": "validation"}[split]
    path = first_of(annotations, [f"EPIC_100_{name}.csv"])
    classes_path = first_of(annotations, [f"EPIC_100_{target}_classes_v2.csv", f"EPIC_100_{target}_classes.csv"])
    keys = {line["id"]: line["key"] for line in read_csv(classes_path, ("id", "key"))}
    classes = tuple(keys[number] for number in sorted(keys, key=int))
    rows, unusable = [], []
    number_column = f"{target}_class"
    for line in read_csv(path, ("narration_id", "video_id", "start_timestamp", "stop_timestamp", number_column)):
        if line[number_column] not in keys:
            raise BadInput(
                f"{path}: {line['narration_id']} has the {number_column} {line[number_column]!r}, which {classes_path} lacks."
            )
        span = _span(*(_seconds(line[name], path) for name in ("start_timestamp", "stop_timestamp")))
        if span is None:
            unusable.append(f"{line['narration_id']}: lasts no time")
        else:
            rows.append(AnnotationRow(line["video_id"], keys[line[number_column]], line["narration_id"], span))
    return Table(rows, classes, unusable)


def perception_test(annotations: Path, split: str) -> Table:
    """Perception Test: the actions of `all_train.json` or `all_valid.json` (or of the challenge's files); videos `video_N.mp4`.

    Classes are numbered by `label_id` where the files have it, else in the order of their names, over both splits.
    """
    stems = {"train": "train", "val": "valid"}
    tables = {}
    for name, stem in stems.items():
        path = first_of(annotations, [f"all_{stem}.json", f"challenge_action_localisation_{stem}.json"])
        tables[name] = (path, read_json(path, dict))
    numbers: dict[str, int] = {}
    rows, unusable = [], []
    for name, (path, videos) in tables.items():
        for video, entry in videos.items():
            for place, action in enumerate(field_of(entry, "action_localisation", str(path))):
                label = field_of(action, "label", str(path))
                numbers.setdefault(label, int(action.get("label_id", -1)))
                if name != split:
                    continue
                begin, end = field_of(action, "timestamps", str(path))
                span = _span(begin * _US, end * _US)
                if span is None:
                    unusable.append(f"{video}: its action {place} lasts no time")
                else:
                    rows.append(AnnotationRow(video, label, f"{video}#{place}", span))
    return Table(rows, tuple(sorted(numbers, key=lambda label: (numbers[label], label))), unusable)


def _charades_classes(path: Path) -> dict[str, str]:
    names = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, name = line.strip().partition(" ")
        if number:
            if not re.fullmatch(r"c\d{3}", number) or not name:
                raise BadInput(f"{path}: has the line {line!r}, expected a number such as c000 and a name.")
            names[number] = name
    return names


def _span(begin: str | float, end: str | float) -> tuple[float, float] | None:
    try:
        span = float(begin), float(end)
    except ValueError as error:
        raise BadInput(f"a span from {begin!r} to {end!r}: expected seconds.") from error
    return span if 0 <= span[0] < span[1] else None


def _seconds(timestamp: str, path: Path) -> float:
    parts = timestamp.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError as error:
        raise BadInput(f"{path}: {timestamp!r} is no time of the form HH:MM:SS.") from error
    return 3600 * hours + 60 * minutes + seconds
