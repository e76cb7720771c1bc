"""Runs examples as they stand, in the folder where it is started: `run_examples.py NAME …`, each a page or a function of ove.

Of a docstring, what is printed must be what is written. Of a page, every block of Python is run, one after the other; an
expression with a comment such as `# (64, 16, 16) float32` must be an array like that, where a capital letter is any size.
"""

import ast
import doctest
import re
import sys
from pathlib import Path
from typing import Any

import ove

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LOOKS = re.compile(r"(\s*)(\S[^#]*?)  # \(([A-Z\d, ]+)\) (\w+)")


class Checker(doctest.OutputChecker):
    """What has no output written beside it may print anything."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def of_page(path: Path, names: dict[str, Any]) -> doctest.DocTest:
    text, examples = path.read_text(encoding="utf-8"), []
    for block in _BLOCK.finditer(text):
        first = text[: block.start(1)].count("\n")
        lines = [_checking(line) for line in block[1].splitlines()]
        for statement in ast.parse("\n".join(lines)).body:
            code = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
            examples.append(doctest.Example(code, "", lineno=first + statement.lineno - 1))
    return doctest.DocTest(examples, names, str(path), str(path), 0, text)


def _checking(line: str) -> str:
    """The line, or a check of what its comment says."""
    found = _LOOKS.match(line)
    return f"{found[1]}check({found[2]}, {found[3]!r}, {found[4]!r})" if found else line


def check(array: Any, shape: str, dtype: str) -> None:
    sizes = shape.rstrip(",").split(", ")
    assert array.ndim == len(sizes) and str(array.dtype) == dtype, (array.shape, array.dtype)
    for size, found in zip(sizes, array.shape, strict=True):
        assert size.isalpha() or int(size) == found, array.shape


def main(names: list[str]) -> int:
    known: dict[str, Any] = {"ove": ove, "check": check}
    runner = doctest.DocTestRunner(Checker(), verbose=False, optionflags=doctest.ELLIPSIS)
    for name in names:
        if name.endswith(".md"):
            test = of_page(Path(name), known)
        else:
            (test,) = doctest.DocTestFinder(recurse=False).find(getattr(ove, name), name, globs=known)
        assert test.examples, name
        runner.run(test, clear_globs=False)
        known |= test.globs
    print(f"{runner.tries} examples, {runner.failures} failures")
    return runner.failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
