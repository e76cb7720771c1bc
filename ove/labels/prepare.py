"""Reads, decodes and prepares records for a teacher, in threads."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Shaped

from ove.errors import BadShard
from ove.labels.teachers.teacher import Teacher
from ove.prefetch import prefetch
from ove.records import BankName
from ove.shards.schema import ImageRecord, decode_frames, decode_image
from ove.shards.shard_set import ShardSet


@dataclass(frozen=True)
class PreparedSample:
    """A record that can be embedded."""

    index: int
    """In its shard set."""
    key: str
    prepared: Shaped[np.ndarray, "..."]
    """From `Teacher.prepare`."""
    pixel_hash: tuple[int, int]
    """Hash of the decoded pixels that the teacher sees."""
    pixels: int
    """Height times width of the picture."""


@dataclass(frozen=True)
class UnreadableSample:
    """A record that cannot be read."""

    index: int
    reason: str


def read_samples(
    shards: ShardSet, bank: BankName, teacher: Teacher, threads: int, members: range
) -> Iterator[PreparedSample | UnreadableSample]:
    """Yields records in order; `threads` threads read a few ahead.

    Of a video, the bank `obj` sees the middle frame, `vid` the teacher's `frames`.
    """
    cv2.setNumThreads(1)
    return prefetch(functools.partial(_sample, shards, bank, teacher), members, threads, depth=4 * threads)


def _sample(shards: ShardSet, bank: BankName, teacher: Teacher, index: int) -> PreparedSample | UnreadableSample:
    try:
        record = shards.record(index)
        if isinstance(record, ImageRecord):
            pictures = decode_image(record)[None]
        else:
            n_frames = len(record.frame_index)
            pictures = decode_frames(record, teacher.frames(n_frames) if bank == "vid" else [n_frames // 2])
    except BadShard as error:  # counted and listed by the caller
        return UnreadableSample(index, str(error))
    height, width = pictures.shape[1:3]
    hashed = hashlib.blake2b(np.ascontiguousarray(pictures).data, digest_size=16, person=f"{height}x{width}".encode())
    numbers = np.frombuffer(hashed.digest(), np.uint64).tolist()
    return PreparedSample(index, record.key, teacher.prepare(pictures, bank == "vid"), (numbers[0], numbers[1]), height * width)
