"""Products, mixtures and class-conditional distributions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_instances
from afflow._tools.numerics import log_total, widen
from afflow._tools.shapes import Shape, find_context_shape
from afflow.core.bijector import of_one_event
from afflow.core.distribution import Distribution


class Product(Distribution):
    r"""Independent distributions side by side: $p(x) = \prod_k p_k(x_{B_k})$.

    The coordinates of a base can thus be of different kinds, such as an angle and a heavy tail.

    Args:
        parts: distributions of vectors. Part $k$ has the coordinates $B_k$ that follow part
            $k - 1$.

    Raises:
        ValueError: if empty, if a part has events that are not vectors, or if contexts disagree.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> base = afflow.distributions.Product([afflow.Normal(2), afflow.Uniform(1)])
        >>> base.sample(jax.random.key(0)).shape
        (3,)
    """

    def __init__(self, parts: Sequence[Distribution]):
        check_instances("parts", parts, Distribution)
        shapes = [part.event_shape for part in parts]
        if not shapes or any(len(shape) != 1 for shape in shapes):
            raise ValueError(f"Expected distributions of vectors, got event shapes {shapes}.")
        self.parts = nnx.List(parts)
        self.event_shape = (sum(size for (size,) in shapes),)
        self.context_shape = find_context_shape(*(part.context_shape for part in parts))

    @property
    def has_units(self) -> bool:
        """Whether every part has a location and a scale."""
        return all(part.has_units for part in self.parts)

    @of_one_event
    def log_prob(self, x, context=None):
        ends = np.cumsum([part.event_shape[0] for part in self.parts])[:-1]
        pieces = zip(self.parts, jnp.split(x, ends), strict=True)
        return sum(part.log_prob(piece, context) for part, piece in pieces)

    def sample(self, key, context=None):
        keys = jax.random.split(key, len(self.parts))
        drawn = zip(self.parts, keys, strict=True)
        return jnp.concatenate([part.sample(key, context) for part, key in drawn])


class Mixture(Distribution):
    r"""A mixture of distributions with learned weights: $p(x) = \sum_k w_k\,p_k(x)$.

    Sampling is exact: first draw a component, then an event from that component. The draw of the
    component has no derivative, so train by likelihood.

    Args:
        components: at least one, all of one event shape. The weights start equal.

    Raises:
        ValueError: if empty, or if event or context shapes disagree.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> two = [afflow.Uniform(1, 0.0, 1.0), afflow.Uniform(1, 0.0, 4.0)]
        >>> round(jnp.exp(afflow.distributions.Mixture(two).log_prob(jnp.full(1, 0.5))).item(), 4)
        0.625
    """

    has_units = True

    def __init__(self, components: Sequence[Distribution]):
        check_instances("components", components, Distribution)
        self.components = nnx.List(components)
        self.event_shape = _find_event_shape(components)
        self.context_shape = find_context_shape(*(c.context_shape for c in components))
        self.logits = nnx.Param(jnp.zeros(len(components)))

    @of_one_event
    def log_prob(self, x, context=None):
        log_weights = jax.nn.log_softmax(self.logits[...])
        return _mixture_log_prob(self.components, log_weights, x, context)

    def sample(self, key, context=None):
        return _mixture_sample(self.components, self.logits[...], key, context)


class ClassConditional(Distribution):
    r"""One distribution for each class, with the class as a one-hot context.

    $$p(x \mid c) = \sum_k c_k\,p_k(x).$$

    If the class is uncertain, pass class probabilities as the context; the result is their
    mixture. Contexts are divided by their sum.

    Args:
        components: one for each of the `K` classes, all of one event shape and without context.

    Raises:
        ValueError: if empty, if event shapes disagree, or if a component takes a context.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> classes = [afflow.Normal(1), afflow.distributions.Laplace(1)]
        >>> base = afflow.distributions.ClassConditional(classes)
        >>> round(base.log_prob(jnp.zeros(1), jnp.array([0.0, 1.0])).item(), 4)
        -0.6931
    """

    def __init__(self, components: Sequence[Distribution]):
        check_instances("components", components, Distribution)
        if any(c.context_shape is not None for c in components):
            raise ValueError("Expected components without a context: the context is the class.")
        self.components = nnx.List(components)
        self.event_shape = _find_event_shape(components)
        self.context_shape = (len(components),)

    @property
    def has_units(self) -> bool:
        """Whether every component has a location and a scale."""
        return all(component.has_units for component in self.components)

    @of_one_event
    def log_prob(self, x, context=None):
        return _mixture_log_prob(self.components, _log_probabilities(context), x, None)

    def sample(self, key, context=None):
        return _mixture_sample(self.components, _log_probabilities(context), key, None)


def _mixture_log_prob(components, log_weights, x, context):
    x = widen(x)
    log_probs = jnp.stack([c.log_prob(x, context) for c in components])
    return log_total(log_weights.astype(x.dtype) + log_probs)


def _mixture_sample(components, log_weights, key, context):
    class_key, *keys = jax.random.split(key, 1 + len(components))
    samples = [c.sample(k, context) for c, k in zip(components, keys, strict=True)]
    return jnp.stack(samples)[jax.random.categorical(class_key, log_weights)]


def _log_probabilities(p: jax.Array | None) -> jax.Array:
    """Return `log(p / p.sum())`, with the derivative at an entry of zero set to zero."""
    if p is None:
        raise ValueError("Expected the class as context (one-hot), got no context.")
    p = p / jnp.sum(p)
    return jnp.where(p == 0, -jnp.inf, jnp.log(jnp.where(p == 0, 1, p)))


def _find_event_shape(components: Sequence[Distribution]) -> Shape:
    shapes = [c.event_shape for c in components]
    if len(set(shapes)) != 1:
        raise ValueError(f"Expected components of one event_shape, got {shapes}.")
    return shapes[0]
