"""A model of events through a code: its bound, and its importance-weighted bound."""

from abc import abstractmethod
from functools import lru_cache, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_instance, check_number
from afflow._tools.arrays import to_device
from afflow._tools.calls import call, check_ending, per_event
from afflow._tools.constants import Constant
from afflow._tools.modules import copy_module
from afflow._tools.numerics import log_mean_exp
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_shape, check_size
from afflow.core.conditional import Conditional
from afflow.models.emission import codes as encode_values

_DRAWS = 16  # draws of the code in `log_prob`


class LatentModel(Outlined, nnx.Module):
    r"""A density of events whose values are independent given a code $z$.

    $$\log p(x) \ge \mathbb{E}_{q(z \mid x)}\big[\log p(x \mid z) + \log p(z) - \log q(z \mid x)
    \big].$$

    A subclass writes `infer` and `compute_params`, for one event.

    Args:
        conditional: the distribution of one value of an event, with `P` parameters.
        event_shape: the shape of an event, or the length of a vector.
        kl_weight: the weight $\beta$ of $\log p(z) - \log q(z \mid x)$ in training. `elbo` and
            `log_prob` do not depend on it.

    Raises:
        ValueError: if the conditional is not of scalars, or for a negative weight.
    """

    context_shape = None

    def __init__(
        self, conditional: Conditional, event_shape: int | Shape, *, kl_weight: float = 1.0
    ):
        check_instance("conditional", conditional, Conditional)
        if conditional.event_shape:
            raise ValueError(f"Expected a conditional of scalars, got {conditional}.")
        self.conditional = conditional
        self.event_shape = check_shape("event_shape", event_shape)
        check_number("kl_weight", kl_weight, lambda weight: weight >= 0, ">= 0")
        self.kl_weight = Constant(jnp.asarray(kl_weight, float))

    def with_kl_weight(self, kl_weight: float) -> Self:
        r"""Return the model with the same weights and another weight $\beta$ of the divergence."""
        check_number("kl_weight", kl_weight, lambda weight: weight >= 0, ">= 0")
        return copy_module(self, kl_weight=Constant(jnp.asarray(kl_weight, float)))

    @abstractmethod
    def infer(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        r"""Return a draw $z$ of $q(z \mid x)$, and $\log p(z) - \log q(z \mid x)$."""

    @abstractmethod
    def compute_params(self, z: jax.Array) -> jax.Array:
        """Return the parameters `(*event_shape, P)` of the values, given a code."""

    def elbo(self, key: jax.Array, x: jax.Array, num_samples: int = 1) -> jax.Array:
        r"""Return an unbiased estimate `(...)` of a lower bound on $\log p(x)$, in nats.

        With several samples the bound is the importance-weighted bound, tighter with each sample
        (Burda et al. 2016, arXiv:1509.00519).

        Args:
            key: a PRNG key for the codes.
            x: events `(..., *event_shape)`.
            num_samples: draws of the code for each event.
        """
        check_size("num_samples", num_samples)
        return call(_elbo_of(int(num_samples)), self, (self._events(x),), key=key)

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        r"""Return a lower bound in expectation on $\log p(x)$: `(...)` in nats.

        The bound is `elbo` with 16 draws from a fixed seed; the same call returns the same value.

        Args:
            x: events `(..., *event_shape)`.
            context: none; these models take no context.
            chunk: number of events to compute at a time, to save memory; by default all.
        """
        options = {"key": jax.random.key(0), "chunk": chunk}
        return call(_elbo_of(_DRAWS), self, (self._events(x),), context, **options)

    def score(self, x: jax.Array, z: jax.Array) -> jax.Array:
        r"""Return $\log p(x \mid z)$ of one event."""
        return add_terms(self.map_values(self.conditional.log_prob, x, self.compute_params(z)))

    def map_values(self, f: Any, *arrays: jax.Array) -> jax.Array:
        """Apply `f` to every value of an event; the arrays begin with the axes `event_shape`."""
        for _ in self.event_shape:
            f = jax.vmap(f)
        return f(*arrays)

    def draw_values(self, z: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return one event given a code: a draw, or without a key the mode of every value."""
        params = self.compute_params(z)
        if key is None:
            return self.map_values(self.conditional.mode, params)
        keys = jax.random.split(key, self.event_shape)
        return self.map_values(self.conditional.sample, keys, params)

    def encode_values(self, x: jax.Array) -> jax.Array:
        """Return the values of one event as numbers for a network.

        Their shape is `event_shape`, or `(*event_shape, F)` for a conditional that encodes a value
        as `F` numbers.
        """
        values = encode_values(self.conditional, x.reshape(-1))
        return values.reshape(*self.event_shape, *values.shape[1:])

    def _events(self, x):
        return check_ending("x", to_device("x", x), self.event_shape)


@lru_cache
def _elbo_of(num_samples: int) -> Any:
    """Return the compiled bound of a number of samples, which is the shape of its arrays."""
    return per_event(partial(_estimate_elbo, num_samples))


def _estimate_elbo(num_samples, model, item, context):
    x, key = item

    def weigh(key):
        z, log_ratio = model.infer(x, key)
        return model.score(x, z) + log_ratio

    return log_mean_exp(jax.vmap(weigh)(jax.random.split(key, num_samples)))


def add_terms(terms: jax.Array) -> jax.Array:
    """Return the sum of all terms, in float32 or wider."""
    return terms.sum(dtype=jnp.promote_types(terms.dtype, jnp.float32))
