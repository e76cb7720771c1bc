"""A new run that starts from the encoder of another run, from published weights, or with centers from files."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ove.centers.center_files import read_rows
from ove.config import EncoderConfig, RunConfig
from ove.encoder import published
from ove.encoder.encoder import Params
from ove.errors import ConfigError
from ove.train.checkpoints.checkpoint import restore_encoder
from ove.train.init import TrainState
from ove.train.sharding import leaf_name, placement

_MUST_AGREE = ("layers", "width", "heads", "mlp", "patch_px", "norm", "norm_eps", "rope", "rope_theta", "pooling_head")
_PROJECTION = "pool/project/kernel"


def load_encoder(state: TrainState, config: RunConfig, shardings: TrainState) -> TrainState:
    """Replaces the encoder's parameters by those of `config.train.init_from`, if that is given; all else stays as it is.

    A projection of the embedding belongs to the banks: it is taken over only where both have one of the same shape. ConfigError
    if the encoders differ in a setting that decides what their parameters mean, BadCheckpoint if there is none to be read.
    """
    if not config.train.init_from:
        return state
    source = Path(config.train.init_from)
    found, params = _read(source)
    differing = [
        f"encoder.{key} = {getattr(found, key)!r}, not {getattr(config.encoder, key)!r}"
        for key in _MUST_AGREE
        if getattr(found, key) != getattr(config.encoder, key)
    ]
    if differing:
        raise ConfigError(
            f"train.init_from = {source}: its encoder has {'; '.join(differing)}. Set these keys as it has them, or begin with "
            "another encoder."
        )
    theirs = {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}

    def replaced(path: Any, ours: jax.Array, sharding: jax.sharding.NamedSharding) -> jax.Array:
        name = leaf_name(path)
        if name == _PROJECTION and (name not in theirs or theirs[name].shape != ours.shape):
            return ours
        values = np.asarray(theirs[name])
        # Each device gets its piece alone, in every process alike.
        return jax.make_array_from_callback(ours.shape, sharding, lambda index: values[index])

    return state._replace(params=jax.tree_util.tree_map_with_path(replaced, state.params, shardings.params))


def _read(source: Path) -> tuple[EncoderConfig, Params]:
    """Reads configuration and parameters of the encoder from the folder of a run, or from a published folder or file."""
    if not source.exists():
        raise ConfigError(
            f"train.init_from = {source}: no such file or folder; give the --workdir of a run, or published weights."
        )
    if (source / "checkpoints").is_dir():
        config, params, _ = restore_encoder(source)
        return config, params
    encoder = published.load(source)
    return encoder.config, nnx.to_pure_dict(nnx.state(encoder, nnx.Param))


def load_centroids(state: TrainState, config: RunConfig, n_centers: dict[str, int], mesh: Mesh) -> TrainState:
    """Replaces the rows of every bank whose head names `centroids` by those; BadInput if they do not fit."""
    banks, place = dict(state.banks), placement(mesh)
    for head in config.batches.heads:
        if head.centroids:
            bank, sharding = banks[head.bank], place.sharding(place.rows)
            bank.rows.delete()  # makes room on the devices before the others come
            n, width = n_centers[head.bank], config.encoder.embedding_width
            rows = read_rows(Path(head.centroids), n, width, sharding, place.n_shards)
            banks[head.bank] = bank._replace(rows=rows)
    return state._replace(banks=banks)
