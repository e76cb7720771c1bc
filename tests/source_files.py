"""Pictures as files, and archives of them, written by other code than what reads them."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorboardX.record_writer import RecordWriter

from ove.sources.quarantine import BadFile


def read_quarantine(path: Path) -> list[BadFile]:
    """The entries of a quarantine list; none without a file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [BadFile(**json.loads(line)) for line in lines]


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth RGB picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(rgb: np.ndarray, suffix: str = ".jpg", *options: int) -> bytes:
    """A picture as a file."""
    done, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), list(options))
    assert done
    return data.tobytes()


def write_tar(path: Path, files: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of files in this order."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_tfrecord(path: Path, examples: Sequence[Mapping[str, Any] | bytes]) -> Path:
    """A TFRecord file of Examples (or of the bytes given), by protobuf's own encoder and tensorboardX's framing."""
    writer = RecordWriter(str(path))
    for example in examples:
        writer.write(example if isinstance(example, bytes) else example_bytes(example))
    writer.close()
    return path


def example_bytes(values: Mapping[str, Any]) -> bytes:
    """A tf.train.Example of bytes, text, floats or integers, or of lists of them."""
    message = _EXAMPLE()
    for name, value in values.items():
        feature = message.features.feature[name]
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, (bytes, str)):
                feature.bytes_list.value.append(one if isinstance(one, bytes) else one.encode())
            elif isinstance(one, float):
                feature.float_list.value.append(one)
            else:
                feature.int64_list.value.append(one)
    return message.SerializeToString()


def _example_class() -> Any:
    """tf.train.Example, described anew."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="test", syntax="proto3")
    for name, scalar in (("BytesList", kind.TYPE_BYTES), ("FloatList", kind.TYPE_FLOAT), ("Int64List", kind.TYPE_INT64)):
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, type=scalar, label=kind.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), 1):
        field = name.lower().replace("list", "_list")
        feature.field.add(
            name=field,
            number=number,
            type=kind.TYPE_MESSAGE,
            type_name=f".test.{name}",
            label=kind.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kind.TYPE_MESSAGE, type_name=".test.Feature", label=kind.LABEL_OPTIONAL)
    features.field.add(
        name="feature", number=1, type=kind.TYPE_MESSAGE, type_name=".test.Features.FeatureEntry", label=kind.LABEL_REPEATED
    )
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=kind.TYPE_MESSAGE, type_name=".test.Features", label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Example"))


_EXAMPLE = _example_class()
