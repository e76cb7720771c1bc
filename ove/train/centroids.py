"""A new run whose banks begin with centers from files."""

from pathlib import Path

from jax.sharding import Mesh

from ove.centers.files import read_rows
from ove.config import RunConfig
from ove.train.init import TrainState
from ove.train.sharding import placement


def take_centroids(state: TrainState, config: RunConfig, n_centers: dict[str, int], mesh: Mesh) -> TrainState:
    """The state with the rows of every bank whose head names `centroids` read from there; BadInput if they do not fit."""
    banks, place = dict(state.banks), placement(mesh)
    for head in config.batches.heads:
        if head.centroids:
            bank, sharding = banks[head.bank], place.sharding(place.rows)
            bank.rows.delete()  # makes room on the devices before the others come
            n, width = n_centers[head.bank], config.encoder.embedding_width
            rows = read_rows(Path(head.centroids), n, width, sharding, place.n_shards)
            banks[head.bank] = bank._replace(rows=rows)
    return state._replace(banks=banks)
