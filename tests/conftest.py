"""One CPU that pretends to be eight devices; shapes of jaxtyping signatures are checked at run time."""

import fcntl
import os
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of these tests would be LLVM's. What it leaves undone changes no HLO, hence no memory and no collectives.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", "")]
).strip()

import hypothesis
import pytest
from jaxtyping import install_import_hook

import ove

# Settings and the front door check what they are given themselves, and are to be seen doing so.
install_import_hook(
    [f"ove.{each.name}" for each in pkgutil.iter_modules(ove.__path__) if each.name not in ("config", "api")],
    "beartype.beartype",
)

hypothesis.settings.register_profile("ove", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("ove")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """Real videos, where the folder beside the checkout holds some."""
    videos = sorted((SHARED / "videos").glob("*.mp4"))
    if not videos:
        pytest.skip("no folder ../shared/videos on this machine")
    return videos


@pytest.fixture(scope="session")
def golden_folders() -> list[Path]:
    """Published-format checkpoints with the reference's inputs and outputs, where the folder beside the checkout holds some."""
    folders = sorted(p.parent for p in (SHARED / "golden" / "onevision_encoder").rglob("io.npz"))
    if not folders:
        pytest.skip("no folder ../shared/golden/onevision_encoder on this machine")
    return folders


def _made_once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder for all workers of a session, made by the first that asks for it while the others wait."""
    base = folders.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small labelled shard folder of made-up frames (tests/synthetic.py); not to be changed by tests."""
    from synthetic import write_set

    return _made_once(tmp_path_factory, "synthetic", lambda folder: write_set(folder / "shards")) / "shards"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, shard_folder: Path) -> Path:
    """The workdir of a run of 14 steps on `shard_folder`, saved at 7 and 14 (tests/tiny_run.py); not to be changed by tests.

    What the run said is in printed.txt beside it.
    """
    from tiny_run import config_of

    from ove.train.loop import train

    def make(folder: Path) -> None:
        printed: list[str] = []
        train(config_of(shard_folder), folder / "run", printed.append)
        (folder / "printed.txt").write_text("".join(line + "\n" for line in printed))

    return _made_once(tmp_path_factory, "trained", make) / "run"
