"""Files of `torch.save` are read without torch, exactly, and nothing in them is run.

`torch_saved.pt` beside this file is from torch 2.13:

    a = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": a, "transposed": a.t(), "rows": a[1:3], "column": a[:, 2], "parameter": torch.nn.Parameter(a + 0.5),
        "broadcast": torch.tensor([7.0]).expand(3), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3),
        **{str(d).removeprefix("torch."): torch.arange(5).to(d) for d in (torch.bfloat16, torch.float16, torch.float64,
           torch.int64, torch.uint8, torch.bool, torch.uint16, torch.float8_e4m3fn)},
    }
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "device": torch.device("cpu"),
        "seen": {1, 2}, "model": collections.OrderedDict(tensors)}, "torch_saved.pt")
"""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import Call, Name, Stored, TorchFile

from ove.encoder.published.torch_file import read_torch
from ove.errors import BadCheckpoint


def anything(name: str) -> bool:
    return True


def test_what_torch_wrote_is_read() -> None:
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {"whole": a, "transposed": a.T, "rows": a[1:3], "column": a[:, 2], "parameter": a + 0.5}
    expected |= {"broadcast": np.full(3, 7, np.float32), "scalar": np.array(2.5, np.float32)}
    expected |= {"empty": np.zeros((0, 3), np.float32)}
    names = ("bfloat16", "float16", "float64", "int64", "uint8", "bool", "uint16", "float8_e4m3fn")
    expected |= {name: np.arange(5).astype(jnp.dtype(name)) for name in names}
    found = read_torch(Path(__file__).with_name("torch_saved.pt"), anything)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name], tensor, name)
        assert not found[name].flags.writeable or not found[name].size
    # Parts of one storage are not copied.
    assert np.shares_memory(found["whole"], found["transposed"]) and np.shares_memory(found["whole"], found["rows"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), max_size=4), st.integers(0, 9), st.randoms(use_true_random=False))
def test_any_strides_are_followed(tmp_path: Path, shape: list[int], offset: int, random: Any) -> None:
    values = np.arange(offset + int(np.prod(shape)), dtype=np.float32)
    array = values[offset:].reshape(shape).transpose(random.sample(range(len(shape)), len(shape)))
    file = TorchFile()
    tensor = file.view(file.store(values), offset, array.shape, tuple(step // 4 for step in array.strides))
    found = read_torch(file.write(tmp_path / "a.pt", {"state_dict": {"a": tensor}}), anything)
    np.testing.assert_array_equal(found["a"], array)


def test_the_state_dict_is_found_among_others(tmp_path: Path) -> None:
    file = TorchFile()
    one, two, three = (file.tensor(np.full(2, i, np.float32)) for i in range(3))
    saved = {"optimizer": {"state": {0: {"mean": one}}}, "model": {"w": two}, "ema": {"w": three}}
    path = file.write(tmp_path / "a.pt", saved)
    assert read_torch(path, "w".__eq__)["w"][0] == 1
    path = file.write(path, {"teacher": {"w": one}, "student": {"w": two}})
    with pytest.raises(BadCheckpoint, match=r"several encoders \((teacher|student), (teacher|student)\); save the one"):
        read_torch(path, "w".__eq__)
    with pytest.raises(BadCheckpoint, match=r"no weights of this encoder: what was saved is a dictionary of 2 \(teacher, "):
        read_torch(path, "v".__eq__)
    with pytest.raises(BadCheckpoint, match="what was saved is of type list; save the state_dict"):
        read_torch(file.write(path, [one]), anything)


@pytest.mark.parametrize(
    "evil",
    [
        Call(Name("os", "system"), ("touch {}",)),
        Call(Name("builtins", "eval"), ("open('{}', 'w')",)),
        Call(Name("builtins", "getattr"), ("", "join")),
        Call(Name("torch.nn.modules.linear", "Linear"), ()),
        Call(Name("torch.storage", "_load_from_bytes"), (b"",)),
    ],
    ids=lambda call: call.function.name,
)
def test_nothing_in_a_file_is_run(tmp_path: Path, evil: Call) -> None:
    trap = tmp_path / "trap"
    evil = Call(evil.function, tuple(arg.format(trap) if isinstance(arg, str) else arg for arg in evil.arguments))
    file = TorchFile()
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(np.ones(2, np.float32)), "x": evil})
    with pytest.raises(BadCheckpoint, match=rf"a\.pt: holds {evil.function.module}\.{evil.function.name}, which is neither"):
        read_torch(path, anything)
    assert not trap.exists()


def test_a_file_cannot_change_the_reader(tmp_path: Path) -> None:
    file = TorchFile()
    tensor = file.tensor(np.ones(2, np.float32))
    # BUILD sets attributes on what lies on the stack: here on the rebuild function, a type and a placeholder.
    for target in (("torch._utils", "_rebuild_tensor_v2"), ("torch", "float32"), ("argparse", "Namespace")):
        state = pickle.dumps((None, {"__call__": 1}), 2)[2:-1]
        evil = b"\x80\x02c" + "\n".join(target).encode() + b"\n" + state + b"b."
        path = file.write(tmp_path / "a.pt", None, lambda parts, evil=evil: {**parts, "data.pkl": evil})
        with pytest.raises(BadCheckpoint):
            read_torch(path, anything)
        assert read_torch(file.write(path, {"w": tensor}), anything)["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "words"),
    [
        (0, (5,), (1,), "needs more than the 16 bytes of data/0"),
        (1, (4,), (1,), "needs more than the 16 bytes"),
        (0, (2, 2), (3, 1), "needs more than the 16 bytes"),
        (-1, (2,), (1,), "an impossible shape"),
        (0, (2,), (-1,), "an impossible shape"),
        (0, (2,), (1, 1), "an impossible shape"),
        (0, (2.0,), (1,), "an impossible shape"),
        (0, (1 << 62,), (1 << 62,), "needs more than the 16 bytes"),
    ],
)
def test_a_tensor_stays_within_its_storage(
    tmp_path: Path, offset: int, shape: tuple[Any, ...], stride: tuple[int, ...], words: str
) -> None:
    file = TorchFile()
    tensor = file.view(file.store(np.ones(4, np.float32)), offset, shape, stride)
    with pytest.raises(BadCheckpoint, match=words):
        read_torch(file.write(tmp_path / "a.pt", {"w": tensor}), anything)


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda parts: {key: part for key, part in parts.items() if key != name}


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        (without("data/0"), "damaged: its part data/0 is missing"),
        (without("data.pkl"), "not one that torch.save wrote"),
        (lambda parts: {**parts, "byteorder": b"big"}, "big-endian"),
        (lambda parts: {**parts, "constants.pkl": b""}, "TorchScript program"),
        (lambda parts: {**parts, "data/0": b"123"}, "needs more than the 3 bytes"),
        (lambda parts: {**parts, "data.pkl": parts["data.pkl"][:-9]}, "is damaged"),
        (lambda parts: {**parts, "data.pkl": b"\x80\x02K\x01Q."}, "points to something that is not a storage"),
    ],
)
def test_parts_that_are_wrong_are_named(tmp_path: Path, pack: Any, words: str) -> None:
    file = TorchFile()
    path = file.write(tmp_path / "a.pt", {"w": file.tensor(np.ones(4, np.float32))}, pack)
    with pytest.raises(BadCheckpoint, match=rf"a\.pt: .*{words}"):
        read_torch(path, anything)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    file = TorchFile()
    whole = file.write(path, {"w": file.tensor(np.ones(4, np.float32))}).read_bytes()
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    for content, words in (
        (whole[:-30], "is truncated or damaged"),
        (whole[20:], "is not a file that torch.save wrote"),
        (b"", "is not a file that torch.save wrote"),
        (b"hello", "is not a file that torch.save wrote"),
        (legacy, "is in torch's format before version 1.6; read it with torch.load"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadCheckpoint, match=rf"a\.pt: {words}"):
            read_torch(path, anything)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", os.urandom(9))
    with pytest.raises(BadCheckpoint, match="has compressed parts"):
        read_torch(path, anything)


def test_tensors_without_values_are_refused(tmp_path: Path) -> None:
    file = TorchFile()
    on_meta = file.write(tmp_path / "a.pt", {"w": file.tensor(np.ones(4, np.float32))})
    with zipfile.ZipFile(on_meta) as archive:
        saved = archive.read("archive/data.pkl")
    cpu, meta = b"X\x03\x00\x00\x00cpu", b"X\x04\x00\x00\x00meta"
    assert cpu in saved
    file.write(on_meta, None, lambda parts: {**parts, "data.pkl": saved.replace(cpu, meta)})
    with pytest.raises(BadCheckpoint, match="without values"):
        read_torch(on_meta, anything)
    file = TorchFile()
    bare = Call(Name("torch._utils", "_rebuild_tensor_v2"), ("no storage", 0, (1,), (1,), False, None))
    with pytest.raises(BadCheckpoint, match="a tensor has no number type"):
        read_torch(file.write(on_meta, {"w": bare, "s": Stored("float32", "0", 1)}), anything)


def test_a_pickle_cannot_number_objects_beyond_its_length(tmp_path: Path) -> None:
    file = TorchFile()
    tensor = file.tensor(np.ones(4, np.float32))

    def numbered(parts: dict[str, bytes]) -> dict[str, bytes]:
        # LONG_BINPUT of object 2³⁰, for which Python would allocate a table of 16 GB.
        return parts | {"data.pkl": parts["data.pkl"][:-1] + b"r\x00\x00\x00\x40."}

    with pytest.raises(BadCheckpoint, match=r"a pickle of [\d,]+ bytes has no object number 1,073,741,824"):
        read_torch(file.write(tmp_path / "a.pt", {"w": tensor}, numbered), lambda name: True)


def test_a_tensor_is_never_larger_than_its_file(tmp_path: Path) -> None:
    file = TorchFile()
    wide = file.view(file.store(np.ones(4, np.float32)), 0, (1 << 40,), (0,))
    with pytest.raises(BadCheckpoint, match=r"a tensor of shape \[1099511627776\] is larger than the [\d,]+ bytes of the file"):
        read_torch(file.write(tmp_path / "a.pt", {"w": wide}), lambda name: True)
