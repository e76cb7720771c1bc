"""bench/mutants.py makes the changes it names, one at a time, and finds the one that a test does not notice."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))

from mutant_list import mutants  # noqa: E402
from mutant_tests import Imports  # noqa: E402
from mutants import NoBaseline, drawn, tried, warm_modules  # noqa: E402

_SOURCE = '''"""Says −1 + 2."""

import logging

__all__ = ["clamp", *["a"] * 0]
LIMIT: tuple[int, 3] = -2 - -2.5  # é


def clamp(é: float, low: "Float[Array, '3']" = 0.5, strict: bool = True) -> float:
    """Between 0 and 1."""
    if not strict and é <= LIMIT:
        raise ValueError(f"{é + 1} is below {LIMIT}" + str(7))
    assert low < 3
    logging.info("%s", 3 * 4)
    low += 0
    check(low)
    return min(é, [low, 1][1]) is (3.0) if "a" + "b" else dict[str, 5]
'''
_CHANGES = [
    (6, "2", "1"),
    (6, "2", "3"),
    (6, "-", "+"),
    (6, "-", ""),
    (6, "2.5", "5.0"),
    (9, "0.5", "1.0"),
    (9, "True", "False"),
    (11, "not", " "),
    (11, "and", "or"),
    (11, "<=", "<"),
    (15, "low += 0", "pass"),
    (15, "+=", "-="),
    (15, "0", "1"),
    (16, "check(low)", "pass"),
    (17, "min", "max"),
    (17, "1", "0"),
    (17, "1", "2"),
    (17, "1", "0"),
    (17, "1", "2"),
    (17, "is", "is not"),
    (17, "3.0", "6.0"),
]


def test_the_changes_are_those_of_places_that_decide_something() -> None:
    assert [(m.line, m.before, m.after) for m in mutants(_SOURCE)] == _CHANGES


def test_a_change_touches_its_bytes_alone() -> None:
    for mutant in mutants(_SOURCE):
        lines = zip(_SOURCE.split("\n"), mutant.apply(_SOURCE).split("\n"), strict=True)
        assert [number for number, (old, new) in enumerate(lines, 1) if old != new] == [mutant.line]
    last = mutants(_SOURCE)[9]
    assert last.lines(_SOURCE) == ("if not strict and é <= LIMIT:", "if not strict and é < LIMIT:")


def test_chained_comparisons_and_parentheses_change_the_operator_meant() -> None:
    source = "x = (a < (b < c)) < d == (not e)\ny = a if b is not c else d // e % f\n"
    changed = [m.apply(source).splitlines()[m.line - 1] for m in mutants(source)]
    assert changed == [
        "x = (a <= (b < c)) < d == (not e)",
        "x = (a < (b <= c)) < d == (not e)",
        "x = (a < (b < c)) <= d == (not e)",
        "x = (a < (b < c)) < d != (not e)",
        "x = (a < (b < c)) < d == (  e)",
        "y = a if b is c else d // e % f",
        "y = a if b is not c else d * e % f",
        "y = a if b is not c else d // e // f",
    ]


def test_a_draw_is_a_function_of_seed_and_path() -> None:
    found = mutants(_SOURCE)
    some = drawn(Path("a.py"), found, 5, 0)
    assert some == drawn(Path("a.py"), found, 5, 0) and len(some) == 5 and set(some) <= set(found)
    assert [m.start for m in some] == sorted(m.start for m in some)
    assert len({tuple(drawn(Path("a.py"), found, 5, seed)) for seed in range(5)}) > 1
    assert drawn(Path("a.py"), found, None, 0) == found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Modules that import one another, and tests: one of `share`, one of `limits`, a slow one."""
    root = tmp_path / "repository"
    files = {
        "ove/__init__.py": "",
        "ove/a/__init__.py": "",
        "ove/a/limits.py": "TOP = 10\n",
        "ove/a/share.py": "from ove.a.limits import TOP\n\n\ndef share(x):\n    return x / TOP if x < TOP else 1\n",
        "ove/a/far.py": "from ove.a import share\n\ntwice = 2 * share.share(5)\n",
        "tests/a/test_a_share.py": "from ove.a.share import share\n\n\ndef test_half():\n    assert share(5) == 0.5\n\n\n"
        "def test_much():\n    assert share(30) == 1\n",
        "tests/a/test_far.py": "from ove.a.far import twice\n\n\ndef test_twice():\n    assert twice == 1\n",
        "tests/a/test_slow.py": "import pytest\n\nfrom ove.a.far import twice\n\npytestmark = pytest.mark.slow\n\n\n"
        "def test_slow():\n    assert twice == 9\n",
        "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["slow: takes long"]\n',
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_tests_of_a_file_mirror_it_or_are_the_nearest_that_import_it(repository: Path) -> None:
    graph = Imports(repository)
    share, far, limits = Path("ove/a/share.py"), Path("ove/a/far.py"), Path("ove/a/limits.py")
    assert graph.tests_of(share) == [Path("tests/a/test_a_share.py")]
    assert graph.tests_of(far) == [Path("tests/a/test_far.py"), Path("tests/a/test_slow.py")]
    assert graph.tests_of(limits) == [Path("tests/a/test_a_share.py")]
    assert graph.users(share) >= {share, far} and limits not in graph.users(share)
    warm = warm_modules(graph, share, graph.tests_of(far))
    assert "ove.a.limits" in warm and not {"ove.a.share", "ove.a.far"} & set(warm)


def test_the_change_that_no_test_notices_is_found_and_the_repository_stays_as_it_is(repository: Path) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    path = Path("ove/a/share.py")
    source = (repository / path).read_text()
    found = tried(repository, path, mutants(source), None, None, sys.executable)
    survivor = "return x / TOP if x < TOP else 1  →  return x / TOP if x <= TOP else 1"
    assert found.pop("tests_s") < 60
    assert found == {"mutants": 4, "killed": 3, "timed_out": 0, "survived": 1, "survivors": [f"{path}:5  {survivor}"]}
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_changes_reach_what_a_conftest_has_imported_and_processes_that_tests_spawn(repository: Path) -> None:
    folder = repository / "tests" / "a"
    (folder / "conftest.py").write_text("import ove.a.share\n")
    (folder / "test_a_share.py").write_text(
        "import multiprocessing\n\nfrom ove.a.share import share\n\n\ndef test_half():\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n        assert pool.map(share, [5]) == [0.5]\n\n\n"
        "def test_much():\n    assert share(30) == 1\n"
    )
    path = Path("ove/a/share.py")
    source = (repository / path).read_text()
    found = tried(repository, path, mutants(source), None, None, sys.executable)
    assert (found["mutants"], found["killed"], found["survived"]) == (4, 3, 1)


def test_a_change_that_never_ends_is_ended_and_counts_as_killed(repository: Path) -> None:
    path = Path("ove/a/share.py")
    source = "def share(x):\n    n = 0\n    while n != 2 * x:\n        n += 1\n    return x / 10 if x < 9 else 1\n"
    (repository / path).write_text(source)
    chosen = [m for m in mutants(source) if (m.before, m.after) == ("+=", "-=")]
    found = tried(repository, path, chosen, None, 2.0, sys.executable)
    assert (found["mutants"], found["killed"], found["timed_out"]) == (1, 1, 1)


def test_tests_that_fail_on_the_unchanged_file_are_told(repository: Path) -> None:
    (repository / "ove/a/limits.py").write_text("TOP = 11\n")
    with pytest.raises(NoBaseline, match=r"unchanged file: tests/a/test_a_share.py::test_half"):
        tried(repository, Path("ove/a/share.py"), [], None, None, sys.executable)
    with pytest.raises(NoBaseline, match="--tests"):
        tried(repository, Path("pyproject.toml"), [], None, None, sys.executable)
