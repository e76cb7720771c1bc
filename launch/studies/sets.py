"""The shards that a study looks at: those of the probe, or others written from the same videos with other settings."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launch import shards as launch_shards
from ove.batches.modes import View
from ove.config import ProbeConfig, StudyConfig, VideoConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.config.study import CHOICE, parse_option
from ove.errors import ConfigError
from ove.probe.compare import view_of
from ove.shards.manifest import digest
from ove.shards.read import ShardSet

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """What every study gets."""

    config: StudyConfig
    out: Path
    """Where tables go; scores that are kept and shards of options lie in folders of it."""
    tell: Tell

    @property
    def probe(self) -> ProbeConfig:
        """The probe's settings at the budget of all studies but the sweep, of the trained encoder alone."""
        return replace(self.config.probe, budgets=(self.config.budget_tokens,), modes=("codec",), untrained=False)

    def with_option(self, option: str, need_train: bool = True) -> ProbeConfig:
        """The same with an option: other keys of the choice, or other shards, which are written where they are not there yet.

        ConfigError for an unknown key or a wrong value, or if the videos are needed and not told.
        """
        made = _made_with(self.probe.val_shards)
        values = parse_option(option)
        video = to_mapping(from_mapping(VideoConfig, made | values, f"option {option!r}: "))
        config = replace(self.probe, **{key: video[key] for key in values if key in CHOICE})
        if all(video[key] == made[key] for key in values if key not in CHOICE):
            return config
        video |= {key: made[key] for key in CHOICE}
        name = digest(video)[:12]
        val = self._written(self.config.val_videos, "val", name, video, option)
        train = self._written(self.config.train_videos, "train", name, video, option) if need_train else config.train_shards
        return replace(config, train_shards=train, val_shards=val)

    def choices(self, option: str) -> tuple[ShardSet, View]:
        """The validation videos and the way to choose that an option stands for."""
        config = self.with_option(option, need_train=False)
        return ShardSet.open(config.val_shards), view_of(config, self.config.budget_tokens)

    def _written(self, videos: str, split: str, name: str, video: dict[str, Any], option: str) -> str:
        if not videos:
            raise ConfigError(f"option {option!r} needs other shards; name the videos of the probe's in {split}_videos.")
        folder = self.out / "shards" / name / split
        self.tell(f"shards for {option}: {folder}")
        words = [word for key, value in video.items() for word in ("--set", f"video.{key}={value}")]
        launch_shards.main(["--videos", videos, "--out", str(folder), *words])
        return str(folder)


def _made_with(folder: str) -> dict[str, Any]:
    """The video section that shards were written with."""
    made = ShardSet.open(folder).manifest.made_with.get("video")
    if not isinstance(made, dict):
        raise ConfigError(f"{folder}: does not tell how its signals were made, so no option can be tried; write it anew.")
    return dict(made)


def called(option: str, base: str = "as configured") -> str:
    """An option in words."""
    return option.replace("_", " ").replace("=", ": ").replace(",", ", ").replace("  ", " ") if option else base
