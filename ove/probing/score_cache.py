"""Caches the scores of finished probes in a folder, so that an interrupted study resumes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ove.config.mapping import from_mapping, to_mapping
from ove.errors import ConfigError
from ove.files import digest, write_json
from ove.probing.scores import Scores


class ScoreCache:
    """One file per probe, named by the digest of all that its scores depend on. For jobs of one process."""

    def __init__(self, folder: Path) -> None:
        """The folder is created by the first `add`."""
        self._folder = folder

    def find(self, about: Mapping[str, Any]) -> tuple[tuple[Scores, ...], int] | None:
        """Returns the scores per seed and the number of samples of unknown classes; None if missing or unreadable."""
        path = self._path(about)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return tuple(from_mapping(Scores, scores) for scores in found["scores"]), int(found["n_unknown"])
        except (ValueError, KeyError, TypeError, ConfigError):
            return None  # a damaged file: its probe is trained again, and the file replaced

    def add(self, about: Mapping[str, Any], scores: Sequence[Scores], n_unknown: int) -> None:
        """Writes the scores atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(
            self._path(about), {"about": dict(about), "scores": [to_mapping(each) for each in scores], "n_unknown": n_unknown}
        )

    def _path(self, about: Mapping[str, Any]) -> Path:
        return self._folder / f"{digest(dict(about))[:16]}.json"
