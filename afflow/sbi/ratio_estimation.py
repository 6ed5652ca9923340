"""Neural ratio estimation: a classifier that knows which parameters belong to the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_positive
from afflow._tools.calls import call, check_floating, make_typed, per_event
from afflow._tools.outline import Outlined
from afflow._tools.shapes import check_size
from afflow.bijectors.embedding import has_state
from afflow.nets.mlp import MLP
from afflow.sbi.rows import FitOptions, Summary, take_finite
from afflow.training.fitting import fit
from afflow.training.history import History


class RatioEstimator(Outlined, nnx.Module):
    r"""A network for the log-ratio of the likelihood to the evidence.

    $$h(\theta, x) \approx \log \frac{p(x \mid \theta)}{p(x)}
    = \log \frac{p(\theta \mid x)}{p(\theta)}.$$

    Args:
        theta: parameters `(N, D)` that standardise.
        x: data `(N, *x_shape)` that standardise.
        hidden: widths of the hidden layers.
        embedding: a network from one standardised `x` to a vector, or `None`.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for an embedding with `nnx.BatchNorm` or `nnx.Dropout`.
    """

    def __init__(
        self,
        theta: jax.Array,
        x: jax.Array,
        hidden: tuple[int, ...] = (64, 64, 64),
        embedding: Callable | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        if has_state(embedding):
            raise ValueError(
                "Expected an embedding without BatchNorm and Dropout for a ratio: npe takes one "
                "with them."
            )
        self.of_theta, self.of_x = Summary(theta, None), Summary(x, embedding)
        self.event_shape, self.context_shape = self.of_theta.x_shape, self.of_x.x_shape
        size = self.of_theta.size + self.of_x.size
        self.network = MLP(size, 1, 1, hidden, activation=jax.nn.gelu, rngs=rngs)

    def log_ratio(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        """Return the log-ratio in nats of `theta` `(..., D)` and `x` `(..., *x_shape)`.

        The leading axes broadcast.
        """
        theta = check_floating("theta", theta, self.event_shape)
        return call(_log_ratio, self, (theta,), x)

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-ratio, under the name that `fit` knows: `x` are the parameters."""
        assert context is not None
        return self.log_ratio(x, context)


@per_event
def _log_ratio(model, item, context):
    (theta,) = item
    return model.network(jnp.concatenate([model.of_theta(theta), model.of_x(context)]))[0, 0]


@dataclass(frozen=True)
class Contrast:
    r"""The NRE-C loss: which of `K` parameter vectors made the data, or none of them.

    $$-\frac{1}{1 + \gamma} \log\frac{K}{K + \gamma\sum_{k=1}^{K} e^{h(\theta_k', x)}}
    -\frac{\gamma}{1 + \gamma} \log\frac{\gamma e^{h(\theta, x)}}
    {K + \gamma\big(e^{h(\theta, x)} + \sum_{k=2}^{K} e^{h(\theta_k, x)}\big)}.$$

    The other parameters are those of other rows of the minibatch. At the optimum $h$ is the exact
    log-ratio, without a factor that depends on the data.

    Miller et al. 2022, arXiv:2210.06170.

    Args:
        num: the number $K$ of parameter vectors. A minibatch of `B` rows has at most `B - 1`.
        odds: the odds $\gamma$ that one of the parameter vectors made the data.
    """

    num: int = 5
    odds: float = 1.0

    def __post_init__(self):
        check_size("num", self.num)
        check_positive(odds=self.odds)

    def __call__(
        self, model: RatioEstimator, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the loss `(B,)` of parameters `x` `(B, D)` and their data `context`."""
        assert context is not None
        num = min(self.num, len(x) - 1)
        if not num:
            raise ValueError("Expected several rows in a minibatch and in validation, got one.")
        own = model.log_ratio(x, context)  # (B,)
        others = jnp.stack([jnp.roll(x, k + 1, 0) for k in range(num)])  # (K, B, D)
        others = model.log_ratio(others, context)  # (K, B)
        log_num, log_odds = jnp.log(num), jnp.log(self.odds)
        joint = jnp.concatenate([own[None], others[1:]])
        none = log_num - self._total(log_num, log_odds, others)
        one = log_odds + own - self._total(log_num, log_odds, joint)
        return -(none + self.odds * one) / (1 + self.odds)

    def _total(self, log_num, log_odds, ratios):
        return jnp.logaddexp(log_num, log_odds + jax.nn.logsumexp(ratios, axis=0))


def nre(
    theta: jax.Array,
    x: jax.Array,
    *,
    key: jax.Array,
    hidden: tuple[int, ...] = (64, 64, 64),
    embedding: Callable | None = None,
    contrast: Contrast = Contrast(),
    **options: Unpack[FitOptions],
) -> tuple[RatioEstimator, History]:
    r"""Fit $h(\theta, x) \approx \log p(x \mid \theta) / p(x)$; return it and its losses.

    `Posterior` combines the ratio with a prior and with one or several observations.

    Durkan et al. 2020, arXiv:2002.03712; Miller et al. 2022, arXiv:2210.06170.

    Args:
        theta: parameters `(N, D)`.
        x: data `(N, *x_shape)`. Rows with NaN or infinity are left out, with a warning.
        key: a PRNG key for the initial weights and the training.
        hidden: widths of the hidden layers.
        embedding: a network from one standardised `x` to a vector, trained with the ratio.
        contrast: the loss.
        **options: options of `afflow.fit`.

    Raises:
        ValueError: for shapes that do not match.

    Example:
        >>> import afflow, jax
        >>> theta = jax.random.normal(jax.random.key(0), (500, 1))
        >>> x = theta + 0.1 * jax.random.normal(jax.random.key(1), (500, 1))
        >>> ratio, history = afflow.sbi.nre(
        ...     theta, x, key=jax.random.key(2), hidden=(8,), max_epochs=2, progress=False
        ... )
        >>> ratio.log_ratio(theta, x).shape
        (500,)
    """
    theta, x = take_finite(theta, x)
    net_key, fit_key = jax.random.split(make_typed(key))
    ratio = RatioEstimator(theta, x, hidden, embedding, rngs=nnx.Rngs(net_key))
    return fit(ratio, theta, context=x, key=fit_key, objective=contrast, **options)
