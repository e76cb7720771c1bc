"""Groups of labelled files → two parts, each class in the same proportion as far as whole groups allow."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

_MISSING = 100.0
"""Cost of a class that one part lacks; above any other."""
_WORK, _KICKS = 5_000, 60
"""How often groups are moved at random and put right again: the first by the number of groups, at most the second."""
_PAIRS, _PARTNERS = 60, 10
"""With more groups than the first, each is exchanged only with so many others that have a class in common with it."""


class _Parts:
    """Which groups are in the smaller part, with the cost of it."""

    def __init__(self, groups: Sequence[Mapping[str, int]], share: float) -> None:
        self.groups, self.share = groups, share
        self.totals: Counter[str] = sum(map(Counter, groups), Counter())
        self.inside, self.counts = np.zeros(len(groups), bool), Counter[str]()

    def cost(self, name: str, count: int, strict: bool = True) -> float:
        """Returns the squared distance of a class's share, and more if a part has none of it."""
        total = self.totals[name]
        lacking = _MISSING if strict and (count == 0 or count == total) else 0.0
        return (count / total - self.share) ** 2 + lacking

    def gain(self, *flipped: int, strict: bool = True) -> float:
        """Returns by how much the cost falls if these groups change sides."""
        moved: Counter[str] = Counter()
        for number in flipped:
            for name, count in self.groups[number].items():
                moved[name] += -count if self.inside[number] else count
        now = self.counts
        return sum(self.cost(n, now[n], strict) - self.cost(n, now[n] + by, strict) for n, by in moved.items())

    def flip(self, *numbers: int) -> None:
        """Moves groups to the other side."""
        for number in numbers:
            sign = -1 if self.inside[number] else 1
            for name, count in self.groups[number].items():
                self.counts[name] += sign * count
            self.inside[number] ^= True

    def total_cost(self) -> float:
        return sum(self.cost(name, self.counts[name]) for name in self.totals)


def divide(groups: Sequence[Mapping[str, int]], share: float, rng: np.random.Generator) -> np.ndarray:
    """Returns which groups make up a part that holds `share` (0 to 1) of each class as nearly as was found, as flags.

    `groups`: files by class, each. Least is the sum over classes of the squared distance from `share`; no class is left out of
    a part if that can be had. Large groups come first; then groups change sides, alone and in pairs, while it helps; then some
    are moved at random and it is tried again (an iterated local search).
    """
    parts, order = _Parts(groups, share), rng.permutation(len(groups))
    sizes = np.array([sum(group.values()) for group in groups])
    for number in order[np.argsort(-sizes[order], kind="stable")].tolist():
        if parts.gain(number, strict=False) > 0:
            parts.flip(number)
    changes = _changes(groups, order.tolist(), rng)
    _improve(parts, changes)
    best, least = parts.inside.copy(), parts.total_cost()
    for _ in range(min(_KICKS, _WORK // max(len(groups), 1))):
        parts.flip(*rng.choice(len(groups), min(len(groups), int(rng.integers(2, 5))), replace=False).tolist())
        _improve(parts, changes)
        if (cost := parts.total_cost()) < least - 1e-12:
            best, least = parts.inside.copy(), cost
        else:
            parts.flip(*np.flatnonzero(parts.inside != best).tolist())
    return best


def _changes(groups: Sequence[Mapping[str, int]], order: list[int], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Lists the groups, alone, and the pairs of them to exchange."""
    if len(order) <= _PAIRS:
        return [*((number,) for number in order), *itertools.combinations(order, 2)]
    of_class: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        for name in group:
            of_class.setdefault(name, []).append(number)
    partners = (rng.choice(of_class[name], _PARTNERS).tolist() for number in order for name in [max(groups[number])])
    return [(a, *others) for a, found in zip(order, partners, strict=True) for others in [(), *((b,) for b in found)]]


def _improve(parts: _Parts, changes: Sequence[tuple[int, ...]]) -> None:
    """Makes every change that helps, until none does."""
    helped = True
    while helped:
        helped = False
        for numbers in changes:
            if len(numbers) == 2 and parts.inside[numbers[0]] == parts.inside[numbers[1]]:
                continue
            if parts.gain(*numbers) > 1e-12:
                parts.flip(*numbers)
                helped = True
