"""Which frames of a video are sampled: evenly, from its middle, or those whose packets bring the most news."""

import itertools

import numpy as np
from jaxtyping import Float64, Int32

from ove.errors import BadClip, ConfigError

SAMPLINGS = ("uniform", "consecutive", "energy", "accumulate")


def sample_indices(
    n_decoded: int, n_frames: int, sampling: str, energies: Float64[np.ndarray, "n"] | None = None
) -> Int32[np.ndarray, "T"]:
    """Indices (ascending) of the `n_frames` sampled frames among the `n_decoded` frames of a video.

    `uniform` and `accumulate` spread them over the whole video; `consecutive` takes the middle; `energy` takes of as many
    equal intervals the frame of the highest energy (one per frame, `ove.video.packets`), the first of equal ones. A video with
    fewer frames than asked for is sampled uniformly in all cases, so that indices repeat. An empty video raises BadClip, a
    sampling that is unknown or lacks its energies ConfigError (spec §2).
    """
    if n_decoded < 1:
        raise BadClip(f"a video of {n_decoded} frames cannot be sampled; at least one frame is needed.")
    if sampling not in SAMPLINGS or (sampling == "energy" and (energies is None or len(energies) != n_decoded)):
        raise ConfigError(
            f"sampling = {sampling!r} is none of {', '.join(SAMPLINGS)}, or (energy) comes without an energy of each frame."
        )
    if sampling == "consecutive" and n_decoded >= n_frames:
        return np.arange(n_frames, dtype=np.int32) + np.int32((n_decoded - n_frames) // 2)
    if sampling == "energy" and n_decoded >= n_frames and energies is not None:
        edges = np.arange(n_frames + 1) * n_decoded // n_frames
        return np.array([a + int(np.argmax(energies[a:b])) for a, b in itertools.pairwise(edges)], np.int32)
    return np.linspace(0, n_decoded - 1, n_frames).astype(np.int32)
