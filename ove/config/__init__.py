"""Every knob: one frozen dataclass a folder; `mapping` makes them from nested mappings."""

from ove.config.batches import BatchesConfig, HeadConfig
from ove.config.centers import CentersConfig
from ove.config.encoder import EncoderConfig
from ove.config.evaluation import EvaluationConfig
from ove.config.labels import LabelsConfig
from ove.config.probe import ProbeConfig
from ove.config.shards import ShardsConfig
from ove.config.train import RunConfig, TrainConfig
from ove.config.video import VideoConfig, video_preset

__all__ = [
    "BatchesConfig",
    "CentersConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "HeadConfig",
    "LabelsConfig",
    "ProbeConfig",
    "RunConfig",
    "ShardsConfig",
    "TrainConfig",
    "VideoConfig",
    "video_preset",
]
