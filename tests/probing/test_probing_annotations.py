"""Official-looking annotation files of each benchmark → the right videos, classes and spans; and what is wrong is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from launch import annotations as command
from launch.cli import settings as cli_settings
from ove.config import ProbeConfig
from ove.config.mapping import from_mapping
from ove.errors import BadInput
from ove.probing.annotations.benchmarks import BENCHMARKS
from ove.probing.annotations.match import Matched, match

ROOT = Path(__file__).resolve().parents[2]
SSV2 = {
    "labels.json": {"Holding something next to something": "1", "Pushing something": "0", "Turning something": "2"},
    "train.json": [
        {"id": "9", "label": "pushing a cup", "template": "Pushing [something]", "placeholders": ["a cup"]},
        {
            "id": "78687",
            "label": "holding a",
            "template": "Holding [something] next to [something]",
            "placeholders": ["a", "b"],
        },
        {"id": "41", "label": "pushing b", "template": "Pushing [something]", "placeholders": ["b"]},
        {"id": "9", "label": "pushing a cup", "template": "Pushing [something]", "placeholders": ["a cup"]},
        {"id": "50", "label": "x", "template": "Pushing [something]", "placeholders": []},
        {"id": "50", "label": "y", "template": "Holding [something] next to [something]", "placeholders": []},
        {"id": "51"},
    ],
    "validation.json": [{"id": "7", "label": "pushing c", "template": "Pushing [something]", "placeholders": ["c"]}],
}
DIVING48 = {
    "Diving48_vocab.json": [
        ["Back", "15som", "05Twis", "FREE"],
        ["Back", "15som", "15Twis", "FREE"],
        ["Inward", "25som", "NoTwis", "TUCK"],
    ],
    "Diving48_V2_train.json": [
        {"vid_name": "-mXF0Z_00001", "label": 2, "start_frame": 0, "end_frame": 89},
        {"vid_name": "_8Vy3dlHg2w_00000", "label": 0, "start_frame": 0, "end_frame": 140},
    ],
    "Diving48_V2_test.json": [{"vid_name": "A_00002", "label": 1, "start_frame": 0, "end_frame": 50}],
}
K400 = {
    "train.csv": (
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "testifying,---QUuC4vJs,84,94,train,0\n"
        '"eating, fast",--3ouPhoy2A,20,30,train,0\n'
        "testifying,0WTEm2qHP9g,1.0,11.0,train,0\n"
    ),
    "val.csv": "label,youtube_id,time_start,time_end,split\nabseiling,0wR5jVB-WPk,417,427,validate\n",
}
HMDB51 = {
    "brush_hair_test_split1.txt": (
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \natheism_brush_hair_u_cm_np2_le_goo_4.avi 2 \nx#y_0.avi 0 \n"
    ),
    "wave_test_split1.txt": "50_FIRST_DATES_wave_f_cm_np1_fr_med_36.avi 1 \n",
    "wave_test_split2.txt": "50_FIRST_DATES_wave_f_cm_np1_fr_med_36.avi 2 \n",
}
CHARADES_EGO = {
    "Charades_v1_classes.txt": "c000 Holding some clothes\nc001 Putting clothes somewhere\nc147 Someone is laughing\n",
    "CharadesEgo_v1_train.csv": (
        "id,subject,scene,quality,relevance,verified,script,descriptions,actions,length,egocentric,charades_video\n"
        'A1EGO,U,Kitchen,6,7,Yes,"A person, laughing",x,c147 0.00 12.60;c000 11.90 21.20,22.5,Yes,A1\n'
        "A1,U,Kitchen,6,7,Yes,x,x,c001 3.00 3.00,22.5,No,A1\n"
        "B2,U,Kitchen,6,7,Yes,x,x,,22.5,No,B2\n"
    ),
    "CharadesEgo_v1_train_only1st.csv": "id,actions\nA1EGO,c147 0.00 12.60\n",
    "CharadesEgo_v1_test.csv": "id,actions\nC3,c001 1.00 2.50\n",
}
EPIC = {
    "EPIC_100_verb_classes.csv": (
        "id,key,instances,category\n0,take,\"['take', 'get']\",retrieve\n1,put,\"['put']\",leave\n2,wash,\"['wash']\",clean\n"
    ),
    "EPIC_100_noun_classes.csv": "id,key,instances,category\n0,tap,\"['tap']\",appliances\n1,plate,\"['plate']\",crockery\n",
    "EPIC_100_train.csv": (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
        "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
        "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,take plate,take,0,plate,1,['plate'],[1]\n"
        "P01_01_1,P01,P01_01,00:00:02.629,01:02:03.50,01:02:06.17,268,370,"
        "wash tap,wash,2,tap,0,\"['tap', 'plate']\",\"[0, 1]\"\n"
    ),
    "EPIC_100_validation.csv": (
        "narration_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
        "P02_07_0,P02_07,00:00:00.00,00:00:01.89,1,1\n"
    ),
}
PERCEPTION = {
    "all_train.json": {
        "video_10909": {
            "metadata": {"split": "train", "video_id": "video_10909", "frame_rate": 29.97},
            "action_localisation": [
                {
                    "id": 0,
                    "label": "Putting something into something",
                    "label_id": 5,
                    "timestamps": [1034367, 2302300],
                    "parent_objects": [1],
                },
                {"id": 1, "label": "Lifting something up", "label_id": 2, "timestamps": [0, 900900], "parent_objects": []},
            ],
            "object_tracking": [],
        }
    },
    "all_valid.json": {
        "video_3": {
            "metadata": {},
            "action_localisation": [{"id": 0, "label": "Other", "label_id": 0, "timestamps": [0, 1000000]}],
        }
    },
}
# What the train split must give: (key, label, span), classes, videos to make.
CASES: dict[str, tuple[dict[str, Any], list[str], list[tuple[str, str, tuple[float, float] | None]], int]] = {
    "ssv2": (
        SSV2,
        ["9.webm", "78687.webm", "50.webm"],
        [("9", "Pushing something", None), ("78687", "Holding something next to something", None)],
        3,
    ),
    "diving48": (DIVING48, ["rgb/-mXF0Z_00001.mp4"], [("-mXF0Z_00001", "Inward/25som/NoTwis/TUCK", None)], 3),
    "k400": (
        K400,
        ["train/testifying/---QUuC4vJs_000084_000094.mp4", "train/eating, fast/--3ouPhoy2A_000020_000030.mp4"],
        [("---QUuC4vJs_000084_000094", "testifying", None), ("--3ouPhoy2A_000020_000030", "eating, fast", None)],
        3,
    ),
    "hmdb51": (
        HMDB51,
        ["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "wave/50_FIRST_DATES_wave_f_cm_np1_fr_med_36.avi"],
        [
            ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", None),
            ("wave/50_FIRST_DATES_wave_f_cm_np1_fr_med_36", "wave", None),
        ],
        2,
    ),
    "charades_ego": (
        CHARADES_EGO,
        ["A1EGO.mp4", "A1.mp4"],
        [("A1EGO#0", "Someone is laughing", (0.0, 12.6)), ("A1EGO#1", "Holding some clothes", (11.9, 21.2))],
        3,
    ),
    "epic_verb": (
        EPIC,
        ["P01/videos/P01_01.MP4"],
        [("P01_01_0", "take", (0.14, 3.37)), ("P01_01_1", "wash", (3723.5, 3726.17))],
        3,
    ),
    "epic_noun": (
        EPIC,
        ["P01/videos/P01_01.MP4"],
        [("P01_01_0", "plate", (0.14, 3.37)), ("P01_01_1", "tap", (3723.5, 3726.17))],
        2,
    ),
    "perception_test": (
        PERCEPTION,
        ["videos/video_10909.mp4"],
        [
            ("video_10909#0", "Putting something into something", (1.034367, 2.3023)),
            ("video_10909#1", "Lifting something up", (0.0, 0.9009)),
        ],
        3,
    ),
}


def written(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def videos_of(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def matched(tmp_path: Path, name: str, split: str = "train", **options: Any) -> Matched:
    files, videos, _, _ = CASES[name]
    table = BENCHMARKS[name].read(written(tmp_path / "annotations", files), split, **options)
    return match(table, videos_of(tmp_path / "videos", videos))


@pytest.mark.parametrize("name", CASES)
def test_samples_of_the_training_split(tmp_path: Path, name: str) -> None:
    _, _, expected, n_classes = CASES[name]
    found = matched(tmp_path, name)
    assert [(s.row.key, s.row.label) for s in found.samples] == [(key, label) for key, label, _ in expected]
    for sample, (_, _, span) in zip(found.samples, expected, strict=True):
        assert sample.row.span_s == (span and pytest.approx(span))
        assert sample.path.is_file() and sample.path.stem == sample.row.video
    assert len(found.classes) == len(set(found.classes)) == n_classes


@pytest.mark.parametrize("name", CASES)
def test_the_other_split_is_another_and_has_the_same_classes(tmp_path: Path, name: str) -> None:
    train, val = (matched(tmp_path, name, split) for split in ("train", "val"))
    assert train.classes == val.classes
    assert not val.samples and val.missing and not set(val.missing) & set(train.missing)


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    found = matched(tmp_path, "ssv2")
    assert found.missing == ["41"]
    assert found.repeated == ["9"]
    assert found.contradictory == ["50"]
    assert len(found.unusable) == 1 and found.unusable[0].startswith("51")
    assert found.empty_classes == ["Turning something"]
    ego = matched(tmp_path / "ego", "charades_ego")
    assert [text.split(":")[0] for text in ego.unusable] == ["A1", "B2"]


def test_classes_stand_in_the_order_of_their_official_numbers(tmp_path: Path) -> None:
    assert matched(tmp_path / "a", "ssv2").classes[0] == "Pushing something"
    assert matched(tmp_path / "b", "perception_test").classes == (
        "Other",
        "Lifting something up",
        "Putting something into something",
    )


def test_folds_and_views(tmp_path: Path) -> None:
    second = matched(tmp_path / "a", "hmdb51", "val", fold=2)
    assert [s.row.label for s in second.samples] == ["wave"]
    first_person = matched(tmp_path / "b", "charades_ego", view="first")
    assert [s.row.key for s in first_person.samples] == ["A1EGO#0"]


def test_two_files_of_one_name_are_told_apart_by_their_folder_or_refused(tmp_path: Path) -> None:
    matched(tmp_path, "hmdb51")
    videos_of(tmp_path / "videos", ["other/50_FIRST_DATES_wave_f_cm_np1_fr_med_36.avi"])
    found = matched(tmp_path, "hmdb51")
    assert [s.path.parent.name for s in found.samples] == ["brush_hair", "wave"]
    videos_of(tmp_path / "videos", ["copy/9.webm", "9.webm"])
    with pytest.raises(BadInput, match="9: 2 files have this name"):
        matched(tmp_path, "ssv2")


BROKEN = {
    "no file": ("ssv2", "labels.json", None, "holds none of labels.json"),
    "no JSON": ("ssv2", "train.json", "[{", "is no JSON"),
    "other JSON": ("ssv2", "train.json", {"a": 1}, "holds a dict, not a list"),
    "unknown class": ("ssv2", "labels.json", {"Pushing something": "0"}, "not among their 1 classes"),
    "label past the classes": ("diving48", "Diving48_vocab.json", [["a", "b", "c", "d"]], "has the label 2"),
    "no column": ("k400", "train.csv", "label,video\na,b\n", "lacks the columns time_end"),
    "cut line": (
        "epic_verb",
        "EPIC_100_validation.csv",
        "narration_id,video_id,start_timestamp,stop_timestamp,verb_class\na,b\n",
        "line 2",
    ),
    "bad time": (
        "epic_verb",
        "EPIC_100_train.csv",
        "narration_id,video_id,start_timestamp,stop_timestamp,verb_class\na,b,1,2,0\n",
        "HH:MM:SS",
    ),
    "bad action": ("charades_ego", "CharadesEgo_v1_train.csv", "id,actions\nA,c999 0 1\n", "c999 0 1"),
    "bad use": ("hmdb51", "wave_test_split1.txt", "a.avi 5\n", "expected a video and 0, 1 or 2"),
    "no field": ("perception_test", "all_train.json", {"video_1": {"metadata": {}}}, "no field 'action_localisation'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_are_not_the_benchmarks_are_refused(tmp_path: Path, case: str) -> None:
    name, file, content, message = BROKEN[case]
    files, videos, _, _ = CASES[name]
    files = {**files, file: content} if content is not None else {key: files[key] for key in files if key != file}
    folder, split = written(tmp_path / "a", files), "val" if case == "cut line" else "train"
    with pytest.raises(BadInput, match=message):
        match(BENCHMARKS[name].read(folder, split), videos_of(tmp_path / "v", videos))


def test_command_writes_a_list_and_says_what_is_not_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, videos, _, _ = CASES["charades_ego"]
    places = ["--annotations", str(written(tmp_path / "a", files)), "--videos", str(videos_of(tmp_path / "v", videos))]
    out = tmp_path / "lists" / "train.jsonl"
    command.main(["charades_ego", *places, "--split", "train", "--out", str(out)])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[1] == {
        "path": str(tmp_path / "v" / "A1EGO.mp4"),
        "key": "A1EGO#1",
        "label": "Holding some clothes",
        "start_s": 11.9,
        "end_s": 21.2,
    }
    report = json.loads((tmp_path / "lists" / "train.report.json").read_text())
    assert report["samples"] == 2 and report["classes_without_samples"] == ["Putting clothes somewhere"]
    shown = capsys.readouterr().out
    assert "2 samples of 3 classes" in shown and "the paper's version has 157 classes" in shown and "2 unusable" in shown
    with pytest.raises(BadInput, match="--fold does not apply"):
        command.main(["ssv2", *places, "--split", "train", "--out", str(out), "--fold", "1"])
    with pytest.raises(BadInput, match="holds none of the 1 videos"):
        command.main(["charades_ego", *places, "--split", "val", "--out", str(out)])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_there_is_a_probe_with_the_papers_settings(name: str) -> None:
    config = from_mapping(ProbeConfig, cli_settings.load_config(f"{ROOT}/configs/probe_benchmarks.py:{name}"))
    assert (config.epochs, config.batch_size) == (BENCHMARKS[name].epochs, BENCHMARKS[name].batch_size)
    assert config.train_shards.endswith(f"{name}_train") and config.budgets == (512, 1024, 2048, 4096)
