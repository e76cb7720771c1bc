"""Benchmarks whose samples are whole video files: Something-Something V2, Diving48, Kinetics-400, HMDB51."""

import re
from pathlib import Path

from ove.errors import BadInput
from ove.probing.annotations.match import AnnotationRow, Table, field_of, first_of, read_csv, read_json

_HMDB_USE = {"train": "1", "val": "2"}
"""In a line of an HMDB51 split; 0: the video is not used."""


def something_something(annotations: Path, split: str) -> Table:
    """Something-Something V2: `train.json` or `validation.json`, and `labels.json`; videos `ID.webm`.

    The class is the template without its brackets. Older releases put `something-something-v2-` before the names.
    """
    name = {"train": "train", "val": "validation"}[split]
    path = first_of(annotations, [f"{name}.json", f"something-something-v2-{name}.json"])
    numbers = read_json(first_of(annotations, ["labels.json", "something-something-v2-labels.json"]), dict)
    rows, unusable = [], []
    for entry in read_json(path, list):
        video = str(field_of(entry, "id", str(path)))
        if "template" not in entry:
            unusable.append(f"{video}: has no template, hence no class")
            continue
        rows.append(AnnotationRow(video, entry["template"].replace("[", "").replace("]", ""), video))
    return Table(rows, tuple(sorted(numbers, key=lambda name: int(numbers[name]))), unusable)


def diving48(annotations: Path, split: str) -> Table:
    """Diving48: `Diving48_V2_train.json` or `…_test.json` (else those of the first version), and `Diving48_vocab.json`.

    The videos are cut to the dive already. A class is called by the four parts of its dive.
    """
    name = {"train": "train", "val": "test"}[split]
    path = first_of(annotations, [f"Diving48_V2_{name}.json", f"Diving48_{name}.json"])
    vocabulary = first_of(annotations, ["Diving48_vocab.json"])
    classes = tuple("/".join(map(str, parts)) for parts in read_json(vocabulary, list))
    rows = []
    for entry in read_json(path, list):
        video, number = str(field_of(entry, "vid_name", str(path))), field_of(entry, "label", str(path))
        if not isinstance(number, int) or not 0 <= number < len(classes):
            raise BadInput(f"{path}: {video} has the label {number!r}, but {vocabulary} has {len(classes)} classes.")
        rows.append(AnnotationRow(video, classes[number], video))
    return Table(rows, classes, [])


def kinetics400(annotations: Path, split: str) -> Table:
    """Kinetics-400: `train.csv`, or `val.csv` or `validate.csv`; videos `YOUTUBEID_START_END.mp4`, six digits each.

    Classes are numbered in the order of their names over both splits.
    """
    columns = ("label", "youtube_id", "time_start", "time_end")
    paths = {
        "train": first_of(annotations, ["train.csv", "kinetics_train.csv"]),
        "val": first_of(annotations, ["val.csv", "validate.csv", "kinetics_val.csv"]),
    }
    tables = {name: read_csv(path, columns) for name, path in paths.items()}
    rows, unusable = [], []
    for line in tables[split]:
        try:
            times = [round(float(line[name])) for name in ("time_start", "time_end")]
        except ValueError:
            unusable.append(f"{line['youtube_id']}: its times are {line['time_start']!r} and {line['time_end']!r}")
            continue
        video = f"{line['youtube_id']}_{times[0]:06d}_{times[1]:06d}"
        rows.append(AnnotationRow(video, line["label"], video, folder=line["label"]))
    return Table(rows, tuple(sorted({line["label"] for lines in tables.values() for line in lines})), unusable)


def hmdb51(annotations: Path, split: str, fold: int = 1) -> Table:
    """HMDB51: the files `CLASS_test_splitFOLD.txt` of a folder, fold 1 to 3; videos `NAME.avi` in folders of the classes."""
    pattern = re.compile(rf"(.+)_test_split{fold}\.txt")
    found = {m[1]: path for path in sorted(annotations.rglob("*.txt")) if (m := pattern.fullmatch(path.name))}
    if not found:
        raise BadInput(f"{annotations}: holds no CLASS_test_split{fold}.txt; give the folder of HMDB51's splits.")
    rows = []
    for name, path in found.items():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            video, _, use = line.strip().rpartition(" ")
            if not video or use not in ("0", *_HMDB_USE.values()):
                raise BadInput(f"{path}: line {number} is {line!r}, expected a video and 0, 1 or 2.")
            if use == _HMDB_USE[split]:
                stem = Path(video.strip()).stem
                rows.append(AnnotationRow(stem, name, f"{name}/{stem}", folder=name))
    return Table(rows, tuple(found), [])
