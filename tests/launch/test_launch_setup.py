"""Which Python the environment is made with, and which Pythons are tested; interpreters and pip are pretended."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "sh", "env", "dirname", "cut", "cat", "cksum", "sort", "rm", "mkdir", "cp", "true", "false", "sleep", "du")

# Answers questions (-c) as a Python of another version would, and copies itself into the environments it makes.
INTERPRETER = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") echo "{version} $*" >>"{log}"; echo "WARNING: of no concern" >&2 ;;
  -c*)
    pretend="import sys; sys.version_info = ({numbers}, 'final', 0); sys.executable = '$0'"
    exec "{real}" -c "$pretend; exec(sys.argv[1])" "$2" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the scripts with short lists of requirements, and a folder `bin` that is all of the PATH."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(tool))
    for folder in ("launch", ".ci"):
        (tmp_path / folder).mkdir()
    for script in ("launch/setup.sh", "launch/test.sh", ".ci/run"):
        shutil.copy(ROOT / script, tmp_path / script)
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-cuda.txt", "pyproject.toml"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def interpreter(checkout: Path, version: str, path: str = "") -> Path:
    text = INTERPRETER.format(
        version=version, log=checkout / "pip.log", real=sys.executable, numbers=version.replace(".", ", ")
    )
    return program(checkout / (path or f"bin/python{version.rpartition('.')[0]}"), text)


def run(checkout: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *words], cwd=checkout, env={"PATH": str(checkout / "bin")} | env, capture_output=True, text=True, timeout=60
    )


def version_in(environment: Path) -> str:
    told = subprocess.run(
        [environment / "bin" / "python", "-c", "import sys; print(*sys.version_info[:3], sep='.')"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()


def installs(checkout: Path) -> int:
    """How often packages were installed since the last time this was asked."""
    log = checkout / "pip.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    assert all("--quiet --quiet" in line or line.endswith("--version") for line in lines)
    return sum(" -r " in line for line in lines)


def test_each_version_has_an_environment_of_its_own_that_is_made_once(checkout: Path) -> None:
    interpreter(checkout, "3.11.4")
    interpreter(checkout, "3.13.2")
    for words, folder, version in (([], ".venv", "3.13.2"), (["--python", "3.11"], ".venv-3.11", "3.11.4")):
        made = run(checkout, "launch/setup.sh", *words)
        assert made.returncode == 0, made.stderr
        assert f"setting up {folder} with Python {version}" in made.stderr
        assert "installing requirements.txt and requirements-dev.txt: JAX, " in made.stderr and " MB" in made.stderr
        assert version_in(checkout / folder) == version and installs(checkout) == 1
        again = run(checkout, "launch/setup.sh", *words)
        assert (again.returncode, again.stderr, installs(checkout)) == (0, "", 0)
    assert run(checkout, "launch/setup.sh", "--python", "3.11", "cuda").returncode == 0
    assert (checkout / ".venv-3.11" / "installed").read_text().startswith("cuda 3.11.4 ") and installs(checkout) == 1
    (checkout / "requirements.txt").write_text("another\n")
    assert run(checkout, "launch/setup.sh", "--python", "3.11").returncode == 0 and installs(checkout) == 1
    assert (checkout / ".venv-3.11" / "installed").read_text().startswith("cuda ")


def test_a_long_installation_says_how_far_it_is_and_a_failed_one_fails(checkout: Path) -> None:
    slow = interpreter(checkout, "3.13.2")
    text, warning = slow.read_text(), '; echo "WARNING: of no concern" >&2'
    slow.write_text(text.replace(warning, '; case "$*" in *-r*) sleep 2.5 ;; esac'))
    made = run(checkout, "launch/setup.sh", SETUP_SAYS_EVERY_S="1")
    assert made.returncode == 0 and re.search(r"\n  \d+ MB after 1 s\n  \d+ MB after 2 s\n", made.stderr), made.stderr
    assert made.stderr.splitlines()[-1] == "installing ove itself"
    shutil.rmtree(checkout / ".venv")
    slow.write_text(text.replace(warning, '; case "$*" in *-r*) exit 3 ;; esac'))
    failed = run(checkout, "launch/setup.sh")
    assert failed.returncode == 3 and not (checkout / ".venv" / "installed").exists()


def test_a_named_interpreter_replaces_an_environment_of_another(checkout: Path) -> None:
    interpreter(checkout, "3.13.2")
    other = interpreter(checkout, "3.12.9", "elsewhere/python")
    assert run(checkout, "launch/setup.sh").returncode == 0 and version_in(checkout / ".venv") == "3.13.2"
    (checkout / ".venv" / "old").touch()
    assert run(checkout, "launch/setup.sh", PYTHON=str(other)).returncode == 0
    assert version_in(checkout / ".venv") == "3.12.9" and not (checkout / ".venv" / "old").exists()
    # Named no longer, the environment stays what it is.
    installs(checkout)
    assert run(checkout, "launch/setup.sh").returncode == 0 and installs(checkout) == 0
    assert version_in(checkout / ".venv") == "3.12.9"


def test_pyenv_is_asked_for_what_is_not_on_the_path(checkout: Path) -> None:
    program(checkout / "bin" / "pyenv", f'#!/bin/sh\necho "{checkout}/pyenv"\n')
    for version in ("3.13.2", "3.13.10", "3.12.1"):
        interpreter(checkout, version, f"pyenv/versions/{version}/bin/python")
    # pyenv puts programs of all versions on the PATH, which fail unless the version was chosen.
    program(checkout / "bin" / "python3.13", "#!/bin/sh\necho pyenv: python3.13: command not found >&2; exit 127\n")
    assert run(checkout, "launch/setup.sh", "--found").stdout.split() == ["3.12", "3.13"]
    assert run(checkout, "launch/setup.sh", "--python", "3.13").returncode == 0
    assert version_in(checkout / ".venv-3.13") == "3.13.10"


@pytest.mark.parametrize(
    ("words", "env", "sentence"),
    [
        (["--python", "3.12"], {}, "there is no Python 3.12, neither as python3.12 on the PATH nor in pyenv"),
        (["--python", "3.12"], {"PYTHON": "bin/python3.13"}, "PYTHON=bin/python3.13 is 3.13.2, and --python asks for 3.12"),
        (["--python", "3.12"], {"PYTHON": "false"}, "PYTHON=false is no Python, and --python asks for 3.12"),
        (["--python", "3.10"], {}, "--python takes one of 3.11 3.12 3.13, not '3.10'"),
        (["--python"], {}, "--python takes one of 3.11 3.12 3.13, not ''"),
        ([], {"PYTHON": "no/such"}, "Python 3.11, 3.12 or 3.13 is needed, found no no/such"),
        (["metal"], {}, "launch/setup.sh knows cpu, cuda and tpu, not 'metal'"),
    ],
)
def test_what_cannot_be_had_is_said(checkout: Path, words: list[str], env: dict[str, str], sentence: str) -> None:
    interpreter(checkout, "3.13.2")
    done = run(checkout, "launch/setup.sh", *words, **env)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and sentence in done.stderr
    assert not list(checkout.glob(".venv*"))


def test_the_tests_of_a_version_run_in_its_environment(checkout: Path) -> None:
    interpreter(checkout, "3.13.2")
    for tool in ("ruff", "mypy"):
        program(checkout / ".venv-3.13" / "bin" / tool, f'#!/bin/sh\necho {tool} "$@"\n')
    text = '#!/bin/sh\ncase "$1" in -c) echo 3.13.2 ;; -m) [ "$2" = pip ] || echo python "$@" ;; esac\n'
    program(checkout / ".venv-3.13" / "bin" / "python", text)
    done = run(checkout, "launch/test.sh", "--python", "3.13", "tests/x.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "python -m pytest -n 2 --dist loadfile -m not slow tests/x.py",
    ]
    done = run(checkout, "launch/test.sh", "--all", "--python", "3.13", "-k", "y")
    assert done.stdout.splitlines()[-1] == "python -m pytest -n 2 --dist loadfile -k y"
    assert run(checkout, "launch/test.sh", "--python").returncode == 2


@pytest.mark.parametrize(
    ("found", "fails", "tested", "code"),
    [
        ("3.11 3.12 3.13", "", ["--python 3.11", "--python 3.13"], 0),
        ("3.11 3.13", "3.11", ["--python 3.11", "--python 3.13"], 1),
        ("3.12 3.13", "3.13", ["--python 3.12", "--python 3.13"], 1),
        ("3.12", "", ["--python 3.12"], 0),
        ("", "", [""], 0),
    ],
)
def test_the_oldest_and_the_newest_python_are_tested(
    checkout: Path, found: str, fails: str, tested: list[str], code: int
) -> None:
    program(checkout / "launch" / "setup.sh", f"for each in {found}; do echo $each; done")
    program(checkout / "launch" / "test.sh", f'echo "$@" >>tested; [ "${{2:-}}" != "{fails or "none"}" ]')
    done = run(checkout, ".ci/run")
    assert done.returncode == code, done.stderr
    assert (checkout / "tested").read_text().splitlines() == tested
    last = done.stdout.splitlines()[-1]
    if fails:
        assert last == f"failed on Python {fails}"
    elif found:
        assert last == f"passed on Python {' '.join(word.removeprefix('--python ') for word in tested)}"


def test_the_scripts_are_shell_without_mistakes_and_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("shellcheck")), str(ROOT / ".ci" / "run")], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
