"""Probes of a frozen encoder, and studies made of them."""

import ast
from dataclasses import dataclass, field
from typing import Any, Literal

from ove.config.data import IframePolicy, SelectionConfig, VideoConfig
from ove.config.mapping import renamed
from ove.config.section import Count, Natural, NonNegative, Own, Section, Share
from ove.errors import ConfigError

Mode = Literal["codec", "frames", "tiling", "image"]
Head = Literal["attentive", "linear", "knn"]
Intervention = Literal["none", "non_motion", "other_video", "shuffle"]
_FIXED = ("selection", "selection.rule", "n_frames", "size_px", "patch_px", "preset")
"""Keys that cannot be options: with them the clips, and so the budgets, would be others."""


@dataclass(frozen=True)
class ProbeConfig(Section):
    """What a frozen encoder is worth on labelled shards (spec §6)."""

    weights: str = ""
    """Folder of a training run, folder or file of published weights, or folder of a CLIP vision tower."""
    train_shards: str | tuple[str, ...] = ""
    """Folder of labelled shards to train probes on, or several, which are joined."""
    val_shards: str | tuple[str, ...] = ""
    """The same to score them on."""
    probe: Head | Own = "attentive"
    """`attentive`: a learned query over all tokens; `linear`: logistic regression on embeddings; `knn`: nothing is trained."""
    modes: tuple[Mode, ...] = ("codec", "frames")
    budgets: tuple[Count, ...] = (2048,)
    """Tokens of a clip; each mode is probed at each of them."""
    interventions: tuple[Intervention | Own, ...] = ("none",)
    """What is done to the codec's patches before the encoder sees them (`ove.probing.interventions`)."""
    untrained: bool = True
    """Also probe the same encoder with fresh weights."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """How the codec's patches are chosen."""
    image_px: Count = 224
    """Shards of pictures (mode image): side of the square that each is cut and brought to; clips keep theirs."""
    features: Literal["memory", "disk", "encode"] = "memory"
    """Tokens are computed once and held in memory, or in files under `cache`, or computed anew whenever they are needed, which
    alone allows augmentation. 2,048 tokens of width 1,024 take 4 MiB a sample."""
    cache: str = ""
    """Folder for `features` = disk; what is found there from earlier runs is used again."""
    jitter: bool = False
    """Training, `features` = encode: frames drawn at random from their intervals (modes frames and tiling)."""
    flip: Share = 0.0
    """Training, `features` = encode: share of the clips that are mirrored. Not where left and right are classes."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the frozen encoder's activations."""
    epochs: Count = 10
    batch_size: Count = 32
    lr: NonNegative = 1e-4
    lr_end: NonNegative = 1e-7
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    neighbours: Count = 20
    """k of `knn`."""
    l2: NonNegative = 1.0
    """Of `linear`: ½·l2·|W|² beside the summed cross-entropy, features scaled to variance 1."""
    seeds: tuple[Natural, ...] = (0,)
    """The attentive probe is trained once with each; fresh weights of `untrained` are those of the first."""

    def check(self) -> None:
        check_folders("probe", self)
        for name in ("modes", "budgets", "interventions", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"probe.{name} is empty; name at least one.")
        if self.features == "disk" and not self.cache:
            raise ConfigError("probe.features = disk needs a folder: set probe.cache.")
        if (self.jitter or self.flip) and self.features != "encode":
            raise ConfigError("probe.jitter and probe.flip need probe.features = encode; stored tokens are always the same.")


def check_folders(section: str, config: Any) -> None:
    """Raises ConfigError for a list of shard folders that is empty or names one twice."""
    for name in ("train_shards", "val_shards"):
        folders = getattr(config, name)
        if isinstance(folders, tuple) and len(set(folders)) < max(len(folders), 1):
            raise ConfigError(f"{section}.{name} = {list(folders)} must be a folder, or several, each once.")


@dataclass(frozen=True)
class StudyConfig(Section):
    """What is studied; `probe` says of which encoder, on which shards, and how its probes are trained."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """`probe.budgets` are those of the study `budget`, `probe.seeds` give the error bars of all."""
    budget_tokens: Count = 2048
    """Tokens of a clip in all other studies."""
    budget_policy: IframePolicy | Own = "first"
    """`iframe_policy` in the study `budget`, at every budget: with `keep`, two whole frames of 64, the smallest budget of
    the paper has nothing left to choose."""
    train_videos: str = ""
    val_videos: str = ""
    """Sources (as `ove shards --videos`) of the probe's shards; for options that change the signals."""
    options: tuple[str, ...] = ()
    """Study `ablation`: each is "KEY=VALUE" of the video section, or several with commas; all else as in the probe's shards."""
    maps: tuple[str, ...] = ("",)
    """Studies `bias` and `allocation`: ways to choose, written alike; "": as in the probe's shards."""

    def check(self) -> None:
        for option in (*self.options, *self.maps):
            parse_option(option)


def parse_option(text: str) -> dict[str, Any]:
    """Parses `selection.iframe_policy=score, w_motion=0` to a mapping of the video section; ConfigError for another form."""
    values: dict[str, Any] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f"the option {text!r} is not of the form KEY=VALUE or KEY=VALUE, KEY=VALUE.")
        if key in _FIXED:
            raise ConfigError(f"the option {text!r}: {key} cannot be an option, for it makes other clips; study it with shards "
                              "and a configuration of its own.")  # fmt: skip
        values[key] = _literal(value)
    return renamed(VideoConfig, values)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
