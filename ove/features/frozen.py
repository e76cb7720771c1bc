"""Frozen encoders with one interface: training runs, published weights, CLIP vision towers."""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float16, Float32, Int32, UInt8

from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.encoder.published import holds_weights
from ove.encoder.published.hub import local_weights
from ove.errors import BadCheckpoint, ConfigError
from ove.features.from_files import is_run, open_weights, params_fingerprint
from ove.labels.teachers.clip import ClipConfig, tower_skeleton
from ove.labels.teachers.clip_files import is_clip, load_clip
from ove.records import MODES
from ove.tokens.read import InputConfig

Compute = Literal["float32", "bfloat16"]
What = Literal["tokens", "embeddings"]


@dataclass(frozen=True)
class Frozen:
    """An encoder, replicated on all local devices, which share every batch."""

    name: str
    """Its path, and the step of a run."""
    config: Any
    """An `EncoderConfig`, or that of another kind of encoder, with `width`, `norm_eps` and `patch_px`."""
    params: Any
    fingerprint: str
    """Digest of the parameters, the configuration and the compute dtype."""
    compute: Compute
    mesh: Mesh
    part: tuple[int, int] = (0, 1)
    """(index, count): the part of the samples that this process takes."""
    inputs: InputConfig | None = None
    """What it was trained on, where its files say."""

    def check(self, modes: tuple[str, ...]) -> None:
        """Raises ConfigError for modes that are unknown, or that it cannot see."""
        unknown = [mode for mode in modes if mode not in MODES]
        if unknown or not modes:
            raise ConfigError(f"modes = {list(modes)}: name one or more of {', '.join(MODES)}.")

    def untrained(self, seed: int) -> "Frozen":
        """Returns the same network with fresh weights; ConfigError if its initialisation is unknown."""
        params = encoder.init(self.config, jax.random.key(seed))
        return _placed(Frozen, f"untrained, seed {seed}", self.config, params, self.compute, self.part)

    def tokens(self, patches: UInt8[np.ndarray, "B N P"], positions: Int32[np.ndarray, "B N 3"]) -> Float16[Array, "B n D"]:
        """Returns all tokens after the last norm. B must be a multiple of the local devices."""
        return self._made(patches, positions, "tokens")

    def embeddings(self, patches: UInt8[np.ndarray, "B N P"], positions: Int32[np.ndarray, "B N 3"]) -> Float32[Array, "B E"]:
        """Returns a vector per sample: its head's, else the mean of its tokens (CLIP: of its projected frames)."""
        return self._made(patches, positions, "embeddings")

    def _made(self, patches: np.ndarray, positions: np.ndarray, what: What) -> Array:
        return _ours(self.config, what, self.params, *self._rows(patches, positions))

    def _rows(self, *arrays: np.ndarray) -> tuple[Array, ...]:
        """Shards a batch over the local devices."""
        return jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec("rows")))


class FrozenClip(Frozen):
    """A CLIP vision tower, which encodes whole frames and pictures singly."""

    def check(self, modes: tuple[str, ...]) -> None:
        """See `Frozen`."""
        super().check(modes)
        if wrong := set(modes) - {"frames", "image"}:
            raise ConfigError(
                f"{self.name}: a CLIP tower sees only whole frames, so there is no {', '.join(sorted(wrong))}; set modes to "
                "['frames'] or ['image']."
            )

    def untrained(self, seed: int) -> Frozen:
        """See `Frozen`."""
        raise ConfigError(f"{self.name}: has no untrained counterpart; set probe.untrained=False.")

    def _made(self, patches: np.ndarray, positions: np.ndarray, what: What) -> Array:
        rows_columns = int(positions[..., 1].max()) + 1, int(positions[..., 2].max()) + 1
        return _clip(self.config, self.compute, rows_columns, what, self.params, *self._rows(patches))


def open_frozen(path: Path | str, compute: Compute = "float32") -> Frozen:
    """Opens an encoder with the first of OPENERS that fits the path; BadCheckpoint if none does."""
    path = local_weights(path)
    for fits, opener in OPENERS.values():
        if fits(path):
            return opener(path, compute)
    raise BadCheckpoint(f"{path}: {'holds no' if path.exists() else 'no such'} weights; give one of: {', '.join(OPENERS)}.")


def _open_clip(path: Path, compute: Compute) -> Frozen:
    tower = load_clip(path)
    params = nnx.to_pure_dict(nnx.state(tower, nnx.Param))
    return _placed(FrozenClip, f"CLIP tower {path}", tower.config, params, compute)


def _open_ours(path: Path, compute: Compute) -> Frozen:
    weights = open_weights(path, compute)
    name = f"{path}" if weights.step is None else f"step {weights.step} of {path}"
    return replace(_placed(Frozen, f"encoder of {name}", weights.config, weights.params, compute), inputs=weights.inputs)


OPENERS: Mapping[str, tuple[Callable[[Path], bool], Callable[[Path, Compute], Frozen]]] = {
    "the --workdir of a training run": (is_run, _open_ours),
    "the folder of a CLIP vision tower": (is_clip, _open_clip),
    "a folder or file of published weights": (holds_weights, _open_ours),
}
"""Kinds of encoders, in order: whether a path is one, and what opens it."""


def frozen(config: EncoderConfig, params: encoder.Params, name: str = "encoder") -> Frozen:
    """Wraps given parameters; this process takes all samples, whatever others do."""
    return _placed(Frozen, name, config, params, config.compute, (0, 1))


def _placed(
    cls: type[Frozen], name: str, config: Any, params: Any, compute: Compute, part: tuple[int, int] | None = None
) -> Frozen:
    kind = hashlib.sha256(f"{params_fingerprint(params)} {config} {compute}".encode()).hexdigest()[:16]
    mesh = Mesh(np.array(jax.local_devices()), ("rows",))
    placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    return cls(name, config, placed, kind, compute, mesh, part or (jax.process_index(), jax.process_count()))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ours(config: EncoderConfig, what: What, params: Any, patches: Array, positions: Array) -> Array:
    made = encoder.apply(config, params, patches, positions)
    if what == "tokens":  # XLA drops the unused head
        return made.tokens.astype(jnp.float16)
    pooled = made.tokens.mean(axis=1) if made.pooled is None else made.pooled
    return pooled.astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _clip(config: ClipConfig, compute: str, grid: tuple[int, int], what: What, params: Any, patches: Array) -> Array:
    """Reassembles whole frames from their patches; the tower encodes each singly."""
    patch_px = math.isqrt(patches.shape[2] // 3)
    frames = rearrange(patches, "b (t y x) (p q c) -> (b t) (y p) (x q) c", y=grid[0], x=grid[1], p=patch_px, q=patch_px)
    if frames.shape[1:3] != (config.image_px, config.image_px):
        sized = jax.image.resize(frames.astype(jnp.float32), (len(frames), config.image_px, config.image_px, 3), "cubic")
        frames = jnp.clip(jnp.round(sized), 0, 255).astype(jnp.uint8)
    tower = nnx.merge(tower_skeleton(config)[0], params)
    x = tower.blocks_of(frames, jnp.dtype(compute))
    if what == "tokens":
        return rearrange(tower.tokens(x), "(b t) n d -> b (t n) d", b=len(patches)).astype(jnp.float16)
    return reduce(tower.embedding(x), "(b t) e -> b e", "mean", b=len(patches))
