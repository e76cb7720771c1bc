"""Reads lines of text in pictures with the PP-OCR models inside the rapidocr wheel, offline."""

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rapidocr
from jaxtyping import UInt8

from ove.config import TextConfig
from ove.errors import ConfigError

_MODELS = Path(rapidocr.__file__).parent / "models"


@dataclass(frozen=True)
class TextLine:
    """One line of text."""

    text: str
    confidence: float
    """0…1, the mean over its characters."""


class OcrReader:
    """Detects and reads lines of text, on one thread, deterministically; loading takes 0.2 s."""

    def __init__(self, side_px: int, turned: bool) -> None:
        """`side_px`, `turned`: as in `TextConfig`."""
        cv2.setNumThreads(1)
        self._read: Callable[[np.ndarray], Any] = rapidocr.RapidOCR(
            params={
                "Det.limit_type": "max",
                "Det.limit_side_len": side_px,
                "Global.use_cls": turned,
                "Global.text_score": 0.0,
                "Global.log_level": "critical",
                # More threads sum in varying order; shards run in parallel instead.
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def lines(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[TextLine]:
        """Returns the lines in an RGB picture, roughly from top to bottom."""
        found = self._read(np.ascontiguousarray(picture[..., ::-1]))  # the models expect BGR
        if found.txts is None:
            return []
        return [TextLine(text, round(float(score), 4)) for text, score in zip(found.txts, found.scores, strict=True)]


def reader_version(config: TextConfig) -> dict[str, str | int | bool]:
    """Returns all that decides what is read: rapidocr's version, the models' checksum, settings; ConfigError without models."""
    models = sorted(_MODELS.glob("*.onnx"))
    if len(models) < 3:
        raise ConfigError(
            f"{_MODELS}: holds {len(models)} of 3 models; install rapidocr again "
            "(.venv/bin/python -m pip install --force-reinstall --no-deps rapidocr)."
        )
    checksum = hashlib.sha256()
    for path in models:
        checksum.update(path.name.encode() + path.read_bytes())
    return {
        "rapidocr": importlib.metadata.version("rapidocr"),
        "models": checksum.hexdigest(),
        "side_px": config.side_px,
        "turned": config.turned,
    }
