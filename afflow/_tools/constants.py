"""Arrays that belong to a module and are not trained."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arrays import cast, to_double
from afflow._tools.outline import ConstructorSignature


class Constant(nnx.Variable):
    """An array that belongs to a module but is not trained: its gradient is zero.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> units = afflow.Standardize(jax.numpy.zeros(2), jax.numpy.ones(2))
        >>> len(jax.tree.leaves(nnx.state(units, nnx.Param)))
        0
        >>> len(jax.tree.leaves(nnx.state(units, afflow.core.Constant)))
        2
    """

    __signature__ = ConstructorSignature()

    def get_value(self, **options: Any) -> Any:
        """Return the array without a gradient."""
        value = super().get_value(**options)
        return jax.lax.stop_gradient(value) if isinstance(value, jax.Array) else value


def check_ends(low: ArrayLike, high: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return the ends of intervals as float arrays.

    Raises:
        ValueError: unless the ends are finite and in order, with at least one float between them.
    """
    exact = to_double("low", low), to_double("high", high)
    if not (np.isfinite(exact[0]).all() and np.isfinite(exact[1]).all() and np.less(*exact).all()):
        raise ValueError(f"Expected finite ends with low < high, got {low} and {high}.")
    ends = cast("low", exact[0]), cast("high", exact[1])
    cast("high - low", exact[1] - exact[0], is_scale=True)
    if not np.less(np.nextafter(*map(np.asarray, ends)), ends[1]).all():
        raise ValueError(
            f"Expected an interval that {ends[0].dtype} resolves, got {low} to {high}: subtract a "
            f"location in float64 first, or set jax_enable_x64."
        )
    return ends
