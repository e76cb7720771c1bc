"""Writes the features of many files to one .npz, atomically and in bounded memory."""

import json
import lzma
import math
import shutil
import sys
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

from ove.config import limits
from ove.errors import BadInput, OveError
from ove.features.from_files import FileFeatures
from ove.files import atomic_write

_DAMAGE = (
    *(
        OSError,
        EOFError,
        ValueError,
        TypeError,
        OverflowError,
        RuntimeError,
        NotImplementedError,
        SyntaxError,
        tokenize.TokenError,
    ),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What zipfile, its decompressors, and NumPy's reader of headers raise."""


def read_arrays(path: Path, names: Sequence[str]) -> list[Shaped[np.ndarray, "..."]]:
    """Reads arrays of an .npz; BadInput if it is damaged, lacks one, or one is not as long as it says.

    NumPy's own reader allocates what the header of an array claims.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [_array(archive, name) for name in names]
    except KeyError as error:
        raise BadInput(f"{path}: holds no {error.args[0]}; encode the files again with it.") from error
    except _DAMAGE as error:
        raise BadInput(
            f"{path}: is no feature file of `ove encode`, or is damaged ({error}); encode the files again."
        ) from error


def _array(archive: zipfile.ZipFile, name: str) -> Shaped[np.ndarray, "..."]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise KeyError(name) from None
    if excess := limits().excess("max_unpacked_bytes", info.file_size, "bytes unpacked"):
        raise ValueError(f"{name} has {excess}")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(member)
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or by_column or claimed != info.file_size - member.tell():
            raise ValueError(f"{name} of {info.file_size:,} bytes cannot hold {dtype} of shape {shape}")
        data = member.read()
    codes = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder)) if dtype.kind == "U" else np.zeros(0)
    if (codes > sys.maxunicode).any():
        raise ValueError(f"{name} holds texts with characters that there are not")
    return np.frombuffer(data, dtype).reshape(shape)


def is_feature_file(path: Path) -> bool:
    """Returns whether a file is what `FeatureFile` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"files.npy", "weights.npy", "settings.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


class FeatureFile:
    """Collects features in unlinked files beside `path` and writes them at the end; an interrupted run leaves nothing behind.

    docs/encoder.md describes the file. In memory are the names of the encoded files and a few numbers for each.
    """

    def __init__(self, path: Path) -> None:
        """OveError or OSError if nothing can be written at `path`."""
        if path.is_dir():
            raise OveError(f"{path}: is a folder; give the name of a file, for example {path}/features.npz.")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._columns: dict[str, _Column] = {}
        self._files: list[str] = []
        self._keys: list[str] = []
        self._rows: dict[str, list[Any]] = {"effective_hw": [], "n_tokens": [], "source": [], "cut": []}
        with tempfile.TemporaryFile(dir=path.parent):
            pass

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for column in self._columns.values():
            column.file.close()

    def __len__(self) -> int:
        return len(self._files)

    def add(self, path: Path, key: str, encoding: FileFeatures) -> None:
        """Adds the features of one file; `key`: what its list calls it, else its path."""
        seen = encoding.seen
        self._files.append(str(path))
        self._keys.append(key)
        values = (seen.effective_hw, len(seen.patches), seen.source, seen.cut)
        for column, value in zip(self._rows.values(), values, strict=True):
            column.append(value)
        if encoding.pooled is not None:
            self._append("pooled", encoding.pooled[None])
        for name, tokens in (("tokens", encoding.tokens), ("hidden", encoding.hidden)):
            if tokens is not None:
                self._append(name, tokens)
        if encoding.tokens is not None or encoding.hidden is not None:
            self._append("positions", seen.positions)

    def write(self, bad: Sequence[tuple[Path, str]], weights: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Writes the .npz; `weights` and `settings` become JSON texts."""
        n_tokens = np.array(self._rows["n_tokens"], np.int32)
        arrays = {
            "files": np.array(self._files, np.str_),
            "keys": np.array(self._keys, np.str_),
            "effective_hw": np.array(self._rows["effective_hw"], np.int32).reshape(-1, 2),
            "n_tokens": n_tokens,
            "source": np.array(self._rows["source"], np.str_),
            "cut": np.array(self._rows["cut"], np.str_),
            "bad_files": np.array([str(path) for path, _ in bad], np.str_),
            "bad_reasons": np.array([reason for _, reason in bad], np.str_),
            "weights": np.array(json.dumps(weights)),
            "settings": np.array(json.dumps(settings)),
        }
        if "positions" in self._columns:
            arrays["offsets"] = np.concatenate([[0], np.cumsum(n_tokens, dtype=np.int64)])
        with (
            atomic_write(self.path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            for name, column in self._columns.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    column.copy_to(member)

    def _append(self, name: str, rows: Shaped[np.ndarray, "n ..."]) -> None:
        if name not in self._columns:
            self._columns[name] = _Column(self.path.parent, rows)
        self._columns[name].append(rows)


class _Column:
    """One growing array, in an unlinked file that vanishes with the process."""

    def __init__(self, folder: Path, like: Shaped[np.ndarray, "n ..."]) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (FeatureFile closes it)
        self._dtype, self._row_shape, self._n = like.dtype, like.shape[1:], 0

    def append(self, rows: Shaped[np.ndarray, "n ..."]) -> None:
        assert rows.dtype == self._dtype and rows.shape[1:] == self._row_shape
        self.file.write(np.ascontiguousarray(rows).tobytes())
        self._n += len(rows)

    def copy_to(self, member: Any) -> None:
        """Writes the array in numpy's format to an open file."""
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._n, *self._row_shape)}
        np.lib.format.write_array_header_1_0(member, header)
        self.file.seek(0)
        shutil.copyfileobj(self.file, member, 1 << 20)
