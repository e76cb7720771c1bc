"""Every knob: one frozen dataclass a folder; `mapping` makes them from nested mappings."""

from ove.config.batches import BatchesConfig, HeadConfig
from ove.config.centers import CentersConfig
from ove.config.encoder import EncoderConfig
from ove.config.engines import EnginesConfig
from ove.config.evaluation import EvaluationConfig
from ove.config.labels import LabelsConfig
from ove.config.mesh import MeshConfig
from ove.config.probe import ProbeConfig
from ove.config.shards import ShardsConfig
from ove.config.study import StudyConfig
from ove.config.text import TextConfig
from ove.config.train import RunConfig, TrainConfig
from ove.config.video import VideoConfig, video_preset

__all__ = [
    "BatchesConfig",
    "CentersConfig",
    "EncoderConfig",
    "EnginesConfig",
    "EvaluationConfig",
    "HeadConfig",
    "LabelsConfig",
    "MeshConfig",
    "ProbeConfig",
    "RunConfig",
    "ShardsConfig",
    "StudyConfig",
    "TextConfig",
    "TrainConfig",
    "VideoConfig",
    "video_preset",
]
