"""What the front door is given wrongly: each argument of each function is named, whatever is in its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clips import BUDGET, SIZE_PX

import ove
from ove.errors import OveError


@pytest.fixture(scope="module")
def model(weights: Path) -> ove.Model:
    return ove.load(weights)


@pytest.fixture(scope="module")
def clip(videos: list[Path]) -> ove.EncoderInput:
    return ove.read(videos[0], size=SIZE_PX, budget=BUDGET)


class Odd:
    """Something of no use, which says so wherever it is shown."""

    def __repr__(self) -> str:
        return "<odd>"


ODD: dict[str, Any] = {
    "an int": 3,
    "a negative int": -1,
    "zero": 0,
    "a float": 0.5,
    "nan": float("nan"),
    "None": None,
    "True": True,
    "a list": [],
    "a list of ints": [1, 2],
    "a dict": {},
    "a dict of paths": {"a.mp4": "a"},
    "bytes": b"a.mp4",
    "a str": "nonsense",
    "an empty str": "",
    "a NUL": "a\0b.mp4",
    "no UTF-8": "\ud800.mp4",
    "a long name": "a" * 300,
    "no home": "~nobody_of_that_name/a.mp4",
    "an array of str": np.array(["a.mp4", "b.mp4"]),
    "an array of floats": np.zeros((2, 2)),
    "an array of objects": np.array([None, Odd()]),
    "a set": {1},
    "a generator": "generator",
    "an object": Odd(),
    "a class": Odd,
    "a function": len,
}
PAIRS = [(f"{label}{number}.mp4", label) for label in "ab" for number in range(4)]
Call = Callable[..., Any]


def value_of(odd: str) -> Any:
    return (one for one in (1, 2)) if odd == "a generator" else ODD[odd]


TEXTS = ("a str", "no home", "a NUL", "no UTF-8", "a long name")
"""Columns may be called anything."""
TAKES: dict[str, dict[str, tuple[str, ...]]] = {
    "read": {
        "source": ("bytes",),
        "mode": (),
        "budget": ("None", "an int", "a float"),
        "frames": ("None", "an int"),
        "size": ("None",),
        "max_tokens": ("None", "an int"),
        "min_tokens": ("None", "zero", "an int"),
        "sampling": (),
        "geometry": (),
        "selection": ("a dict",),
        "time_limit_s": ("an int", "a float", "zero", "a negative int", "nan"),
    },
    "load": {"name": (), "revision": ("None",), "compute": ()},
    "model": {
        "inputs": ("a list", "bytes"),
        "tokens": ("True",),
        "hidden": ("None", "zero"),
        "batch_tokens": ("an int",),
        "mode": (),
    },
    "show": {"path": ("None",)},
    "write_shards": {
        "out": (),
        "samples": ("an array of str",),
        "kind": (),
        "size": ("None",),
        "store": ("None",),
        "records_per_shard": ("None", "an int"),
        "path_column": ("an empty str", *TEXTS),
        "label_column": ("an empty str", *TEXTS),
        "label_folder": ("zero", "an int"),
        "root": ("an empty str", "a str"),
        "workers": ("None", "zero", "an int"),
        "replace": ("True",),
        "progress": ("a function", "a class"),
        "jpeg_quality": ("an int",),
    },
    "batches": {
        "shards": (),
        "batch_size": ("an int",),
        "mode": ("None",),
        "budget": ("None",),
        "image_size": ("None",),
        "shuffle": ("True",),
        "seed": ("zero", "an int"),
        "epochs": ("an int",),
        "drop_last": ("True",),
        "threads": ("an int",),
        "gop_frames": ("an int",),
    },
    "split": {
        "samples": ("an array of str",),
        "val_share": ("a float",),
        "seed": ("zero", "an int"),
        "groups": ("None", "a function"),
        "out": ("None", "a str"),
        "path_column": ("an empty str", *TEXTS),
        "label_column": ("an empty str", *TEXTS),
        "label_folder": ("zero", "an int"),
        "root": ("an empty str", "a str"),
    },
    "probe": {
        "model": (),
        "train": ("an array of str",),
        "val": ("None", "an array of str"),
        "head": (),
        "mode": ("None",),
        "budget": ("None", "an int"),
        "labels": ("None",),
        "val_share": ("None", "a float"),
        "path_column": ("an empty str", *TEXTS),
        "label_column": ("an empty str", *TEXTS),
        "label_folder": ("zero", "an int"),
        "root": ("an empty str", "a str"),
        "threads": ("None", "an int"),
        "l2": ("an int", "zero", "a float"),
        "seeds": (),
    },
}
"""Each argument, and which odd values it does take."""
ANYTHING = {("split", "groups"), ("write_shards", "progress")}


@pytest.fixture
def calls(model: ove.Model, clip: ove.EncoderInput, videos: list[Path], shard_folder: Path, tmp_path: Path) -> dict[str, Call]:
    def read(**given: Any) -> Any:
        mode = {"frames": "frames", "max_tokens": "image", "min_tokens": "image"}.get(next(iter(given)), "codec")
        small: dict[str, Any] = {"image": {}, "frames": {"size": SIZE_PX}, "codec": {"size": SIZE_PX, "budget": BUDGET}}[mode]
        source = given.pop("source", np.zeros((28, 28, 3), np.uint8) if mode == "image" else videos[0])
        return ove.read(source, **{"mode": mode} | small | given)

    def write_shards(**given: Any) -> Any:
        return ove.write_shards(**{"out": tmp_path / "out", "samples": PAIRS, "workers": 0} | given)  # type: ignore[arg-type]

    def batches(**given: Any) -> Any:
        return ove.batches(**{"shards": shard_folder, "gop_frames": 4} | given)  # type: ignore[arg-type]

    def probe(**given: Any) -> Any:
        return ove.probe(**{"model": model, "train": PAIRS} | given)  # type: ignore[arg-type]

    return {
        "read": read,
        "load": lambda **given: ove.load(**{"name": model.name} | given),  # type: ignore[arg-type]
        "model": lambda **given: model(**{"inputs": np.zeros((28, 28, 3), np.uint8)} | given),
        "show": lambda **given: clip.show(**given),
        "write_shards": write_shards,
        "batches": batches,
        "split": lambda **given: ove.split(**{"samples": PAIRS} | given),  # type: ignore[arg-type]
        "probe": probe,
    }


@pytest.mark.parametrize(("function", "argument"), [(name, argument) for name, found in TAKES.items() for argument in found])
def test_a_wrong_value_is_refused_by_the_name_of_its_argument(
    function: str, argument: str, calls: dict[str, Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: list[Any] = []
    for odd in ODD:
        taken = odd in TAKES[function][argument] or (function, argument) in ANYTHING
        try:
            calls[function](**{argument: value_of(odd)})
        except Exception as error:
            said, given = str(error), ODD[odd]
            named = argument in said or (isinstance(given, str) and given != "" and given[:40] in said)
            is_ours = isinstance(error, (OveError, TypeError)) and named and "\n" not in said and len(said) < 500
            wrong += [] if is_ours or (taken and isinstance(error, (OveError, TypeError))) else [(odd, repr(error))]
        else:
            wrong += [] if taken else [(odd, "was taken")]
    assert not wrong
