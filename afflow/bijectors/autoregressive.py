"""The autoregressive bijector: a conditioner, a univariate, and a solver."""

import jax
from jax.tree_util import Partial

from afflow._tools.arguments import check_instance
from afflow._tools.numerics import total
from afflow.bijectors.solvers import Incremental, Solver, solve
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.conditioner import Conditioner
from afflow.core.univariate import check_event, count_params, locate


class MaskedAutoregressive(Bijector):
    r"""A map of each token by a univariate whose parameters depend on earlier tokens.

    $$y_t = f(x_t;\, c_t(y_{<t}, h)), \qquad
    \log|\det J_{f^{-1}}(y)| = \sum_t \log|\partial_y f^{-1}(y_t;\, c_t(y_{<t}, h))|.$$

    A token is usually a coordinate. If the conditioner has events `(T, C)`, a token is a vector,
    and the univariate acts on each of its `C` values with separate parameters.

    `inverse` (density) is one parallel pass. `forward` (sampling) is serial in `t` and is run by
    `solver`; its derivatives are exact, and the same for every solver. This is one layer of
    MAF (Papamakarios et al. 2017, arXiv:1705.07057). Its `Inverse` is one layer of IAF (Kingma
    et al. 2016, arXiv:1606.04934).

    Args:
        conditioner: maps `(T,)` to `(T, P)`, or `(T, C)` to `(T, C P)`; row `t` depends on `x[:t]`
            and the context only.
        univariate: a scalar bijector with `P` parameters.
        solver: runs the serial direction.

    Raises:
        ValueError: if the conditioner and the univariate disagree on `P`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> made = afflow.MADE(3, 2, rngs=nnx.Rngs(0))
        >>> layer = afflow.MaskedAutoregressive(made, afflow.Affine())
        >>> z, log_det = layer.inverse_and_log_det(jnp.array([1.0, 2.0, 3.0]))
        >>> z.tolist(), log_det.item()
        ([1.0, 2.0, 3.0], 0.0)
    """

    def __init__(
        self, conditioner: Conditioner, univariate: Bijector, solver: Solver = Incremental()
    ):
        check_instance("conditioner", conditioner, Conditioner)
        check_instance("solver", solver, Solver)
        num_params = count_params(univariate) * conditioner.features
        if conditioner.num_params != num_params:
            raise ValueError(
                f"Expected a conditioner with num_params={num_params} for "
                f"{type(univariate).__name__}, got {conditioner.num_params}."
            )
        check_event(univariate, conditioner.event_shape)
        self.conditioner = conditioner
        self.univariate = univariate
        self.solver = solver
        self.event_shape = conditioner.event_shape
        self.context_shape = conditioner.context_shape

    @property
    def is_triangular(self) -> bool:
        return True

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        params = self.conditioner(y, self._own(context)).reshape(*y.shape, -1)  # (T, *token, P)
        to_noise = self.univariate.inverse_and_log_det
        for _ in self.event_shape:
            to_noise = jax.vmap(to_noise)
        x, log_dets = to_noise(locate(self.univariate, y), params)
        return x, total(log_dets)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        emit = Partial(type(self.univariate).forward_and_log_det, self.univariate)
        inputs = locate(self.univariate, x)
        y, log_dets = solve(self.solver, self.conditioner, emit, inputs, self._own(context))
        return y, total(log_dets)

    def _own(self, context):
        return None if self.context_shape is None else context
