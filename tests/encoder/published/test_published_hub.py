"""Weights by their name on the hub, downloaded with huggingface_hub itself from a server on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer, serving

from ove.encoder.published import hub
from ove.encoder.published.hub import local_weights

_TENSORS = np.random.default_rng(0).bytes(200_000)
_SCRIPT = """
import importlib.util, json, sys
from ove.errors import OveError
spec = importlib.util.spec_from_file_location("hub", sys.argv[1])  # by its file: the package would import JAX
hub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub)
for name in sys.argv[2:]:
    try:
        print(json.dumps(["path", str(hub.local_weights(name))]))
    except OveError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    files = {"config.json": b'{"hidden_size": 8}', "model.safetensors": _TENSORS, "modeling.py": b"raise", "old.bin": b"pickle"}
    with serving(HubServer(files)) as running:
        yield running


def asked(server: HubServer, folder: Path, *names: str, **environment: str) -> list[list[str]]:
    """What `local_weights` says to each name, in a process whose hub is `server` and whose cache is `folder`."""
    place = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    made = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(Path(hub.__file__)), *names],
        env=os.environ | place,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    return [json.loads(line) for line in made.stdout.splitlines() if line.startswith("[")]


def test_weights_and_configuration_are_downloaded_once_and_nothing_else(server: HubServer, tmp_path: Path) -> None:
    first, again, at_commit = asked(server, tmp_path, "org/model", "hf://org/model", "org/model@" + "a" * 40)
    assert first[0] == "path" and first == again == at_commit
    assert (Path(first[1]) / "model.safetensors").read_bytes() == _TENSORS
    assert sorted(server.asked()) == ["config.json", "model.safetensors"]
    assert asked(server, tmp_path, "org/model", HF_HUB_OFFLINE="1") == [first]
    assert sorted(server.asked()) == ["config.json", "model.safetensors"]


def test_a_download_that_was_cut_off_is_resumed(server: HubServer, tmp_path: Path) -> None:
    whole = server.files["model.safetensors"] = _TENSORS * 120  # 24 MB: the hub's library writes blocks of 10
    server.cut_once.add("model.safetensors")
    kind, path = asked(server, tmp_path, "org/model", "org/model")[-1]
    assert kind == "path" and (Path(path) / "model.safetensors").read_bytes() == whole
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for *_, asked in server.requests if asked]
    assert starts and 0 < starts[0] <= len(whole) // 2


def test_damaged_weights_are_refused_by_their_checksum(server: HubServer, tmp_path: Path) -> None:
    server.damaged.add("model.safetensors")
    ((kind, said),) = asked(server, tmp_path, "org/model")
    assert kind == "BadCheckpoint" and "model.safetensors: is damaged" in said and "delete" in said


def test_what_cannot_be_had_is_said_with_a_way_out(server: HubServer, tmp_path: Path) -> None:
    ((kind, said),) = asked(server, tmp_path, "org/other")
    assert kind == "Unavailable" and said.startswith("org/other: is neither a file or folder here nor a model on the hub")
    ((kind, said),) = asked(server, tmp_path, "org/model", HF_HUB_OFFLINE="1")
    assert kind == "Unavailable" and "HF_HUB_OFFLINE forbids to ask the hub; unset it" in said
    assert "hf download org/model" in said and "network" not in said


def test_without_a_network_no_variable_is_blamed(server: HubServer, tmp_path: Path) -> None:
    ((kind, said),) = asked(server, tmp_path, "org/model", HF_ENDPOINT="http://127.0.0.1:9")
    assert kind == "Unavailable" and "the hub cannot be reached (" in said and "connect to the network" in said
    assert "OFFLINE" not in said and "hf download org/model" in said


def test_paths_stay_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert local_weights("org/model") == Path("org/model")
    assert local_weights("runs/a/b") == Path("runs/a/b")
    assert local_weights(Path("model.safetensors")) == Path("model.safetensors")
    assert local_weights("~/model") == Path.home() / "model"
