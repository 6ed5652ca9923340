"""Coupling layers: one pass in each direction."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from afflow._tools.arguments import check_callable
from afflow._tools.numerics import total
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.univariate import check_event, count_params, locate


class Coupling(Bijector):
    r"""A map that keeps some coordinates; they set the parameters of a univariate for the rest.

    $$y_A = x_A, \qquad y_B = f(x_B;\, n(x_A, h)), \qquad
    \log|\det J| = \sum_{b \in B} \log|\partial_x f(x_b; n_b)|.$$

    With `Additive` this is the layer of NICE (Dinh et al. 2015, arXiv:1410.8516), with `Affine`
    of Real NVP (Dinh et al. 2017, arXiv:1605.08803), with `RationalQuadraticSpline` of NSF-C
    (Durkan et al. 2019, arXiv:1906.04032).

    Args:
        mask: nested booleans of the shape of an event, true at the coordinates $A$ that pass.
        network: any module that maps the passing coordinates, `(num_passing,)` in their order,
            to parameters `(num_rest, P)`. If the network has a `context_shape`, its second
            argument is the context.
        univariate: a scalar bijector with `P` parameters, or a `PerDimension` with one
            univariate for each transformed coordinate, in order.

    Raises:
        ValueError: if no coordinate is transformed, or the network and the univariate disagree
            on the shape of the parameters.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> network = afflow.MLP(2, 1, 2, rngs=nnx.Rngs(0))
        >>> layer = afflow.Coupling([True, True, False], network, afflow.Affine())
        >>> layer.forward(jnp.arange(3.0)).tolist()
        [0.0, 1.0, 2.0]
    """

    def __init__(self, mask: Sequence | np.ndarray, network: Callable, univariate: Bijector):
        check_callable("network", network, "afflow.MLP(2, 1, 2, rngs=rngs)")
        passes = np.asarray(mask, bool)
        self.event_shape = passes.shape
        self.context_shape = getattr(network, "context_shape", None)
        self.passing = tuple(np.flatnonzero(passes).tolist())
        self.rest = tuple(np.flatnonzero(~passes).tolist())
        self.network = network
        self.univariate = univariate
        if not self.rest:
            raise ValueError(f"Expected a mask with coordinates to transform, got {passes}.")
        check_event(univariate, (len(self.rest),))
        self._check_network()

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._map(self.univariate.forward_and_log_det, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._map(self.univariate.inverse_and_log_det, y, context)

    def _map(self, f, x, context):
        flat, rest = x.reshape(-1), np.array(self.rest)
        inputs = locate(self.univariate, flat[rest])
        y, log_dets = jax.vmap(f)(inputs, self._params(flat, context))
        return flat.at[rest].set(y.astype(flat.dtype)).reshape(x.shape), total(log_dets)

    def _params(self, flat, context):
        passing = flat[np.array(self.passing, int)]
        return self.network(passing, *([] if self.context_shape is None else [context]))

    def _check_network(self):
        shapes = (np.prod(self.event_shape, dtype=int),), self.context_shape or ()
        found = jax.eval_shape(self._params, *(jax.ShapeDtypeStruct(s, float) for s in shapes))
        expected = (len(self.rest), count_params(self.univariate))
        if found.shape != expected:
            raise ValueError(f"Expected a network that returns {expected}, got {found.shape}.")
