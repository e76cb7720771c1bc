"""Whoever extends us adds an entry to a table, or names a function of their own; a wrong name never does something else."""

import dataclasses
import typing

import numpy as np
import pytest
from own_functions import best

from ove.centers.gradient import LOSSES
from ove.config import CentersConfig, EvaluationConfig, LabelsConfig, ProbeConfig, SelectionConfig, TrainConfig, VideoConfig
from ove.config.section import Own, hints_of
from ove.errors import BadCheckpoint, BadShard, ConfigError
from ove.labels.teachers.teacher import TEACHERS
from ove.named import named, refuse_code
from ove.probing.heads.heads import HEADS
from ove.probing.interventions import INTERVENTIONS
from ove.records import CodecSignals, Saliency
from ove.tokens.preprocessing import OF_PUBLISHED, OF_RUN, read_preprocessing, save_preprocessing
from ove.tokens.read import InputConfig
from ove.train.optimizer import SCHEDULES, learning_rate
from ove.video.motion import COMPENSATIONS
from ove.video.saliency import FUSIONS, MOTION_FEATURES, RESIDUAL_FEATURES, saliency
from ove.video.sampling import SAMPLINGS, WITHOUT_ENERGIES, sample_indices
from ove.video.select import IFRAME_POLICIES, SELECTION_RULES, choose_patches, i_frame_flags

TABLES = {
    (VideoConfig, "fusion"): FUSIONS,
    (VideoConfig, "sampling"): SAMPLINGS,
    (VideoConfig, "compensation"): COMPENSATIONS,
    (VideoConfig, "motion_feature"): MOTION_FEATURES,
    (VideoConfig, "residual_feature"): RESIDUAL_FEATURES,
    (SelectionConfig, "rule"): SELECTION_RULES,
    (SelectionConfig, "iframe_policy"): IFRAME_POLICIES,
    (CentersConfig, "loss"): LOSSES,
    (TrainConfig, "schedule"): SCHEDULES,
    (LabelsConfig, "teacher"): TEACHERS,
    (ProbeConfig, "probe"): HEADS,
    (EvaluationConfig, "probe"): HEADS,
    (ProbeConfig, "interventions"): INTERVENTIONS,
}


@pytest.mark.parametrize(("cls", "key"), TABLES, ids=lambda value: getattr(value, "__name__", value))
def test_settings_and_tables_know_the_same_names(cls, key):
    hint = hints_of(cls)[key]
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    literal = hint if typing.get_origin(hint) is typing.Literal else typing.get_args(hint)[0]
    assert set(typing.get_args(literal)) == TABLES[cls, key].keys()
    assert Own in typing.get_args(hint)
    assert set(WITHOUT_ENERGIES) < SAMPLINGS.keys()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("avg", r"^video\.fusion = 'avg' is none of 'mean', 'max', 'sum', 'geomean', nor of the form 'module:name'\.$"),
        ("nowhere:f", r"^video\.fusion = 'nowhere:f': no module 'nowhere' is found; add its folder to PYTHONPATH\.$"),
        ("own_functions.more:f", r"no module 'own_functions\.more' is found"),
        (
            "own_functions:harmonics",
            r"^video\.fusion = 'own_functions:harmonics': the module 'own_functions' has no 'harmonics'\.$",
        ),
        ("own_functions:NUMBER", r"^video\.fusion = 'own_functions:NUMBER' is of type int; a function or class is expected\.$"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error(name, sentence):
    with pytest.raises(ConfigError, match=sentence):
        named(FUSIONS, name, "video.fusion")


def test_what_a_module_itself_lacks_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "lacking.py").write_text("import that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="that_is_not_there"):
        named(FUSIONS, "lacking:f", "video.fusion")


def random_signals(seed: int) -> CodecSignals:
    rng = np.random.default_rng(seed)
    has_vector = rng.random((3, 7, 9)) < 0.7
    motion = np.where(has_vector[..., None], rng.normal(0, 3, (3, 7, 9, 2)), 0).astype(np.float32)
    return CodecSignals(motion, has_vector, rng.integers(-300, 300, (3, 56, 72)).astype(np.int16))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scope", ["frame", "clip"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0), (1.0, 0.0)], ids=str)
def test_the_short_way_of_the_mean_gives_what_the_function_gives(seed, scope, weights):
    config = VideoConfig(size_px=56, percentile_scope=scope, w_motion=weights[0], w_residual=weights[1])
    short = saliency(random_signals(seed), config).scores
    # Named as if it were a user's, the function itself goes over all pixels.
    plain = saliency(random_signals(seed), dataclasses.replace(config, fusion="ove.video.saliency:weighted_mean")).scores
    np.testing.assert_allclose(short, plain, rtol=0, atol=2e-6)
    assert plain.std() > 0.01


@pytest.mark.parametrize(
    ("key", "name"),
    [("fusion", "harmonic"), ("compensation", "upwards"), ("motion_feature", "squared"), ("residual_feature", "halved")],
)
def test_ones_own_saliency_counts(key, name):
    own = saliency(random_signals(0), VideoConfig(size_px=56, **{key: f"own_functions:{name}"})).scores
    assert np.abs(own - saliency(random_signals(0), VideoConfig(size_px=56)).scores).max() > 0.01
    assert (own >= 0).all() and (own <= 1).all()


def test_ones_own_sampling_counts_and_is_checked():
    assert sample_indices(100, 4, "own_functions:ends").tolist() == [0, 1, 98, 99]
    assert sample_indices(3, 4, "own_functions:ends").tolist() == [0, 0, 1, 2]
    with pytest.raises(ConfigError, match=r"must return 4 ascending indices below 100"):
        sample_indices(100, 4, "numpy:arange")
    with pytest.raises(ConfigError, match=r"must return 4 ascending indices below 100"):
        sample_indices(100, 4, "own_functions:halves")


def test_ones_own_selection_counts_and_is_checked():
    found = Saliency(np.random.default_rng(0).random((8, 3, 3), np.float32))
    flags = i_frame_flags(8, 4)
    chosen = choose_patches(found, flags, 12, SelectionConfig("own_functions:best", 4))
    np.testing.assert_array_equal(chosen.flat, best(found, flags, 12, SelectionConfig()).flat)
    with pytest.raises(ConfigError, match="must choose 12 ascending patches"):
        choose_patches(found, flags, 12, SelectionConfig("own_functions:too_few", 4))
    kept = choose_patches(found, flags, 12, SelectionConfig(gop_frames=4, iframe_policy="own_functions:last")).flat
    assert set(range(36, 45)) < set(kept.tolist()) and len(kept) == 12


def test_ones_own_schedule_counts():
    rate = learning_rate(TrainConfig(steps=20, warmup_steps=4, schedule="own_functions:constant"), 0.5)
    assert [float(rate(step)) for step in (0, 2, 4, 19)] == [0.0, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("name", [OF_PUBLISHED, OF_RUN])
def test_files_from_elsewhere_may_not_name_code(tmp_path, monkeypatch, name):
    save_preprocessing(tmp_path / name, InputConfig("codec", VideoConfig(fusion="own_functions:harmonic")))
    with pytest.raises(BadCheckpoint, match=r"names code to import \(video\.fusion = 'own_func.*OVE_ALLOW_CODE=1"):
        read_preprocessing(tmp_path)
    monkeypatch.setenv("OVE_ALLOW_CODE", "1")
    assert read_preprocessing(tmp_path).video.fusion == "own_functions:harmonic"


def test_a_run_of_ones_own_names_its_code(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    save_preprocessing(tmp_path / OF_RUN, InputConfig("codec", VideoConfig(fusion="own_functions:harmonic")))
    assert read_preprocessing(tmp_path).video.fusion == "own_functions:harmonic"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"a": {"b": ["geomean", "os:system"]}}, r"a\.b = 'os:system'"),
        ({"rule": "shutil:rmtree"}, "rule = 'shutil:rmtree'"),
        ({"x": [{"y": "a.b:c.d"}]}, r"x\.y = 'a\.b:c\.d'"),
    ],
)
def test_code_is_found_wherever_it_is_named(values, key):
    with pytest.raises(BadShard, match=key):
        refuse_code(values, "there", BadShard)


def test_other_texts_are_no_code():
    refuse_code({"a": "geomean", "b": ["s3://bucket/x", "12:30", "a: b", 3, None], "c": {"d": ""}}, "there", BadShard)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fails", r"video\.fusion = 'own_functions:fails' raised ZeroDivisionError: .*own_functions\.py, line \d+\)"),
        ("takes_one", r"video\.fusion = 'own_functions:takes_one' raised TypeError: takes_one\(\) takes 1 positional"),
        ("one_row", r"video\.fusion = 'own_functions:one_row' returned shape \(\d+,\); expected: \(\d+, \d+\), 0 to 1"),
        ("infinite", r"video\.fusion = 'own_functions:infinite' returned values that are not finite"),
    ],
)
def test_an_error_in_ones_own_function_names_it_and_not_the_file(name, words):
    with pytest.raises(ConfigError, match=words):
        saliency(random_signals(0), VideoConfig(size_px=56, fusion=f"own_functions:{name}"))
