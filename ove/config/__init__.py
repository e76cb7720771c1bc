"""Every knob: one frozen dataclass a section, checked when it is made; `mapping` makes them from nested mappings."""

from ove.config.data import BatchesConfig, HeadConfig, RemoteConfig, SelectionConfig, ShardsConfig, VideoConfig, video_preset
from ove.config.labels import EnginesConfig, LabelsConfig, TextConfig
from ove.config.limits import LimitsConfig, bounded_json, limits, read_bounded_json
from ove.config.model import CentersConfig, EncoderConfig
from ove.config.probe import ProbeConfig, StudyConfig
from ove.config.train import BankRates, EvaluationConfig, MeshConfig, RunConfig, TrainConfig

__all__ = [
    "BankRates",
    "BatchesConfig",
    "CentersConfig",
    "EncoderConfig",
    "EnginesConfig",
    "EvaluationConfig",
    "HeadConfig",
    "LabelsConfig",
    "LimitsConfig",
    "MeshConfig",
    "ProbeConfig",
    "RemoteConfig",
    "RunConfig",
    "SelectionConfig",
    "ShardsConfig",
    "StudyConfig",
    "TextConfig",
    "TrainConfig",
    "VideoConfig",
    "bounded_json",
    "limits",
    "read_bounded_json",
    "video_preset",
]
