"""Encodes the tokens of many files: packs them into batches of bounded shapes, reads files ahead."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32

from ove.config import EncoderConfig
from ove.encoder import encoder, published
from ove.encoder.published.hub import local_weights
from ove.errors import BadCheckpoint, ConfigError
from ove.tokens.packing import BatchShapes, PackingPlan, batches, fill, unpack_pooled, unpack_sequences
from ove.tokens.preprocessing import read_preprocessing
from ove.tokens.read import InputConfig, Tokens
from ove.train.checkpoints.checkpoint import restore_encoder


@dataclass(frozen=True)
class Weights:
    """A loaded encoder."""

    config: EncoderConfig
    params: encoder.Params
    step: int | None
    """Training step of a run's checkpoint; None for published weights."""
    inputs: InputConfig | None = None
    """How the samples that it was trained on were made; None where the files do not say."""


def params_fingerprint(params: Any) -> str:
    """Returns a digest of names, shapes and values of parameters, whatever file they came from."""
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda item: str(item[0])):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype.name}{list(value.shape)}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


def is_run(path: Path) -> bool:
    """Returns whether a folder is that of a training run."""
    return (path / "checkpoints").is_dir()


def open_weights(name: Path | str, compute: Literal["float32", "bfloat16"] = "float32", revision: str | None = None) -> Weights:
    """Opens the encoder of a published folder or file, of a run's newest checkpoint, or of a model on the hub.

    Parameters are float32, activations of type `compute`. BadCheckpoint if there is no encoder; errors of `local_weights`.
    """
    path = local_weights(name, revision)
    if is_run(path):
        config, params, step = restore_encoder(path)
        return Weights(dataclasses.replace(config, compute=compute), params, step, read_preprocessing(path))
    if is_run(path / "train") and not published.holds_weights(path):
        raise BadCheckpoint(f"{path}: is no run itself, but holds one; give {path / 'train'}.")
    if not path.exists():
        raise BadCheckpoint(
            f"{path}: no such weights; give a folder with config.json and model.safetensors, a file of weights, the "
            "folder of a training run, or ORGANISATION/MODEL on the Hugging Face hub."
        )
    model = published.load(path)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    inputs = read_preprocessing(path if path.is_dir() else path.parent)
    return Weights(dataclasses.replace(model.config, compute=compute), params, None, inputs)


@dataclass(frozen=True)
class Outputs:
    """The features to compute for each file."""

    pooled: bool = True
    """One embedding; needs a pooling head."""
    tokens: bool = False
    """All tokens after the last norm (of weights without a head: after the last block)."""
    hidden: int | None = None
    """All tokens after so many blocks, before any further norm; 0: the input of the first block."""

    def check(self, config: EncoderConfig) -> None:
        """Raises ConfigError if an encoder lacks one of them."""
        if self.pooled and not config.pooling_head:
            raise ConfigError(
                "these weights have no pooling head and so give no embedding of a whole file; ask for tokens (--tokens), and "
                "average them yourself if that is what you want."
            )
        if self.hidden is not None and not 0 <= self.hidden <= config.layers:
            raise ConfigError(f"hidden = {self.hidden} must be within 0…{config.layers}, the number of blocks.")
        if not self.pooled and not self.tokens and self.hidden is None:
            raise ConfigError("nothing is asked for; keep embeddings, tokens or a hidden layer.")


@dataclass(frozen=True)
class FileFeatures:
    """The features of one file; None for those not asked for."""

    seen: Tokens
    pooled: Float32[np.ndarray, "D"] | None
    tokens: Float32[np.ndarray, "n D"] | None
    hidden: Float32[np.ndarray, "n D"] | None

    def __repr__(self) -> str:
        parts = {"pooled": self.pooled, "tokens": self.tokens, "hidden": self.hidden}
        shapes = ", ".join(f"{name} {value.shape}" for name, value in parts.items() if value is not None)
        return f"<ove.FileFeatures of {len(self.seen.patches)} patches: {shapes}>"


def encode_sequences(
    weights: Weights,
    sequences: Iterable[Tokens],
    outputs: Outputs,
    *,
    longest: int,
    batch_tokens: int = 16384,
    equal: bool = False,
    after_first: Callable[[], None] = lambda: None,
) -> Iterator[FileFeatures]:
    """Yields the features of each sequence, in order; all local devices share the rows of each batch.

    `longest`: most tokens of a sequence (`equal`: of nearly every one). `batch_tokens`: tokens in the encoder at a time.
    Sequences share rows but do not attend to each other, so features do not depend on neighbours, up to rounding. The next
    batch is packed while one is computed. `after_first` is called once those of the first batch, which compiles, were taken.
    """
    outputs.check(weights.config)
    mesh = Mesh(np.array(jax.local_devices()), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    params = jax.device_put(weights.params, NamedSharding(mesh, PartitionSpec()))
    shapes = BatchShapes(longest, batch_tokens, mesh.size, equal)
    running: tuple[PackingPlan, list[Tokens], dict[str, Array]] | None = None
    n_done = 0
    for plan, items in batches(sequences, lambda item: len(item.patches), shapes):
        patches, positions, segment_ids = fill(plan, [(item.patches, item.positions) for item in items])
        given = jax.device_put((patches, positions, None if plan.is_plain else segment_ids), rows)
        n_segments = None if plan.is_plain else plan.n_segments
        made = _forward(weights.config, outputs, params, *given, n_segments=n_segments)
        if running is not None:
            yield from _unpacked(*running)
            n_done += 1
            if n_done == 1:
                after_first()
        running = plan, items, made
    if running is not None:
        yield from _unpacked(*running)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="n_segments")
def _forward(
    config: EncoderConfig,
    outputs: Outputs,
    params: encoder.Params,
    patches: Array,
    positions: Array,
    segment_ids: Array | None,
    n_segments: int | None,
) -> dict[str, Array]:
    apply = functools.partial(encoder.apply, n_segments=n_segments, return_hidden_states=outputs.hidden is not None)
    made = apply(config, params, patches, positions, segment_ids)
    wanted: dict[str, Any] = {}
    if outputs.pooled:
        wanted["pooled"] = made.pooled
    if outputs.tokens:
        wanted["tokens"] = made.tokens
    if outputs.hidden is not None and made.hidden is not None:
        blocks = made.hidden.before_post_norm
        wanted["hidden"] = blocks[outputs.hidden - 1] if outputs.hidden else made.hidden.after_pre_norm
    return {name: value.astype(jnp.float32) for name, value in wanted.items()}


def _unpacked(plan: PackingPlan, items: list[Tokens], made: dict[str, Array]) -> Iterator[FileFeatures]:
    found: dict[str, Any] = {}
    for name, value in jax.device_get(made).items():
        if name == "pooled":
            found[name] = unpack_pooled(plan, value if value.ndim == 3 else value[:, None])
        else:
            found[name] = unpack_sequences(plan, value)
    for i, item in enumerate(items):
        of_item = {name: found[name][i] if name in found else None for name in ("pooled", "tokens", "hidden")}
        for name, value in of_item.items():
            if value is not None and not np.isfinite(value).all():
                raise BadCheckpoint(f"the {name} of a file are not finite: the weights are damaged, or need compute = float32.")
        yield FileFeatures(item, **of_item)
