"""Loaded by every Python with this folder on its path: decoders that never return from some files, and hold Python's lock."""

import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

MARK = b"never returns"
WRAPPED = {
    "ove.video.container": ("av", "open"),
    "ove.sources.images": ("cv2", "imdecode"),
    "ove.shards.pictures": ("cv2", "imdecode"),
}


class Finder:
    """Finds modules as usual, and wraps the decoder that they call."""

    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in WRAPPED else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                library, function = WRAPPED[name]
                real = getattr(module, library)
                wrapped = SimpleNamespace(**vars(real))
                setattr(wrapped, function, lambda what, *more, **named: decode(getattr(real, function), what, *more, **named))
                setattr(module, library, wrapped)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def decode(function: Any, what: Any, *more: Any, **named: Any) -> Any:
    if isinstance(what, str):
        with open(what, "rb") as file:
            content = file.read()
    else:
        content = bytes(what)
    if MARK in content:
        re.fullmatch("(a+)+b", "a" * 64)  # for about as many years as there are
    return function(what, *more, **named)


sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
