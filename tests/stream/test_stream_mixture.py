"""Heads over several shard sets of clips and pictures: shares, sizes, labels, hosts, and how a changed mixture is named."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic import (
    BUDGET,
    CENTERS,
    GOP,
    GRID,
    LABELS,
    PATCH_PX,
    RECORDS,
    image_record_of,
    record_of,
    write_image_set,
    write_set,
)

from ove.config import BatchesConfig, HeadConfig, SelectionConfig
from ove.errors import BadShard, ConfigError
from ove.records import CODEC, FRAMES, IMAGE, TILING, Batch, Saliency
from ove.shards.labels import write_labels
from ove.shards.pictures import encode_jpeg
from ove.shards.schema import ImageRecord, VideoRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream.batch_pipeline import Pipeline, StreamProgress, mixture_differences
from ove.stream.labelled import common_size, open_source
from ove.stream.modes import TokenView, to_tokens
from ove.video.patches import patches_to_frames

SIZE = 28


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, shard_folder: Path) -> dict[str, str]:
    """Two sets of clips (24 and 8) and two of pictures (24 with labels in the records, 10 with labels beside them)."""
    base = tmp_path_factory.mktemp("mixture")
    few = write_image_set(base / "few", 10)
    for bank in ("obj", "ocr"):
        labels = np.tile(np.arange(4, dtype=np.int32), (10, 1))
        labels[3:6] = -1
        labels[7, 2:] = -1
        write_labels(few, bank, labels, None, {}, n_centers=CENTERS)
    return {
        "clips": str(shard_folder),
        "more": str(write_set(base / "more", 8)),
        "pictures": str(write_image_set(base / "pictures")),
        "few": str(few),
    }


def config_of(*heads: HeadConfig, **changes: object) -> BatchesConfig:
    return BatchesConfig(
        **({"budget_tokens": BUDGET, "selection": SelectionConfig(gop_frames=GOP), "heads": heads, "threads": 0} | changes)
    )


def three_heads(folders: dict[str, str], **changes: object) -> BatchesConfig:
    return config_of(
        HeadConfig("vid", 8, shards=(folders["clips"], folders["more"]), shares=(3.0, 1.0)),
        HeadConfig("obj", 8, shards=(folders["pictures"], folders["few"]), size_px=SIZE),
        HeadConfig("ocr", 4, shards=(folders["few"],), size_px=2 * SIZE),
        **changes,
    )


def take(config: BatchesConfig, n: int, index: int = 0, count: int = 1, at: int = 0) -> list[dict[str, Batch]]:
    pipeline = Pipeline(config, index, count)
    pipeline.restore(StreamProgress(at))
    batches = list(itertools.islice(pipeline, n))
    pipeline.close()
    return batches


def joined(batches: list[dict[str, Batch]], bank: str, name: str) -> np.ndarray:
    return np.concatenate([getattr(batch[bank], name) for batch in batches])


def test_sets_and_modes_come_in_exact_shares_in_one_shape_a_head(folders: dict[str, str]) -> None:
    batches = take(three_heads(folders), 8)
    for batch in batches:
        assert batch["vid"].patches.shape == (8, BUDGET, 588)
        assert batch["obj"].patches.shape == (8, 4, 588) and batch["ocr"].patches.shape == (4, 16, 588)
        assert np.bincount(batch["vid"].source).tolist() == [6, 2]
        assert np.bincount(batch["obj"].source).tolist() == [4, 4]
        assert (batch["obj"].mode == IMAGE).all() and not batch["ocr"].replaced.any()
    source, mode = joined(batches, "vid", "source"), joined(batches, "vid", "mode")
    for number, count in ((0, 48), (1, 16)):
        seen = np.bincount(mode[source == number], minlength=3)
        assert seen[[CODEC, FRAMES, TILING]].tolist() == [count // 2, count * 3 // 8, count // 8]


def test_every_set_is_gone_through_once_an_epoch_without_what_has_no_label(folders: dict[str, str]) -> None:
    batches = take(three_heads(folders), 12)
    for bank, number, drawn in (
        ("vid", 0, range(RECORDS)),
        ("vid", 1, range(8)),
        ("obj", 0, range(RECORDS)),
        ("obj", 1, [0, 1, 2, 6, 7, 8, 9]),
        ("ocr", 0, [0, 1, 2, 6, 7, 8, 9]),
    ):
        records = joined(batches, bank, "record")[joined(batches, bank, "source") == number]
        length = len(drawn)
        for start in range(0, len(records) - length + 1, length):
            assert sorted(records[start : start + length].tolist()) == list(drawn)


def test_a_picture_is_cropped_anew_in_each_epoch_source_and_run_and_alike_each_time(
    folders: dict[str, str], tmp_path: Path
) -> None:
    """The same pictures in two sets: what is random about a sample hangs on the seed, the set, the record and the epoch."""
    shutil.copytree(folders["pictures"], tmp_path / "copy")
    head = HeadConfig("obj", 8, shards=(folders["pictures"], str(tmp_path / "copy")), size_px=SIZE)
    crops: dict[tuple[int, int, int, int], bytes] = {}
    for seed in (0, 1):
        batches = take(config_of(head, seed=seed), 2 * 2 * RECORDS // 8)
        source, record, patches = (joined(batches, "obj", name) for name in ("source", "record", "patches"))
        for number in (0, 1):
            for place, at in enumerate(np.flatnonzero(source == number)):
                crops[seed, number, int(record[at]), place // RECORDS] = patches[at].tobytes()
        again = joined(take(config_of(head, seed=seed), 12), "obj", "patches")
        np.testing.assert_array_equal(again, patches)
    assert len(crops) == 2 * 2 * RECORDS * 2
    assert len(set(crops.values())) > 0.95 * len(crops)  # a few crops of small pictures are the same by chance


def test_heads_over_one_set_go_through_it_in_orders_of_their_own_and_text_is_not_cropped(folders: dict[str, str]) -> None:
    heads = (HeadConfig(bank, 7, shards=(folders["few"],), size_px=SIZE) for bank in ("obj", "ocr"))
    batches = take(config_of(*heads), 3)
    record = {bank: joined(batches, bank, "record") for bank in ("obj", "ocr")}
    assert record["obj"].tolist() != record["ocr"].tolist()
    for bank, views in (("obj", 3), ("ocr", 1)):
        patches = joined(batches, bank, "patches")
        assert len({patches[at].tobytes() for at in np.flatnonzero(record[bank] == 0)}) == views


def test_labels_come_from_the_file_or_else_from_the_record_and_missing_ones_are_minus_one(folders: dict[str, str]) -> None:
    batches = take(three_heads(folders), 6)
    labels, source, record = (joined(batches, "obj", name) for name in ("labels", "source", "record"))
    assert labels.shape[1] == 4  # of the set that has most
    within = (record[source == 0, None] + np.arange(LABELS)) % CENTERS
    np.testing.assert_array_equal(labels[source == 0], np.pad(within, ((0, 0), (0, 1)), constant_values=-1))
    beside = labels[source == 1]
    assert (beside[record[source == 1] == 7] == [0, 1, -1, -1]).all()
    assert (beside[record[source == 1] != 7] == [0, 1, 2, 3]).all()


def test_pictures_without_labels_in_their_records_are_passed_over_and_not_called_bad(tmp_path: Path) -> None:
    def half(file: InputFile) -> ImageRecord:
        record = image_record_of(file)
        return dataclasses.replace(record, labels={}) if int(file.key) % 2 else record

    told: list[object] = []
    folder = write_image_set(tmp_path / "half", make=half)
    pipeline = Pipeline(config_of(HeadConfig("obj", 8, size_px=SIZE), shards=str(folder)), on_bad=told.append)
    batches = [batch["obj"] for batch in itertools.islice(pipeline, 30)]
    records = np.concatenate([batch.record for batch in batches])
    assert (records % 2 == 0).all() and set(records.tolist()) == set(range(0, RECORDS, 2))
    assert 100 <= sum(batch.replaced.sum() for batch in batches) <= 140
    assert pipeline.progress.replaced == 0 and not told


def test_pictures_are_as_large_as_all_clips_or_as_the_head_says(folders: dict[str, str]) -> None:
    clips = open_source(Path(folders["clips"]), "vid")
    shards = clips.shards
    larger = dataclasses.replace(clips, shards=ShardSet(shards.folder, dataclasses.replace(shards.manifest, size_px=2 * SIZE)))
    pictures = open_source(Path(folders["pictures"]), "obj")
    assert common_size((clips, clips), 0, "obj") == SIZE
    assert common_size((clips, larger, pictures), 42, "obj") == 42
    for sources in ((clips, larger), (clips, pictures), (pictures,)):
        with pytest.raises(ConfigError, match=r"head obj: the pictures of .* are of several sizes; set size_px"):
            common_size(sources, 0, "obj")


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_hosts_shares_one_stream_and_takes_over_from_any_other(folders: dict[str, str], count: int) -> None:
    config = three_heads(folders)
    whole = take(config, 5)
    parts = [take(config, 3, index, count, at=2) for index in range(count)]
    for step, batch in enumerate(whole[2:]):
        for bank in batch:
            for field in dataclasses.fields(Batch):
                found = np.concatenate([getattr(part[step][bank], field.name) for part in parts])
                np.testing.assert_array_equal(found, getattr(batch[bank], field.name))


def test_augmentation_is_that_of_record_and_epoch_and_text_is_never_cropped(folders: dict[str, str]) -> None:
    config = config_of(
        HeadConfig("obj", RECORDS, shards=(folders["pictures"],), size_px=SIZE),
        HeadConfig("ocr", 7, shards=(folders["few"],), size_px=SIZE),
    )
    first, second = take(config, 2)
    again = take(dataclasses.replace(config, heads=(dataclasses.replace(config.heads[0], batch_size=12),)), 2)
    by_record = dict(zip(joined(again, "obj", "record"), joined(again, "obj", "patches"), strict=True))
    for record, patches in zip(first["obj"].record, first["obj"].patches, strict=True):
        np.testing.assert_array_equal(by_record[record], patches)
        assert (second["obj"].patches[second["obj"].record == record] != patches).any()
    for record, patches in zip(first["ocr"].record, first["ocr"].patches, strict=True):
        np.testing.assert_array_equal(second["ocr"].patches[second["ocr"].record == record][0], patches)


def test_what_does_not_fit_is_said_at_the_start(folders: dict[str, str], tmp_path: Path) -> None:
    cases = [
        (config_of(HeadConfig("obj", 4)), ConfigError, r"head obj: names no shards, and batches.shards is empty"),
        (config_of(HeadConfig("obj", 4, shards=(folders["pictures"],))), ConfigError, "set size_px of the head"),
        (config_of(HeadConfig("vid", 4, shards=(folders["few"],))), BadShard, "no labels of the bank vid"),
        (config_of(HeadConfig("obj", 4, shards=(folders["clips"],)), patch_px=7), ConfigError, "has patches of 14 pixels"),
        (config_of(HeadConfig("vid", 4, budget_tokens=18, shards=(folders["clips"],))), ConfigError, "budget_tokens = 18"),
    ]
    for config, error, words in cases:
        with pytest.raises(error, match=words):
            Pipeline(config)
    other = write_image_set(tmp_path / "other")
    write_labels(other, "obj", np.zeros((RECORDS, 1), np.int32), None, {}, n_centers=CENTERS + 1)
    write_labels(other, "vid", np.zeros((RECORDS, 1), np.int32), None, {}, n_centers=CENTERS)
    with pytest.raises(ConfigError, match=r"different numbers of class centers, .*: 8, .*other.*: 9"):
        Pipeline(config_of(HeadConfig("obj", 4, shards=(folders["pictures"], str(other)), size_px=SIZE)))
    with pytest.raises(BadShard, match="holds pictures, and videos are needed"):
        Pipeline(config_of(HeadConfig("vid", 4, shards=(str(other),))))
    write_labels(other, "obj", np.full((RECORDS, 1), -1, np.int32), None, {}, n_centers=CENTERS)
    with pytest.raises(BadShard, match="no record has a label of the bank obj"):
        Pipeline(config_of(HeadConfig("obj", 4, shards=(str(other),), size_px=SIZE)))


def test_settings_of_heads_are_checked() -> None:
    for words, values in {
        "shares": {"shards": ("a", "b"), "shares": (1.0,)},
        r"head\.shares\[0\] = 0\.0 must be above 0": {"shards": ("a",), "shares": (0.0,)},
        "must be at least 0": {"size_px": -14},
    }.items():
        with pytest.raises(ConfigError, match=words):
            HeadConfig("obj", 4, **values)
    with pytest.raises(ConfigError, match="are for images"):
        HeadConfig("vid", 4, augment="crop")
    with pytest.raises(ConfigError, match="size_px = 30 is not a multiple"):
        BatchesConfig(heads=(HeadConfig("obj", 4, size_px=30),))


def test_a_changed_mixture_is_named_and_the_number_of_hosts_and_threads_is_no_change(folders: dict[str, str]) -> None:
    config = three_heads(folders)
    here = Pipeline(config)
    assert Pipeline(three_heads(folders, threads=3, num_workers=2, decode_limit_s=5.0), 1, 4).fingerprint == here.fingerprint
    saved = json.loads(json.dumps(here.mixture))
    assert mixture_differences(saved, here.mixture) == []
    heads = config.heads
    changes = {
        "heads.vid.sources[1].share: 1.0 → 2.0": {"heads": (dataclasses.replace(heads[0], shares=(3.0, 2.0)), *heads[1:])},
        "heads.vid.modes": {"share_codec": 0.75, "share_frames": 0.125},
        "seed: 0 → 1": {"seed": 1},
        "heads.ocr": {"heads": heads[:2]},
        "heads.obj.view.size_px: 28 → 56": {"heads": (heads[0], dataclasses.replace(heads[1], size_px=56), heads[2])},
        "heads.vid.view.buckets: 1 → 2": {"selection": SelectionConfig(gop_frames=GOP, buckets=2)},
    }
    for words, values in changes.items():
        other = Pipeline(dataclasses.replace(config, **values))
        assert other.fingerprint != here.fingerprint
        assert any(line.startswith(words) for line in mixture_differences(saved, other.mixture)), mixture_differences(
            saved, other.mixture
        )


def test_mosaics_are_used_where_they_hold_the_selection_and_frames_where_not() -> None:
    record = record_of(InputFile(Path("3.mp4"), "0003", None))
    view = TokenView(BUDGET, SelectionConfig(gop_frames=GOP))
    plain, tyx = to_tokens(record, CODEC, view, None)
    flat = view.choose(_saliency(record))
    grays = np.arange(BUDGET, dtype=np.uint8) * 14 + 20  # each patch has its own
    pictures = patches_to_frames(np.repeat(grays[:, None], PATCH_PX**2 * 3, axis=1), (4, 2, 2), PATCH_PX)
    stored = dataclasses.replace(
        record, mosaics=[encode_jpeg(picture, 100) for picture in pictures], mosaic_flat=flat.astype(np.uint16)
    )
    seen, places = to_tokens(stored, CODEC, view, None)
    np.testing.assert_array_equal(places, tyx)
    assert np.abs(seen.astype(int) - grays[:, None]).mean() < 3 and (np.diff(seen.mean(axis=1)) > 8).all()
    fewer, _ = to_tokens(stored, CODEC, dataclasses.replace(view, budget_tokens=10), None)
    within = np.isin(flat, dataclasses.replace(view, budget_tokens=10).choose(_saliency(record)))
    np.testing.assert_array_equal(fewer, seen[within])
    first = TokenView(4, SelectionConfig(gop_frames=GOP, iframe_policy="first"))  # all in the first mosaic
    damaged = dataclasses.replace(stored, mosaics=[stored.mosaics[0], b"", b"", b""])
    np.testing.assert_array_equal(to_tokens(damaged, CODEC, first, None)[0], seen[:4])
    for picked in ([0, 4, 5], [3, 12, 13, 14, 15], [1, 6, 11]):  # some of a mosaic, all, none
        saliency = np.isin(np.arange(np.prod(GRID)), flat[picked]).reshape(GRID).astype(np.float16)
        by_score = TokenView(len(picked), SelectionConfig(gop_frames=GOP, iframe_policy="score"))
        some, _ = to_tokens(dataclasses.replace(stored, saliency=saliency), CODEC, by_score, None)
        np.testing.assert_array_equal(some, seen[picked])
    others = dataclasses.replace(view, selection=SelectionConfig(gop_frames=GOP, iframe_policy="drop"))
    np.testing.assert_array_equal(to_tokens(stored, CODEC, others, None)[0], to_tokens(record, CODEC, others, None)[0])
    assert (plain != seen).any()


def _saliency(record: VideoRecord) -> Saliency:
    return Saliency(record.saliency.astype(np.float32))
