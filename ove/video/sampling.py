"""Which frames of a video are sampled: evenly, from its middle, or by the energy of their packets."""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int32

from ove.errors import BadClip, ConfigError
from ove.named import named

Energies = Float64[np.ndarray, "n"] | None
WITHOUT_ENERGIES = ("uniform", "consecutive", "pool")
"""Samplings that need no packets."""


def sample_indices(
    n_decoded: int, n_frames: int, sampling: str, energies: Float64[np.ndarray, "n"] | None = None
) -> Int32[np.ndarray, "T"]:
    """Returns the ascending indices of `n_frames` sampled frames among the `n_decoded` of a video, by an entry of `SAMPLINGS`.

    A video with fewer frames is sampled uniformly, so that indices repeat. BadClip for an empty video; ConfigError for a
    sampling that is unknown, lacks its energies or returns anything else (spec §2).
    """
    if n_decoded < 1:
        raise BadClip(f"a video of {n_decoded} frames cannot be sampled; at least one frame is needed.")
    rule = named(SAMPLINGS, sampling, "video.sampling")
    if n_decoded < n_frames:
        rule = uniform
    elif sampling == "energy" and (energies is None or len(energies) != n_decoded):
        raise ConfigError("video.sampling = 'energy' needs an energy of each frame.")
    index = np.asarray(rule(n_decoded, n_frames, energies))
    if (
        index.shape != (n_frames,)
        or index.dtype.kind not in "iu"
        or (np.diff(index) < 0).any()
        or ((index < 0) | (index >= n_decoded)).any()
    ):
        raise ConfigError(f"video.sampling = {sampling!r} must return {n_frames} ascending indices below {n_decoded}.")
    return index.astype(np.int32)


def uniform(n_decoded: int, n_frames: int, energies: Energies) -> Int32[np.ndarray, "T"]:
    """Spreads over the whole video, from its first frame to its last."""
    return np.linspace(0, n_decoded - 1, n_frames).astype(np.int32)


def consecutive(n_decoded: int, n_frames: int, energies: Energies) -> Int32[np.ndarray, "T"]:
    """Takes the frames in the middle of the video."""
    return np.arange(n_frames, dtype=np.int32) + np.int32((n_decoded - n_frames) // 2)


def energy(n_decoded: int, n_frames: int, energies: Energies) -> Int32[np.ndarray, "T"]:
    """Takes of each equal interval the frame of the highest energy (`ove.video.packets`), the first of equal ones."""
    assert energies is not None
    edges = np.arange(n_frames + 1) * n_decoded // n_frames
    return np.array([a + int(energies[a:b].argmax(0)) for a, b in itertools.pairwise(edges)], np.int32)


SAMPLINGS: dict[str, Callable[[int, int, Energies], np.ndarray]] = {
    "uniform": uniform,
    "consecutive": consecutive,
    "energy": energy,
    "pool": uniform,  # the signals of the frames between are pooled (`ove.video.pooling`)
}
"""`video.sampling`: frames of the video, frames to sample, energies (None for `WITHOUT_ENERGIES`) → ascending indices."""
