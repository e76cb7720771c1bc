"""What the codec knows about one frame, and the signals of all sampled frames put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Bool, Float32, Int, Int16

from ove.records import CodecSignals
from ove.video.motion import dense_field
from ove.video.residual import GrayDecoder, residual_of


@dataclass(frozen=True)
class FrameSignals:
    """The signals of one frame; fields as in `CodecSignals`."""

    motion: Float32[np.ndarray, "h w 2"]
    has_vector: Bool[np.ndarray, "h w"]
    residual: Int16[np.ndarray, "H W"]


def frame_signals(frame: VideoFrame, packet: bytes, gray: GrayDecoder) -> FrameSignals:
    """The signals of a frame decoded with vectors exported, given its packet; CannotIsolate where there is no residual."""
    vectors = frame.side_data.get("MOTION_VECTORS")
    motion, has_vector = dense_field(None if vectors is None else vectors.to_ndarray(), frame.height, frame.width)
    return FrameSignals(motion, has_vector, residual_of(frame, packet, has_vector, gray))


def stacked(frames: Sequence[FrameSignals], order: Int[np.ndarray, "T"], quarter_turns: int = 0) -> CodecSignals:
    """The signals of the frames in the given order (indices may repeat), turned counter-clockwise by so many quarters."""
    turned = [_turned(frame, quarter_turns) for frame in frames] if quarter_turns else frames
    return CodecSignals(
        motion=np.stack([turned[i].motion for i in order]),
        has_vector=np.stack([turned[i].has_vector for i in order]),
        residual=np.stack([turned[i].residual for i in order]),
    )


def _turned(frame: FrameSignals, quarter_turns: int) -> FrameSignals:
    motion = np.rot90(frame.motion, quarter_turns)
    for _ in range(quarter_turns % 4):
        # With y downwards, what went right goes up after a quarter turn, and what went down goes right.
        motion = np.stack([motion[..., 1], -motion[..., 0]], axis=-1)
    return FrameSignals(motion, np.rot90(frame.has_vector, quarter_turns), np.rot90(frame.residual, quarter_turns))
