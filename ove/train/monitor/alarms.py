"""What a run says aloud when the metrics of a bank look wrong: when it has begun for good, and when it is over for good."""

from collections import defaultdict
from collections.abc import Iterator

from ove.config import RunConfig

PATIENCE = 50
"""Steps in a row after which a collapse, or the end of something, counts."""


class Alarms:
    """Looks at the metrics of every step, and keeps in mind which alarms were given."""

    def __init__(self, config: RunConfig) -> None:
        self._collapse_cosine = config.centers.collapse_cosine
        self._quiet_steps = config.train.warmup_steps
        self._banks = [str(head.bank) for head in config.batches.heads]
        self._given: set[str] = set()
        self._changed_for: dict[str, int] = defaultdict(int)

    def of_step(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """Sentences to report; `values` gets `collapse/BANK`, 1 where the bank's embeddings are nearly all the same, else 0.

        Fresh encoders make nearly the same embedding of everything: nothing is a collapse before the end of the warm-up.
        """
        for bank in self._banks:
            cosine = values[f"embedding_cosine/{bank}"]
            collapsed = cosine > self._collapse_cosine and step > self._quiet_steps
            values[f"collapse/{bank}"] = float(collapsed)
            yield from self._look(
                f"collapse of {bank}",
                collapsed,
                f"ALARM at step {step}: the embeddings of bank {bank} have been nearly all the same for {PATIENCE} steps (mean "
                f"cosine {cosine:.3f}, more than centers.collapse_cosine = {self._collapse_cosine:g}); lower train.lr.",
                step,
                PATIENCE,
            )
            lost = values[f"positive_overflow/{bank}"]
            yield from self._look(
                f"overflow of {bank}",
                lost > 0,
                f"ALARM at step {step}: {lost:.0f} positives of bank {bank} had no room and were left out; raise "
                "centers.positives_capacity, or set it to 0.",
                step,
                1,
            )

    def _look(self, name: str, is_on: bool, words: str, step: int, patience: int) -> Iterator[str]:
        """Yields `words` when something has been on for `patience` steps, and that it is over after PATIENCE steps without."""
        is_given = name in self._given
        self._changed_for[name] = self._changed_for[name] + 1 if is_on != is_given else 0
        if self._changed_for[name] >= (PATIENCE if is_given else patience):
            self._changed_for[name] = 0
            self._given ^= {name}
            yield f"step {step}: {name} is over." if is_given else words
