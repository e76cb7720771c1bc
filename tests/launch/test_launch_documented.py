"""What docs/encoder.md shows is run as it stands there, with small random weights in the place of the published ones."""

import re
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import encode
from ove.config import EncoderConfig
from ove.encoder import published
from ove.encoder.encoder import init

PAGE = (Path(__file__).parents[2] / "docs" / "encoder.md").read_text()
WIDTH = 64


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights, two pictures, a video and a list, under the names that the page uses; the working folder of the test."""
    rng = np.random.default_rng(0)
    config = EncoderConfig(layers=1, width=WIDTH, heads=1, mlp=64, rope="released")
    shapes = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 10, jnp.float32), shapes)
    published.save(published.assemble(config, params), tmp_path / "weights")
    for name in ("photos/one.jpg", "photos/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (150, 200, 3), np.uint8))
    (tmp_path / "photos" / "cut.jpg").write_text("no picture")
    (tmp_path / "clips").mkdir()
    with av.open(str(tmp_path / "clips" / "one.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for t in range(70):
            picture = np.full((64, 64, 3), 90, np.uint8)
            picture[20:40, t % 40 : t % 40 + 20] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    (tmp_path / "list.txt").write_text("clips/one.mp4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_runs_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = blocks("bash")
    for line in commands.strip().splitlines():
        words = shlex.split(line.replace("clips/*.mp4", "clips/one.mp4"))
        assert words[:2] == ["ove", "encode"]
        assert encode.main(words[2:]) == 0
    capsys.readouterr()
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "not used: photos/cut.jpg" in printed and "photos/one.jpg" in printed
    assert f"(1, 256, {WIDTH}) (1, {WIDTH})" in printed and f"(1, 2048, {WIDTH})" in printed
    assert f"(1, 1, 512, {WIDTH})" in printed and "(336, 588, 3)" in printed
    assert names["first_frame"].shape == (256, WIDTH)
    np.testing.assert_allclose(names["embeddings"][0], np.load("photos.npz")["pooled"][0], rtol=0, atol=1e-4)
    assert {path.name for path in (folder / "copy").iterdir()} == {"config.json", "model.safetensors"}


def test_every_key_and_option_is_described(folder: Path) -> None:
    encode.main(shlex.split("--weights weights --inputs photos --mode image --out a.npz --tokens --hidden 1"))
    with np.load("a.npz") as found:
        assert all(f"`{key}`" in PAGE for key in found)
    options = {word for action in encode.parser()._actions for word in action.option_strings} - {"-h", "--help"}
    assert all(f"`{option}" in PAGE or f" {option} " in PAGE for option in options)
