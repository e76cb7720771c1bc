"""The notebooks run from top to bottom, in a kernel of this interpreter, without the network and without a warning."""

import os
import sys
from pathlib import Path

import av
import nbformat
import numpy as np
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from ove.toy import render

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NAMES = ["1_what_a_codec_sees", "2_pretrain_on_a_laptop", "3_probe_an_encoder", "4_use_published_weights"]
NO_NETWORK = """
import sys

def refuse(event, arguments):
    hosts = {
        "socket.getaddrinfo": lambda: arguments[0],
        "socket.connect": lambda: arguments[1][0] if isinstance(arguments[1], tuple) else None,
    }
    if event in hosts and (host := hosts[event]()) not in (None, "localhost", "127.0.0.1", "::1"):
        raise OSError(f"no network in tests: {host}")

sys.addaudithook(refuse)
"""
"""As sitecustomize.py: every Python that the notebook starts can only talk to this machine."""

LAST_CELL = {
    "1_what_a_codec_sees": """
        pictures = [picture.value]
        for budget.value, preset.value in ((512, "paper"), (4096, "lmm"), (3072, "frames")):
            pictures.append(picture.value)
        assert len(set(pictures)) == 4, "the picture does not follow the slider and the menu"
        assert len(selection.flat) == 2048 and clip.source == "bitstream"
        """,
    "2_pretrain_on_a_laptop": """
        assert process.returncode == 0 and steps[-1] == 60 and steps == sorted(set(steps))
        assert any(20 <= step < 30 and step % 5 for step in steps), "not stopped in between"
        assert lines[-1]["loss/vid"] < 0.8 * lines[0]["loss/vid"]
        """,
    "3_probe_an_encoder": """
        scores = {row.mode: row for row in attentive.rows}
        assert len(scores["codec"].scores) == 3 and attentive.n_val == 64 and "±" in table(attentive)
        assert scores["codec"].top1()[0] > scores["frames"].top1()[0] + 0.05
        assert confusion.sum() == 64
        """,
    "4_use_published_weights": """
        assert same and np.allclose(vector, made[0].pooled, atol=1e-4)
        assert vectors.shape == (16, 192) and np.allclose(np.linalg.norm(vectors, axis=1), 1)
        """,
}
"""What is true of the names that a notebook leaves."""


def run(book: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs all cells as a person would who has installed the project; CellExecutionError if one fails."""
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(folder), "PYTHONWARNINGS": "default", "TMPDIR": str(folder), "JAX_PLATFORMS": "cpu"}
    manager = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(book, km=manager, timeout=None, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=environment, cleanup_kc=True)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell("\n".join(line.removeprefix(" " * 8) for line in text.strip().splitlines()))


def run_whole(name: str, book: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs a notebook and what must be true at its end; fails if a warning was shown."""
    book.cells.append(code(f"import sys\nassert sys.executable == {sys.executable!r}"))
    book.cells.append(code(LAST_CELL[name]))
    done = run(book, folder)
    shown = [output for cell in done.cells for output in cell.get("outputs", ())]
    told = "".join(output.text for output in shown if output.output_type == "stream" and output.name == "stderr")
    assert told == "", f"shown on stderr: {told}"
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 2, "pictures are missing"
    return done


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES[1:3]), NAMES[3]])
@pytest.mark.timeout(1500)
def test_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    run_whole(name, read(name), tmp_path)


@pytest.mark.slow
def test_the_first_one_takes_a_video_of_ones_own(tmp_path: Path) -> None:
    frames = render(3, 1).frames[:80, 40:220]
    path = tmp_path / "my own.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in np.ascontiguousarray(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    book = read(NAMES[0])
    (place,) = [cell for cell in book.cells if cell.source == 'VIDEO = ""']
    place.source = f"VIDEO = {str(path)!r}"
    done = run_whole(NAMES[0], book, tmp_path)
    assert any("80 frames of mpeg4" in output.get("text", "") for cell in done.cells for output in cell.get("outputs", ()))


def test_in_colab_it_says_what_to_fill_in(tmp_path: Path) -> None:
    first = next(cell for cell in read(NAMES[0]).cells if cell.cell_type == "code")
    colab = code('import sys, types\nsys.modules["google.colab"] = types.ModuleType("google.colab")')
    with pytest.raises(CellExecutionError, match="into REPOSITORY"):
        run(nbformat.v4.new_notebook(cells=[colab, first]), tmp_path)


def test_stored_without_outputs_and_with_one_first_cell() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
    books = [read(name) for name in NAMES]
    cells = [cell for book in books for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert all(book.metadata.keys() == {"kernelspec", "language_info"} for book in books)
    firsts = {next(cell.source for cell in book.cells if cell.cell_type == "code") for book in books}
    assert len(firsts) == 1 and "google.colab" in firsts.pop()
