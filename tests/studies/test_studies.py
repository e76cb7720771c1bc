"""What studies count: choices against counting by hand, retrieval with known answers, scores that are kept, any devices."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from synthetic import BUDGET, GOP, GRID, RECORDS, frames_of, record_of, write_set

from ove.config import ProbeConfig, SelectionConfig
from ove.errors import ConfigError
from ove.features.frozen import Frozen, open_frozen
from ove.probing import retrieval
from ove.probing.choices import Choices, choices_of
from ove.probing.compare import Comparison, compare
from ove.probing.retrieval import retrieve
from ove.probing.score_cache import ScoreCache
from ove.probing.scores import Accuracy, Scores
from ove.records import CODEC, on_time_grid
from ove.shards.pictures import encode_jpeg
from ove.shards.schema import VideoRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream.modes import TokenView, to_tokens
from ove.video.patches import frames_to_patches

T, ROWS, COLUMNS = GRID


@pytest.mark.parametrize(("policy", "gop"), [("keep", GOP), ("score", GOP), ("first", 2)])
def test_choices_are_those_that_the_encoder_sees(shard_folder: Path, policy: str, gop: int) -> None:
    shards, view = ShardSet.open(shard_folder), TokenView(BUDGET, SelectionConfig("patches", gop, policy))
    found = choices_of(shards, view)
    steps = on_time_grid(np.arange(T), T)
    places, frames = np.zeros((ROWS, COLUMNS)), 0
    for number in range(RECORDS):
        tyx = to_tokens(shards.video(number), CODEC, view, None)[1]
        chosen = np.zeros(GRID, bool)
        chosen[np.searchsorted(steps, tyx[:, 0]), tyx[:, 1], tyx[:, 2]] = True
        np.testing.assert_array_equal(found.tokens[number], chosen.sum(axis=(1, 2)))
        partly = ~chosen.all(axis=(1, 2))
        np.testing.assert_array_equal(found.whole[number], ~partly)
        places += chosen[partly].sum(axis=0)
        frames += int(partly.sum())
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_array_equal(found.chances, np.full((ROWS, COLUMNS), frames))
    np.testing.assert_allclose(found.map(), places / places.mean())
    assert found.map().mean() == pytest.approx(1) and 0.9 < found.evenness() <= 1
    assert found.middle_share_if_even() == 1.0 and (found.in_middle == 1).all()  # of two rows none is at the border


def test_letterboxed_places_have_no_chance_and_one_hot_place_is_uneven(tmp_path: Path) -> None:
    valid = np.array([[True, True], [False, True]])

    def record(file: InputFile) -> VideoRecord:
        saliency = np.zeros(GRID, np.float16)
        saliency[:, 0, 1] = 1
        return dataclasses.replace(record_of(file), valid=valid, saliency=np.where(valid, saliency, np.float16(-1)))

    found = choices_of(
        ShardSet.open(write_set(tmp_path / "boxed", 8, record)),
        TokenView(T, SelectionConfig(gop_frames=GOP, iframe_policy="score")),
    )
    assert math.isnan(found.map()[1, 0]) and found.map()[0, 1] == pytest.approx(3) and found.evenness() == 0
    assert (found.tokens == 1).all() and not found.whole.any()


def test_the_middle_half_is_a_quarter_of_the_picture() -> None:
    chances = np.zeros((4, 8), np.int64)
    chances[:] = 10
    even = Choices(np.ones((1, T), int), np.zeros((1, T), bool), chances, chances, np.array([0.25]))
    assert even.middle_share_if_even() == 0.25 and even.evenness() == pytest.approx(1)
    places = np.zeros((4, 8), np.int64)
    places[1, 2], places[3, 7] = 30, 10
    some = dataclasses.replace(even, places=places)
    share = np.array([0.75, 0.25])
    assert some.evenness() == pytest.approx(-(share * np.log(share)).sum() / np.log(32))
    assert some.map()[1, 2] == pytest.approx(0.75 * 32) and some.map().mean() == pytest.approx(1)
    edge = chances.copy()
    edge[0] = 0  # the upper row is padding
    assert dataclasses.replace(even, chances=edge).middle_share_if_even() == pytest.approx(8 / 24)


def of_four_by_four(file: InputFile) -> VideoRecord:
    """In every frame the same five places are best, three of them in the middle."""
    saliency = np.random.default_rng(int(file.key)).random((T, 4, 4)).astype(np.float16) * np.float16(0.1)
    for y, x in ((1, 2), (2, 1), (1, 1), (0, 1), (2, 3)):
        saliency[:, y, x] = 1
    frame = np.zeros((56, 56, 3), np.uint8)
    return dataclasses.replace(record_of(file), saliency=saliency, size_px=56, frames=[encode_jpeg(frame, 95)] * T)


def test_how_much_is_chosen_in_the_middle(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    shards = ShardSet.open(write_set(tmp_path / "four", 3, of_four_by_four))
    found = choices_of(
        shards, TokenView(5 * T, SelectionConfig(gop_frames=GOP, iframe_policy="score")), lambda *done: told.append(done)
    )
    assert found.in_middle == pytest.approx([0.6] * 3) and found.middle_share_if_even() == 0.25
    assert (found.tokens == 5).all() and not found.whole.any() and (found.chances == 3 * T).all()
    assert found.places[1, 2] == 3 * T and found.places.sum() == 3 * 5 * T and found.evenness() < 0.6
    assert told == [(1, 3), (2, 3), (3, 3)]
    all_whole = choices_of(shards, TokenView(2 * 16, SelectionConfig(gop_frames=GOP)))
    assert np.isnan(all_whole.in_middle).all() and (all_whole.tokens[:, [0, GOP]] == 16).all() and not all_whole.places.any()


class Colour(Frozen):
    """Its embedding is the mean colour."""

    def embeddings(self, patches: np.ndarray, positions: np.ndarray) -> np.ndarray:
        mean = patches.mean(axis=(1, 2), dtype=np.float32)
        angle = mean / 255 * (np.pi / 2)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


class Constant(Frozen):
    """Its embedding is always the same."""

    def embeddings(self, patches: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return np.ones((len(patches), 4), np.float32)


def grey(file: InputFile) -> VideoRecord:
    """Each record has a level of its own, all frames are alike."""
    frame = np.full((28, 28, 3), 10 * int(file.key), np.uint8)
    return dataclasses.replace(record_of(file), frames=[encode_jpeg(frame, 95)] * T)


@pytest.mark.parametrize("parts", retrieval.CLIP_PARTS)
def test_retrieval_of_encoders_whose_answer_is_known(tmp_path: Path, trained_run: Path, parts: retrieval.ClipParts) -> None:
    shards, view = (
        ShardSet.open(write_set(tmp_path / "grey", make=grey, labelled=False)),
        TokenView(BUDGET, SelectionConfig(gop_frames=GOP)),
    )
    values = vars(open_frozen(trained_run))

    def silent(done: int, total: int) -> None:
        pass

    found = retrieve(Colour(**values), shards, view, parts, silent)
    assert (found.found, found.queries) == (1.0, 2 * RECORDS)
    assert retrieve(Constant(**values), shards, view, parts, silent).found == pytest.approx(1 / RECORDS)
    low, high = found.interval()
    assert low == pytest.approx(0.926, abs=1e-3) and high == pytest.approx(1)
    with pytest.raises(ConfigError, match="budget_tokens = 3 is below the 4 patches"):
        retrieve(Colour(**values), shards, TokenView(6, SelectionConfig(gop_frames=GOP)), "halves", silent)


def test_the_parts_are_those_of_each_half(shard_folder: Path) -> None:
    shards, view = ShardSet.open(shard_folder), TokenView(BUDGET // 2, SelectionConfig(gop_frames=GOP))
    every = frames_to_patches(frames_of(3), 14)
    steps = on_time_grid(np.arange(T), T)
    for part in (0, 1):
        look = retrieval._Part(shards, (), "codec", view, part=part)(3)
        frame = np.searchsorted(steps, look.positions[:, 0])
        assert frame.min() == part * T // 2 and len(frame) == BUDGET // 2 and (frame // (T // 2) == part).all()
        flat = (frame * ROWS + look.positions[:, 1]) * COLUMNS + look.positions[:, 2]
        assert np.abs(look.patches.astype(int) - every[flat]).mean() < 12  # JPEG
        whole = retrieval._Part(shards, (), "image", view, part=part)(3)
        first = (T // 4 + part * T // 2) * ROWS * COLUMNS
        assert np.abs(whole.patches.astype(int) - every[first : first + ROWS * COLUMNS]).mean() < 12
        assert (whole.positions[:, 0] == 0).all()


SCORES = Scores(Accuracy(0.5, 1.0, 0.25, 24), Accuracy(0.75, 1.0, 0.5, 24), 3, Accuracy(1.0, 1.0, 1.0, 48))


def test_scores_are_found_again_by_all_that_decides_them(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores")
    assert cache.find({"seeds": [0]}) is None and not (tmp_path / "scores").exists()
    cache.add({"seeds": [0], "lr": 1e-3}, [SCORES, SCORES], 2)
    assert ScoreCache(tmp_path / "scores").find({"lr": 1e-3, "seeds": [0]}) == ((SCORES, SCORES), 2)
    assert cache.find({"lr": 1e-3, "seeds": [1]}) is None
    (file,) = (tmp_path / "scores").iterdir()
    file.write_text(file.read_text()[:-20])
    assert cache.find({"seeds": [0], "lr": 1e-3}) is None
    file.write_text(json.dumps({"scores": [{"last": 3}], "n_unknown": 0}))
    assert cache.find({"seeds": [0], "lr": 1e-3}) is None


def on_devices(count: int, config: ProbeConfig, monkeypatch: pytest.MonkeyPatch, cache: ScoreCache | None = None) -> Comparison:
    with monkeypatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda **_: jax.devices()[:count])
        return compare(config, lambda line: None, cache)


def test_one_and_four_devices_score_alike_and_every_sample_once(
    trained_run: Path, shard_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = write_set(tmp_path / "val", 23)  # four devices do not divide it
    config = ProbeConfig(
        str(trained_run), str(shard_folder), str(val), budgets=(BUDGET,),
        selection=SelectionConfig(gop_frames=GOP), epochs=2, batch_size=10, lr=1e-3,
        interventions=("none", "shuffle"), untrained=False, seeds=(0, 1),
    )  # fmt: skip
    one, four = (on_devices(count, config, monkeypatch) for count in (1, 4))
    assert len(one.rows) == 3
    for a, b in zip(one.rows, four.rows, strict=True):
        assert [s.last for s in a.scores] == [s.last for s in b.scores]
        assert {s.last.samples for s in (*a.scores, *b.scores)} == {23} and {s.train.samples for s in b.scores} == {RECORDS}


def test_what_is_kept_is_not_done_again(
    trained_run: Path, shard_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ProbeConfig(
        str(trained_run), str(shard_folder), str(shard_folder), probe="knn", modes=("codec",), budgets=(BUDGET,),
        selection=SelectionConfig(gop_frames=GOP), untrained=False,
    )  # fmt: skip
    cache, lines = ScoreCache(tmp_path), []
    first = compare(config, lines.append, cache)
    monkeypatch.setattr("ove.probing.heads.heads.knn", None)  # it would raise
    assert compare(config, lines.append, cache) == first
    assert "cached" in lines[-1] and "cached" not in lines[-3]
    with pytest.raises(TypeError):
        compare(dataclasses.replace(config, neighbours=3), lines.append, cache)
