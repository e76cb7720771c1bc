"""Installs `.venv-tfio`, the Python environment of TensorFlow and tensorflow-io."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ove.errors import Unavailable
from ove.files import locked

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-tfio.txt"
ENVIRONMENT = ROOT / ".venv-tfio"
_NEEDED_GB = 4.0
"""Disk space during the installation; 2.2 GB stay."""
_USABLE = "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))"


def environment(folder: Path, say: Callable[[str], None]) -> Path:
    """Returns the interpreter of the environment in `folder`, after installing it if it is missing or outdated.

    An installation takes minutes and the network; `say` logs it. Of several processes one installs, the others wait.
    Unavailable without Python 3.11 or 3.12, without enough disk, or if the installation fails.
    """
    if not REQUIREMENTS.is_file():
        raise Unavailable("TensorFlow's environment is made in a clone of the repository only; use `ove import_tfio` there.")
    interpreter, marker = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    with locked(folder.with_name(f".{folder.name}.lock")):
        if marker.exists() and marker.read_text() == wanted and _usable(str(interpreter)):
            return interpreter
        python = _find_python()
        free_gb = shutil.disk_usage(folder.parent).free / 1e9
        if free_gb < _NEEDED_GB:
            raise Unavailable(
                f"{folder}: TensorFlow's environment needs {_NEEDED_GB:.0f} GB while it is installed, {free_gb:.1f} are free; "
                "make room, or name another folder with --environment."
            )
        say(f"setting up {folder} with TensorFlow and tensorflow-io (once; some minutes, 2.2 GB)")
        shutil.rmtree(folder, ignore_errors=True)
        _run(
            [python, "-m", "venv", str(folder)],
            f"{folder}: {python} cannot make a virtual environment (on Debian and Ubuntu: apt-get install python3-venv)",
        )
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        _run(
            pip, f"{folder}: the packages of {REQUIREMENTS.name} cannot be installed (is there a network, and a package index?)"
        )
        marker.write_text(wanted)
        return interpreter


def _find_python() -> str:
    """Returns an interpreter that TensorFlow 2.16 has wheels for."""
    candidates = [os.environ["PYTHON"]] if "PYTHON" in os.environ else ["python3.12", "python3.11", sys.executable, "python3"]
    for candidate in candidates:
        if _usable(candidate):
            return candidate
    raise Unavailable(
        f"TensorFlow 2.16 needs Python 3.11 or 3.12, and {' and '.join(candidates)} is none; install one, or name it: "
        "PYTHON=/path/to/python3.12 ove import_tfio …"
    )


def _usable(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", _USABLE], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(command: list[str], message: str) -> None:
    # With these variables pip would install elsewhere.
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_TARGET", "PIP_USER")}
    done = subprocess.run(command, env=outside, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("WARNING")]
        raise Unavailable(f"{message}: {' '.join(said[-2:])[-600:] or f'exit code {done.returncode}'}")
