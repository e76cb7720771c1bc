"""`ove.load`: embeddings compared with the published encoder's formulas in float64; inputs read as in training."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import published_files
import pytest
from small_clips import BUDGET, SIZE_PX
from synthetic import BUDGET as TINY_BUDGET
from synthetic import GOP, T
from synthetic import SIZE_PX as TINY_PX

import ove
from ove.config import SelectionConfig, VideoConfig
from ove.errors import BadCheckpoint, BadInput, ConfigError
from ove.tokens.preprocessing import OF_PUBLISHED, OF_RUN, read_preprocessing, save_preprocessing
from ove.tokens.read import InputConfig


@pytest.fixture(scope="module")
def model(weights: Path) -> ove.Model:
    return ove.load(str(weights))


def by_hand(tensors: published_files.Tensors, seen: ove.EncoderInput) -> np.ndarray:
    mean, std = (
        np.tile(np.array(each), 196) for each in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    pixels = (seen.patches[None] / 255 - mean) / std
    pooled = published_files.expected(tensors, published_files.CONFIG, pixels, seen.positions[None])["pooler_output"]
    assert pooled is not None
    return pooled[0]


def test_a_list_is_packed_and_each_embedding_is_the_formulas(
    model: ove.Model, videos: list[Path], tensors: published_files.Tensors
) -> None:
    clip = ove.read(videos[0], size=SIZE_PX, budget=BUDGET)
    picture = np.random.default_rng(0).integers(0, 256, (42, 70, 3), np.uint8)
    found = model([clip, picture, ove.read(clip.frames, size=SIZE_PX, frames=2)])
    inputs = [clip, ove.read(picture), ove.read(clip.frames, size=SIZE_PX, frames=2)]
    for one, seen in zip(found, inputs, strict=True):
        assert one.pooled is not None
        np.testing.assert_allclose(one.pooled, by_hand(tensors, seen), atol=2e-5)
    alone = model(clip, tokens=True)
    assert alone.pooled is not None and alone.tokens is not None and alone.tokens.shape == (BUDGET, 64)
    np.testing.assert_allclose(alone.pooled, found[0].pooled, atol=2e-5)
    assert model([]) == []


def test_inputs_are_read_as_in_training(trained_run: Path) -> None:
    inputs = ove.load(trained_run).inputs
    assert (inputs.mode, inputs.budget) == ("codec", TINY_BUDGET)
    assert (inputs.video.size_px, inputs.video.n_frames, inputs.video.selection.gop_frames) == (TINY_PX, T, GOP)


def test_a_difference_from_training_is_said_once(
    weights: Path, videos: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(weights, tmp_path / "weights")
    trained = InputConfig("codec", VideoConfig(size_px=SIZE_PX, selection=SelectionConfig(gop_frames=32)), BUDGET)
    save_preprocessing(tmp_path / "weights" / OF_PUBLISHED, trained)
    model = ove.load(tmp_path / "weights")
    with caplog.at_level(logging.WARNING):
        assert len(model.read(videos[0])) == BUDGET and model.inputs == trained
        model(videos[0])
        assert not caplog.messages
        clip = ove.read(videos[0], size=28, budget=64)
        model([clip, clip])
    (said,) = caplog.messages
    assert f"budget = 64 (trained: {BUDGET})" in said and f"video.size_px = 28 (trained: {SIZE_PX})" in said


def test_weights_that_do_not_say_are_read_at_the_default_and_that_is_said(
    weights: Path, videos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = ove.load(weights)
    with caplog.at_level(logging.WARNING):
        assert model.read(videos[0]).frames.shape[1:3] == (224, 224)
    assert "does not say what it was trained on" in caplog.text


def test_transformers_reads_the_published_preprocessing(tmp_path: Path) -> None:
    config = InputConfig("codec", VideoConfig(size_px=84, geometry="letterbox"), 288)
    save_preprocessing(tmp_path / OF_PUBLISHED, config)
    values = json.loads((tmp_path / OF_PUBLISHED).read_text())
    assert values["size"] == {"height": 84, "width": 84} and values["image_processor_type"] == "CLIPImageProcessor"
    assert values["image_mean"] == [0.48145466, 0.4578275, 0.40821073] and values["rescale_factor"] == 1 / 255
    assert read_preprocessing(tmp_path) == config


@pytest.mark.parametrize("text", ["{", '{"mode": "best"}', "[]", '{"mode": "codec", "video": {"size_px": -14}}'])
def test_damaged_preprocessing_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / OF_RUN).write_text(text)
    with pytest.raises(BadCheckpoint, match=r"preprocessing\.json: cannot be used"):
        read_preprocessing(tmp_path)


def test_another_projects_preprocessing_says_nothing(tmp_path: Path) -> None:
    (tmp_path / OF_PUBLISHED).write_text('{"crop_size": 448}')
    assert read_preprocessing(tmp_path) is None


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"no such weights; give a folder .* or ORGANISATION/MODEL"):
        ove.load(tmp_path / "a" / "b")


def test_options_of_reading_are_taken_for_what_is_still_to_be_read(model: ove.Model, videos: list[Path]) -> None:
    found = model(videos[0], size=SIZE_PX, budget=BUDGET)
    assert len(found.seen.patches) == BUDGET and repr(found) == f"<ove.FileFeatures of {BUDGET} patches: pooled (64,)>"
    with pytest.raises(ConfigError, match=r"has been read already; give budget to ove\.read"):
        model(ove.read(videos[0], size=SIZE_PX, budget=BUDGET), budget=64)


@pytest.mark.parametrize("name", [None, 3, ""])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(BadInput, match="give the name of a model on the hub"):
        ove.load(name)


def test_a_folder_that_holds_a_run_points_to_it(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(trained_run)
    with pytest.raises(BadCheckpoint, match=r"is no run itself, but holds one; give .*train"):
        ove.load(tmp_path)
