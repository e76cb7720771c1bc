"""The linear probe: multinomial logistic regression on one embedding per sample."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32

from ove.probing.features import Embeddings
from ove.probing.scores import Accuracies, Predictions, Scores

_STEPS = 300
_TOLERANCE = 1e-5
"""Norm of the gradient of the mean loss at which the fit ends."""


def fit_linear(n_classes: int, train: Embeddings, val: Embeddings, l2: float) -> tuple[Scores, Predictions]:
    """Minimises Σ cross-entropy + ½·l2·|W|² by L-BFGS; returns the scores and the predictions for `val`.

    Features are standardised over `train`; the bias is not regularised. scikit-learn's LogisticRegression(C=1/l2) minimises
    the same objective (for two classes: C=2/l2).
    """
    mean, spread = train.vectors.mean(axis=0), train.vectors.std(axis=0) + 1e-8
    x_train, x_val = ((part.vectors - mean) / spread for part in (train, val))
    weights, bias = _minimum(jnp.asarray(x_train), jnp.asarray(train.labels), n_classes, l2)
    of_train, of_val = (
        _scored(np.asarray(x @ weights + bias), part.labels, n_classes) for x, part in ((x_train, train), (x_val, val))
    )
    last = of_val.accuracy()
    return Scores(last, last, 0, of_train.accuracy()), of_val.predictions()


def _scored(logits: np.ndarray, labels: np.ndarray, n_classes: int) -> Accuracies:
    accuracies = Accuracies(n_classes)
    accuracies.add(logits, labels)
    return accuracies


def _minimum(x: Float32[Array, "S E"], labels: Array, n_classes: int, l2: float) -> tuple[Array, Array]:
    def loss_of(params: tuple[Array, Array]) -> Array:
        weights, bias = params
        losses = optax.softmax_cross_entropy_with_integer_labels(x @ weights + bias, labels)
        return losses.mean() + 0.5 * l2 / len(labels) * jnp.square(weights).sum()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss_of)

    @jax.jit
    def minimise(params: tuple[Array, Array]) -> tuple[Array, Array]:
        def step(carry: tuple) -> tuple:
            params, state, count, _ = carry
            value, grad = value_and_grad(params, state=state)
            updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss_of)
            return optax.apply_updates(params, updates), state, count + 1, optax.tree.norm(grad)

        start = params, optimizer.init(params), 0, jnp.float32(jnp.inf)
        return jax.lax.while_loop(lambda carry: (carry[2] < _STEPS) & (carry[3] > _TOLERANCE), step, start)[0]

    return minimise((jnp.zeros((x.shape[1], n_classes)), jnp.zeros(n_classes)))
