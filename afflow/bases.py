"""Base distributions beyond the standard normal: tails, scales, mixtures and classes."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow.arguments import check_instances
from afflow.arrays import cast, double
from afflow.bijector import Shape, checked_shape, common_context_shape, of_one_event
from afflow.distributions import Distribution, Normal
from afflow.elementwise import Constant


class Laplace(Distribution):
    r"""The standard Laplace: $\log p(x) = -\sum_i (|x_i| + \log 2)$.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.Laplace(1).log_prob(jnp.array([3.0])).item(), 4)
        -3.6931
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        return -jnp.sum(jnp.abs(_wide(x)) + math.log(2))

    def sample(self, key, context=None):
        return jax.random.laplace(key, self.event_shape)


class Logistic(Distribution):
    r"""The standard logistic: $\log p(x) = \sum_i \log \sigma(x_i)\,\sigma(-x_i)$.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.Logistic(1).log_prob(jnp.zeros(1)).item(), 4)
        -1.3863
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        x = _wide(x)
        return jnp.sum(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x))

    def sample(self, key, context=None):
        return jax.random.logistic(key, self.event_shape)


class StudentT(Distribution):
    r"""Student's t at every coordinate, with degrees of freedom of its own.

    $$\log p(x) = \sum_i \log\frac{\Gamma(\frac{\nu_i + 1}{2})}{\Gamma(\frac{\nu_i}{2})
    \sqrt{\pi\nu_i}} - \frac{\nu_i + 1}{2}\log\Big(1 + \frac{x_i^2}{\nu_i}\Big).$$

    A flow of bounded slopes keeps the tail of its base: heavy tails must start here
    (Jaini et al. 2020, arXiv:1907.04481).

    Args:
        event_shape: the shape of an event, or the length of a vector.
        df: the degrees of freedom $\nu > 0$ to start from.
        learn_df: whether they are trained.

    Raises:
        ValueError: unless `df > 0`, and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> cauchy = afflow.StudentT(1, 1.0, learn_df=False)
        >>> round(jnp.exp(cauchy.log_prob(jnp.ones(1))).item() * jnp.pi, 4)
        0.5
    """

    def __init__(self, event_shape: int | Shape, df: float = 5.0, *, learn_df: bool = True):
        if not 0 < df < math.inf:
            raise ValueError(f"Expected a finite df > 0, got {df}: its limit is `Normal`.")
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None
        raw = _inverse_softplus(jnp.full(self.event_shape, df, float))
        self.raw_df = nnx.Param(raw) if learn_df else Constant(raw)

    @property
    def df(self) -> jax.Array:
        """The degrees of freedom, `event_shape`."""
        return _softplus(self.raw_df[...])

    @of_one_event
    def log_prob(self, x, context=None):
        x = _wide(x)
        df = self.df.astype(x.dtype)
        peak = _log_gamma_step(df / 2) - 0.5 * jnp.log(math.pi * df)
        return jnp.sum(peak - (df + 1) / 2 * _log1p_square(x / jnp.sqrt(df)))

    def sample(self, key, context=None):
        normal_key, gamma_key = jax.random.split(key)
        log_gamma = jax.random.loggamma(gamma_key, self.df / 2)  # its own scale: never zero
        deviation = jnp.exp((jnp.log(self.df / 2) - log_gamma) / 2)
        return deviation * jax.random.normal(normal_key, self.event_shape)


class VonMises(Distribution):
    r"""The normal of the circle at every angle, around zero, on $[-\pi, \pi)$.

    $$\log p(x) = \sum_i \big(\kappa_i \cos x_i - \log 2\pi I_0(\kappa_i)\big).$$

    Any real is read as the angle that it is modulo $2\pi$. `CircularShift` moves it to another
    mean. Samples are drawn by rejection (Best and Fisher 1979) and have no derivative: train
    by likelihood.

    Args:
        event_shape: the shape of an event, or the length of a vector.
        concentration: $\kappa > 0$ to start from; the deviation is about $\kappa^{-1/2}$.
        learn_concentration: whether it is trained.

    Raises:
        ValueError: unless `concentration > 0`, and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> angles = afflow.VonMises(1, 4.0)
        >>> round((angles.log_prob(jnp.zeros(1)) - angles.log_prob(jnp.full(1, jnp.pi))).item(), 4)
        8.0
    """

    def __init__(
        self,
        event_shape: int | Shape,
        concentration: float = 1.0,
        *,
        learn_concentration: bool = True,
    ):
        if not 0 < concentration < math.inf:
            raise ValueError(f"Expected a finite concentration > 0, got {concentration}.")
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None
        raw = _inverse_softplus(jnp.full(self.event_shape, concentration, float))
        self.raw_concentration = nnx.Param(raw) if learn_concentration else Constant(raw)

    @property
    def concentration(self) -> jax.Array:
        r"""The concentrations $\kappa$, `event_shape`."""
        return _softplus(self.raw_concentration[...])

    @of_one_event
    def log_prob(self, x, context=None):
        x = _wide(x)
        kappa = self.concentration.astype(x.dtype)
        depth = -2 * kappa * jnp.square(jnp.sin(x / 2))  # kappa (cos x - 1)
        return jnp.sum(depth - jnp.log(jax.scipy.special.i0e(kappa)) - math.log(2 * math.pi))

    def sample(self, key, context=None):
        kappa = jax.lax.stop_gradient(self.concentration)
        tau = 1 + jnp.sqrt(1 + 4 * jnp.square(kappa))
        rho = (tau - jnp.sqrt(2 * tau)) / (2 * kappa)
        r = jnp.where(kappa < 1e-3, 1 / kappa + kappa, (1 + jnp.square(rho)) / (2 * rho))

        def propose(state):
            key, cosine, done = state
            key, step_key = jax.random.split(key)
            u, v = jax.random.uniform(step_key, (2, *self.event_shape), kappa.dtype)
            z = jnp.cos(math.pi * u)
            w = (1 + r * z) / (r + z)
            y = kappa * (r - w)
            accepted = (y * (2 - y) > v) | (jnp.log(y / v) + 1 >= y)
            return key, jnp.where(done, cosine, w), done | accepted

        key, sign_key = jax.random.split(key)
        start = key, jnp.zeros(self.event_shape, kappa.dtype), jnp.zeros(self.event_shape, bool)
        _, cosine, _ = jax.lax.while_loop(lambda state: ~state[2].all(), propose, start)
        sign = jax.random.rademacher(sign_key, self.event_shape, kappa.dtype)
        return sign * jnp.arccos(jnp.clip(cosine, -1, 1))


class Product(Distribution):
    r"""Independent distributions side by side: $p(x) = \prod_k p_k(x_{B_k})$.

    So the coordinates of a base can be of different kinds: an angle beside heavy tails, say.

    Args:
        parts: distributions of vectors, whose coordinates $B_k$ follow each other.

    Raises:
        ValueError: if empty, if a part has events that are not vectors, or if contexts disagree.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> base = afflow.Product([afflow.Normal(2), afflow.Uniform(1)])
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
        self.context_shape = common_context_shape(*(part.context_shape for part in parts))

    @of_one_event
    def log_prob(self, x, context=None):
        ends = np.cumsum([part.event_shape[0] for part in self.parts])[:-1]
        pieces = zip(self.parts, jnp.split(x, ends), strict=True)
        return sum(part.log_prob(piece, context) for part, piece in pieces)

    def sample(self, key, context=None):
        keys = jax.random.split(key, len(self.parts))
        drawn = zip(self.parts, keys, strict=True)
        return jnp.concatenate([part.sample(key, context) for part, key in drawn])


class LocationScale(Distribution):
    r"""A distribution moved and stretched at every coordinate, both learned.

    $$\log p(x) = \log p_0\Big(\frac{x - \mu}{\sigma}\Big) - \sum_i \log\sigma_i.$$

    Args:
        base: the distribution $p_0$.
        loc: location $\mu$ to start from, `event_shape`.
        scale: scale $\sigma > 0$ to start from, `event_shape`.

    Raises:
        ValueError: for other shapes, or scales that are not positive and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> base = afflow.LocationScale(afflow.Laplace(1), jnp.array([1.0]), jnp.array([2.0]))
        >>> round(base.log_prob(jnp.array([3.0])).item(), 4)
        -2.3863
    """

    def __init__(self, base: Distribution, loc: ArrayLike, scale: ArrayLike):
        shapes = np.shape(loc), np.shape(scale)
        if shapes != (base.event_shape, base.event_shape):
            raise ValueError(f"Expected loc and scale {base.event_shape}, got {shapes}.")
        loc, scale = double("loc", loc), double("scale", scale)
        if not (np.isfinite(loc) & np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"Expected finite loc and positive scale, got {loc}, {scale}.")
        self.base = base
        self.event_shape, self.context_shape = base.event_shape, base.context_shape
        self.loc = nnx.Param(cast("loc", loc))
        self.raw_scale = nnx.Param(_inverse_softplus(cast("scale", scale, is_scale=True)))

    @property
    def scale(self) -> jax.Array:
        """The scale, `event_shape`."""
        return _softplus(self.raw_scale[...])

    @of_one_event
    def log_prob(self, x, context=None):
        x = _wide(x)
        loc, scale = self.loc[...].astype(x.dtype), self.scale.astype(x.dtype)
        return self.base.log_prob((x - loc) / scale, context) - jnp.sum(jnp.log(scale))

    def sample(self, key, context=None):
        return self.loc[...] + self.scale * self.base.sample(key, context)


def DiagonalNormal(loc: ArrayLike, scale: ArrayLike) -> LocationScale:  # noqa: N802
    """Return the normal with learned means and deviations: `LocationScale` of `Normal`.

    Args:
        loc: means to start from, `event_shape`.
        scale: standard deviations to start from, `event_shape`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> base = afflow.DiagonalNormal(jnp.ones(2), jnp.full(2, 3.0))
        >>> round(base.log_prob(jnp.ones(2)).item(), 4)
        -4.0351
    """
    return LocationScale(Normal(np.shape(loc)), loc, scale)


class MultivariateNormal(Distribution):
    r"""The normal with learned mean and full covariance $\Sigma = L L^\top$.

    $$\log p(x) = -\tfrac12 \lVert L^{-1}(x - \mu)\rVert^2 - \sum_i \log L_{ii}
    - \tfrac{D}{2}\log 2\pi.$$

    The Cholesky factor `L` is lower triangular with a positive diagonal.

    Args:
        mean: to start from, `(D,)`.
        covariance: to start from, `(D, D)`, positive definite.

    Raises:
        ValueError: for other shapes, or a covariance that is not positive definite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> base = afflow.MultivariateNormal(jnp.zeros(2), 4 * jnp.eye(2))
        >>> round(base.log_prob(jnp.zeros(2)).item(), 4)
        -3.2242
    """

    has_units = True

    def __init__(self, mean: ArrayLike, covariance: ArrayLike):
        mean, covariance = double("mean", mean), double("covariance", covariance)
        dim = mean.size
        if mean.shape != (dim,) or covariance.shape != (dim, dim):
            raise ValueError(
                f"Expected mean (D,) and covariance (D, D), got {mean.shape} and "
                f"{covariance.shape}."
            )
        self.event_shape, self.context_shape = checked_shape("event_shape", dim), None
        if not np.isfinite(mean).all():
            raise ValueError(f"Expected a finite mean, got {mean}.")
        factor = cast("the Cholesky factor", _cholesky(covariance))
        self.mean = nnx.Param(cast("mean", mean))
        self.raw_factor = nnx.Param(_set_diagonal(factor, _inverse_softplus(jnp.diag(factor))))

    @staticmethod
    def from_data(x: ArrayLike) -> "MultivariateNormal":
        """Start from the mean and covariance of the rows of `x` `(N, D)`."""
        rows = double("x", x)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            covariance = np.cov(rows, rowvar=False, bias=True).reshape(2 * rows.shape[1:])
        return MultivariateNormal(rows.mean(0), covariance)

    @property
    def factor(self) -> jax.Array:
        """The Cholesky factor `L`, `(D, D)`."""
        raw = self.raw_factor[...]
        return _set_diagonal(jnp.tril(raw), _softplus(jnp.diag(raw)))

    @of_one_event
    def log_prob(self, x, context=None):
        x = _wide(x)
        mean, factor = self.mean[...].astype(x.dtype), self.factor.astype(x.dtype)
        z = jax.scipy.linalg.solve_triangular(factor, x - mean, lower=True)
        return Normal(self.event_shape).log_prob(z) - jnp.sum(jnp.log(jnp.diag(factor)))

    def sample(self, key, context=None):
        return self.mean[...] + self.factor @ Normal(self.event_shape).sample(key)


class Mixture(Distribution):
    r"""A mixture of distributions with learned weights: $p(x) = \sum_k w_k\,p_k(x)$.

    Sampling is exact: a component is drawn, then an event of it. The draw of the
    component has no derivative, so train by likelihood.

    Args:
        components: at least one, with one event shape; they start with equal weights.

    Raises:
        ValueError: if empty, or if event or context shapes disagree.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> two = [afflow.Uniform(1, 0.0, 1.0), afflow.Uniform(1, 0.0, 4.0)]
        >>> round(jnp.exp(afflow.Mixture(two).log_prob(jnp.full(1, 0.5))).item(), 4)
        0.625
    """

    has_units = True

    def __init__(self, components: Sequence[Distribution]):
        check_instances("components", components, Distribution)
        self.components = nnx.List(components)
        self.event_shape = _common_event_shape(components)
        self.context_shape = common_context_shape(*(c.context_shape for c in components))
        self.logits = nnx.Param(jnp.zeros(len(components)))

    @of_one_event
    def log_prob(self, x, context=None):
        log_weights = jax.nn.log_softmax(self.logits[...])
        return _mixture_log_prob(self.components, log_weights, x, context)

    def sample(self, key, context=None):
        return _mixture_sample(self.components, self.logits[...], key, context)


class ClassConditional(Distribution):
    r"""One distribution for each class; the context is the class, one-hot.

    $$p(x \mid c) = \sum_k c_k\,p_k(x).$$

    A context of probabilities, for a class known in part, gives their mixture. Contexts are
    divided by their sum.

    Args:
        components: one for each of the `K` classes, with one event shape and no context.

    Raises:
        ValueError: if empty, if event shapes disagree, or if one takes a context.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> base = afflow.ClassConditional([afflow.Normal(1), afflow.Laplace(1)])
        >>> round(base.log_prob(jnp.zeros(1), jnp.array([0.0, 1.0])).item(), 4)
        -0.6931
    """

    def __init__(self, components: Sequence[Distribution]):
        check_instances("components", components, Distribution)
        if any(c.context_shape is not None for c in components):
            raise ValueError("Expected components without a context: the context is the class.")
        self.components = nnx.List(components)
        self.event_shape = _common_event_shape(components)
        self.context_shape = (len(components),)

    @of_one_event
    def log_prob(self, x, context=None):
        return _mixture_log_prob(self.components, _log_probabilities(context), x, None)

    def sample(self, key, context=None):
        return _mixture_sample(self.components, _log_probabilities(context), key, None)


def _mixture_log_prob(components, log_weights, x, context):
    x = _wide(x)
    log_probs = jnp.stack([c.log_prob(x, context) for c in components])
    terms = log_weights.astype(x.dtype) + log_probs
    nowhere = (terms == -jnp.inf).all()
    return jnp.where(nowhere, -jnp.inf, jax.nn.logsumexp(jnp.where(nowhere, 0, terms)))


def _mixture_sample(components, log_weights, key, context):
    class_key, *keys = jax.random.split(key, 1 + len(components))
    samples = [c.sample(k, context) for c, k in zip(components, keys, strict=True)]
    return jnp.stack(samples)[jax.random.categorical(class_key, log_weights)]


def _log_probabilities(p: jax.Array | None) -> jax.Array:
    """Return the logarithm of `p`, divided by its sum, with derivative zero at zero."""
    if p is None:
        raise ValueError("Expected the class as context (one-hot), got no context.")
    p = p / jnp.sum(p)
    return jnp.where(p == 0, -jnp.inf, jnp.log(jnp.where(p == 0, 1, p)))


def _common_event_shape(components: Sequence[Distribution]) -> Shape:
    shapes = [c.event_shape for c in components]
    if len(set(shapes)) != 1:
        raise ValueError(f"Expected components of one event_shape, got {shapes}.")
    return shapes[0]


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _softplus(raw: jax.Array) -> jax.Array:
    return jax.nn.softplus(raw) + jnp.finfo(raw.dtype).tiny


def _inverse_softplus(positive: jax.Array) -> jax.Array:
    return positive + jnp.log(-jnp.expm1(-positive))


def _set_diagonal(matrix: jax.Array, diagonal: jax.Array) -> jax.Array:
    return jnp.tril(matrix, -1) + jnp.diag(diagonal)


def _cholesky(covariance: np.ndarray) -> np.ndarray:
    """Return the Cholesky factor in float64; `ValueError` for what rounding makes definite.

    All is judged on correlations, whatever the units. A coordinate of which the others leave
    less than rounding is dependent on them.
    """
    try:
        variances = np.diag(covariance)
        if not (np.isfinite(covariance).all() and (variances > 0).all()):
            raise np.linalg.LinAlgError("not finite, or without variance")
        scale = np.sqrt(variances)
        correlation = covariance / scale[:, None] / scale
        if not np.allclose(correlation, correlation.T, rtol=0, atol=1e-6):
            raise np.linalg.LinAlgError("it is not symmetric")
        factor = np.linalg.cholesky((correlation + correlation.T) / 2)
        if (np.square(np.diag(factor)) < 8 * len(factor) * np.finfo(np.float64).eps).any():
            raise np.linalg.LinAlgError("a coordinate depends on the others")
        return scale[:, None] * factor
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"Expected a positive definite covariance ({error}): drop constant or "
            f"linearly dependent columns."
        ) from error


def _log1p_square(x: jax.Array) -> jax.Array:
    """Return `log(1 + x^2)` without overflow."""
    far = jnp.abs(x) > jnp.finfo(x.dtype).eps ** -0.5
    near = jnp.log1p(jnp.square(jnp.where(far, 1, x)))
    return jnp.where(far, 2 * jnp.log(jnp.abs(jnp.where(far, x, 1))), near)


def _log_gamma_step(a: jax.Array) -> jax.Array:
    """Return `log Gamma(a + 1/2) - log Gamma(a)` without cancellation for large `a`."""
    large = a > 50
    b, c = jnp.where(large, 1, a), jnp.where(large, a, 1)
    series = jnp.log(c) / 2 - 1 / (8 * c) + 1 / (192 * c**3) - 1 / (640 * c**5)
    return jnp.where(large, series, jax.lax.lgamma(b + 0.5) - jax.lax.lgamma(b))
