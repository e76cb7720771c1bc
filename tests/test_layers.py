"""Who may import whom (design: layers), read from the imports themselves."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (
    {"errors"},
    {"records", "config", "named", "files", "paths", "prefetch", "progress"},
    {"distributed", "workers", "video", "sources", "encoder", "centers", "toy"},
    {"shards"},
    {"tokens", "stream", "labels"},
    {"train"},
    {"features", "plan"},
    {"probing", "view"},
    {"studies", "api"},
)
"""Folders and modules of `ove`, lowest first: each may import those of lower levels and none of its own."""
ONLY_OF_TRAIN = {"ove.train.checkpoints", "ove.train.optimizer"}
"""What `features`, `probe` and `view` may take of `train`."""
JAX_FOLDERS = {"distributed", "encoder", "centers", "labels", "train", "features", "plan", "probing"}
LEVEL_OF = {folder: level for level, folders in enumerate(LEVELS) for folder in folders}
SOURCES = sorted((ROOT / "ove").rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top of the file) for each import."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def folder_of(path: Path) -> str:
    return path.relative_to(ROOT / "ove").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    here = folder_of(path)
    for module, at_top in imports_of(path):
        assert at_top, f"{path}: {module} is imported inside a function or block"
        parts = module.split(".")
        if parts[0] in ("launch", "tests", "configs"):
            pytest.fail(f"{path}: nothing imports {parts[0]}")
        if parts[0] == "jax":
            assert here in JAX_FOLDERS, f"{path}: jax does not belong in {here}/"
        if parts[0] == "ove" and parts[1] != here:
            assert LEVEL_OF[parts[1]] < LEVEL_OF[here], f"{path}: {here} may not import ove.{parts[1]}"
            if here in ("features", "probing", "view") and parts[1] == "train":
                assert ".".join(parts[:3]) in ONLY_OF_TRAIN, f"{path}: of train only checkpoints and optimizer"


def test_the_sources_are_found() -> None:
    assert {folder_of(path) for path in SOURCES} - {"__init__"} == set(LEVEL_OF)


def test_the_package_requires_what_the_requirements_file_lists() -> None:
    def names(lines: list[str]) -> set[str]:
        return {line.split("#")[0].strip() for line in lines} - {""}

    listed = names((ROOT / "requirements.txt").read_text().splitlines())
    needed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert needed == listed
    assert not needed & names((ROOT / "requirements-dev.txt").read_text().splitlines())


def test_a_training_step_is_importable_without_the_libraries_of_video() -> None:
    code = "import sys, ove.train.step; print(sorted({'av', 'cv2'} & set(sys.modules)), *sorted(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("[] ")
    assert not [name for name in answer.stdout.split() if name.startswith(("ove.video", "ove.shards", "ove.stream"))]
