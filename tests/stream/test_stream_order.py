"""Which record comes at which place: every one once an epoch, sources in exact proportions, the same whoever asks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ove.errors import ConfigError
from ove.stream.order import Order, schedule


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 2**40), st.data())
def test_every_source_is_gone_through_once_an_epoch_in_its_share(lengths: list[int], seed: int, data: st.DataObject) -> None:
    shares = [float(data.draw(st.integers(1, 9))) for _ in lengths]
    order = Order(lengths, shares, (seed,))
    draws = [order[place] for place in range(400)]
    for source, length in enumerate(lengths):
        own = [draw for draw in draws if draw.source == source]
        assert [draw.sample_index for draw in own] == list(range(len(own)))
        for start in range(0, len(own) - length + 1, length):
            epoch = own[start : start + length]
            assert sorted(draw.item for draw in epoch) == list(range(length))
            assert {draw.epoch for draw in epoch} == {start // length}
    for places in (17, 100, 400):
        for source, share in enumerate(shares):
            assert abs(sum(draw.source == source for draw in draws[:places]) - places * share / sum(shares)) < 1


def test_epochs_seeds_and_sources_are_shuffled_differently() -> None:
    length, epochs, seeds = 50, 4, (0, 1, 2, 3, 2**32 - 1)
    runs = set()
    for seed in seeds:
        order = Order([length, length], [1.0, 1.0], (seed,))
        draws = [order[place] for place in range(2 * epochs * length)]
        for source in (0, 1):
            items = [draw.item for draw in draws if draw.source == source]
            runs |= {tuple(items[epoch * length : (epoch + 1) * length]) for epoch in range(epochs)}
    assert len(runs) == 2 * epochs * len(seeds)


def test_large_sources_are_permuted_without_being_held() -> None:
    length = 10**9
    order = Order([length], [1.0], (3,))
    items = [order[place].item for place in (*range(2000), length - 1)]
    assert len(set(items)) == 2001 and 0 <= min(items) < max(items) < length
    assert abs(np.mean(items) / length - 0.5) < 0.05
    assert order[length].epoch == 1


@pytest.mark.parametrize("length", [(1 << 16) + 1, (1 << 16) + 2])
def test_large_sources_are_gone_through_once_an_epoch_in_another_order_each_time(length: int) -> None:
    """From 65,536 records on another shuffle does the work."""
    order, other = (Order([length], [1.0], (seed,)) for seed in (3, 4))
    first, second = ([order[place].item for place in range(epoch * length, (epoch + 1) * length)] for epoch in (0, 1))
    for items in (first, second):
        assert sorted(items) == list(range(length))
    # Of two independent orders about one place is the same.
    assert (np.array(first) == second).sum() < 20
    assert (np.array(first[:2000]) == [other[place].item for place in range(2000)]).sum() < 20
    two = Order([length, length], [1.0, 1.0], (3,))
    assert [two[place].item for place in range(0, 200, 2)] != [two[place].item for place in range(1, 200, 2)]


@pytest.mark.parametrize(
    ("length", "first", "second_epoch_of_another"),
    [
        (1000, [90, 154, 691, 660, 477], [138, 23]),
        (65_535, [65376, 30631, 10207, 53999, 62406], [36102, 41400]),
        (65_536, [29263, 8319, 32990, 62190, 22505], [40889, 51310]),
        (65_537, [28666, 35854, 62634, 51453, 3162], [16116, 4080]),
        (10**9, [891604699, 374552836, 743761129, 619021298, 98605358], [319369141, 464331940]),
    ],
)
def test_a_seed_gives_the_same_order_in_every_version(
    length: int, first: list[int], second_epoch_of_another: list[int]
) -> None:
    """Recorded once: a run that is resumed with a later version, or another grain or NumPy, would else repeat records."""
    order, two = Order([length], [1.0], (3,)), Order([length, length], [1.0, 1.0], (3, 1))
    assert [order[place].item for place in range(5)] == first
    assert [two[2 * length + place].item for place in (1, 3)] == second_epoch_of_another


def test_shares_that_are_no_simple_proportions_are_refused() -> None:
    assert len(schedule((1 / 3, 2 / 3))) == 3
    assert len(schedule((0.34, 0.33, 0.33))) == 100
    assert len(schedule((0.001, 0.999))) == 1000
    for shares in ((2**0.5, 3**0.5, 1.0), (1.0, 1998.0), (2.0, 999.0), (0.50002, 0.49998)):
        with pytest.raises(ConfigError, match="no simple proportions; give whole numbers"):
            schedule(shares)
