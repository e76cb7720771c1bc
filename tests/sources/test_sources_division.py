"""Groups divided in two, compared with all divisions there are."""

import itertools

import numpy as np
import pytest

from ove.sources.division import divide


def costs(groups: list[dict[str, int]], inside: np.ndarray, share: float) -> np.ndarray:
    """Of each row of flags: the sum over classes of the squared distance from the share; infinite if a part lacks a class."""
    names = sorted({name for group in groups for name in group})
    counts = np.array([[group.get(name, 0) for name in names] for group in groups])
    of_part, total = inside @ counts, counts.sum(axis=0)
    found = ((of_part / total - share) ** 2).sum(axis=1)
    return np.where(((of_part > 0) & (of_part < total)).all(axis=1), found, np.inf)


def cost(groups: list[dict[str, int]], inside: np.ndarray, share: float) -> float:
    return costs(groups, inside[None], share)[0]


@pytest.mark.parametrize("n_classes", [1, 3])
def test_no_division_of_a_few_groups_is_better_by_much(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    n_best = 0
    for _ in range(12):
        groups = [
            {
                f"class {c}": int(rng.integers(1, 9))
                for c in rng.choice(n_classes, rng.integers(1, n_classes + 1), replace=False)
            }
            for _ in range(8)
        ]
        groups += [{f"class {c}": 1} for c in range(n_classes)] * 2  # so that each class can be in both parts
        share = float(rng.choice([0.1, 0.2, 0.5]))
        least = costs(groups, np.array(list(itertools.product((0, 1), repeat=len(groups)))), share).min()
        found = cost(groups, divide(groups, share, np.random.default_rng(0)), share)
        assert least - 1e-9 <= found <= least + 0.005
        n_best += found < least + 1e-9
    assert n_best >= 11


def test_many_groups_are_divided_almost_exactly_and_by_the_seed() -> None:
    rng = np.random.default_rng(0)
    groups = [{str(rng.integers(20)): int(rng.integers(1, 20))} for _ in range(1000)]
    first, again, other = (divide(groups, 0.2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert cost(groups, first, 0.2) < 20 * 0.004**2
    assert (first == again).all() and (first != other).any()
