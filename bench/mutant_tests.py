"""Which test files belong to a source file: its mirror, and those that import it."""

import ast
import re
from collections import defaultdict
from pathlib import Path

_ROOTS = ("ove", "launch", "configs", "tests")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, `from a import b` as `a.b`; relative ones are not resolved."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


class Imports:
    """Who imports whom among the Python files of a repository; paths are relative to its root."""

    def __init__(self, root: Path) -> None:
        files = [path for top in _ROOTS for path in sorted((root / top).rglob("*.py"))]
        self._files = {path.relative_to(root) for path in files} | {p.relative_to(root) for p in sorted(root.glob("*.py"))}
        self.names = {path: imports(root / path) for path in self._files}
        self.of = {path: {f for name in names if (f := self.resolve(name, path))} for path, names in self.names.items()}
        self._importers: dict[Path, set[Path]] = defaultdict(set)
        for path, found in self.of.items():
            for other in found:
                self._importers[other].add(path)

    def resolve(self, name: str, importer: Path) -> Path | None:
        """The file of the repository that a dotted name lies in; modules beside a test file are found as pytest finds them."""
        parts = name.split(".")
        folders = [Path(), importer.parent, Path("tests")]
        for length in range(len(parts), 0, -1):
            for folder in folders:
                path = folder.joinpath(*parts[:length])
                for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                    if candidate in self._files and candidate != importer:
                        return candidate
        return None

    def users(self, path: Path) -> set[Path]:
        """`path` and all files that import it, directly or not."""
        found, left = {path}, [path]
        while left:
            left += (new := self._importers[left.pop()] - found)
            found |= new
        return found

    def needs(self, paths: list[Path]) -> set[Path]:
        """The files and all that they import, directly or not."""
        found, left = set(paths), list(paths)
        while left:
            left += (new := self.of.get(left.pop(), set()) - found)
            found |= new
        return found

    def nearest_tests(self, path: Path) -> set[Path]:
        """The test files with the fewest files between them and `path`."""
        seen, level = {path}, {path}
        while level:
            level = {user for file in level for user in self._importers[file]} - seen
            if tests := {file for file in level if file.name.startswith("test_")}:
                return tests
            seen |= level
        return set()

    def tests_of(self, path: Path) -> list[Path]:
        """The test files that mirror a file (tests/<folder>/test_<folder>_<module>*.py), and the nearest that import it."""
        mirrors = set()
        if len(path.parts) > 2:
            folder, stem = path.parent.name, path.stem
            name = re.compile(rf"test_({folder}_)?{re.escape(stem)}(_\w+)?\.py")
            mirrors = {f for f in self._files if f.parent == Path("tests") / folder and name.fullmatch(f.name)}
        return sorted(mirrors | self.nearest_tests(path))
