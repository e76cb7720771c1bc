"""Encoders under test: runs of ours, published weights, CLIP vision towers; all answer the same two questions."""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from ove.errors import BadCheckpoint, ConfigError
from ove.features.from_files import is_run, open_weights, params_fingerprint
from ove.labels.teachers.clip import ClipConfig, tower_skeleton
from ove.labels.teachers.clip_files import is_clip, load_clip
from ove.records import MODES

Compute = Literal["float32", "bfloat16"]
What = Literal["tokens", "embeddings"]


@dataclass(frozen=True)
class Frozen:
    """An encoder whose parameters lie on all local devices; each takes its part of every batch."""

    name: str
    """What it was opened from, and the step."""
    config: Any
    """An `EncoderConfig`, or what another kind of encoder has, with `width`, `norm_eps` and `patch_px`."""
    params: Any
    fingerprint: str
    """Changes with any parameter, and with the dtype it computes in."""
    compute: Compute
    mesh: Mesh
    part: tuple[int, int] = (0, 1)
    """(number, of how many): which part of the samples this process takes; all processes of a job take theirs together."""

    def check(self, modes: tuple[str, ...]) -> None:
        """ConfigError for modes that there are not, or that it cannot see."""
        unknown = [mode for mode in modes if mode not in MODES]
        if unknown or not modes:
            raise ConfigError(f"modes = {list(modes)}: name one or more of {', '.join(MODES)}.")

    def untrained(self, seed: int) -> "Frozen":
        """The same network with fresh weights; ConfigError if no initialisation is known."""
        params = encoder.init(self.config, jax.random.key(seed))
        return _placed(Frozen, f"untrained, seed {seed}", self.config, params, self.compute, self.part)

    def tokens(self, patches: UInt8[np.ndarray, "B N P"], positions: Int32[np.ndarray, "B N 3"]) -> Float16[Array, "B n D"]:
        """What a probe gets: all tokens after the last norm. B must be a multiple of the local devices."""
        return self._made(patches, positions, "tokens")

    def embeddings(self, patches: UInt8[np.ndarray, "B N P"], positions: Int32[np.ndarray, "B N 3"]) -> Float32[Array, "B E"]:
        """One vector a sample: what its head pools, else the mean of its tokens (of a CLIP tower's projected frames)."""
        return self._made(patches, positions, "embeddings")

    def _made(self, patches: np.ndarray, positions: np.ndarray, what: What) -> Array:
        return _ours(self.config, what, self.params, *self._rows(patches, positions))

    def _rows(self, *arrays: np.ndarray) -> tuple[Array, ...]:
        """Places batches, each device's share on it."""
        return jax.device_put(arrays, NamedSharding(self.mesh, PartitionSpec("rows")))


class FrozenClip(Frozen):
    """A CLIP vision tower, which sees whole frames and pictures, each by itself."""

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


def open_frozen(path: Path, compute: Compute = "float32") -> Frozen:
    """An encoder, by the first of OPENERS that knows what the path holds; BadCheckpoint if none does."""
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
    return _placed(Frozen, f"encoder of {name}", weights.config, weights.params, compute)


OPENERS: Mapping[str, tuple[Callable[[Path], bool], Callable[[Path, Compute], Frozen]]] = {
    "the --workdir of a training run": (is_run, _open_ours),
    "the folder of a CLIP vision tower": (is_clip, _open_clip),
    "a folder or file of published weights": (holds_weights, _open_ours),
}
"""What can be probed, in order: whether a path holds it, and what opens it."""


def frozen(config: EncoderConfig, params: encoder.Params, name: str = "encoder") -> Frozen:
    """An encoder whose parameters are at hand; this process takes all samples, whatever others do."""
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
    if what == "tokens":  # the head, whose result nobody takes, is not computed
        return made.tokens.astype(jnp.float16)
    pooled = made.tokens.mean(axis=1) if made.pooled is None else made.pooled
    return pooled.astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _clip(config: ClipConfig, compute: str, grid: tuple[int, int], what: What, params: Any, patches: Array) -> Array:
    """Whole frames, put together from their patches; each goes through the tower by itself."""
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
