"""Flows and bijectors as distributions and bijectors of TensorFlow Probability on JAX."""

from collections.abc import Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates import jax as tfp

from afflow._tools.shapes import Shape
from afflow.adapters.events import check_part, has_derivatives, run_forward, run_inverse
from afflow.core.bijector import Bijector
from afflow.models.flow import Flow


@jax.tree_util.register_pytree_node_class
class BijectorInTFP(tfp.bijectors.Bijector):
    """A bijector as a bijector of TFP: a pytree with the arrays of the bijector as leaves.

    TFP asks for values and for log-determinants separately. `to_tfp` builds it.
    """

    def __init__(self, bijector: Bijector, context: jax.Array | None):
        self.bijector = bijector
        self.context = context
        super().__init__(
            forward_min_event_ndims=len(bijector.event_shape),
            parameters={"bijector": bijector, "context": context},
            name=type(bijector).__name__,
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        def count_axes(wrapper, event_ndims):
            """Count the axes of a context without batch axes; more axes of an event are more."""
            extra = event_ndims - wrapper.forward_min_event_ndims
            return len(wrapper.bijector.context_shape or ()) + extra

        return {"context": tfp.util.ParameterProperties(event_ndims=count_axes)}

    def _forward(self, x):
        return run_forward(self.bijector, x, self.context)[0]

    def _inverse(self, y):
        return run_inverse(self.bijector, y, self.context)[0]

    def _forward_log_det_jacobian(self, x):
        return run_forward(self.bijector, x, self.context)[1]

    def _inverse_log_det_jacobian(self, y):
        return run_inverse(self.bijector, y, self.context)[1]

    def tree_flatten(self) -> tuple[Sequence[Any], None]:
        """Return the bijector and the context as children of the pytree."""
        return (self.bijector, self.context), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Sequence[Any]) -> "BijectorInTFP":
        """Return the bijector of TFP from its children."""
        bijector, context = children
        return cls(bijector, context)


@jax.tree_util.register_pytree_node_class
class FlowInTFP(tfp.distributions.Distribution):
    r"""A flow as a distribution of TFP: $\log p(x \mid h)$ at the context $h$.

    The arrays of the flow and of the context are the leaves of a pytree. `to_tfp` builds it.
    """

    def __init__(self, flow: Flow, context: jax.Array | None, dtype: Any):
        self.flow = flow
        self.context = context
        kinds = tfp.distributions.NOT_REPARAMETERIZED, tfp.distributions.FULLY_REPARAMETERIZED
        super().__init__(
            dtype=dtype,
            reparameterization_type=kinds[has_derivatives(flow)],
            validate_args=False,
            allow_nan_stats=True,
            parameters={"flow": flow, "context": context, "dtype": dtype},
            name="Flow",
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        def count_axes(wrapper):
            return len(wrapper.flow.context_shape or ())

        return {"context": tfp.util.ParameterProperties(event_ndims=count_axes)}

    def _event_shape(self) -> Shape:
        return self.flow.event_shape

    def _event_shape_tensor(self):
        return jnp.array(self.flow.event_shape, jnp.int32)

    def _log_prob(self, value):
        return self.flow.log_prob(value, self.context)

    def _sample_n(self, n, seed=None):
        return self.flow.sample(tfp.random.sanitize_seed(seed), int(n), self.context)

    def _sample_and_log_prob(self, sample_shape, seed):
        shape = tuple(int(size) for size in np.atleast_1d(sample_shape))
        return self.flow.sample_and_log_prob(tfp.random.sanitize_seed(seed), shape, self.context)

    def tree_flatten(self) -> tuple[Sequence[Any], Any]:
        """Return the flow and the context as children of the pytree, and the type of samples."""
        return (self.flow, self.context), self.dtype

    @classmethod
    def tree_unflatten(cls, dtype: Any, children: Sequence[Any]) -> "FlowInTFP":
        """Return the distribution from its children."""
        flow, context = children
        return cls(flow, context, dtype)


@overload
def to_tfp(part: Flow, context: jax.Array | None = None) -> FlowInTFP: ...


@overload
def to_tfp(part: Bijector, context: jax.Array | None = None) -> BijectorInTFP: ...


def to_tfp(part, context=None):
    r"""Return a flow as a distribution of TFP, or a bijector as a bijector of TFP.

    TFP is TensorFlow Probability on JAX, `tensorflow_probability.substrates.jax`. The result stands
    where any part of TFP stands: in `TransformedDistribution`, `tfp.bijectors.Chain`, joint
    distributions, `tfp.mcmc` and `tfp.vi`. The leading axes of a context are the batch shape.
    `distrax.to_tfp` of a bijector with batch axes gives TFP a wrong density; `to_tfp` does not.

    Needs distrax (extra `distrax`), which installs TFP. Dillon et al. 2017, arXiv:1711.10604.

    Args:
        part: the flow or the bijector.
        context: contexts $h$, `(*batch_shape, *context_shape)`, of a part with a context.

    Raises:
        ValueError: for another kind of part, a flow over tables, or a context that is missing, not
            wanted or of another shape.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from tensorflow_probability.substrates import jax as tfp
        >>> exp = afflow.adapters.to_tfp(afflow.bijectors.Exp(2))
        >>> both = tfp.bijectors.Chain([tfp.bijectors.Exp(), exp])  # exp(exp(x))
        >>> round(both.forward(jnp.zeros(2))[0].item(), 4)
        2.7183
        >>> both.forward_log_det_jacobian(jnp.zeros(2), event_ndims=1).item()
        2.0
    """
    context = check_part(part, context)
    if isinstance(part, Bijector):
        return BijectorInTFP(part, context)
    drawn = jax.eval_shape(lambda key: part.sample(key, (), context), jax.random.key(0))
    return FlowInTFP(part, context, drawn.dtype)
