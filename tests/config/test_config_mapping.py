"""Files, command lines and checkpoints that hold the names of earlier versions are read as what they meant."""

import argparse
from pathlib import Path

import pytest

from launch.cli.settings import parse_with_config, read_sections
from ove.config import (
    BatchesConfig,
    EncoderConfig,
    LabelsConfig,
    ProbeConfig,
    RunConfig,
    SelectionConfig,
    TrainConfig,
    VideoConfig,
)
from ove.config.mapping import OLD_KEYS, OLD_VALUES, from_mapping, merged, renamed, to_mapping
from ove.config.section import hints_of
from ove.errors import ConfigError

CLASSES = {cls.__name__: cls for cls in (BatchesConfig, EncoderConfig, LabelsConfig, ProbeConfig, TrainConfig, VideoConfig)}
OLD_CHOICE = {"gop_frames": 8, "iframe_policy": "first", "buckets": 2, "static_fallback": True, "outside": "zero"}
SELECTION = SelectionConfig("patches", 8, "first", 2, True, "zero")


def test_every_old_key_stands_for_one_that_there_is_and_is_none_itself():
    assert OLD_KEYS.keys() == CLASSES.keys()
    for name, keys in OLD_KEYS.items():
        for old, new in keys.items():
            section, _, rest = new.partition(".")
            hints = hints_of(CLASSES[name])
            assert old not in hints and section in hints
            assert not rest or rest in hints_of(hints[section])
    assert all(key in hints_of(CLASSES[name]) or key in OLD_KEYS[name] for name, key in OLD_VALUES)


@pytest.mark.parametrize("cls", [VideoConfig, BatchesConfig, ProbeConfig])
def test_the_flat_keys_of_a_selection_are_read(cls):
    assert from_mapping(cls, OLD_CHOICE).selection == SELECTION
    assert from_mapping(cls, {"selection.gop_frames": 8, "selection": {"buckets": 2}}).selection == SelectionConfig(
        gop_frames=8, buckets=2
    )
    assert not OLD_CHOICE.keys() & to_mapping(cls()).keys()


def test_values_that_were_called_otherwise_are_read():
    assert from_mapping(VideoConfig, {"selection": "frames", "gop_frames": 8}).selection == SelectionConfig("frames", 8)
    assert from_mapping(VideoConfig, {"sampling": "accumulate"}).sampling == "pool"
    assert from_mapping(EncoderConfig, {"rope": "paired", "head": False}) == EncoderConfig(pooling_head=False)
    assert from_mapping(EncoderConfig, {"rope": "released"}).rope == "released"
    with pytest.raises(ConfigError, match=r"^rope = 'pared' is none of 'interleaved', 'released'\.$"):
        from_mapping(EncoderConfig, {"rope": "pared"})


def test_a_bank_rate_of_0_meant_the_common_one_and_freezes_the_bank_now():
    old = from_mapping(TrainConfig, {"lr_bank": 2e-3, "lr_banks": {"vid": 0.0, "obj": 5e-4}})
    assert [old.rate_of(bank) for bank in ("vid", "obj", "ocr")] == [2e-3, 5e-4, 2e-3]
    new = from_mapping(TrainConfig, {"lr_bank": 2e-3, "lr_by_bank": {"vid": 0.0, "obj": 5e-4}})
    assert [new.rate_of(bank) for bank in ("vid", "obj", "ocr")] == [0.0, 5e-4, 2e-3]
    assert from_mapping(TrainConfig, to_mapping(new)) == new


def test_a_run_configuration_saved_by_an_earlier_version_is_read():
    saved = {
        "batches": {**OLD_CHOICE, "processes": 3, "heads": [{"bank": "vid", "batch_size": 2}]},
        "encoder": {"rope": "paired", "head": True, "layers": 2},
        "train": {
            "accumulate": 2,
            "keep": 5,
            "keep_every": 400,
            "meet_limit_s": 50.0,
            "silence_limit_s": 9.0,
            "pictures": 0,
            "lr_banks": {"vid": 0.0, "obj": 0.0, "ocr": 1e-4},
        },
    }
    config = from_mapping(RunConfig, saved)
    assert (config.batches.selection, config.batches.num_workers) == (SELECTION, 3)
    train = config.train
    assert (train.grad_accum_steps, train.max_to_keep, train.keep_period, train.log_images) == (2, 5, 400, 0)
    assert (train.barrier_timeout_s, train.heartbeat_timeout_s) == (50.0, 9.0)
    assert train.rate_of("ocr") == 1e-4 and train.rate_of("obj") == train.lr_bank
    assert renamed(RunConfig, to_mapping(config)) == to_mapping(config)


def test_presets_are_merged_with_what_stands_beside_them():
    config = from_mapping(VideoConfig, {"preset": "probe", "gop_frames": 16})
    assert config.selection == SelectionConfig(gop_frames=16, static_fallback=True) and config.motion_feature == "variance"
    assert (
        from_mapping(VideoConfig, {"preset": "probe", "selection": {"static_fallback": False}}).selection == SelectionConfig()
    )


def parsed(tmp_path: Path, lines: str, *words: str) -> RunConfig:
    path = tmp_path / "a.py"
    body = "".join(f"    {line}\n" for line in lines.split("; "))
    path.write_text(
        f"from ml_collections import ConfigDict\ndef get_config(arg=''):\n    c = ConfigDict()\n{body}    return c\n"
    )
    return parse_with_config(
        argparse.ArgumentParser(), RunConfig, [f"--config={path}", *(f"--config.{word}" for word in words)]
    )[1]


def test_the_command_line_replaces_the_file_whichever_of_the_two_is_older(tmp_path):
    old = "c.batches = ConfigDict(); c.batches.gop_frames = 16; c.batches.buckets = 4"
    new = "c.batches = ConfigDict(); c.batches.selection = ConfigDict(); c.batches.selection.gop_frames = 16"
    new += "; c.batches.selection.buckets = 4"
    for lines in (old, new):
        for word in ("batches.gop_frames=8", "batches.selection.gop_frames=8"):
            assert parsed(tmp_path, lines, word).batches.selection == SelectionConfig(gop_frames=8, buckets=4)
    assert parsed(tmp_path, old, "train.lr_banks.obj=0.5", "train.keep=7").train.max_to_keep == 7


def test_settings_of_commands_take_both_names():
    for key in ("gop_frames", "selection.gop_frames"):
        values = read_sections(argparse.Namespace(set=[f"video.{key}=16", "video.preset=probe"]), "video")
        assert from_mapping(VideoConfig, values["video"]).selection == SelectionConfig(gop_frames=16, static_fallback=True)
    with pytest.raises(ConfigError, match=r"unknown configuration key video\.gop; did you mean video\.selection\.gop_frames\?"):
        from_mapping(VideoConfig, {"gop": 8}, "video.")


def test_merging_changes_neither_side():
    one, other = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}
    assert merged(one, other) == {"a": {"b": 1, "c": 4}, "d": {"e": 5}}
    assert one == {"a": {"b": 1, "c": 2}, "d": 3} and other == {"a": {"c": 4}, "d": {"e": 5}}
