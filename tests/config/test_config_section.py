"""Settings are checked whenever they are made, from Python as from a file."""

import dataclasses
import math
import typing
from typing import Annotated, Literal

import numpy as np
import pytest

import ove.config
from ove.config import (
    BatchesConfig,
    EncoderConfig,
    HeadConfig,
    LimitsConfig,
    RemoteConfig,
    RunConfig,
    StudyConfig,
    TrainConfig,
    VideoConfig,
)
from ove.config.mapping import from_mapping, to_mapping
from ove.config.section import Bounds, Own, Section, hints_of
from ove.errors import ConfigError

SECTIONS = [found for found in vars(ove.config).values() if isinstance(found, type) and issubclass(found, Section)]
NEEDED = {"HeadConfig": {"bank": "obj", "batch_size": 1}, "RemoteConfig": {"cache": ove.config.data.Path("c")}}


def fields(origin):
    """(class, field, hint, is a tuple) of all settings whose hint has this origin, alone, in a union or in a tuple."""
    return [
        pytest.param(cls, name, part, typing.get_origin(hint) is tuple, id=f"{cls.__name__}.{name}")
        for cls in SECTIONS
        for name, hint in hints_of(cls).items()
        for parts in [typing.get_args(hint)]
        for part in [hint, *parts, *(inner for each in parts for inner in typing.get_args(each))]
        if typing.get_origin(part) is origin and part is not Own
    ]


@pytest.mark.parametrize(("cls", "name", "hint", "in_tuple"), fields(Literal))
def test_a_misspelled_choice_is_refused_and_the_known_ones_are_listed(cls, name, hint, in_tuple):
    choices = typing.get_args(hint)
    for wrong in ("typo", choices[0][:-1], choices[0].upper() + "_", "", None, 1, True):
        with pytest.raises(ConfigError) as error:
            cls(**NEEDED.get(cls.__name__, {}) | {name: (wrong,) if in_tuple else wrong})
        assert f".{name}" in str(error.value) and all(repr(choice) in str(error.value) for choice in choices)


def test_the_reflection_above_sees_what_it_is_meant_for():
    found = {f"{param.values[0].__name__}.{param.values[1]}" for param in fields(Literal)}
    assert {"VideoConfig.fusion", "EncoderConfig.rope", "CentersConfig.loss", "CentersConfig.decay"} <= found
    assert {"ShardsConfig.store", "ProbeConfig.interventions", "HeadConfig.bank", "TrainConfig.schedule"} <= found
    assert len(SECTIONS) >= 14 and len(found) > 35


@pytest.mark.parametrize(("cls", "name", "hint", "in_tuple"), fields(Annotated))
def test_numbers_out_of_bounds_are_refused_with_the_bounds(cls, name, hint, in_tuple):
    (bounds,) = (part for part in typing.get_args(hint) if isinstance(part, Bounds))
    wrong = [bounds.low if bounds.above else bounds.low - 1] + ([bounds.high + 1] if math.isfinite(bounds.high) else [])
    for number in wrong + ([math.nan] if typing.get_args(hint)[0] is float else []):
        with pytest.raises(ConfigError) as error:
            cls(**NEEDED.get(cls.__name__, {}) | {name: (number,) if in_tuple else number})
        assert f"must be {bounds}" in str(error.value)


@pytest.mark.parametrize("cls", SECTIONS, ids=lambda cls: cls.__name__)
def test_values_of_another_type_are_refused(cls):
    for name, hint in hints_of(cls).items():
        for wrong in (object(), {1: 2}, b"x"):
            with pytest.raises(ConfigError, match=name.upper() if cls in (RemoteConfig, LimitsConfig) else rf"\b{name}\b"):
                cls(**NEEDED.get(cls.__name__, {}) | {name: wrong})
        if hint in (int, float) or (typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] in (int, float)):
            for wrong in (True, "1"):
                with pytest.raises(ConfigError, match="is of type"):
                    cls(**NEEDED.get(cls.__name__, {}) | {name: wrong})


@pytest.mark.parametrize("cls", SECTIONS, ids=lambda cls: cls.__name__)
def test_defaults_pass_and_come_back_from_a_mapping(cls):
    made = cls(**NEEDED.get(cls.__name__, {}))
    assert from_mapping(cls, to_mapping(made)) == made


def test_what_is_converted_is_what_the_hint_says():
    config = TrainConfig(lr=1, steps=np.int64(3), weight_decay=np.float32(0.5))
    assert [type(value) for value in (config.lr, config.steps, config.weight_decay)] == [float, int, float]
    assert BatchesConfig(heads=[HeadConfig("vid", 2)]).heads == (HeadConfig("vid", 2),)
    assert hash(EncoderConfig(rope_theta=10000)) == hash(EncoderConfig())
    with pytest.raises(ConfigError, match=r"run\.train must be a section with keys, not 3"):
        RunConfig(train=3)
    with pytest.raises(ConfigError, match=r"run\.train must be a section with keys"):
        RunConfig(train=EncoderConfig())


def test_replacing_a_value_checks_it_again():
    with pytest.raises(ConfigError, match=r"video\.fusion = 'avg' is none of 'mean', 'max', 'sum', 'geomean'"):
        dataclasses.replace(VideoConfig(), fusion="avg")


def test_a_nested_key_is_named_with_its_place():
    values = {"batches": {"heads": [{"bank": "vid", "batch_size": 1}, {"bank": "obj", "batch_size": 0}]}}
    with pytest.raises(ConfigError, match=r"^batches\.heads\[1\]\.batch_size = 0 must be at least 1\.$"):
        from_mapping(RunConfig, values)
    with pytest.raises(ConfigError, match=r"^probe\.budgets\[1\] = 0 must be at least 1\.$"):
        from_mapping(StudyConfig, {"probe": {"budgets": [2, 0]}})


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("high", [2.5, math.inf])
@pytest.mark.parametrize("low", [-1.0, 0.0, 2.0])
def test_bounds_hold_what_they_say(low, high, above):
    bounds = Bounds(low, high, above)
    assert bounds.hold(low) != above and not bounds.hold(low - 1e-9) and not bounds.hold(math.nan)
    assert bounds.hold(low + 0.1) and bounds.hold(high) and bounds.hold(3.0) == math.isinf(high)
    words = str(bounds)
    assert f"{low:g}" in words and ("above" in words) == above and ("2.5" in words) == math.isfinite(high)
