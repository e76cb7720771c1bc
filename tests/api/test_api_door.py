"""`import ove`: light, and the same names for people and for type checkers."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ove
from ove import errors

ROOT = Path(__file__).resolve().parents[2]


def test_the_import_brings_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import ove; print(*sorted(set(sys.modules) - before))"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(made.stdout.split())
    assert "ove" in loaded and not loaded & {"jax", "av", "numpy", "cv2", "ove.api", "ove.config"}


def test_reading_a_video_needs_no_jax() -> None:
    code = "import sys, ove; ove.read; print('jax' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"


def test_every_name_is_there_and_in_the_stub() -> None:
    stub = ast.parse((ROOT / "ove" / "__init__.pyi").read_text())
    typed = {alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(typed) == set(ove.__all__) == set(dir(ove))
    for name, module in typed.items():
        assert getattr(ove, name) is getattr(sys.modules[str(module)], name)
        assert getattr(ove, name).__doc__


def test_another_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'rread'; it offers read, .*load"):
        _ = ove.rread  # type: ignore[attr-defined]


def test_the_page_lists_every_class_of_errors() -> None:
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in (ROOT / "ove").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    ours = {"OveError"}
    while more := {name for name, above in bases.items() if above & ours} - ours:
        ours |= more
    table = (ROOT / "docs" / "python.md").read_text().split("## Errors")[1]
    listed = re.findall(r"^\| `(\w+)`(?: \(`([\w.]+)`\))?(?:, an? `(\w+)`)? \|", table, re.MULTILINE)
    assert {name for name, _, _ in listed} | {"OveError"} == ours
    for name, module, above in listed:
        found = getattr(importlib.import_module(module or "ove.errors"), name)
        assert issubclass(found, getattr(errors, above or "OveError"))
