"""The benchmarks of the paper's probes, with the readers of their annotations and the training settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ove.probing.annotations.match import Table
from ove.probing.annotations.spans import charades_ego, epic_kitchens, perception_test
from ove.probing.annotations.whole_videos import diving48, hmdb51, kinetics400, something_something


@dataclass(frozen=True)
class Benchmark:
    """One benchmark and the paper's settings for it (spec §6)."""

    title: str
    classes: int
    epochs: int
    batch_size: int
    read: Callable[..., Table]
    """(folder of annotations, "train" or "val", further `options`) → rows of that split."""
    options: tuple[str, ...] = ()


BENCHMARKS: Mapping[str, Benchmark] = {
    "ssv2": Benchmark("Something-Something V2", 174, 10, 32, something_something),
    "diving48": Benchmark("Diving48", 48, 30, 32, diving48),
    "perception_test": Benchmark("Perception Test", 63, 30, 32, perception_test),
    "charades_ego": Benchmark("Charades-Ego", 157, 10, 128, charades_ego, ("view",)),
    "epic_verb": Benchmark("EPIC-KITCHENS-100, verbs", 97, 10, 128, partial(epic_kitchens, target="verb")),
    "epic_noun": Benchmark("EPIC-KITCHENS-100, nouns", 300, 10, 128, partial(epic_kitchens, target="noun")),
    "k400": Benchmark("Kinetics-400", 400, 10, 128, kinetics400),
    "hmdb51": Benchmark("HMDB51", 51, 30, 16, hmdb51, ("fold",)),
}
