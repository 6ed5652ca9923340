"""The variational autoencoder whose posterior is a flow."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_instance
from afflow._tools.calls import call, check_ending, per_event
from afflow._tools.shapes import Shape
from afflow.core.conditional import Conditional
from afflow.core.distribution import Distribution
from afflow.distributions.standard import Normal
from afflow.models.dropout import add_noise, remove_dropout
from afflow.models.flow import Flow
from afflow.models.latent import LatentModel


class VAE(LatentModel):
    r"""A variational autoencoder: a code of `L` numbers with a flow as its posterior.

    $$\log p(x) \ge \mathbb{E}_{q(z \mid h(x))}\big[\log p(x \mid z) + \log p(z)
    - \log q(z \mid h(x))\big].$$

    `fit` weighs $\log p(z) - \log q$ by $\beta$, which `with_kl_weight` sets. Train for some epochs
    with small weights first, and then with 1: otherwise many numbers of the code stay unused.

    The encoder $h$ maps an event to the context of the flow $q$. An inverse autoregressive flow
    draws a code and its density in one pass (Kingma et al. 2016, arXiv:1606.04934). The prior may
    be a flow as well. The values of an event are independent given the code.

    Kingma and Welling 2014, arXiv:1312.6114.

    Args:
        encoder: maps the values of an event to the numbers of a context of the posterior, in any
            shape. Values have the shape `event_shape`, or `(*event_shape, F)` for a conditional
            that encodes a value as `F` numbers.
        decoder: maps a code `(L,)` to the parameters `(*event_shape, P)` of the values, in any
            shape.
        conditional: the distribution of one value, with `P` parameters.
        posterior: a flow of codes `(L,)` with a context. Its samples must be differentiable, as
            the samples of all bases but `Mixture` are.
        event_shape: the shape of an event.
        prior: a distribution or an unconditional flow of codes; by default standard normal.
        kl_weight: $\beta$.

    Raises:
        ValueError: if the networks, the posterior and the prior do not fit together.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> posterior = afflow.iaf(2, num_layers=1, hidden=(8,), context_dim=4, rngs=nnx.Rngs(0))
        >>> rngs = nnx.Rngs(1)
        >>> encoder, decoder = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(2, 3, rngs=rngs)
        >>> binary = afflow.conditionals.Bernoulli()
        >>> model = afflow.models.VAE(encoder, decoder, binary, posterior, 3)
        >>> model.elbo(jax.random.key(0), jnp.array([[0, 1, 1], [1, 0, 0]])).shape
        (2,)
        >>> model.sample(jax.random.key(0), 5).shape
        (5, 3)
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        conditional: Conditional,
        posterior: Flow,
        event_shape: Shape | int,
        prior: Distribution | Flow | None = None,
        *,
        kl_weight: float = 1.0,
    ):
        super().__init__(conditional, event_shape, kl_weight=kl_weight)
        check_instance("posterior", posterior, Flow)
        self.encoder, self.decoder, self.posterior = encoder, decoder, posterior
        self.prior = Normal(posterior.event_shape) if prior is None else prior
        _check_prior(self)
        _check_networks(self)

    def infer(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        r"""Return a draw $z$ of $q(z \mid x)$, and $\log p(z) - \log q(z \mid x)$."""
        h = self.encoder(self.encode_values(x)).reshape(self.posterior.context_shape)
        z, log_q = self.posterior.sample_and_log_prob(key, (), h)
        return z, self.prior.log_prob(z) - log_q

    def compute_params(self, z: jax.Array) -> jax.Array:
        """Return the parameters `(*event_shape, P)` of the values, given a code `(L,)`."""
        return self.decoder(z).reshape(*self.event_shape, self.conditional.num_params)

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        r"""Return `elbo` with one draw, and the weight $\beta$ in it, for `fit`.

        The dropout of the posterior and of the prior acts, separately for each event.
        """
        return call(_estimate_weighted_elbo, self, (self._events(x),), context, key=key)

    def without_noise(self) -> "VAE":
        """Return the model without dropout, for validation. It still draws codes."""
        return remove_dropout(self)

    def encode(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return drawn codes `(..., L)` of events."""
        return call(_encode, self, (self._events(x),), key=key)

    def decode(self, z: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return events `(..., *event_shape)` of codes `(..., L)`.

        Without a key, every value is the mode of its conditional. With a key, it is a draw.
        """
        z = check_ending("z", jnp.asarray(z), self.posterior.event_shape)
        keys = () if key is None else (jax.random.split(key, z.shape[:-1]),)
        decode = self.draw_values
        for _ in z.shape[:-1]:
            decode = jax.vmap(decode)
        return decode(z, *keys)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw events `(*shape, *event_shape)`, `chunk` at a time to save memory."""
        return call(_sample, self, context=context, key=key, shape=shape, chunk=chunk)


@per_event
def _estimate_weighted_elbo(model, item, context):
    x, key = item
    z, log_ratio = add_noise(model, jax.random.fold_in(key, 1)).infer(x, key)
    return model.score(x, z) + model.kl_weight[...].astype(log_ratio.dtype) * log_ratio


@per_event
def _encode(model, item, context):
    return model.infer(*item)[0]


@per_event
def _sample(model, item, context):
    (key,) = item
    code_key, values_key = jax.random.split(key)
    return model.draw_values(model.prior.sample(code_key), values_key)


def _check_prior(model: VAE) -> None:
    """Raise `ValueError` unless the prior is an unconditional density of codes."""
    check_instance("prior", model.prior, (Distribution, Flow))
    shape = model.posterior.event_shape
    if model.prior.event_shape != shape or model.prior.context_shape is not None:
        raise ValueError(
            f"Expected a prior of event_shape {shape} without context, got event_shape "
            f"{model.prior.event_shape}, context_shape {model.prior.context_shape}."
        )


def _check_networks(model: VAE) -> None:
    """Raise `ValueError` if a network does not return as many numbers as are needed."""
    x, z = jnp.zeros(model.event_shape), jnp.zeros(model.posterior.event_shape)
    context = model.posterior.context_shape
    if context is None:
        raise ValueError("Expected a posterior with a context, got one without: its context_dim.")
    params = *model.event_shape, model.conditional.num_params
    _check_size("encoder", lambda x: model.encoder(model.encode_values(x)), x, context)
    _check_size("decoder", model.decoder, z, params)


def _check_size(name: str, network: Any, given: jax.Array, expected: Shape) -> None:
    found = jax.eval_shape(network, given).shape
    if math.prod(found) != math.prod(expected):
        raise ValueError(f"Expected {name} to return {expected}, got shape {found}.")
