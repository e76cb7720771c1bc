"""What a published file says beyond the encoder's parameters, kept so that writing it again gives the same file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ove.encoder.published.weight_files import METADATA, read_safetensors
from ove.errors import BadCheckpoint
from ove.files import atomic_write

_KEY = "origin"


@dataclass(frozen=True, eq=False)
class Origin:
    """Lies on the encoder as a static attribute; one is equal to itself only."""

    config: str = field(repr=False)
    """The text of the file's config.json."""
    prefix: str
    """What stands before the names of the encoder's tensors, for example `model.visual.`."""
    fused: bool
    """Whether q, k and v of a block are one tensor."""
    dtypes: Mapping[str, str] = field(repr=False)
    """Of each of the encoder's tensors, by its name without the prefix."""
    aside: Mapping[str, Shaped[np.ndarray, "..."]] = field(repr=False)
    """Tensors beside the encoder that it does not need, by name without the prefix."""
    metadata: Mapping[str, str] = field(default_factory=lambda: METADATA)
    """Texts in the safetensors file."""


def write_origin(origin: Origin, path: Path) -> None:
    """Writes it as one safetensors file: the tensors beside the encoder, and the rest as a text."""
    rest = {name: value for name, value in vars(origin).items() if name != "aside"}
    write_tensors(path, origin.aside, {_KEY: json.dumps(rest)})


def read_origin(path: Path) -> Origin:
    """What `write_origin` wrote; BadCheckpoint if the file is not that."""
    aside, metadata = read_safetensors(path)
    try:
        return Origin(**json.loads(metadata[_KEY]), aside={name: np.array(tensor) for name, tensor in aside.items()})
    except (ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path}: does not say where weights came from; delete it to go on without.") from error


def write_tensors(path: Path, tensors: Mapping[str, Shaped[np.ndarray, "..."]], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, which takes the place of `path` when it is whole."""
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library would leave a file that only its owner may read
        try:
            save_file(dict(tensors), temporary, dict(metadata) or None)
        except SafetensorError as error:
            raise BadCheckpoint(f"{path}: could not be written ({error}); make room or give another folder.") from error
        temporary.chmod(mode)
