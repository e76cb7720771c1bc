"""Functions of a user's own, as docs/extending.md shows them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ove.probing.features import Embeddings, extract
from ove.probing.heads.knn import knn
from ove.records import Selection

NUMBER = 3


def harmonic(motion, residual, w_motion, w_residual):
    """`video.fusion`"""
    return 2 * motion * residual / np.maximum(motion + residual, np.float32(1e-6))


def fails(motion, residual, w_motion, w_residual):
    """A fusion with a mistake."""
    return motion * (1 // 0)


def takes_one(motion):
    """A fusion that does not take what it is given."""
    return motion


def one_row(motion, residual, w_motion, w_residual):
    """A fusion whose map is too small."""
    return motion[0]


def infinite(motion, residual, w_motion, w_residual):
    """A fusion that divides by nothing."""
    return np.full_like(motion, np.inf)


def ends(n_decoded, n_frames, energies):
    """`video.sampling`: half of the frames from the beginning, the rest from the end."""
    half = n_frames // 2
    return np.concatenate([np.arange(half), np.arange(n_decoded - (n_frames - half), n_decoded)])


def halves(n_decoded, n_frames, energies):
    """A sampling that returns numbers that are no indices."""
    return np.arange(n_frames) + 0.5


def best(saliency, is_i_frame, tokens, config):
    """`selection.rule`: the highest scores, wherever they are."""
    flat = np.argsort(-saliency.scores.ravel(), kind="stable")[:tokens]
    return Selection(np.sort(flat).astype(np.int32), saliency.scores.shape)


def too_few(saliency, is_i_frame, tokens, config):
    """A rule that does not keep to the budget."""
    return best(saliency, is_i_frame, tokens - 1, config)


def last(is_i_frame):
    """`selection.iframe_policy`: only the last I-frame is kept whole."""
    whole = np.arange(len(is_i_frame)) == np.flatnonzero(is_i_frame)[-1]
    return whole, np.zeros_like(is_i_frame)


def upwards(vectors, x, y):
    """`video.compensation`: the camera is taken to move up and down only."""
    return np.array([[0.0], [np.median(vectors[1])]])


def squared(speed):
    """`video.motion_feature`"""
    return speed**2


def halved(residual):
    """`video.residual_feature`"""
    return np.minimum(np.abs(residual) // 2, 255).astype(np.uint8)


def constant(peak, steps):
    """`train.schedule`"""
    return optax.constant_schedule(peak)


def sigmoid(embeddings, rows, is_positive, is_negative, scale, bias):
    """`centers.loss`: the sigmoid loss, written plainly."""

    def unit(x):
        return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))

    logits = scale * jnp.einsum("be,se->bs", unit(embeddings), unit(rows), precision="highest") + bias
    terms = jnp.where(is_positive, jax.nn.softplus(-logits), 0) + jnp.where(is_negative, jax.nn.softplus(logits), 0)
    return terms.sum()


def darker(patches, positions, record, other, view, rng):
    """`probe.interventions`: all patches at half their brightness."""
    return patches // 2, positions


def fewer(patches, positions, record, other, view, rng):
    """An intervention that loses a token."""
    return patches[1:], positions[1:]


def knn_of_tokens(encoder, train, val, n_classes, config, progress):
    """`probe.probe`: the nearest neighbours of the flattened tokens vote."""
    near, asked = (flat(extract(encoder, samples, progress)) for samples in (train, val))
    return [knn(n_classes, near, asked, config.neighbours)]


def flat(features):
    """All tokens of a sample as one vector of length 1."""
    vectors = features.tokens.reshape(len(features.labels), -1).astype(np.float32)
    return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), features.labels)


class EndColors:
    """`labels.teacher`: mean colors of a clip's first and last frame, or of a picture."""

    pictures_at_once, pictures_a_clip = 6, 2

    def __init__(self, config):
        self.power = float(config.weights or 1)

    def frames(self, n_frames):
        return [0, n_frames - 1]

    def prepare(self, pictures, clip):
        return pictures.mean(axis=(1, 2)).ravel() ** self.power

    def embed(self, prepared):
        return np.stack(prepared).astype(np.float32)
