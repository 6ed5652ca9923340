"""The flow: a base distribution and a bijector from noise to data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from afflow._tools.arguments import check_instance
from afflow._tools.calls import call, check_floating, per_event
from afflow._tools.numerics import at_finite
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, find_context_shape
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.core.table import get_table
from afflow.models.dropout import add_noise, has_dropout, remove_dropout
from afflow.models.marginals import check_missing_last, check_triangular, compute_marginal


class Flow(Outlined, nnx.Module):
    r"""A base distribution and a bijector: the distribution that users train and sample.

    $$\log p(x \mid h) = \log p_0(f^{-1}(x; h)) + \log|\det J_{f^{-1}}(x; h)|.$$

    The methods take any leading batch axes and are compiled. Log-densities are in nats. If the
    bijector is a `Table`, the methods take and return tables instead of arrays.

    Args:
        base: the distribution of the noise.
        bijector: the map from noise to data.

    Raises:
        ValueError: if `base` is not a `Distribution`, `bijector` is not a `Bijector`, or their
            event or context shapes disagree. The methods raise it if an input has an unexpected
            shape, or if a context is missing or not wanted.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> x = flow.sample(jax.random.key(0), 100)
        >>> x.shape, flow.log_prob(x).shape
        ((100, 2), (100,))
    """

    def __init__(self, base: Distribution, bijector: Bijector):
        if isinstance(base, Bijector) or isinstance(bijector, Distribution):
            raise ValueError(
                f"Expected a Distribution and a Bijector in this order, got "
                f"{type(base).__name__} and {type(bijector).__name__}."
            )
        check_instance("base", base, Distribution)
        check_instance("bijector", bijector, Bijector)
        if base.event_shape != bijector.event_shape:
            raise ValueError(
                f"Expected base and bijector with one event_shape, got {base.event_shape} "
                f"and {bijector.event_shape}."
            )
        self.base = base
        self.bijector = bijector
        self.event_shape = bijector.event_shape
        self.context_shape = find_context_shape(base.context_shape, bijector.context_shape)

    def embed(self, contexts: jax.Array) -> tuple["Flow", jax.Array]:
        """Run the embedding network. Return the rest of the flow, and the embedded contexts.

        If the base takes the context too, return the flow and the contexts unchanged.

        Args:
            contexts: `(..., *context_shape)`.
        """
        if self.base.context_shape is not None:
            return self, contexts
        bijector, contexts = self.bijector.embed(contexts)
        return Flow(self.base, bijector), contexts

    @property
    def is_stateful(self) -> bool:
        """Whether `embed_to_train` runs a network with batch statistics or random keys."""
        return self.base.context_shape is None and self.bijector.is_stateful

    def embed_to_train(self, contexts: jax.Array) -> tuple["Flow", jax.Array]:
        """Run `embed` with the network in training mode, if the flow is stateful.

        Otherwise return the flow and the contexts unchanged.

        Args:
            contexts: a minibatch `(B, *context_shape)`.
        """
        if not self.is_stateful:
            return self, contexts
        bijector, contexts = self.bijector.embed_to_train(contexts)
        return Flow(self.base, bijector), contexts

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-density of `x` given `context`, one number per event.

        An event with a NaN has log-density NaN. An event with an infinite coordinate has density
        zero.

        Args:
            x: events `(..., *event_shape)`.
            context: contexts `(..., *context_shape)`. The leading axes of `x` and `context`
                broadcast.
            chunk: number of events to compute at a time, to save memory; by default all.

        Returns:
            Log-densities in nats, of the broadcast leading shape.
        """
        if table := get_table(self):
            return table.enter(self).log_prob(table.encode(x), context, chunk=chunk)
        x = check_floating("x", x, self.event_shape)
        return call(_log_prob, self, (x,), context, chunk=chunk)

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return `log_prob` with the dropout of the conditioners, drawn with `key`.

        Each event has separate dropout. The density of an inverse layer, as in `iaf`, then takes as
        many passes as there are tokens. `fit` calls this.

        Example:
            >>> import afflow, jax
            >>> from flax import nnx
            >>> flow = afflow.made(2, hidden=(8,), dropout=0.1, rngs=nnx.Rngs(0))
            >>> x = jax.numpy.ones((5, 2))
            >>> flow.training_log_prob(jax.random.key(0), x).shape
            (5,)
            >>> quiet = flow.without_noise().training_log_prob(jax.random.key(0), x)
            >>> bool(jax.numpy.allclose(quiet, flow.log_prob(x)))
            True
        """
        if table := get_table(self):
            return table.enter(self).training_log_prob(key, table.encode(x), context)
        if not has_dropout(self.bijector):
            return self.log_prob(x, context)
        x = check_floating("x", x, self.event_shape)
        return call(_noisy_log_prob, self, (x,), context, key=key)

    def without_noise(self) -> "Flow":
        """Return the flow whose `training_log_prob` has no dropout, for validation."""
        return remove_dropout(self)

    def check_missing(self, x: np.ndarray) -> None:
        """Raise `ValueError` unless `observed_log_prob` takes rows `x` with missing values (NaN).

        Args:
            x: rows `(..., D)`.
        """
        check_triangular(self.base, self.bijector)
        check_missing_last(np.isnan(x))

    def observed_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-density `(...)` of the coordinates of `x` that are not NaN.

        This is `afflow.models.prefix_log_prob` for observed coordinates of any number, and the
        objective of `fit` with `missing=True`. The cost is about one event of sampling and `D + 1`
        densities. The flow must be lower triangular, as there.

        Args:
            key: a PRNG key for dropout, which `without_noise` removes, and for the noise on whole
                numbers and categories of a table, of which there is one draw.
            x: events `(..., D)`, with NaN for missing values at the end.
            context: `(..., *context_shape)`.

        Raises:
            ValueError: for a flow that is not triangular or has another base than `Normal` or
                `Uniform` and, outside of compiled functions, for an observed coordinate after a
                missing one.

        Example:
            >>> import afflow, jax, jax.numpy as jnp
            >>> from flax import nnx
            >>> flow = afflow.made(2, rngs=nnx.Rngs(0))
            >>> x = jnp.array([[0.0, 0.0], [0.0, jnp.nan]])
            >>> log_prob = flow.observed_log_prob(jax.random.key(0), x)
            >>> [round(value, 4) for value in log_prob.tolist()]
            [-1.8379, -0.9189]
        """
        if table := get_table(self):
            return table.enter(self).observed_log_prob(key, table.encode(x), context)
        check_triangular(self.base, self.bijector)
        x = check_floating("x", x, self.event_shape)
        if not isinstance(x, Tracer):
            check_missing_last(np.isnan(x))
        noise_key = key if has_dropout(self.bijector) else None
        return call(_observed_log_prob, self, (x,), context, key=noise_key)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples `(*shape, *context_batch, *event_shape)`.

        Args:
            key: a PRNG key.
            shape: the number or shape of samples for each context.
            context: contexts `(*context_batch, *context_shape)`.
            chunk: number of samples to draw at a time, to save memory; by default all.
        """
        if table := get_table(self):
            return table.decode(table.enter(self).sample(key, shape, context, chunk=chunk))
        return call(_sample, self, context=context, key=key, shape=shape, chunk=chunk)

    def sample_and_log_prob(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Draw samples as `sample` does, and compute their log-densities in the same pass."""
        if table := get_table(self):
            x, log_prob = table.enter(self).sample_and_log_prob(key, shape, context, chunk=chunk)
            return table.decode(x), log_prob
        return call(_sample_and_log_prob, self, context=context, key=key, shape=shape, chunk=chunk)


@per_event
def _log_prob(flow, item, context):
    (x,) = item
    return _find_log_prob(flow, flow.bijector, x, context)


@per_event
def _noisy_log_prob(flow, item, context):
    x, key = item
    return _find_log_prob(flow, add_noise(flow.bijector, key), x, context)


def _find_log_prob(flow, bijector, x, context):
    def find(x):
        z, log_det = bijector.inverse_and_log_det(x, context)
        return flow.base.log_prob(z, context) + log_det

    return at_finite(find, x)


@per_event
def _observed_log_prob(flow, item, context):
    x, *key = item
    bijector = add_noise(flow.bijector, *key) if key else flow.bijector
    missing = jnp.isnan(x)
    marginal = partial(compute_marginal, flow.base, bijector, observed=~missing, context=context)
    return at_finite(marginal, jnp.where(missing, 0, x))


@per_event
def _sample(flow, item, context):
    (key,) = item
    return flow.bijector.forward(flow.base.sample(key, context), context)


@per_event
def _sample_and_log_prob(flow, item, context):
    (key,) = item
    z = flow.base.sample(key, context)
    x, log_det = flow.bijector.forward_and_log_det(z, context)
    return x, flow.base.log_prob(z, context) - log_det
