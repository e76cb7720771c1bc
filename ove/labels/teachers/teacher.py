"""Teachers: frozen models, or a stand-in, that turn pictures and clips into embeddings."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float32, UInt8

from ove.config import LabelsConfig
from ove.encoder.published import load
from ove.encoder.published.weight_files import find_weights
from ove.errors import ConfigError
from ove.files import sha256_of
from ove.labels.clusters.points import unit
from ove.labels.clusters.search import ROW_AXIS, row_mesh
from ove.labels.teachers.clip_files import load_clip
from ove.labels.teachers.preprocess import cut
from ove.labels.teachers.thumbnails import thumbnail_image, thumbnails
from ove.named import named, own_source

CLIP_FRAMES = 8
"""Uniform frames of a clip (paper: 8)."""


@runtime_checkable
class Teacher(Protocol):
    """A frozen model: prepares samples in threads, then embeds many at once. Pictures are RGB."""

    pictures_at_once: int
    """Pictures, or frames of clips, that are best given to `embed` at a time."""
    pictures_a_clip: int
    """How many of them a clip makes."""

    def frames(self, n_frames: int) -> Sequence[int]:
        """Returns the frames of a clip of `n_frames` that it looks at."""

    def prepare(self, pictures: UInt8[np.ndarray, "n H W 3"], clip: bool) -> np.ndarray:
        """Returns what `embed` needs of those frames of a clip, or of one picture; ConfigError if they are too few."""

    def embed(self, prepared: Sequence[np.ndarray]) -> Float32[np.ndarray, "B E"]:
        """Returns the embeddings of some samples, of any length, from what `prepare` returned for each."""


class Thumbnails:
    """The stand-in without weights (`ove.labels.teachers.thumbnails`); all its work is preparation."""

    pictures_at_once = 64
    pictures_a_clip = 1

    def frames(self, n_frames: int) -> Sequence[int]:
        """All."""
        return range(n_frames)

    def prepare(self, pictures: UInt8[np.ndarray, "n H W 3"], clip: bool) -> np.ndarray:
        """The embedding itself."""
        return thumbnails(pictures) if clip else thumbnail_image(pictures[0])

    def embed(self, prepared: Sequence[np.ndarray]) -> Float32[np.ndarray, "B E"]:
        """See `Teacher`."""
        return np.stack(prepared)


class Tower:
    """A network that embeds single pictures; of a clip 8 uniform ones, L2-normalised, concatenated, L2-normalised (spec §5)."""

    def __init__(self, size_px: int, model: nnx.Module, run: Callable[[Any, jax.Array], jax.Array], batch_size: int) -> None:
        """`run(model, pictures)` embeds; each device of this process has a copy of the model, for `batch_size` pictures."""
        mesh = row_mesh(jax.local_devices())
        self.pictures_at_once = batch_size * mesh.devices.size
        self.pictures_a_clip = CLIP_FRAMES
        self._size_px = size_px
        self._sharding = NamedSharding(mesh, PartitionSpec(ROW_AXIS))
        graphdef, state = nnx.split(model)
        self._state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        self._run = jax.jit(lambda state, pictures: run(nnx.merge(graphdef, state), pictures))

    def frames(self, n_frames: int) -> Sequence[int]:
        """8 uniform ones, first and last included; some repeat in clips of fewer."""
        return np.linspace(0, n_frames - 1, CLIP_FRAMES).astype(int).tolist()

    def prepare(self, pictures: UInt8[np.ndarray, "n H W 3"], clip: bool) -> np.ndarray:
        """The pictures, cut to the size that the network sees."""
        return np.stack([cut(picture, self._size_px) for picture in pictures])

    def embed(self, prepared: Sequence[np.ndarray]) -> Float32[np.ndarray, "B E"]:
        """Pictures go through the network in batches of one size, the last filled up."""
        pictures = np.concatenate(prepared)
        at_once = self.pictures_at_once
        found = []
        for start in range(0, len(pictures), at_once):
            batch = pictures[start : start + at_once]
            padded = np.concatenate([batch, np.zeros((at_once - len(batch), *batch.shape[1:]), np.uint8)])
            found.append(self._run(self._state, jax.device_put(padded, self._sharding))[: len(batch)])
        each = unit(np.concatenate([np.asarray(part) for part in found]))
        return unit(rearrange(each, "(b n) e -> b (n e)", b=len(prepared)))


def make_teacher(config: LabelsConfig) -> Teacher:
    """The teacher of a configuration; BadCheckpoint if its weights cannot be used, ConfigError for one's own that is none."""
    teacher = named(TEACHERS, config.teacher, "labels.teacher")(config)
    if not isinstance(teacher, Teacher):
        raise ConfigError(
            f"labels.teacher = {config.teacher!r} returned {type(teacher).__name__}, not a Teacher (docs/extending.md)."
        )
    return teacher


def _clip(config: LabelsConfig) -> Tower:
    tower, dtype = load_clip(Path(config.weights), config.compute), jnp.dtype(config.compute)
    return Tower(tower.config.image_px, tower, lambda t, pictures: t(pictures, dtype), config.batch_size)


def _ove(config: LabelsConfig) -> Tower:
    folder = Path(config.weights)
    encoder = load(folder, config.compute)
    if not encoder.config.pooling_head:
        raise ConfigError(f"{folder}: this encoder has no pooling head, so it has no embedding; take one that has.")
    if config.size_px % encoder.config.patch_px:
        raise ConfigError(
            f"labels.size_px = {config.size_px} is not a multiple of the patches of {encoder.config.patch_px} px."
        )
    return Tower(config.size_px, encoder, lambda e, pictures: e.from_pixels(pictures).pooled, config.batch_size)


TEACHERS: dict[str, Callable[[LabelsConfig], Teacher]] = {
    "thumbnails": lambda config: Thumbnails(),
    "clip": _clip,
    "ove": _ove,
}
"""`labels.teacher`: settings → teacher."""


def teacher_identity(config: LabelsConfig) -> dict[str, Any]:
    """Returns all that decides the embeddings, as JSON, without loading weights; BadCheckpoint if ours are missing.

    Of a user's own teacher these are the settings that it may read, its source file, and every file at `weights`.
    """
    if config.teacher == "thumbnails":
        return {"teacher": config.teacher}
    source = own_source(TEACHERS, config.teacher, "labels.teacher")
    identity = {"teacher": config.teacher, "weights": _weights_digest(config), "compute": config.compute}
    return identity | ({} if config.teacher == "clip" else {"size_px": config.size_px}) | source


def _weights_digest(config: LabelsConfig) -> str:
    """Hashes the SHA-256 of each file: of ours config.json and the files of weights, of others all that lie at `weights`."""
    path = Path(config.weights)
    if config.teacher in TEACHERS:
        folder = path if path.is_dir() else path.parent
        files = [folder / "config.json", *sorted({*find_weights(path, lambda name: True).holds.values()})]
    elif config.weights and path.exists():
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
    else:  # none, or the name of a model
        return config.weights
    found = hashlib.sha256()
    for file in files:
        if file.is_file():
            found.update(bytes.fromhex(sha256_of(file)))
    return found.hexdigest()
