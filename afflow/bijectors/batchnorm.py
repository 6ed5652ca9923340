"""Batch normalisation as a bijector, with running statistics that are updated explicitly."""

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.numerics import total
from afflow._tools.positive import positive
from afflow._tools.shapes import Shape, check_shape
from afflow.bijectors.walking import Model, change_layers
from afflow.core.bijector import Bijector, of_one_event

_EPSILON = 1e-5


class BatchNorm(Bijector):
    r"""A normalisation of each channel by running statistics, then a trainable affine map.

    $$x = \gamma \odot \frac{y - m}{\sqrt{v + \epsilon}} + \beta, \qquad
    \log|\det J_{f^{-1}}| = \sum \log\gamma - \tfrac12 \log(v + \epsilon).$$

    Channels are the last axis of an event. The mean $m$ and variance $v$ of each channel are
    `nnx.BatchStat`s. `fit` trains $\gamma$ and $\beta$ and does not change $m$ and $v$. To change
    $m$ and $v$, call `update_batchnorm` before training and between calls of `fit`.

    The paper uses the statistics of the minibatch in training. The log-density of an event would
    then depend on the other events of the batch. Here it never does.

    Papamakarios et al. 2017, arXiv:1705.07057, appendix B.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> data = jnp.array([[0.0, 10.0], [2.0, 30.0]])
        >>> layer = afflow.bijectors.update_batchnorm(afflow.bijectors.BatchNorm(2), data)
        >>> layer.inverse(data[1]).round(4).tolist()
        [1.0, 1.0]
    """

    is_elementwise = True

    has_units = True

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        channels = self.event_shape[-1]
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.variance = nnx.BatchStat(jnp.ones(channels))
        self.beta = nnx.Param(jnp.zeros(channels))
        self.gamma = nnx.Param(jnp.zeros(channels))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        mean, beta, scale = self._parameters()
        y = mean.astype(x.dtype) + (x - beta.astype(x.dtype)) / scale.astype(x.dtype)
        return y, -total(jnp.log(scale))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        mean, beta, scale = self._parameters()
        x = beta.astype(y.dtype) + (y - mean.astype(y.dtype)) * scale.astype(y.dtype)
        return x, total(jnp.log(scale))

    def _parameters(self):
        scale = positive(self.gamma[...]) * jax.lax.rsqrt(self.variance[...] + _EPSILON)
        parameters = self.mean[...], self.beta[...], scale
        return tuple(jnp.broadcast_to(a, self.event_shape) for a in parameters)


def update_batchnorm(
    model: Model, x: jax.Array, context: jax.Array | None = None, *, momentum: float = 0.0
) -> Model:
    r"""Return a copy of a flow or bijector with running statistics updated from the data `x`.

    $$m \leftarrow \rho\, m + (1 - \rho)\, \mathrm{mean}(y), \qquad
    v \leftarrow \rho\, v + (1 - \rho)\, \mathrm{var}(y),$$

    in each `BatchNorm`, from data to noise. The batch $y$ that reaches a layer has passed the
    updated layers before.

    Args:
        model: the flow or bijector, which is not changed.
        x: data `(N, *event_shape)`: the training set, or a batch of rows.
        context: for a conditional flow, `(N, *context_shape)`, or one context for all rows.
        momentum: the weight $\rho$ of the old statistics. With 0 the new statistics replace them,
            as in the paper for evaluation.

    Raises:
        ValueError: for `x` or a context of another shape, a momentum outside [0, 1], or a
            `BatchNorm` inside an `Inverse` or inside a module that does not override `walk`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> x, layer = jnp.ones((4, 1)), afflow.bijectors.BatchNorm(1)
        >>> layer = afflow.bijectors.update_batchnorm(layer, x, momentum=0.5)
        >>> layer.mean[...].tolist(), layer.variance[...].tolist()
        ([0.5], [0.5])
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"Expected momentum in [0, 1], got {momentum}.")

    def update(layer, y, context, *, forward):
        if forward:
            raise ValueError(
                "Expected no BatchNorm inside an Inverse: its noise is not normalised."
            )
        rows = tuple(range(y.ndim - 1))
        layer.mean = _move(layer.mean, y.mean(rows), momentum)
        layer.variance = _move(layer.variance, y.var(rows), momentum)

    return change_layers(model, BatchNorm, update, x, context)


def _move(old: nnx.BatchStat, new: jax.Array, momentum: float) -> nnx.BatchStat:
    mixed = momentum * old[...] + (1 - momentum) * new
    return nnx.BatchStat(mixed.astype(old.dtype))
