"""Probes the encoder during training."""

from ove.config import EncoderConfig, ProbeConfig, RunConfig
from ove.encoder.encoder import Params
from ove.errors import BadShard, ConfigError
from ove.features.frozen import Frozen, frozen
from ove.named import named
from ove.probing.dataset import ProbeDataset
from ove.probing.heads.heads import HEADS
from ove.records import MODES
from ove.shards.joined import open_shards
from ove.stream.modes import TokenView


class OnlineProbe:
    """Computes top-1 on labelled shards, as configured by `RunConfig.evaluation`."""

    def __init__(self, config: RunConfig) -> None:
        """Opens the shards; BadShard or ConfigError, before the run starts, if they are missing, unlabelled or do not fit."""
        self._config = config.evaluation
        wanted = self._config.modes
        if not self._config.train_shards:
            raise ConfigError(
                f"train.eval_every = {config.train.eval_every}, but there is nothing to evaluate on; name labelled shards in "
                "evaluation.train_shards and evaluation.val_shards, or set train.eval_every to 0."
            )
        self._train, self._val = (open_shards(p) for p in (self._config.train_shards, self._config.val_shards))
        self._view = TokenView(config.batches.budget_tokens, config.batches.selection)
        for shards in (self._train, self._val):
            self._view.check(shards.grid_tyx, {MODES.index(mode) for mode in wanted})
        if len(self._train.classes) < 2:
            raise BadShard(
                f"{self._train.folder}: an evaluation needs labels of at least two classes, found {len(self._train.classes)}; "
                "give the videos labels by subfolder or list, and write the shards again."
            )

    def __call__(self, config: EncoderConfig, params: Params) -> dict[str, float]:
        """`PROBE_MODE_top1`, 0…1, for every mode; BadShard for a damaged record or one without a label."""
        encoder = frozen(config, params)
        return {f"{self._config.probe}_{mode}_top1": self._score(encoder, mode) for mode in self._config.modes}

    def _score(self, encoder: Frozen, mode: str) -> float:
        classes = tuple(self._train.classes)
        train, val = (ProbeDataset(shards, classes, mode, self._view) for shards in (self._train, self._val))
        config = ProbeConfig(epochs=self._config.epochs, neighbours=self._config.neighbours)
        head = named(HEADS, self._config.probe, "evaluation.probe")
        return head(encoder, train, val, len(classes), config, lambda done, total: None)[0][0].last.top1
