"""Each measurement in bench/ runs with --quick and ends with one line of JSON, or says in a sentence what it lacks."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SCRIPTS = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if 'if __name__ == "__main__":' in path.read_text())
NEEDS = {
    "data": ("../shared/videos", any((SHARED / "videos").glob("*.mp4"))),
    "encoder": ("requirements-bench.txt", importlib.util.find_spec("torch") is not None),
    "golden": ("../shared/golden", any((SHARED / "golden" / "onevision_encoder").glob("*/io.npz"))),
    "kmeans": ("requirements-bench.txt", importlib.util.find_spec("faiss") is not None),
    "video": ("../shared/videos", any((SHARED / "videos").glob("*.mp4"))),
}
"""What a script cannot do without, as it names it, and whether it is there."""


def test_what_is_no_script_is_a_module_of_one() -> None:
    names = {path.stem for path in (ROOT / "bench").glob("*.py")}
    sources = "\n".join((ROOT / "bench" / f"{name}.py").read_text() for name in names)  # also modules of modules
    others = names - set(SCRIPTS)
    assert SCRIPTS and others
    for name in others:  # parts of bench/accelerator.py are imported by name
        assert name.startswith("torch_") or f"from {name} import" in sources or f'Part("{name}"' in sources
    assert set(NEEDS) <= set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_quickly_and_ends_with_json_or_says_what_it_needs(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, f"bench/{name}.py", "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    needed, is_there = NEEDS.get(name, ("", True))
    if is_there:
        assert done.returncode == 0, done.stderr[-2000:]
        assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)
    else:
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert needed in done.stderr.splitlines()[-1]
