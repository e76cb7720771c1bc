"""What a published file holds beyond the encoder's parameters, kept so that writing it again gives the same file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ove.config import bounded_json
from ove.encoder.published.weight_files import METADATA, read_safetensors
from ove.errors import BadCheckpoint
from ove.files import atomic_write

_KEY = "origin"
_OLD_NAMES = {"fused": "fused_qkv"}
"""Fields that were called otherwise once, as files still have them."""


@dataclass(frozen=True, eq=False)
class Origin:
    """A static attribute of the encoder; equal to itself only."""

    config: str = field(repr=False)
    """The text of the file's config.json."""
    prefix: str
    """Of the names of the encoder's tensors, for example `model.visual.`."""
    fused_qkv: bool
    """Whether q, k and v of a block are one tensor."""
    dtypes: Mapping[str, str] = field(repr=False)
    """Number type of each of the encoder's tensors, by its name without the prefix."""
    extra_tensors: Mapping[str, Shaped[np.ndarray, "..."]] = field(repr=False)
    """Tensors that the encoder does not need, by name without the prefix."""
    metadata: Mapping[str, str] = field(default_factory=lambda: METADATA)
    """Text entries of the safetensors file."""


def write_origin(origin: Origin, path: Path) -> None:
    """Writes one safetensors file: the extra tensors, and the other fields as a JSON text."""
    rest = {name: value for name, value in vars(origin).items() if name != "extra_tensors"}
    write_tensors(path, origin.extra_tensors, {_KEY: json.dumps(rest)})


def read_origin(path: Path) -> Origin:
    """Reads what `write_origin` wrote; BadCheckpoint if the file is something else."""
    extra_tensors, metadata = read_safetensors(path)
    try:
        fields = {_OLD_NAMES.get(name, name): value for name, value in bounded_json(metadata[_KEY]).items()}
        return Origin(**fields, extra_tensors={name: np.array(tensor) for name, tensor in extra_tensors.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{path}: does not say where weights came from; delete it to go on without.") from error


def write_tensors(path: Path, tensors: Mapping[str, Shaped[np.ndarray, "..."]], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, which replaces `path` once complete; BadCheckpoint if it cannot be written."""
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library would leave a file that only its owner may read
        try:
            save_file(dict(tensors), temporary, dict(metadata) or None)
        except SafetensorError as error:
            raise BadCheckpoint(f"{path}: could not be written ({error}); make room or give another folder.") from error
        temporary.chmod(mode)
