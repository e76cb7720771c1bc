"""Tensors of a file that `torch.save` wrote, read without torch and without running anything that the file asks for.

Such a file is a zip archive: `NAME/data.pkl` is a pickle of the saved object in which tensors point to storages, and
`NAME/data/KEY` are the bytes of the storages. A pickle can name any function for the reader to call; here only the few names
that describe tensors are known, each answered by code of this file, and any other is an error.
"""

import collections
import io
import itertools
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from ove.config import limits
from ove.errors import BadCheckpoint

_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "float64": np.float64,
        "float32": np.float32,
        "float16": np.float16,
        "bfloat16": jnp.bfloat16,
        "float8_e4m3fn": jnp.float8_e4m3fn,
        "float8_e5m2": jnp.float8_e5m2,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint64": np.uint64,
        "uint32": np.uint32,
        "uint16": np.uint16,
        "uint8": np.uint8,
        "bool": np.bool_,
        "complex64": np.complex64,
        "complex128": np.complex128,
    }.items()
}
"""Torch's names of number types."""
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_INERT = {
    ("argparse", "Namespace"),
    ("torch", "device"),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
    ("pathlib", "PosixPath"),
    ("_codecs", "encode"),
    *(("__builtin__", name) for name in ("dict", "list", "set", "frozenset", "int", "slice", "bytearray")),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
}
"""What training programs save beside their weights; it is passed over."""
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How files of torch before 1.6 begin: a pickle of a magic number."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, length of the name and of the extra field, in front of each member of a zip archive."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str | None
    """None where each tensor brings its own."""


class _Archive:
    """The zip archive, mapped into memory: bytes of members are views, not copies."""

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            start = file.read(len(_LEGACY))
            if start == _LEGACY:
                raise self.bad("is in torch's format before version 1.6; read it with torch.load and write it with torch.save")
            if not start.startswith(b"PK"):
                raise self.bad("is not a file that torch.save wrote, or its beginning is lost; download or save it again")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            with zipfile.ZipFile(path) as archive:
                if excess := limits().excess("max_archive_inputs", len(archive.infolist()), "parts"):
                    raise self.bad(f"has {excess}; raise the limit if you trust the file")
                self._members = {info.filename: info for info in archive.infolist()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise self.bad(f"is truncated or damaged ({error}); download or save it again") from error
        pickles = [name for name in self._members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise self.bad("is a zip archive, but not one that torch.save wrote: it holds no data.pkl")
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in self._members:
            raise self.bad("is a TorchScript program; save the state_dict() of the model with torch.save instead")
        if self.has("byteorder") and bytes(self.read("byteorder")).strip() != b"little":
            raise self.bad("was written on a big-endian machine; save it again on another")

    def __len__(self) -> int:
        return len(self._bytes)

    def bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.path}: {what}.")

    def has(self, name: str) -> bool:
        return self._root + name in self._members

    def read(self, name: str) -> memoryview:
        """Returns the bytes of a member."""
        info = self._members.get(self._root + name)
        if info is None:
            raise self.bad(f"is damaged: its part {name} is missing; download or save it again")
        if info.compress_type != zipfile.ZIP_STORED:
            raise self.bad(
                f"has compressed parts ({name}), which torch.save does not write; unpack and pack it without compression"
            )
        start = info.header_offset + _LOCAL_HEADER.size
        if info.header_offset >= 0 and start <= len(self._bytes):
            signature, n_name, n_extra = _LOCAL_HEADER.unpack_from(self._bytes, info.header_offset)
            start += n_name + n_extra
            if signature == b"PK\x03\x04" and start + info.file_size <= len(self._bytes):
                return memoryview(self._bytes)[start : start + info.file_size]
        raise self.bad(f"is damaged: its part {name} is not where its table says; download or save it again")


class _Unpickler(pickle.Unpickler):
    """Builds what torch.save saved, with arrays for tensors; knows no other names than those of tensors."""

    def __init__(self, archive: _Archive):
        content = archive.read("data.pkl")
        if excess := limits().excess("max_header_bytes", len(content), "bytes"):
            raise archive.bad(f"holds a description of tensors of {excess}; raise the limit if you trust the file")
        self._check_memo(archive, bytes(content))
        super().__init__(io.BytesIO(content))
        self._archive = archive
        # Made anew for each file: a pickle may set attributes on what it is given.
        members = dict.fromkeys(("__setstate__", "__setitem__", "append", "extend"), _nothing)
        self._inert = type("Inert", (), {"__new__": lambda cls, *_, **__: object.__new__(cls), "__init__": _nothing, **members})
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("collections", "defaultdict"): self._inert,
            ("torch", "Size"): self._size,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_of_type,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): self._with_attributes,
            ("torch.storage", "UntypedStorage"): _Storage("", None),
            **{("torch", name): _Storage("", dtype) for name, dtype in _STORAGES.items()},
            **{("torch", name): name for name in _DTYPES},
            **dict.fromkeys(_INERT, self._inert),
        }

    @staticmethod
    def _check_memo(archive: _Archive, content: bytes) -> None:
        """Refuses a pickle that numbers an object beyond all it could hold: Python allocates a table up to that number."""
        for operation, argument, _ in pickletools.genops(content):
            if "PUT" in operation.name and argument is not None and argument > len(content):
                raise archive.bad(f"is damaged: a pickle of {len(content):,} bytes has no object number {argument:,}")

    def find_class(self, module: str, name: str) -> Any:
        known = self._known.get((module, name))
        if known is None:
            raise self._archive.bad(
                f"holds {module}.{name}, which is neither a tensor nor plain data, and is not run; if you trust the file, load "
                "it with torch and save the state_dict() of the model alone"
            )
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _Storage(dtype=dtype), str(key), str(location), int()):
                if location == "meta":
                    raise self._archive.bad(
                        "holds tensors without values (on the device meta); save the model with its weights"
                    )
                return _Storage(key, dtype)
        raise self._archive.bad("is damaged: it points to something that is not a storage; download or save it again")

    def _size(self, values: Any) -> tuple[Any, ...]:
        return tuple(values)

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data

    def _with_attributes(self, rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
        if rebuild not in (self._tensor, self._tensor_of_type, self._parameter):
            raise self._archive.bad("is damaged: a tensor is not described as one; download or save it again")
        return rebuild(*arguments)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
        return self._view(storage, getattr(storage, "dtype", None), offset, size, stride)

    def _tensor_of_type(self, storage: Any, offset: Any, size: Any, stride: Any, *others: Any) -> np.ndarray:
        return self._view(storage, others[2], offset, size, stride)

    def _view(self, storage: Any, type_name: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
        """Returns a tensor as a view of its storage; checks the file's numbers, for strides could reach anywhere in memory."""
        if not isinstance(storage, _Storage) or not isinstance(type_name, str) or type_name not in _DTYPES:
            raise self._archive.bad("is damaged: a tensor has no number type; download or save it again")
        dtype = _DTYPES[type_name]
        values = np.frombuffer(self._archive.read(f"data/{storage.key}"), np.uint8)
        numbers = [offset, *size, *stride]
        if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise self._archive.bad("is damaged: a tensor has an impossible shape; download or save it again")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 in size:
            return np.empty(size, dtype)
        if (last + 1) * dtype.itemsize > len(values):
            raise self._archive.bad(
                f"is damaged: a tensor of shape {list(size)} needs more than the {len(values):,} bytes of data/{storage.key}; "
                "download or save it again"
            )
        if math.prod(size) * dtype.itemsize > len(self._archive):
            raise self._archive.bad(
                f"is damaged: a tensor of shape {list(size)} is larger than the {len(self._archive):,} bytes of the file; "
                "download or save it again"
            )
        flat = values[offset * dtype.itemsize : (last + 1) * dtype.itemsize].view(dtype)
        return np.lib.stride_tricks.as_strided(flat, size, [step * dtype.itemsize for step in stride])


def _nothing(*_: Any, **__: Any) -> None:
    """Returns None, whatever is done to an inert object."""


def read_torch(path: Path, wanted: Callable[[str], bool]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the state dict of a `.pt`, `.pth` or `.bin` file: name → read-only view of the file's bytes.

    The state dict is the saved dictionary itself or one inside it (`state_dict`, `model`, …): the one that has tensors with
    `wanted` names. BadCheckpoint if there is none or no telling which, if the file is damaged, of another format, or holds
    anything but tensors and plain data.
    """
    archive = _Archive(path)
    try:
        saved = _Unpickler(archive).load()
    except BadCheckpoint:
        raise
    except Exception as error:  # of a damaged pickle, whatever its type
        raise BadCheckpoint(f"{path}: is damaged ({type(error).__name__}: {error}); download or save it again.") from error
    found = {where: tensors for where, tensors in _dictionaries(saved).items() if any(wanted(name) for name in tensors)}
    if not found:
        raise archive.bad(
            f"holds no weights of this encoder: what was saved is {_described(saved)}; save the state_dict() of the model"
        )
    usual = [where for where in found if where in ("", "state_dict", "model", "model_state_dict", "backbone")]
    if len(found) > 1 and len(usual) != 1:
        raise archive.bad(f"holds weights of several encoders ({', '.join(found)}); save the one you mean to a file of its own")
    return found[usual[0] if usual else next(iter(found))]


def _dictionaries(saved: Any) -> dict[str, dict[str, np.ndarray]]:
    """Keys that lead to a dictionary, joined by dots → its tensors; for the saved dictionary and all inside it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    seen: set[int] = set()
    waiting = [("", saved)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            found[where] = {
                name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, np.ndarray)
            }
            waiting += [(f"{where}.{name}".lstrip("."), item) for name, item in value.items()]
    return found


def _described(saved: Any) -> str:
    if isinstance(saved, Mapping):
        names = [str(name) for name in itertools.islice(saved, 4)]
        return f"a dictionary of {len(saved)} ({', '.join(names)}{', …' if len(saved) > 4 else ''})"
    return f"of type {type(saved).__name__}"
