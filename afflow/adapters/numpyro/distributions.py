"""A flow as a distribution of NumPyro."""

from typing import Any

import jax
import numpyro.distributions as dist
from numpyro.distributions.constraints import Constraint

from afflow.adapters.events import check_flow, find_batch_shape, has_derivatives
from afflow.adapters.numpyro.supports import find_support
from afflow.models.flow import Flow


class FlowDistribution(dist.Distribution):
    r"""A flow as a distribution of NumPyro: $\log p(x \mid h)$ at the context $h$.

    The arrays of the flow and of the context are the leaves of a pytree. A compiled function that
    takes the distribution as an argument therefore compiles once for all weights. `to_numpyro`
    builds it.
    """

    pytree_data_fields = ("flow", "context", "_support")

    def __init__(self, flow: Flow, context: jax.Array | None, support: Constraint):
        self.flow = flow
        self.context = context
        self._support = support
        super().__init__(find_batch_shape(flow, context), flow.event_shape)

    @property
    def has_rsample(self) -> bool:
        """Whether samples have derivatives: not for a base that draws a component at random."""
        return has_derivatives(self.flow)

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw samples `(*sample_shape, *batch_shape, *event_shape)`."""
        return self.flow.sample(_check_key(key), sample_shape, self.context)

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[Any]]:
        """Draw samples as `sample` does. Return them and a list of their log-densities.

        Sampling and density share one pass of the flow.
        """
        x, log_prob = self.flow.sample_and_log_prob(_check_key(key), sample_shape, self.context)
        return x, [log_prob]

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> jax.Array:
        """Return the log-densities of events in nats.

        Args:
            value: events `(..., *event_shape)`. Its leading axes broadcast with `batch_shape`.
            intermediates: the list that `sample_with_intermediates` returned with `value`.
        """
        return intermediates[0] if intermediates else self.flow.log_prob(value, self.context)


def to_numpyro(
    flow: Flow, context: jax.Array | None = None, *, support: Constraint | None = None
) -> FlowDistribution:
    r"""Return a flow as a distribution of NumPyro.

    The distribution has the density $p(x \mid h)$ of the flow. It stands where any distribution of
    NumPyro stands: as a prior or likelihood in `numpyro.sample`, in a plate, and in a guide.

    Needs NumPyro (extra `numpyro`). Phan et al. 2019, arXiv:1912.11554.

    Args:
        flow: the flow.
        context: contexts $h$, `(*batch_shape, *context_shape)`, of a flow with a context.
        support: the set of events with a density above zero. By default the image of the last
            bijector: the positive numbers for `Positive` and `Exp`, a box for `Interval` and
            `Tanh`, increasing vectors for `Ordered`, and real numbers otherwise.

    Raises:
        ValueError: for a flow over tables, a context that is missing, not wanted or of another
            shape, or a support that is not known.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> prior = afflow.adapters.to_numpyro(flow)
        >>> prior.batch_shape, prior.event_shape, prior.support
        ((), (2,), RealVector(Real(), 1))
        >>> prior.sample(jax.random.key(0), (3,)).shape
        (3, 2)
    """
    context = check_flow(flow, context)
    return FlowDistribution(flow, context, find_support(flow) if support is None else support)


def _check_key(key: jax.Array | None) -> jax.Array:
    if key is None:
        raise ValueError("Expected a key, jax.random.key(0) say, got None.")
    return key
