"""Factories: continuous normalizing flows."""

from typing import Unpack

from flax import nnx

from afflow.bijectors.continuous import Continuous, ExactTrace, MLPField, Trace
from afflow.models.flow import Flow
from afflow.zoo.stacking import Outside, stack_layers


def cnf(
    dim: int,
    *,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    trace: Trace = ExactTrace(),
    rtol: float = 1e-5,
    atol: float = 1e-5,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a continuous flow on a standard normal. It starts as the identity.

    Args:
        dim: number of coordinates `D`.
        hidden: widths of the hidden layers of the vector field.
        context_dim: length of the context vector; 0 for an unconditional flow.
        trace: computes the trace of the Jacobian. For many coordinates, use
            `Hutchinson(dim, key)`.
        rtol: relative tolerance of the solver.
        atol: absolute tolerance of the solver.
        rngs: its `params` stream draws the initial weights.
        **outside: `data`, `columns` and `base`, see `Outside`: the units of the flow.

    Raises:
        ImportError: if `diffrax` is not installed.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.cnf(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """

    def make(rngs):
        field = MLPField(dim, hidden, context_dim=context_dim, rngs=rngs)
        return Continuous(field, trace, rtol=rtol, atol=atol)

    return stack_layers(dim, make, 1, rngs, **outside)
