"""Features of files: the same whatever the neighbours, batches and devices; bad files set aside; no half files."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import encode
from ove.config import EncoderConfig, VideoConfig
from ove.encoder import published
from ove.encoder.encoder import init
from ove.progress import ProgressReport
from ove.sources.images import read_image
from ove.sources.lists import rows_of_list
from ove.tokens import read as inputs
from ove.tokens.native import fit_size, resize
from ove.tokens.read_ahead import read_ahead
from ove.video.decode import read_video

ROOT = Path(__file__).resolve().parents[2]
CONFIG = EncoderConfig(layers=2, width=64, heads=1, mlp=128, rope="released", init_std=0.1)
SIZES = [(100, 150), (70, 300), (56, 56), (480, 200), (33, 28), (640, 480), (14, 14)]


def save_weights(folder: Path, config: EncoderConfig) -> Path:
    """A published folder of random numbers (drawn here, for compiling `init` takes seconds)."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: ("scale" in str(path)) + 0.1 * jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    published.save(published.assemble(config, params), folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "published", CONFIG)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (height // 10 + 2, width // 10 + 2, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short videos of a square that moves over noise, one of them MPEG-4."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(1)
    for name, codec, n_frames in (("a.mp4", "libx264", 70), ("b.mp4", "mpeg4", 30), ("c.mkv", "libx264", 5)):
        background = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (64, 48))
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25), options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for t in range(n_frames):
                picture = background.copy()
                picture[20:34, t % 50 : t % 50 + 14] = 255
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def features(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def near(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def run(out: Path, *arguments: object) -> dict[str, np.ndarray]:
    assert encode.main([str(argument) for argument in (*arguments, "--out", out)]) == 0
    return features(out)


def test_images_give_what_the_encoder_gives_of_each_alone(weights: Path, images: Path, tmp_path: Path) -> None:
    found = run(tmp_path / "f.npz", "--weights", weights, "--inputs", images, "--mode", "image", "--tokens", "--hidden", 1)
    model = published.load(weights)
    assert found["files"].tolist() == [str(images / f"{number}.png") for number in range(len(SIZES))]
    for i in (0, 1, 4, 6):  # each is compiled anew
        size_hw = fit_size(*SIZES[i])
        pixels = resize(read_image(images / f"{i}.png"), size_hw)
        alone = model.from_pixels(pixels[None], return_hidden_states=True)
        assert tuple(found["effective_hw"][i]) == size_hw
        assert found["n_tokens"][i] == size_hw[0] * size_hw[1] / 196
        at = slice(found["offsets"][i], found["offsets"][i + 1])
        assert near(found["pooled"][i], np.asarray(alone.pooled[0])) < 1e-5
        assert near(found["tokens"][at], np.asarray(alone.tokens[0])) < 1e-5
        assert near(found["hidden"][at], np.asarray(alone.hidden.before_post_norm[0, 0])) < 1e-5
        grid = np.indices((1, size_hw[0] // 14, size_hw[1] // 14)).reshape(3, -1).T
        np.testing.assert_array_equal(found["positions"][at], grid)
    assert found["source"].tolist() == ["pixels"] * len(SIZES)
    assert len(np.unique(found["pooled"].round(4), axis=0)) == len(SIZES)
    about = json.loads(str(found["weights"]))
    assert about["config"]["width"] == 64 and about["path"] == str(weights) and len(about["fingerprint"]) == 16


def test_features_do_not_depend_on_batches_neighbours_or_devices(weights: Path, images: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--mode", "image")
    assert jax.device_count() == 8
    found = run(tmp_path / "f.npz", *options, "--inputs", images)["pooled"]
    small = run(tmp_path / "g.npz", *options, "--inputs", images, "--batch", 256, "--threads", 1)["pooled"]
    assert near(small, found) < 1e-5
    backwards = [images / f"{number}.png" for number in (5, 2, 0)]
    np.testing.assert_array_less(
        np.abs(run(tmp_path / "h.npz", *options, "--inputs", *backwards)["pooled"] - found[[5, 2, 0]]), 1e-4
    )
    words = [sys.executable, "-m", "launch.encode", *options, "--inputs", images, "--out", tmp_path / "one.npz"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([str(word) for word in words], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert near(features(tmp_path / "one.npz")["pooled"], found) < 1e-5


def test_codec(weights: Path, videos: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--inputs", videos, "--mode", "codec", "--size", 56, "--tokens")
    found = run(tmp_path / "f.npz", *options, "--budget", 128)
    assert [Path(name).name for name in found["files"]] == ["a.mp4", "b.mp4", "c.mkv"]
    assert found["source"][0] == "bitstream" and set(found["source"]) <= {"bitstream", "transcode"}
    assert found["n_tokens"].tolist() == [128, 128, 5 * 16]  # c.mkv has 5 frames
    assert found["effective_hw"].tolist() == [[56, 56]] * 3
    model = published.load(weights)
    for i, name in enumerate(("a.mp4", "b.mp4", "c.mkv")):
        clip, _ = read_video(videos / name, VideoConfig(size_px=56))
        tyx = found["positions"][found["offsets"][i] : found["offsets"][i + 1]]
        flat = tyx[:, 0] * 16 + tyx[:, 1] * 4 + tyx[:, 2]
        assert (np.diff(flat) > 0).all() and {0, 32} <= set(tyx[:, 0]) and (tyx[:, 0] == 0).sum() == 16
        alone = model.from_pixels(clip.frames[None], visible=flat[None])
        assert near(found["pooled"][i], np.asarray(alone.pooled[0])) < 1e-5
    share = run(tmp_path / "g.npz", *options, "--budget", "0.125", "--set", "video.percentile_scope=clip")
    assert share["n_tokens"].tolist() == [128, 128, 5 * 16]
    assert json.loads(str(share["settings"]))["video"]["percentile_scope"] == "clip"


def test_frames_stand_at_their_true_times(weights: Path, videos: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--inputs", videos, "--mode", "frames", "--size", 28, "--tokens")
    found = run(tmp_path / "f.npz", *options)
    assert found["n_tokens"].tolist() == [32, 32, 5 * 4] and set(found["source"]) == {"pixels"}
    times = [found["positions"][found["offsets"][i] : found["offsets"][i + 1] : 4, 0].tolist() for i in range(3)]
    for i, n_frames in enumerate((70, 30, 5)):
        index = np.unique((np.arange(8) * (n_frames - 1) / 7 + 1e-9).astype(int))
        assert times[i] == np.rint(index / (n_frames - 1) * 63).tolist()
    one = run(tmp_path / "g.npz", *options, "--frames", 1)
    assert one["n_tokens"].tolist() == [4] * 3 and not one["positions"][:, 0].any()


def test_bad_files_are_set_aside_and_the_rest_is_used(
    weights: Path, images: Path, videos: Path, tmp_path: Path, ask: Callable
) -> None:
    (tmp_path / "notes.png").write_text("no image")
    cut = tmp_path / "cut.png"
    cut.write_bytes((images / "5.png").read_bytes()[:900])
    bad = [tmp_path / "notes.png", cut, tmp_path / "gone.png", videos / "a.mp4"]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in (*bad, images / "0.png")))
    options = ["--weights", weights, "--inputs", f"@{listed}", f"{images}/[12].png", images / "0.png", "--mode", "image"]
    answer = ask(encode.main, *options, "--out", tmp_path / "f.npz")
    assert answer.code == 0 and "3 of 7 files encoded" in answer.out and "4 set aside" in answer.out
    found = features(tmp_path / "f.npz")
    assert [Path(name).name for name in found["files"]] == ["0.png", "1.png", "2.png"]
    assert found["bad_files"].tolist() == [str(path) for path in bad]
    for path, reason in zip(bad, found["bad_reasons"], strict=True):
        assert reason.startswith(f"{path}: ") and f"set aside  {reason}" in answer.err
    strict = ask(encode.main, *options, "--out", tmp_path / "g.npz", "--strict")
    assert strict.code == 2 and "4 of the 7 input files could not be used" in strict.err
    assert len(features(tmp_path / "g.npz")["files"]) == 3
    none = ask(encode.main, *options[:2], "--inputs", *bad, "--mode", "image", "--out", tmp_path / "h.npz")
    assert none.code == 2 and "none of the 4 input files could be used in mode image" in none.err
    assert not (tmp_path / "h.npz").exists()


def test_weights_of_a_run_and_without_a_head(
    weights: Path, trained_run: Path, images: Path, tmp_path: Path, ask: Callable
) -> None:
    of_run = run(tmp_path / "f.npz", "--weights", trained_run, "--inputs", images, "--mode", "image", "--size", 28)
    assert json.loads(str(of_run["weights"]))["step"] == 14
    assert of_run["effective_hw"].tolist() == [[28, 28]] * len(SIZES) and of_run["pooled"].shape == (len(SIZES), 64)
    bare = save_weights(tmp_path / "bare", dataclasses.replace(CONFIG, pooling_head=False))
    options = ("--weights", bare, "--inputs", images, "--mode", "image", "--out", tmp_path / "g.npz")
    answer = ask(encode.main, *options)
    assert answer.code == 2 and "no pooling head" in answer.err and "--tokens" in answer.err
    assert ask(encode.main, *options, "--tokens").code == 0
    found = features(tmp_path / "g.npz")
    assert "pooled" not in found and found["tokens"].shape == (found["n_tokens"].sum(), 64)


@pytest.mark.parametrize("when", ["reading", "encoding"])
def test_an_interrupted_run_leaves_nothing(
    weights: Path, images: Path, tmp_path: Path, ask: Callable, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*((encode, "read_ahead") if when == "reading" else (encode.FeatureFile, "add")), interrupted)
    (tmp_path / "out").mkdir()
    options = ("--weights", weights, "--inputs", images, "--mode", "image", "--tokens")
    assert ask(encode.main, *options, "--out", tmp_path / "out" / "f.npz").code == 130
    assert list((tmp_path / "out").iterdir()) == []


def test_the_first_batch_which_compiles_does_not_count_in_the_rate(
    weights: Path, images: Path, tmp_path: Path, ask: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 devices, one picture of 4 tokens a row: the first 8 pictures are a batch, then the clock starts."""
    said: list[tuple[str, int]] = []

    class Noted(ProgressReport):
        def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
            said.append(("done", done))

        def wait(self) -> None:
            said.append(("wait", 0))

        def restart(self) -> None:
            said.append(("restart", 0))

    monkeypatch.setattr(encode, "shown", lambda unit: Noted(lambda line, is_last: None))
    files = [f"{images}/{number}.png" for number in range(7)]
    copies = [tmp_path / f"{name}{Path(file).name}" for name in "abc" for file in files]
    for path in copies:
        path.write_bytes((images / path.name[1:]).read_bytes())
    options = ("--mode", "image", "--size", 28, "--batch", 32, "--out", tmp_path / "f.npz")
    assert ask(encode.main, "--weights", weights, "--inputs", *copies, *options).code == 0
    assert said[:2] == [("done", 0), ("wait", 0)] and said[-1] == ("done", 21)
    assert said.count(("restart", 0)) == 1 and said[said.index(("restart", 0)) - 1] == ("done", 8)


def test_files_are_read_a_little_ahead_and_in_order(tmp_path: Path) -> None:
    begun: list[int] = []
    paths = [Path(str(number)) for number in range(40)]
    bad: list[str] = []

    def read(path: Path) -> int:
        begun.append(int(path.name))
        if path.name == "7":
            raise ZeroDivisionError("of a decoder")
        return int(path.name)

    seen = []
    for path, number in read_ahead(paths, read, 3, lambda path, reason: bad.append(reason)):
        assert path.name == str(number)
        seen.append(number)
        assert max(begun) <= number + 2 * 3 + 1
    assert seen == [number for number in range(40) if number != 7]
    assert bad == ["7: cannot be used (ZeroDivisionError: of a decoder)."]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--mode", "image", "--budget", "512"], "--budget has no meaning in mode image, only in codec"),
        (
            ["--mode", "image", "--set", "video.gop_frames=8"],
            "video.gop_frames: settings of videos have no meaning in mode image",
        ),
        (["--mode", "codec", "--max-tokens", "512"], "--max-tokens has no meaning in mode codec, only in image"),
        (["--mode", "codec", "--budget", "100"], "budget_tokens = 100 is below the 512 patches that must be kept"),
        (["--mode", "codec", "--size", "100"], "size_px = 100 is not a multiple"),
        (
            ["--mode", "codec", "--set", "video.gop=8"],
            "unknown configuration key video.gop; did you mean video.selection.gop_frames?",
        ),
        (["--mode", "frames", "--frames", "65"], "frames = 65 must be within 1…64"),
        (["--mode", "image", "--size", "100"], "size = 100 is not a multiple of the patch side 14"),
        (["--mode", "image", "--min-tokens", "2000"], "min_tokens = 2000 within 0…max_tokens"),
        (["--mode", "image", "--batch", "0"], "--batch 0"),
        (["--mode", "image", "--tokens", "--hidden", "3"], "hidden = 3 must be within 0…2"),
        (["--mode", "image", "--weights", "/no/such"], "/no/such: no such weights; give a folder with config.json"),
        (["--mode", "image", "--inputs", "@/no/such.txt"], "/no/such.txt: the list cannot be read"),
        (["--mode", "image", "--inputs", "/no/such.csv"], "/no/such.csv: the list cannot be read (No such file"),
        (["--mode", "image", "--out", "/"], "--out /: is a folder, and a file is needed"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    weights: Path, images: Path, tmp_path: Path, ask: Callable, options: list[str], sentence: str
) -> None:
    given = ["--weights", weights, "--inputs", images, "--out", tmp_path / "f.npz"]
    answer = ask(encode.main, *given, *options)
    assert answer.code == 2 and sentence in answer.err and answer.err.count("\n") == 1
    assert not (tmp_path / "f.npz").exists()


def test_inputs_are_files_folders_patterns_and_lists(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "sub/c.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "list.txt").write_text("# two\n../b.png\nc.png\n")

    def paths(*names: str) -> list[Path]:
        return [file.path for file in inputs.resolve_inputs(names).files]

    found = paths(str(tmp_path / "b.png"), str(tmp_path), f"@{tmp_path}/sub/list.txt")
    assert [path.name for path in found[:4]] == ["b.png", "a.png", "c.png", "b.png"]  # the list among the pictures is left out
    assert [path.name for path in paths(f"{tmp_path}/*.png", "none*.png")] == ["a.png", "b.png", "none*.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "key,path,label,start_s,end_s\nfirst,a.mp4,x,,\n,../videos/b.mp4,y,0.2,1\n,,z,,\n"),
        ("list.tsv", "key\tpath\tstart_s\tend_s\nfirst\ta.mp4\t\t\n\t../videos/b.mp4\t0.2\t1\n\t\t1\t2\n"),
        (
            "list.jsonl",
            '{"path": "a.mp4", "key": "first"}\n{"path": "../videos/b.mp4", "start_s": 0.2, "end_s": 1}\n{"label": "z"}\n',
        ),
    ],
)
@pytest.mark.parametrize("sign", ["", "@"])
def test_lists_are_read_as_of_shards_and_keep_their_keys(tmp_path: Path, name: str, text: str, sign: str) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / name).write_text(text)
    found = inputs.resolve_inputs([f"{sign}{folder}/{name}"])
    of_shards = rows_of_list(folder / name)
    assert found == of_shards and len(of_shards.files) == 2 and len(of_shards.bad) == 1
    assert [(file.key, file.span_s) for file in found.files] == [("first", None), ("../videos/b.mp4#0.2-1", (0.2, 1.0))]
    (folder / "plain.txt").write_text("# two\na.mp4\nb.mp4\tlabel\n")
    assert [file.path for file in inputs.resolve_inputs([f"{folder}/plain.txt"]).files] == [folder / "a.mp4", folder / "b.mp4"]


def test_features_of_a_list_have_its_keys_and_spans(weights: Path, videos: Path, tmp_path: Path, ask: Callable) -> None:
    rows = [f"whole,{videos}/a.mp4,,", f"part,{videos}/a.mp4,1,2", f",{videos}/b.mp4,,", ",gone.mp4,,", ",,,"]
    (tmp_path / "list.csv").write_text("key,path,start_s,end_s\n" + "".join(f"{row}\n" for row in rows))
    options = ["--weights", weights, "--mode", "frames", "--size", 28]
    answer = ask(encode.main, *options, "--inputs", tmp_path / "list.csv", "--out", tmp_path / "f.npz")
    assert answer.code == 0 and "3 of 5 files encoded" in answer.out and "5/5 files, 2 set aside" in answer.out
    found = features(tmp_path / "f.npz")
    assert found["keys"].tolist() == ["whole", "part", f"{videos}/b.mp4"]
    assert found["files"].tolist() == [f"{videos}/a.mp4", f"{videos}/a.mp4", f"{videos}/b.mp4"]
    assert sorted(found["bad_files"].tolist()) == [str(tmp_path / "gone.mp4"), str(tmp_path / "list.csv")]
    alone = run(tmp_path / "g.npz", *options, "--inputs", videos / "a.mp4", videos / "b.mp4")
    assert alone["keys"].tolist() == alone["files"].tolist()
    assert near(found["pooled"][[0, 2]], alone["pooled"]) < 1e-5 and near(found["pooled"][1], alone["pooled"][0]) > 1e-4
    span = ask(encode.main, *options[:2], "--mode=image", "--inputs", tmp_path / "list.csv", "--out", tmp_path / "h.npz")
    assert span.code == 2 and "mode image reads no part of a video (1 s to 2 s)" in span.err
