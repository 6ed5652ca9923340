"""A conditional of a whole token that is itself autoregressive."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_instance
from afflow._tools.outline import Outlined
from afflow.core.conditional import Conditional
from afflow.models.autoregressive import AutoregressiveModel, decode
from afflow.models.emission import codes


class TokenModel(Outlined, nnx.Module, Conditional):
    r"""A conditional of a whole token: an autoregressive model of the values of the token.

    $$p(x_t \mid \theta_t) = \prod_c p(x_{t,c} \mid x_{t,<c}, \theta_t).$$

    The parameters $\theta_t$ from the conditioner are the context of the model. A recurrent network
    over the chords of a piece, with a NADE over the keys of a chord, is the RNN-NADE of
    Boulanger-Lewandowski et al. 2012, arXiv:1206.6392.

    Args:
        model: the model of one token, with a context `(P,)`.

    Raises:
        ValueError: if the model has no context.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> chord = afflow.models.TokenModel(afflow.nade(4, hidden=8, context_dim=6, rngs=rngs))
        >>> network = afflow.conditioners.Recurrent(3, 6, (8,), features=4, rngs=rngs)
        >>> model = afflow.AutoregressiveModel(network, chord)
        >>> x = model.sample(jax.random.key(0), 5)
        >>> x.shape, model.log_prob(x).shape
        ((5, 3, 4), (5,))
    """

    def __init__(self, model: AutoregressiveModel):
        check_instance("model", model, AutoregressiveModel)
        if model.context_shape is None:
            raise ValueError("Expected a model with a context, which the conditioner sets.")
        self.model = model
        (self.num_params,) = model.context_shape
        self.event_shape = model.event_shape
        self.features = model.event_shape[0] * model.conditional.features

    @property
    def is_discrete(self) -> Any:
        """Whether the values of a token are discrete."""
        return self.model.conditional.is_discrete

    def log_prob(self, x, params):
        return self.model.log_conditionals_of_one(x, params).sum()

    def sample(self, key, params, temperature=1.0):
        return self._decode(params, temperature, key)

    def mode(self, params):
        """Return the token of which each value is the mode given the values before it."""
        return self._decode(params, 1.0)

    def cdf(self, x, params):
        raise NotImplementedError("Expected a conditional of scalars: vectors have no order.")

    def encode(self, x):
        return codes(self.model.conditional, x).reshape(-1)

    def _decode(self, params, temperature, *key):
        x = jnp.zeros(self.event_shape)
        observed = jnp.zeros(len(x), bool)
        return decode(self.model, x, observed, params, jnp.asarray(temperature, float), *key)
