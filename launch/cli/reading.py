"""What a command's worker processes do: they say of files what the command itself would."""

import logging
import sys

import cv2

from ove.sources.folders import InputFile
from ove.tokens.read import InputConfig, Tokens, read_tokens
from ove.video.span import VideoSpan


def set_up_messages(verbose: bool) -> None:
    """Silences OpenCV, whose lines about bad files lack the names; shows ours if `verbose`."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if verbose:
        logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
        logging.getLogger("ove").setLevel(logging.INFO)


def read_one(config: InputConfig, verbose: bool, file: InputFile) -> Tokens:
    """Reads the tokens of a file; imports nothing of JAX, which a worker does not need."""
    set_up_messages(verbose)
    return read_tokens(file.path, config, file.span_s and VideoSpan(*file.span_s))
