"""Files as `torch.save` writes them, made without torch: a pickle that names torch's functions, and storages, in a zip."""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long", "bool": "Bool"}


@dataclass(frozen=True)
class Name:
    """A function or class that the reader is to look up."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """What the reader is to call it with."""

    function: Name
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Stored:
    """A storage, by its number in the archive."""

    dtype: str
    key: str
    length: int


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]  # the one in Python, whose `save` can be replaced
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, Stored):
            self.save(("storage", Name("torch", f"{STORAGES[obj.dtype]}Storage"), obj.key, "cpu", obj.length))
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


class TorchFile:
    """Collects storages while tensors are described, then writes all."""

    def __init__(self) -> None:
        self.storages: list[bytes] = []

    def store(self, values: np.ndarray) -> Stored:
        """A storage of the values in their order in memory."""
        self.storages.append(values.tobytes())
        return Stored(values.dtype.name, str(len(self.storages) - 1), values.size)

    def view(self, storage: Stored, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Call:
        """A tensor that is a part of a storage."""
        return Call(
            Name("torch._utils", "_rebuild_tensor_v2"),
            (storage, offset, shape, stride, False, Call(Name("collections", "OrderedDict"), ())),
        )

    def tensor(self, values: np.ndarray) -> Call:
        """A tensor with a storage of its own."""
        steps = tuple(step // values.itemsize for step in np.ascontiguousarray(values).strides)
        return self.view(self.store(values), 0, values.shape, steps if values.ndim else ())

    def write(self, path: Path, saved: Any, pack: Callable[[dict[str, bytes]], Mapping[str, bytes]] | None = None) -> Path:
        """Writes the archive; `pack` may change its parts."""
        content = io.BytesIO()
        _Pickler(content, 2).dump(saved)
        parts = {"data.pkl": content.getvalue(), "byteorder": b"little", "version": b"3\n"}
        parts |= {f"data/{key}": storage for key, storage in enumerate(self.storages)}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in (pack(parts) if pack else parts).items():
                archive.writestr(f"archive/{name}", part)
        return path


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """What torch.save(model.state_dict()) writes."""
    file = TorchFile()
    return file.write(path, {name: file.tensor(tensor) for name, tensor in tensors.items()})
