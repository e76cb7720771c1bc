"""Teachers: frozen models, or a stand-in, that turn pictures and clips into embeddings."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float32, UInt8

from ove.config import LabelsConfig
from ove.encoder.encoder import Encoder
from ove.encoder.published import load
from ove.encoder.published.weight_files import find_weights
from ove.errors import ConfigError
from ove.labels.clusters.points import unit
from ove.labels.clusters.search import ROW_AXIS, row_mesh
from ove.labels.teachers.clip import ClipTower
from ove.labels.teachers.clip_files import load_clip
from ove.labels.teachers.preprocess import cut
from ove.labels.teachers.thumbnails import INTERVALS, thumbnail_image, thumbnails

CLIP_FRAMES = 8
"""Uniform frames of a clip (paper: 8)."""


class Thumbnails:
    """The stand-in without weights (`ove.labels.teachers.thumbnails`); all its work is preparation."""

    identity: Mapping[str, Any] = MappingProxyType({"teacher": "thumbnails"})
    """All that decides the embeddings; JSON."""

    pictures_at_once = 64
    """How many pictures are best given to `embed` at a time."""
    pictures_a_clip = 1
    """How many of them a clip makes."""

    def frames(self, n_frames: int) -> Sequence[int]:
        """Which frames of a clip of n it looks at: all; ConfigError if they are too few."""
        if n_frames < INTERVALS:
            raise ConfigError(f"the teacher thumbnails needs at least {INTERVALS} frames a clip, not {n_frames}.")
        return range(n_frames)

    def prepare(self, pictures: UInt8[np.ndarray, "n H W 3"], clip: bool) -> np.ndarray:
        """What `embed` needs of those frames of a clip, or of a single picture: the embedding itself."""
        return thumbnails(pictures) if clip else thumbnail_image(pictures[0])

    def embed(self, prepared: Sequence[np.ndarray]) -> Float32[np.ndarray, "B E"]:
        """The embeddings of some samples from what was prepared of them."""
        return np.stack(prepared)


class Tower:
    """A network that embeds single pictures; of a clip 8 uniform ones, L2-normalised, concatenated, L2-normalised (spec §5)."""

    def __init__(
        self,
        identity: dict[str, Any],
        size_px: int,
        model: ClipTower | Encoder,
        run: Callable[[Any, jax.Array], jax.Array],
        batch_size: int,
    ) -> None:
        """`run(model, pictures)` embeds; each device of this process has a copy of the model, for `batch_size` pictures."""
        mesh = row_mesh(jax.local_devices())
        self.identity = identity
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


Teacher = Thumbnails | Tower
"""Frozen: prepares samples in threads, then embeds many at once."""


def make_teacher(config: LabelsConfig) -> Teacher:
    """The teacher of a configuration; BadCheckpoint if its weights cannot be used."""
    return TEACHERS[config.teacher](config)


def _thumbnails(config: LabelsConfig) -> Thumbnails:
    return Thumbnails()


def _clip(config: LabelsConfig) -> Tower:
    tower, dtype = load_clip(Path(config.weights), config.compute), jnp.dtype(config.compute)
    identity = teacher_identity(config)
    return Tower(identity, tower.config.image_px, tower, lambda t, pictures: t(pictures, dtype), config.batch_size)


def _ove(config: LabelsConfig) -> Tower:
    folder, identity = Path(config.weights), teacher_identity(config)
    encoder = load(folder, config.compute)
    if not encoder.config.pooling_head:
        raise ConfigError(f"{folder}: this encoder has no pooling head, so it has no embedding; take one that has.")
    if config.size_px % encoder.config.patch_px:
        raise ConfigError(
            f"labels.size_px = {config.size_px} is not a multiple of the patches of {encoder.config.patch_px} px."
        )
    return Tower(identity, config.size_px, encoder, lambda e, pictures: e.from_pixels(pictures).pooled, config.batch_size)


TEACHERS: dict[str, Callable[[LabelsConfig], Teacher]] = {"thumbnails": _thumbnails, "clip": _clip, "ove": _ove}
"""`labels.teacher`."""


def teacher_identity(config: LabelsConfig) -> dict[str, Any]:
    """What `make_teacher(config)` has as `identity`, without loading its weights; BadCheckpoint if there are none."""
    if config.teacher == "thumbnails":
        return dict(Thumbnails.identity)
    weights = weights_fingerprint(Path(config.weights))
    identity = {"teacher": config.teacher, "weights": weights, "compute": config.compute}
    return identity | ({"size_px": config.size_px} if config.teacher == "ove" else {})


def weights_fingerprint(path: Path) -> str:
    """What tells a folder of weights from others: the SHA-256 of config.json and of all files of weights, hexadecimal."""
    found = hashlib.sha256()
    files = {*find_weights(path, lambda name: True).holds.values()}
    config = (path if path.is_dir() else path.parent) / "config.json"
    for file in (config, *sorted(files)):
        if file.is_file():
            with file.open("rb") as handle:
                found.update(hashlib.file_digest(handle, "sha256").digest())
    return found.hexdigest()
