"""The shards of a study: the probe's, or others written from the same videos with other settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ove.config import ProbeConfig, SelectionConfig, ShardsConfig, StudyConfig, VideoConfig
from ove.config.mapping import from_mapping, merged, to_mapping
from ove.config.probe import parse_option
from ove.errors import ConfigError
from ove.files import digest
from ove.probing.compare import view_of
from ove.shards.joined import Shards, open_shards
from ove.shards.make import write_source
from ove.shards.shard_set import ShardSet
from ove.shards.write import WriteProgress
from ove.stream.modes import TokenView

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """The inputs of every study."""

    config: StudyConfig
    out: Path
    """Folder of tables, cached scores and shards of options."""
    tell: Tell
    progress: Callable[[WriteProgress], None] = lambda progress: None
    """Of writing shards."""

    @property
    def probe(self) -> ProbeConfig:
        """Probe settings of all studies but the budget sweep: one budget, mode codec, given weights only."""
        return replace(self.config.probe, budgets=(self.config.budget_tokens,), modes=("codec",), untrained=False)

    def with_option(self, option: str, need_train: bool = True) -> ProbeConfig:
        """Returns `probe` with an option: other selection settings, or other shards, which are written if missing.

        ConfigError for an unknown key or a wrong value, or if the videos are needed and not named.
        """
        values = parse_option(option)
        chosen = merged(to_mapping(self.probe.selection), values.pop("selection", {}))
        config = replace(self.probe, selection=from_mapping(SelectionConfig, chosen, f"option {option!r}: "))
        if not values:
            return config
        sections = _made_with(self.probe.val_shards)
        made = from_mapping(VideoConfig, sections["video"])
        video = from_mapping(VideoConfig, merged(to_mapping(made), values), f"option {option!r}: ")
        if video == made:
            return config
        sections = {"video": to_mapping(video), "shards": sections["shards"]}
        val = self._written(self.config.val_videos, "val", sections, option)
        train = self._written(self.config.train_videos, "train", sections, option) if need_train else config.train_shards
        return replace(config, train_shards=train, val_shards=val)

    def choices(self, option: str) -> tuple[Shards, TokenView]:
        """Returns the validation shards and the view of an option."""
        config = self.with_option(option, need_train=False)
        return open_shards(config.val_shards), view_of(config, self.config.budget_tokens)

    def _written(self, videos: str, split: str, sections: Mapping[str, Mapping[str, Any]], option: str) -> str:
        if not videos:
            raise ConfigError(f"option {option!r} needs other shards; name the videos of the probe's in {split}_videos.")
        folder = self.out / "shards" / digest(sections)[:12] / split
        self.tell(f"shards for {option}: {folder}")
        video = from_mapping(VideoConfig, sections["video"], "video.")
        shards = from_mapping(ShardsConfig, sections["shards"], "shards.")
        summary = write_source("video", Path(videos), folder, video, shards, self.progress)
        earlier = f" ({summary.n_earlier} files were done already)" if summary.n_earlier else ""
        self.tell(f"{summary.n_good} good, {len(summary.bad)} bad; {summary.n_shards} shards in {folder}{earlier}")
        return str(folder)


def _made_with(folders: str | Sequence[str]) -> Mapping[str, Any]:
    """Returns the sections `video` and `shards` that a folder, or each of several, was written with."""
    given = (folders,) if isinstance(folders, str) else tuple(folders)
    found = [ShardSet.open(folder).manifest.made_with for folder in given]
    for folder, made in zip(given, found, strict=True):
        if not all(isinstance(made.get(section), dict) for section in ("video", "shards")):
            raise ConfigError(f"{folder}: does not tell how it was made, so no option can be tried; write it anew.")
        if any(made[section] != found[0][section] for section in ("video", "shards")):
            raise ConfigError(f"{given[0]} and {folder} were written with other settings, so no option can be tried on both.")
    return found[0]


def called(option: str, base: str = "as configured") -> str:
    """Returns an option in words."""
    words = option.replace("selection.", "").replace("_", " ").replace("=", ": ").replace(",", ", ").replace("  ", " ")
    return words or base
