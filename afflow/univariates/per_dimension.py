"""A separate univariate for each coordinate."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_instances
from afflow._tools.shapes import Shape
from afflow.core.bijector import Bijector
from afflow.core.univariate import Univariate, count_params


class PerDimension(Univariate):
    r"""A list of univariates, one for each coordinate of a vector.

    $$y_t = f_t(x_t;\, \theta_t),$$

    for columns of different kinds, such as real numbers, positive numbers and angles. Use it in
    place of a univariate in `MaskedAutoregressive`, `Coupling` or an `Elementwise` of a vector.

    Each coordinate has a parameter vector of the largest length `P`. A univariate with fewer
    parameters reads the first entries. All coordinates run every *distinct* univariate, so the
    work grows with the number of distinct objects. To use equal univariates, pass one object
    several times.

    The order of the coordinates must stay the same from layer to layer. Most factories put a
    permutation between their layers, which moves a column to the univariate of another kind. Use
    one layer (`made`), or layers without permutations between them.

    The methods act on one coordinate and do not know its position. `locate` therefore pairs
    each coordinate with the index of its univariate. The methods take this pair.

    Args:
        univariates: one for each of the `D` coordinates.

    Raises:
        ValueError: if `univariates` is empty, or an entry is not a univariate. The layer that
            uses the list raises it unless there is one univariate for each coordinate.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> real, bounded = afflow.Affine(), afflow.univariates.BernsteinPolynomial(4)
        >>> layer = afflow.Elementwise(afflow.univariates.PerDimension([real, bounded, real]), 3)
        >>> layer.params.shape, layer.univariate.kinds
        ((3, 5), (0, 1, 0))
    """

    def __init__(self, univariates: Sequence[Bijector]):
        check_instances("univariates", univariates, Bijector)
        if not univariates:
            raise ValueError("Expected at least one univariate.")
        distinct = {id(univariate): univariate for univariate in univariates}
        places = list(distinct)
        self.univariates = nnx.List(distinct.values())
        self.kinds = tuple(places.index(id(univariate)) for univariate in univariates)
        super().__init__(max(map(count_params, univariates)))

    def locate(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pair the coordinates of `x` `(D,)` with the indices of their univariates `(D,)`."""
        return x, jnp.array(self.kinds)

    def check_event(self, event_shape: Shape) -> None:
        """Raise `ValueError` unless there is one univariate for each coordinate."""
        if event_shape != (len(self.kinds),):
            raise ValueError(
                f"Expected a univariate for each coordinate of {event_shape}, got "
                f"{len(self.kinds)} in PerDimension."
            )

    def forward_and_log_det(self, x, context=None):
        return self._switch([u.forward_and_log_det for u in self.univariates], x, context)

    def inverse_and_log_det(self, y, context=None):
        return self._switch([u.inverse_and_log_det for u in self.univariates], y, context)

    def _switch(self, methods, located_x, params):
        x, kind = located_x
        pairs = zip(methods, self.univariates, strict=True)
        branches = [partial(_run_on_head, method, count_params(u)) for method, u in pairs]
        return jax.lax.switch(kind, branches, x, params)


def _run_on_head(method, size, x, params):
    dtype = jnp.result_type(x, params)  # one for all branches
    y, log_det = method(x, params[:size])
    return y.astype(dtype), log_det.astype(dtype)
