"""Options that what is read has no use for, and files that cannot be read or written: refused in a sentence, at once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_clips import BUDGET, SIZE_PX
from synthetic import write_set

import ove
from ove.errors import BadInput, ConfigError
from ove.shards.schema import ImageRecord
from ove.sources.folders import InputFile

PICTURE = np.full((56, 84, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def model(weights: Path) -> ove.Model:
    return ove.load(weights)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "photo.jpg"), PICTURE)
    return tmp_path / "photo.jpg"


@pytest.fixture(scope="module")
def image_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    def record(file: InputFile) -> ImageRecord:
        data = cv2.imencode(".png", PICTURE)[1].tobytes()
        return ImageRecord(file.key, data, 56, 84, file.label, {})

    return str(write_set(tmp_path_factory.mktemp("pictures") / "shards", 4, record))


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("video", {"frames": 4}, r"frames = 4 is for mode frames, but .*\.mp4 is read in mode codec; leave frames out"),
        ("video", {"max_tokens": 64}, r"max_tokens = 64 is for pictures at their own proportions \(mode image\), but"),
        ("video", {"min_tokens": 0}, "min_tokens = 0 is for pictures"),
        ("video", {"size_px": 56}, "unexpected argument `size_px`; give size=56"),
        ("video", {"mode": "frames", "budget": 64}, "budget = 64 is for mode codec, but .* is read in mode frames"),
        ("video", {"mode": "frames", "fusion": "max"}, "fusion = 'max' is for mode codec"),
        ("video", {"mode": "frames", "gop_frames": 16}, "gop_frames = 16 is for mode codec"),
        ("video", {"mode": "frames", "preset": "probe"}, "preset = 'probe' is for mode codec"),
        ("video", {"mode": "frames", "n_frames": 16}, r"`n_frames` = 16 is for mode codec \(in mode frames, give frames\)"),
        ("photo", {"budget": 64}, r"budget = 64 is for mode codec, but .*photo\.jpg is read in mode image; leave budget out"),
        ("photo", {"frames": 4}, "frames = 4 is for mode frames"),
        ("photo", {"sampling": "energy"}, "sampling = 'energy' is for mode codec"),
        ("photo", {"geometry": "letterbox"}, "geometry = 'letterbox' is for videos"),
        ("photo", {"size": 28, "max_tokens": 64}, "max_tokens = 64 is for pictures at their own proportions, without a size"),
        ("array", {"budget": 64}, "budget = 64 is for mode codec, but an array is read in mode image"),
        ("arrays", {"geometry": "letterbox"}, "geometry = 'letterbox' is for videos, but an array is read in mode frames"),
    ],
)
def test_what_a_mode_has_no_use_for_is_refused_by_read(
    kind: str, options: dict[str, Any], said: str, videos: list[Path], photo: Path, model: ove.Model
) -> None:
    source = {"video": videos[0], "photo": photo, "array": PICTURE, "arrays": PICTURE[None]}[kind]
    for read in (ove.read, model.read, model):
        with pytest.raises(ConfigError, match=said):
            read(source, **options)


def test_what_a_mode_has_use_for_is_taken(videos: list[Path], photo: Path) -> None:
    small: dict[str, Any] = {"size": SIZE_PX, "budget": BUDGET}
    assert ove.read(videos[0], n_frames=32, **small).frames.shape[0] == 32
    assert ove.read(videos[0], source="transcode", **small).tokens.source == "transcode"
    letterboxed = ove.read(videos[0], mode="frames", frames=2, size=SIZE_PX, geometry="letterbox", preset="lmm")
    assert letterboxed.frames.shape[0] == 2
    assert len(ove.read(photo, max_tokens=6)) <= 6 < len(ove.read(photo, min_tokens=40))


def test_an_option_for_some_inputs_of_a_list_is_for_these(model: ove.Model, videos: list[Path], photo: Path) -> None:
    options: dict[str, Any] = {"budget": BUDGET, "size": SIZE_PX}
    clip, picture = model([videos[0], photo], **options)
    assert len(clip.seen.patches) == BUDGET and len(picture.seen.patches) == 16
    with pytest.raises(ConfigError, match="frames = 3 is for mode frames"):
        model([videos[0], photo], frames=3, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "image", "size": 56}, "size = 56 is for videos, but kind = 'image'"),
        ({"kind": "image", "store": "h264"}, "store = 'h264' is for videos"),
        ({"kind": "image", "sampling": "energy"}, "sampling = 'energy' is for videos"),
        ({"kind": "image", "h264_crf": 20}, "h264_crf = 20 is for videos"),
        ({"max_side_px": 56}, "max_side_px = 56 is for pictures, but kind = 'video'"),
        ({"h264_crf": 20}, "h264_crf = 20 is for store = 'h264', but store = frames"),
        ({"jpeg_quality": 90, "store": "h264,mosaics"}, "jpeg_quality = 90 is for store = 'frames', but store = h264, mosaics"),
        ({"budget_tokens": 64}, "budget_tokens = 64 is for store = 'mosaics'"),
        ({"size_px": 56}, "unexpected argument size_px; give size=56"),
    ],
)
def test_what_a_kind_has_no_use_for_is_refused_by_write_shards(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        ove.write_shards(tmp_path / "out", ["a.mp4"], workers=0, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("videos", {"path_column": "clip"}, "path_column = 'clip' is for lists and mappings, but .*videos is a folder"),
        ("videos", {"root": "elsewhere"}, "root = 'elsewhere' is for lists and mappings, but .*videos is a folder"),
        (
            "list.txt",
            {"path_column": "clip"},
            r"path_column = 'clip' is for lists with columns .*list\.txt is a list without",
        ),
        ("list.txt", {"label_column": "verb"}, "label_column = 'verb' is for lists with columns"),
        ("some.tar", {"root": "elsewhere"}, r"root = 'elsewhere' is for lists and mappings, but .*some\.tar is an archive"),
    ],
)
def test_what_samples_have_no_use_for_is_refused(
    source: str, options: dict[str, Any], said: str, tmp_path: Path, model: ove.Model
) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("list.txt", "some.tar"):
        (tmp_path / name).touch()
    for call in (ove.split, lambda given, **more: ove.write_shards(tmp_path / "out", given, **more)):
        with pytest.raises(ConfigError, match=said):
            call(tmp_path / source, **options)
    with pytest.raises(ConfigError, match=said):
        ove.probe(model, tmp_path / source, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "frames", "gop_frames": 4}, "gop_frames = 4 is for mode codec, but mode = 'frames'"),
        ({"mode": "image", "budget": 16}, "budget = 16 is for clips, but mode = 'image'"),
        ({"image_size": 28}, "image_size = 28 is for shards of pictures"),
        ({"budget": 3, "gop_frames": 4}, "^budget = 3"),
        ({"budget": 3, "mode": "frames"}, "^budget = 3 is not 1 to"),
        ({"gop_frames": 4, "buckets": 0}, "^buckets = 0 must be at least 1"),
    ],
)
def test_what_shards_have_no_use_for_is_refused_by_batches(options: dict[str, Any], said: str, shard_folder: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        ove.batches(shard_folder, **options)


def test_shards_of_pictures_take_a_size_and_no_budget(image_shards: str, model: ove.Model) -> None:
    (batch,) = ove.batches(image_shards, image_size=28)
    assert batch["patches"].shape == (4, 4, 588)
    with pytest.raises(ConfigError, match="image_size = 30 is not a multiple of the patch side 14"):
        ove.batches(image_shards, image_size=30)
    with pytest.raises(ConfigError, match="iframe_policy = 'score' is for mode codec, but mode = 'image'"):
        ove.batches(image_shards, iframe_policy="score")
    with pytest.raises(ConfigError, match=r"mode = 'codec' does not fit .*, which holds images; leave it out"):
        ove.batches(image_shards, mode="codec")


@pytest.mark.parametrize(
    ("train", "options", "said"),
    [
        ("files", {"epochs": 3}, "epochs = 3 is for head = 'attentive', but head = 'linear'"),
        ("files", {"head": "knn", "l2": 1.0}, "l2 = 1.0 is for head = 'linear', but head = 'knn'"),
        ("files", {"head": "attentive", "neighbours": 1}, "neighbours = 1 is for head = 'knn'"),
        ("files", {"image_px": 28}, "image_px = 28 is for shards, but train is no folder of shards"),
        ("files", {"gop_frames": 4}, "gop_frames = 4 is for shards"),
        ("files", {"labels": "list.csv"}, r"labels = 'list\.csv' is for feature files"),
        ("files", {"budget": 64}, "budget = 64 is for mode codec, but .* is read in mode image"),
        ("files", {"compute": "bfloat16"}, "unexpected argument compute; use compute of ove.load"),
        ("files", {"weights": "x"}, "unexpected argument weights; use model"),
        ("files", {"seeds": (1, 2)}, r"seeds = \(1, 2\) must be one seed"),
        ("files", {"lrr": 1}, r"unexpected argument lrr; did you mean lr\?"),
        ("shards", {"threads": 3}, "threads = 3 is for files, but train is a folder of shards"),
        ("shards", {"root": "x"}, "root = 'x' is for files"),
        ("shards", {"val_share": 0.3}, "val_share = 0.3 is for train without val, but val is given"),
        ("shards", {"image_px": 28}, "image_px = 28 is for shards of pictures"),
        ("shards", {"mode": "frames", "gop_frames": 4}, "gop_frames = 4 is for mode codec, but mode = 'frames'"),
        ("shards", {"mode": "image", "budget": 4}, "budget = 4 is for clips"),
        ("features", {"mode": "codec"}, r"mode = 'codec' is for files, but a feature file \(.npz\) is encoded already"),
        ("features", {"model": True}, "model = .* is not needed for a feature file"),
        ("features", {"root": "x"}, "root = 'x' is for lists, but labels is a mapping"),
    ],
)
def test_what_a_probe_has_no_use_for_is_refused(
    train: str, options: dict[str, Any], said: str, tmp_path: Path, photo: Path, model: ove.Model, shard_folder: Path
) -> None:
    given: dict[str, Any] = {"model": model, "train": [(photo, "a"), (photo.with_name("b.jpg"), "b")]}
    if train == "shards":
        given |= {"train": shard_folder, "val": shard_folder}
    elif train == "features":
        np.savez(tmp_path / "found.npz", files=np.array(["a", "b"]), pooled=np.eye(2))
        given |= {"train": tmp_path / "found.npz", "model": None, "labels": {"a": "x", "b": "y"}}
    with pytest.raises(ConfigError, match=said):
        ove.probe(**given | options | ({"model": model} if options.get("model") else {}))


def test_a_revision_is_for_names_on_the_hub(weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"revision = 'main' is for models on the hub, but .* is a path; leave revision out"):
        ove.load(weights, revision="main")
    with pytest.raises(ConfigError, match="revision = 'v2', but the name says @v1; give one of the two"):
        ove.load("org/model@v1", revision="v2")


def test_files_that_cannot_be_read_as_such_are_named(videos: list[Path], tmp_path: Path) -> None:
    with videos[0].open("rb") as file:
        pass
    with pytest.raises(BadInput, match=r"source = <.*\.mp4>: is a closed file; read it before it is closed"):
        ove.read(file)
    with (tmp_path / "new").open("wb") as file, pytest.raises(BadInput, match="is open for writing alone"):  # type: ignore[assignment]
        ove.read(file)

    class Lines:
        def read(self, size: int = -1) -> str:
            return "text"

    with pytest.raises(BadInput, match=r"source = <Lines>: its read\(\) returns str, not bytes"):
        ove.read(Lines())  # type: ignore[arg-type]
    sparse = memoryview(bytes(2000))[::2]
    with pytest.raises(ove.OveError, match="<bytes>: not a video"):
        ove.read(sparse)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process cannot write to."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_places_that_cannot_be_written_to_are_named(videos: list[Path], as_nobody: Path) -> None:
    clip = ove.read(PICTURE)
    locked = as_nobody / "new"
    for call in (
        lambda: ove.write_shards(locked, ["a.mp4"], workers=0),
        lambda: ove.split([("a.mp4", "a"), ("b.mp4", "a")], out=locked),
        lambda: clip.show(locked / "a.png"),
    ):
        with pytest.raises(ove.OveError, match="locked"):
            call()


def test_files_in_the_way_are_named_and_stay(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    clip = ove.read(PICTURE)
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        for call in (
            lambda out=out: ove.write_shards(out, ["a.mp4"], workers=0),
            lambda out=out: ove.split([("a.mp4", "a"), ("b.mp4", "a")], out=out),
            lambda out=out: clip.show(out / "a.png"),
        ):
            with pytest.raises(ConfigError, match=r"file: is a file|file is not a folder|cannot be written|cannot be used"):
                call()
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ConfigError, match=r"path = .*a\.png: is a folder"):
        clip.show(tmp_path / "a.png")
    assert (tmp_path / "file").read_text() == "mine"


class Mine(Exception):
    """The user's own."""


def test_what_the_users_own_code_raises_passes_through(tmp_path: Path, model: ove.Model, videos: list[Path]) -> None:
    def samples() -> Iterator[tuple[str, str]]:
        yield "a.mp4", "a"
        raise Mine("from the generator")

    class File:
        def read(self, size: int = -1) -> bytes:
            raise Mine("from the file")

    for call in (
        lambda: ove.split(samples()),
        lambda: ove.write_shards(tmp_path / "out", samples(), workers=0),
        lambda: ove.probe(model, samples()),
        lambda: ove.probe(model, [("a.mp4", "a"), ("b.mp4", "b")], samples()),
        lambda: ove.read(File()),  # type: ignore[arg-type]
    ):
        with pytest.raises(Mine, match=r"^from the"):
            call()

    def told(found: Any) -> None:
        raise Mine("from progress")

    with pytest.raises(Mine):
        ove.write_shards(tmp_path / "out", videos[:1], workers=0, size=SIZE_PX, progress=told)


def test_samples_that_say_too_little_or_too_much_are_named(tmp_path: Path) -> None:
    for samples, said in (
        ([], "samples is empty"),
        ({"a.mp4": "a"}, r"samples: is a mapping; give its \.items\(\)"),
        ([("a.mp4", "a"), ("a.mp4", "a")], r"samples: .*a\.mp4 is given twice"),
        ([{"path": "a.mp4", "label": "a", "start_s": 0, "end_s": 2}], r"samples: a\.mp4: is a part of a file"),
        ([("a.mp4", b"a")], "its label is b'a'"),
        ([{"path": "a.mp4", "label": "a", "obj": object()}], "cannot be used"),
    ):
        with pytest.raises(BadInput, match=said):
            ove.split(samples)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="samples is empty"):
        ove.write_shards(tmp_path / "out", iter(()))
