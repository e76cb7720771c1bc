"""What a run says aloud when the metrics of a bank look wrong: once when it begins, and once when it is over."""

from collections.abc import Iterator

from ove.config import RunConfig


class Alarms:
    """Looks at the metrics of every step, and keeps in mind which alarms were given."""

    def __init__(self, config: RunConfig) -> None:
        self._collapse_cosine = config.centers.collapse_cosine
        self._quiet_steps = config.train.warmup_steps
        self._banks = [str(head.bank) for head in config.batches.heads]
        self._given: set[str] = set()

    def of_step(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """Sentences to report; `values` gets `collapse/BANK`, 1 while the bank's embeddings are nearly all the same, else 0.

        Fresh encoders make nearly the same embedding of everything, so a collapse is reported only after the warm-up.
        """
        for bank in self._banks:
            cosine = values[f"embedding_cosine/{bank}"]
            collapsed = cosine > self._collapse_cosine and step > self._quiet_steps
            values[f"collapse/{bank}"] = float(collapsed)
            yield from self._changed(
                f"collapse of {bank}",
                collapsed,
                f"ALARM at step {step}: the embeddings of bank {bank} are nearly all the same (mean cosine {cosine:.3f}, more "
                f"than centers.collapse_cosine = {self._collapse_cosine:g}); look at row_norm, lower train.lr.",
                step,
            )
            lost = values[f"positive_overflow/{bank}"]
            yield from self._changed(
                f"overflow of {bank}",
                lost > 0,
                f"ALARM at step {step}: {lost:.0f} positives of bank {bank} had no room and were left out; raise "
                "centers.positives_capacity, or set it to 0.",
                step,
            )

    def _changed(self, name: str, is_on: bool, words: str, step: int) -> Iterator[str]:
        if is_on and name not in self._given:
            self._given.add(name)
            yield words
        elif not is_on and name in self._given:
            self._given.remove(name)
            yield f"step {step}: {name} is over."
