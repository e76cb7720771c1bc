"""What is read from a picture's slice data where the decoder exports nothing of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int16, Int64

from ove.video.bitstream.gray import NoBitstreamSignals


class NoVectors(NoBitstreamSignals):
    """The stream's slice data are of a kind that is not read; the message says which."""


class DamagedSlices(ValueError):
    """A picture's slice data are not whole; the message says how."""


@dataclass(frozen=True)
class CodedPicture:
    """What slice data tell of a picture."""

    vectors: Int16[np.ndarray, "h w 2 2"]
    """By 8×8 block, list and (x, y): quarter pixels from the block to its prediction; 0 where a list is unused."""
    used: Bool[np.ndarray, "h w 2"]
    """Which lists predict a block; none: it is intra-coded."""
    poc_distance: Int64[np.ndarray, "h w 2"]
    """POC of the picture that is referred to, minus that of this one; 0 where a list is unused."""
    skipped: Bool[np.ndarray, "h w"]
    """Blocks with neither vector differences nor residual."""
    qp: Int8[np.ndarray, "h w"]
    """QpY."""
    bits: Float32[np.ndarray, "h w"]
    """Information that the arithmetic coder spent on each block, in bits and fractions of them."""


class SliceReader(ABC):
    """Reads the pictures of one stream, packet by packet in decoding order."""

    @abstractmethod
    def take_header(self, extradata: bytes) -> None:
        """Reads a new header of the stream. NoVectors if its pictures cannot be read."""

    @abstractmethod
    def read(self, packet: bytes) -> CodedPicture | None:
        """Returns the picture of a packet; None where decoders drop it. DamagedSlices, NoVectors: it cannot be read."""
