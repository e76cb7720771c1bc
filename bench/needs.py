"""Exits with 2, and says on stderr what to install, if a measurement lacks the library that it compares with."""

import importlib.util
import sys
from pathlib import Path

LIBRARIES = {"torch": "PyTorch", "faiss": "faiss"}


def has(module: str) -> bool:
    """Whether a library can be imported."""
    return importlib.util.find_spec(module) is not None


def need(module: str) -> None:
    """Ends the process unless the library is installed."""
    if not has(module):
        name = Path(sys.argv[0]).name
        print(
            f"bench/{name} compares with {LIBRARIES[module]}, which is not installed: pip install -r requirements-bench.txt",
            file=sys.stderr,
        )
        sys.exit(2)
