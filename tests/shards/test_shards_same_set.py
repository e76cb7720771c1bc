"""A finished set is not destroyed by a run on other inputs or with other settings, unless that is asked for."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from shards_material import make_record, write_video

from launch import shards as command
from ove.config import ShardsConfig
from ove.errors import BadClip, ConfigError
from ove.shards.labels import read_labels, write_labels
from ove.shards.markers import inputs_of
from ove.shards.shard_set import ShardSet
from ove.shards.write import write_shards
from ove.sources.folders import files_in_folder

SMALL = ["--size", "56", "--frames", "8", "--gop", "4", "--workers", "0"]


def _run(source: Path, out: Path, *more: str, kind: str = "--videos") -> int:
    return command.main([kind, str(source), "--out", str(out), *SMALL, *more])


def _keys(out: Path) -> list[str]:
    shards = ShardSet.open(out)
    return [shards.record(index).key for index in range(len(shards))]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The shards of four videos in `a/x`; beside them `b/y` with one, and `pictures` with one."""
    for number in range(4):
        write_video(tmp_path / "a" / "x" / f"{number}.mp4", seed=number)
    write_video(tmp_path / "b" / "y" / "0.mp4", seed=9)
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "0.png"), np.zeros((32, 32, 3), np.uint8))
    assert _run(tmp_path / "a", tmp_path / "s") == 0
    return tmp_path / "s"


def test_another_source_is_refused_and_replaces_if_asked_to(made: Path, tmp_path: Path) -> None:
    before = _contents(made)
    with pytest.raises(ConfigError, match=rf"holds 4 records of {tmp_path}/a/x, and none of the 1 inputs in {tmp_path}/b/y"):
        _run(tmp_path / "b", made)
    assert _contents(made) == before
    assert _run(tmp_path / "b", made, "--replace") == 0
    assert _keys(made) == ["y/0.mp4"]
    assert _run(tmp_path / "b", made) == 0, "afterwards it is the set of that source"


def test_a_set_from_before_a_setting_goes_on_with_its_default(made: Path, tmp_path: Path) -> None:
    """As if `sampling`, `max_side_px` and `outside` were new: a set does not know them, and its groups are not made again."""
    for name in (".made_of.json", "manifest.json"):
        settings = json.loads((made / name).read_text())
        del settings["made_with"]["video"]["sampling"], settings["made_with"]["shards"]["max_side_px"]
        del settings["made_with"]["video"]["selection"]["outside"]
        (made / name).write_text(json.dumps(settings))
    older = json.loads((made / ".made_of.json").read_text())["made_with"]
    files = files_in_folder(tmp_path / "a")
    done = json.loads((made / "shard-00000.done.json").read_text())
    (made / "shard-00000.done.json").write_text(json.dumps(done | {"inputs": inputs_of(files, older)}))
    before = (made / "shard-00000.arrayrecord").stat().st_mtime_ns
    assert _run(tmp_path / "a", made) == 0
    assert (made / "shard-00000.arrayrecord").stat().st_mtime_ns == before, "what was finished is kept"
    assert ShardSet.open(made).manifest.made_with == older
    with pytest.raises(ConfigError, match=r"made with video\.sampling = 'uniform', not 'consecutive'; this run"):
        _run(tmp_path / "a", made, "--set", "video.sampling=consecutive")


def test_labels_of_a_set_that_is_replaced_go_with_it(made: Path, tmp_path: Path) -> None:
    write_labels(made, "obj", np.zeros((4, 1), np.int32), np.ones((1, 2), np.float32), {})
    for name in ("steps/obj/centers.npy", "notes.txt"):
        (made / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (made / "labels" / name).write_text("x")
    assert _run(tmp_path / "a", made, "--replace") == 0
    assert len(read_labels(made, "obj").labels) == 4, "the set is the same: nothing is replaced"
    assert _run(tmp_path / "b", made, "--replace") == 0
    assert [path.name for path in (made / "labels").iterdir()] == ["notes.txt"], "of others nothing is deleted"


def test_what_killed_runs_left_is_deleted_be_it_a_file_or_a_folder(made: Path, tmp_path: Path) -> None:
    (made / ".shard-00000.arrayrecord.abc.tmp").mkdir()
    (made / ".shard-00000.arrayrecord.abc.tmp" / "part").write_text("x")
    (made / ".shard-00001.arrayrecord.abc.tmp").write_text("x")
    before = _keys(made)
    assert _run(tmp_path / "a", made) == 0 and _keys(made) == before
    assert not list(made.glob(".*tmp"))


def test_pictures_do_not_replace_videos(made: Path, tmp_path: Path) -> None:
    before = _contents(made)
    with pytest.raises(ConfigError, match=r"made with kind = 'video', not 'image'; this run.*--replace"):
        _run(tmp_path / "pictures", made, kind="--images")
    assert _contents(made) == before


@pytest.mark.parametrize("lacks", ["nothing", ".made_of.json", "manifest.json"])
def test_other_settings_are_named_whether_noted_finished_or_neither(made: Path, tmp_path: Path, lacks: str) -> None:
    (made / lacks).unlink(missing_ok=True)
    before = _contents(made)
    with pytest.raises(ConfigError, match=r"made with video\.n_frames = 8, not 4; video\.size_px = 56, not 28; this run"):
        _run(tmp_path / "a", made, "--size", "28", "--frames", "4")
    assert _contents(made) == before
    assert _run(tmp_path / "a", made, "--size", "28", "--frames", "4", "--replace") == 0
    assert ShardSet.open(made).manifest.size_px == 28


def test_the_first_three_of_many_settings_are_named_and_the_others_counted(tmp_path: Path) -> None:
    made_with = {"video": {"a": 1, "b": 2, "c": 3}, "d": 4}
    for number in range(3):
        write_video(tmp_path / "a" / f"{number}.mp4", seed=number)
    files, config = files_in_folder(tmp_path / "a"), ShardsConfig(workers=0)
    write_shards(files, tmp_path / "s", make_record, config, made_with, lambda progress: None)

    def refused(other: dict[str, object]) -> str:
        with pytest.raises(ConfigError) as caught:
            write_shards(files, tmp_path / "s", make_record, config, other, lambda progress: None)
        return str(caught.value)

    three = "video.a = 1, not 5; video.b = 2, not 6; video.c = 3, not 7"
    assert f"made with {three}; this run" in refused({"video": {"a": 5, "b": 6, "c": 7}, "d": 4})
    assert f"made with {three}; and 1 more settings; this run" in refused({"video": {"a": 5, "b": 6, "c": 7}, "d": 8})
    write_shards(files[:2], tmp_path / "s", make_record, config, made_with, lambda progress: None)  # more than half of 3
    write_shards(files[:1], tmp_path / "s", make_record, config, made_with, lambda progress: None)  # just half of 2
    assert _keys(tmp_path / "s") == ["0.mp4"]


def test_files_may_be_added_changed_and_taken_away(made: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "z" / "new.mp4", seed=5)
    os.utime(tmp_path / "a" / "x" / "0.mp4")
    (tmp_path / "a" / "x" / "3.mp4").unlink()
    assert _run(tmp_path / "a", made) == 0
    assert _keys(made) == ["x/0.mp4", "x/1.mp4", "x/2.mp4", "z/new.mp4"]
    (made / ".made_of.json").unlink()
    for path in (tmp_path / "a" / "x").iterdir():
        os.utime(path)
    assert _run(tmp_path / "a", made) == 0, "a set of an older version is known by the keys of its records"


def test_a_source_with_the_same_names_elsewhere_is_another(made: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    with pytest.raises(ConfigError, match="none of the 4 inputs in"):
        _run(tmp_path / "c", made)


def test_a_folder_of_the_source_is_not_the_source(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="and none of the 4 inputs"):
        _run(tmp_path / "a" / "x", made)


def test_a_list_of_a_few_of_the_inputs_does_not_destroy_the_others(made: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "x").glob("[123].mp4"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"holds 4 records of .*, and 1 inputs are given, fewer than half"):
        _run(tmp_path / "a", made)
    assert len(_keys(made)) == 4
    assert _run(tmp_path / "a", made, "--replace") == 0 and _keys(made) == ["x/0.mp4"]


def test_a_run_without_a_usable_input_can_be_corrected(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.mp4").write_text("no video")
    with pytest.raises(BadClip, match="none of the 1 inputs is usable"):
        _run(tmp_path / "a", tmp_path / "s")
    write_video(tmp_path / "a" / "0.mp4", seed=0)
    assert _run(tmp_path / "a", tmp_path / "s") == 0


def test_what_is_written_within_the_source_is_refused(made: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "a", tmp_path / "a" / "x" / "s", tmp_path / "link" / "s"):
        (tmp_path / "link").is_symlink() or (tmp_path / "link").symlink_to(tmp_path / "a")
        with pytest.raises(ConfigError, match=r"lies within the source|is the source itself"):
            _run(tmp_path / "a", out)
    assert not [path for path in (tmp_path / "a").rglob("*") if path.suffix != ".mp4" and path.is_file()]


def test_what_made_the_records_is_noted_from_the_beginning(tmp_path: Path) -> None:
    for number in range(2):
        write_video(tmp_path / "a" / f"{number}.mp4", seed=number)

    def interrupt(progress: object) -> None:
        raise KeyboardInterrupt

    config = ShardsConfig(records_per_shard=1, workers=0)
    with pytest.raises(KeyboardInterrupt):
        write_shards(files_in_folder(tmp_path / "a"), tmp_path / "s", make_record, config, {"x": 1}, interrupt)
    assert json.loads((tmp_path / "s" / ".made_of.json").read_text()) == {"made_with": {"x": 1}, "root": str(tmp_path / "a")}
