"""A guide of NumPyro whose posterior is a flow."""

from collections.abc import Callable
from typing import Any

import numpyro
from flax import nnx
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.initialization import init_to_uniform

from afflow._tools.arguments import check_callable, check_instance
from afflow.adapters.numpyro.distributions import FlowDistribution, to_numpyro
from afflow.adapters.numpyro.transforms import BijectorTransform, to_transform
from afflow.bijectors.permutations import Permutation
from afflow.models.flow import Flow


class AutoFlow(AutoContinuous):
    r"""A guide whose posterior over all latent variables is a flow, for `numpyro.infer.SVI`.

    The latent variables $\theta$ are moved to the real space, where they form one vector
    $x \sim q_\phi$. `Trace_ELBO` then maximises
    $\mathbb{E}_q[\log p(y, \theta(x)) + \log|\det \theta'(x)| - \log q_\phi(x)]$. Every training
    step samples the flow, so prefer flows that sample in one pass: `afflow.iaf` and the coupling
    flows.

    `numpyro.infer.reparam.NeuTraReparam` takes a fitted guide, if the base of the flow has no
    parameters (Hoffman et al. 2019, arXiv:1903.03704).

    Needs NumPyro (extra `numpyro`).

    Args:
        model: the model of NumPyro, with continuous latent variables.
        make_flow: builds the flow: `make_flow(dim, rngs=rngs)` returns a `Flow` over vectors of
            length `dim`, such as `functools.partial(afflow.iaf, num_layers=2)`.
        prefix: the start of the names of the guide's sites.
        init_loc_fn: a strategy of `numpyro.infer.initialization`. It decides only the shapes here.

    Raises:
        ValueError: when the guide first runs, unless `make_flow` returns a `Flow` without context
            over the real vectors of length `dim`.

    Example:
        >>> import afflow, jax, numpyro, numpyro.distributions as dist
        >>> from functools import partial
        >>> from numpyro.infer import SVI, Trace_ELBO
        >>> def model():
        ...     numpyro.sample("x", dist.Normal(3.0, 1.0).expand((2,)).to_event(1))
        >>> guide = afflow.adapters.AutoFlow(model, partial(afflow.iaf, hidden=(8,), num_layers=1))
        >>> svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
        >>> params = svi.run(jax.random.key(0), 10, progress_bar=False).params
        >>> guide.sample_posterior(jax.random.key(1), params, sample_shape=(5,))["x"].shape
        (5, 2)
        >>> guide.get_flow(params).event_shape
        (2,)
    """

    def __init__(
        self,
        model: Callable,
        make_flow: Callable[..., Flow],
        *,
        prefix: str = "auto",
        init_loc_fn: Callable = init_to_uniform,
    ):
        check_callable("make_flow", make_flow, "functools.partial(afflow.iaf, num_layers=2)")
        self.make_flow = make_flow
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    def get_flow(self, params: dict[str, Any]) -> Flow:
        """Return the flow over the unconstrained latent vector, from parameters of the guide."""
        return nnx.merge(self._graph, params[self._name], self._rest)

    def get_base_dist(self) -> FlowDistribution:
        """Return the base of the flow as a distribution of NumPyro.

        Raises:
            NotImplementedError: if the base has parameters.
        """
        self._check_base()
        identity = Permutation(range(self.latent_dim))
        return to_numpyro(Flow(self._base, identity))

    def get_transform(self, params: dict[str, Any]) -> BijectorTransform:
        """Return the bijector of the flow as a transform of NumPyro.

        Raises:
            NotImplementedError: if the base of the flow has parameters.
        """
        self._check_base()
        return to_transform(self.get_flow(params).bijector)

    def get_posterior(self, params: dict[str, Any]) -> FlowDistribution:
        """Return the flow as a distribution of NumPyro over the unconstrained latent vector."""
        return to_numpyro(self.get_flow(params))

    def _setup_prototype(self, *args, **kwargs):
        super()._setup_prototype(*args, **kwargs)
        flow = self.make_flow(self.latent_dim, rngs=nnx.Rngs(numpyro.prng_key()))
        self._check_flow(flow)
        self._base = flow.base
        self._graph, self._start, self._rest = nnx.split(flow, nnx.Param, ...)

    def _check_flow(self, flow):
        check_instance("make_flow(dim, rngs=rngs)", flow, Flow)
        if flow.event_shape != (self.latent_dim,) or flow.context_shape is not None:
            raise ValueError(
                f"Expected a flow of event_shape {(self.latent_dim,)} without context, got "
                f"event_shape {flow.event_shape} and context_shape {flow.context_shape}."
            )
        if to_numpyro(flow).support is not constraints.real_vector:
            raise ValueError(
                f"Expected a flow over real vectors, got support {to_numpyro(flow).support}: "
                f"NumPyro maps the flow's samples onto the supports of the latent variables."
            )

    def _get_posterior(self):
        start: Any = self._start  # a pytree, as in numpyro.module
        return self.get_posterior({self._name: numpyro.param(self._name, start)})

    @property
    def _name(self):
        return f"{self.prefix}_flow"

    def _check_base(self):
        if nnx.state(self._base, nnx.Param):
            raise NotImplementedError(
                f"Expected a base without parameters, such as Normal, for the transform of a "
                f"guide, got {type(self._base).__name__}."
            )
