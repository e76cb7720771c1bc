"""Reads rows of bytes with TensorFlow: TFRecord, Parquet, Avro, LMDB, HDF5, and single files on its file systems."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf
import tensorflow_io as tfio
from tensorflow_io.python.ops import core_ops

_READ_BYTES = 64 << 20
"""Bytes per call to a reader: fast, and bounded when rows are whole videos."""
_MOST_ROWS = 1024


class CannotRead(Exception):
    """The data set does not fit the command; users see the message."""


@dataclass(frozen=True)
class Columns:
    """The columns to read."""

    data: str
    """The column of the picture or the video."""
    label: str | None
    key: str | None


@dataclass(frozen=True)
class Row:
    """One record; labels and keys are words or integers."""

    data: bytes
    label: Any = None
    key: Any = None


Doing = Callable[[str], None]
"""Records what is about to be read, so that the parent process can say where a reader crashed."""
RowReader = Callable[[str, Columns, int, Doing], Iterator[Row]]
"""(URI, columns, rows to skip, doing) → the rows after those, in order."""


def tfrecord_rows(uri: str, columns: Columns, start: int, doing: Doing) -> Iterator[Row]:
    """Yields the `tf.train.Example`s of a TFRecord file, compressed or not."""
    with tf.io.gfile.GFile(uri, "rb") as handle:
        head = handle.read(2)
    compression = {b"\x1f\x8b": "GZIP", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB", b"\x78\x01": "ZLIB"}.get(head, "")
    for number, data in enumerate(tf.data.TFRecordDataset(uri, compression).skip(start), start):
        doing(f"{uri}, record {number}")
        features = tf.train.Example.FromString(data.numpy()).features.feature
        _need(columns, set(features), f"record {number} of {uri}")
        found = _first(features, columns.data)
        if not isinstance(found, bytes | None):
            raise CannotRead(f"{uri}, record {number}: {columns.data} holds numbers, and the bytes of a file are expected.")
        yield Row(found or b"", _first(features, columns.label), _first(features, columns.key))


def _first(features: Any, name: str | None) -> Any:
    """Returns the first value of a feature; None if it is empty."""
    if name is None or name not in features:
        return None
    kind = features[name].WhichOneof("kind")
    values = getattr(features[name], kind).value if kind else []
    return values[0] if len(values) else None


def parquet_rows(uri: str, columns: Columns, start: int, doing: Doing) -> Iterator[Row]:
    """Yields the rows of a Parquet file; fields of a struct are named `struct.field`."""
    doing(f"{uri}, its header")
    names, shapes, dtypes = core_ops.io_parquet_readable_info(uri, shared=uri, container="parquet")
    spec = zip(names.numpy(), shapes.numpy(), dtypes.numpy(), strict=True)
    about = {n.decode(): (int(s[0]), tf.as_dtype(int(d))) for n, s, d in spec}
    _need(columns, set(about), uri)
    total, rows = about[columns.data][0], 16
    while start < total:
        stop = min(start + rows, total)
        found = {}
        for name in _wanted(columns):
            doing(f"{uri}, column {name}, rows {start} to {stop - 1}")
            found[name] = core_ops.io_parquet_readable_read(
                input=uri,
                shared=uri,
                container="parquet",
                component=name,
                shape=[total],
                start=start,
                stop=stop,
                dtype=about[name][1],
            ).numpy()
        if about[columns.data][1] != tf.string:
            raise CannotRead(f"{uri}: column {columns.data} holds {about[columns.data][1].name}, and bytes are expected.")
        yield from _rows(found, columns)
        mean = sum(map(len, found[columns.data])) / (stop - start)
        rows = max(1, min(_MOST_ROWS, int(_READ_BYTES / max(mean, 1))))
        start = stop


def avro_rows(uri: str, columns: Columns, start: int, doing: Doing) -> Iterator[Row]:
    """Yields the records of an Avro container file; decodes only the columns asked for."""
    schema = _avro_schema(uri)
    fields = {field["name"]: field["type"] for field in schema.get("fields", [])}
    _need(columns, set(fields), uri)
    features, names = {}, {}
    for name in _wanted(columns):
        kind, optional = _avro_kind(fields[name], name, uri)
        names[name] = f"{name}:{kind}" if optional else name
        dtype = {"int": tf.int32, "long": tf.int64}.get(kind, tf.string)
        missing = ("" if dtype == tf.string else -1) if optional else None
        features[names[name]] = tf.io.FixedLenFeature([], dtype, missing)
    wanted = [field for field in schema["fields"] if field["name"] in names]
    batches = tfio.experimental.columnar.make_avro_record_dataset(
        file_pattern=[uri],
        features=features,
        batch_size=16,
        reader_schema=json.dumps({**schema, "fields": wanted}),
        num_epochs=1,
        shuffle=False,
        prefetch_buffer_size=0,
    )
    done = 0
    doing(f"{uri}, record 0 and what follows")
    for batch in batches:
        found = {name: batch[stored].numpy() for name, stored in names.items()}
        rows = list(_rows(found, columns))
        yield from rows[max(start - done, 0) :]
        done += len(rows)
        doing(f"{uri}, record {done} and what follows")


def _avro_schema(uri: str) -> dict[str, Any]:
    """Reads the writer's schema from the header: a map of names to bytes, lengths as zig-zag varints."""
    with tf.io.gfile.GFile(uri, "rb") as handle:

        def number() -> int:
            value = shift = 0
            while True:
                byte = handle.read(1)
                if not byte:
                    raise CannotRead(f"{uri}: ends within the header of an Avro file.")
                value |= (byte[0] & 127) << shift
                shift += 7
                if byte[0] < 128:
                    return (value >> 1) ^ -(value & 1)

        if handle.read(4) != b"Obj\x01":
            raise CannotRead(f"{uri}: is no Avro container file (it does not begin with Obj and 1).")
        while count := number():
            if count < 0:
                number()
            for _ in range(abs(count)):
                name, value = (handle.read(number()) for _ in range(2))
                if name == b"avro.schema":
                    return json.loads(value)
    raise CannotRead(f"{uri}: an Avro file without a schema.")


def _avro_kind(field: Any, name: str, uri: str) -> tuple[str, bool]:
    """Returns (type, whether it may be null) of a column of bytes, strings or integers."""
    kinds = field if isinstance(field, list) else [field]
    plain = [kind["type"] if isinstance(kind, dict) else kind for kind in kinds if kind != "null"]
    if len(plain) != 1 or plain[0] not in ("bytes", "string", "int", "long", "fixed", "enum"):
        raise CannotRead(f"{uri}: column {name} has the type {json.dumps(field)}; bytes, string, int or long can be read.")
    return plain[0], len(kinds) > 1


def lmdb_rows(uri: str, columns: Columns, start: int, doing: Doing) -> Iterator[Row]:
    """Yields the entries of an LMDB folder or file, values as data; copies remote ones first."""
    doing(f"{uri}, the whole database")
    for key, value in tfio.IODataset.from_lmdb(_local(uri), capacity=16).skip(start):
        yield Row(value.numpy(), None, key.numpy())


def _local(uri: str) -> str:
    """Returns a path that LMDB can map: the given one, or a copy of a remote file in the working folder."""
    inside = f"{uri.rstrip('/')}/data.mdb"
    source = inside if tf.io.gfile.exists(inside) else uri
    if "://" not in source:
        return uri
    copy = Path("copy.mdb")
    with tf.io.gfile.GFile(source, "rb") as remote, copy.open("wb") as handle:
        shutil.copyfileobj(remote, handle, 1 << 24)
    return os.fspath(copy.absolute())


def hdf5_rows(uri: str, columns: Columns, start: int, doing: Doing) -> Iterator[Row]:
    """Yields the entries of HDF5 data sets along the first axis: encoded pictures, or pixels (uint8, gray or RGB) as PNG.

    Reads by h5py over TensorFlow's file systems; tensorflow-io's own reader crashes on data of varying length.
    """
    doing(f"{uri}, its header")
    with tf.io.gfile.GFile(uri, "rb") as handle, h5py.File(handle, "r") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        label, key = (name and name.strip("/") for name in (columns.label, columns.key))
        named = Columns(columns.data.strip("/"), label, key)
        _need(named, set(found), uri)
        total = len(file[named.data])
        for name in _wanted(named):
            if len(file[name]) != total:
                raise CannotRead(
                    f"{uri}: {name} has {len(file[name])} entries and {named.data} {total}; they must go together."
                )
        for number in range(start, total):
            doing(f"{uri}, entry {number}")
            label, key = (None if name is None else file[name][number] for name in (named.label, named.key))
            yield Row(_hdf5_bytes(file[named.data][number], f"{uri}, entry {number} of {named.data}"), label, key)


def _hdf5_bytes(value: Any, where: str) -> bytes:
    """Returns the bytes of an encoded picture; encodes pixels as PNG."""
    if isinstance(value, bytes):
        return value
    if getattr(value, "dtype", None) == "uint8":
        if value.ndim == 1:
            return value.tobytes()
        if value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3)):
            return tf.io.encode_png(value if value.ndim == 3 else value[..., None]).numpy()
    if getattr(value, "dtype", None) is not None and value.dtype.kind == "V":
        return value.tobytes()
    raise CannotRead(
        f"{where}: is {getattr(value, 'dtype', type(value).__name__)} of shape {getattr(value, 'shape', ())}; expected the "
        "bytes of an encoded picture or video, or uint8 pixels of shape (height, width) or (height, width, 1 or 3)."
    )


def file_rows(uri: str, columns: Columns, start: int, doing: Doing) -> Iterator[Row]:
    """Yields a file: its bytes, its folder's name as label, its path as key."""
    if start:
        return
    doing(uri)
    with tf.io.gfile.GFile(uri, "rb") as handle:
        yield Row(handle.read(), os.path.basename(os.path.dirname(uri)) or None, uri.partition("://")[2] or uri)


READERS: dict[str, RowReader] = {
    "tfrecord": tfrecord_rows,
    "parquet": parquet_rows,
    "avro": avro_rows,
    "lmdb": lmdb_rows,
    "hdf5": hdf5_rows,
    "files": file_rows,
}


def _wanted(columns: Columns) -> list[str]:
    return list(dict.fromkeys(name for name in (columns.data, columns.label, columns.key) if name is not None))


def _need(columns: Columns, found: set[str], where: str) -> None:
    missing = [name for name in _wanted(columns) if name not in found]
    if missing:
        raise CannotRead(f"{where}: has no column {' and no '.join(missing)}; it has {', '.join(sorted(found)) or 'none'}.")


def _rows(found: dict[str, Any], columns: Columns) -> Iterator[Row]:
    for number in range(len(found[columns.data])):
        label, key = (None if name is None else found[name][number] for name in (columns.label, columns.key))
        yield Row(found[columns.data][number], label, key)
