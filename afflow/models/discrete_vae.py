"""The discrete variational autoencoder: an image as a grid of symbols."""

import math
from typing import Any, Self

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_positive
from afflow._tools.calls import call, check_context, check_ending, per_event
from afflow._tools.constants import Constant
from afflow._tools.modules import copy_module
from afflow._tools.shapes import Shape, check_shape
from afflow.core.conditional import Conditional
from afflow.models.latent import LatentModel, add_terms


class DiscreteVAE(LatentModel):
    r"""A variational autoencoder whose code is a grid of symbols `(h, w)`, each one of `K`.

    $$\log p(x) \ge \mathbb{E}_{q(z \mid x)}\big[\log p(x \mid z)\big]
    - \mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big), \qquad p(z) = K^{-hw}.$$

    The encoder gives the logits of $q$, a categorical distribution at each place of the grid. The
    values of an image are independent given the codes.

    `fit` trains on relaxed codes. A relaxed code is
    $y = \mathrm{softmax}((\ell + g) / \tau)$ with the logits $\ell$, Gumbel noise $g$ and the
    temperature $\tau$. The loss is $-\log p(x \mid y) + \beta\, \mathrm{KL}$, with the exact
    divergence. `with_temperature` and `with_kl_weight` set $\tau$ and $\beta$ between calls of
    `fit`, and no program is compiled again. With `straight_through` the decoder sees the symbol
    with the largest $y$, and the gradient is the gradient by $y$. The bounds of `elbo` and
    `log_prob` draw symbols, so they hold at every temperature.

    In a model of two stages a transformer over the codes, or over a text and the codes, takes the
    place of the uniform $p(z)$ (Ramesh et al. 2021, arXiv:2102.12092).

    Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712.

    Args:
        encoder: maps an encoded image `(H, W, C)` to logits `(h, w, K)`. `C` counts the
            `features` of the conditional for each channel.
        decoder: maps `(h, w, K)` to parameters `(H, W, C P)`, the `P` parameters of each channel
            side by side.
        conditional: the distribution of one value of the image, with `P` parameters.
        event_shape: the shape of an image, `(H, W)` or `(H, W, C)`.
        temperature: $\tau$.
        kl_weight: $\beta$.
        straight_through: let the decoder see symbols in training.

    Raises:
        ValueError: if the networks do not fit the image or each other, or for numbers out of range.
            The methods raise it for inputs of the wrong shape.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> encoder = afflow.nets.Downsampler((4, 4, 1), 3, (8,), rngs=nnx.Rngs(0))
        >>> decoder = afflow.nets.Upsampler((2, 2, 3), 1, (8,), rngs=nnx.Rngs(1))
        >>> binary = afflow.conditionals.Bernoulli()
        >>> model = afflow.models.DiscreteVAE(encoder, decoder, binary, (4, 4))
        >>> codes = model.encode(jnp.ones((5, 4, 4)))
        >>> codes.shape, model.decode(codes).shape
        ((5, 2, 2), (5, 4, 4))
        >>> model.elbo(jax.random.key(0), jnp.ones((5, 4, 4))).shape
        (5,)
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        conditional: Conditional,
        event_shape: Shape,
        *,
        temperature: float = 1.0,
        kl_weight: float = 1.0,
        straight_through: bool = False,
    ):
        super().__init__(conditional, event_shape, kl_weight=kl_weight)
        self.encoder, self.decoder = encoder, decoder
        self.straight_through = straight_through
        height, width, self.num_codes = _find_grid(self)
        self.codes_shape = height, width
        _check_decoder(self)
        check_positive(temperature=temperature)
        self.temperature = Constant(jnp.asarray(temperature, float))

    def with_temperature(self, temperature: float) -> Self:
        r"""Return the model with the same weights and another temperature $\tau$."""
        check_positive(temperature=temperature)
        return copy_module(self, temperature=Constant(jnp.asarray(temperature, float)))

    def encode(self, x: jax.Array) -> jax.Array:
        """Return the most probable codes `(..., h, w)` of images, from 0 to `K - 1`."""
        return call(_encode, self, (self._events(x),))

    def decode(self, codes: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return images `(..., *event_shape)` of codes `(..., h, w)`.

        Without a key, every value is the mode of its conditional. With a key, it is a draw.

        Raises:
            ValueError: for another shape, or codes that are not of an integer type.
        """
        return call(_decode, self, (self._padded(self._codes(codes)),), key=key)

    def decode_median(self, codes: jax.Array) -> jax.Array:
        """Return the medians `(..., *event_shape)` of the values, given codes `(..., h, w)`.

        The medians of grey levels have the least expected absolute error. A thin stroke stays grey
        where every mode is black or white.

        Raises:
            ValueError: as `decode`, or for a conditional that is not over `0, ..., K - 1`.
        """
        if self.conditional.num_values is None:
            raise ValueError(f"Expected a conditional of whole numbers, got {self.conditional}.")
        return call(_decode_median, self, (self._padded(self._codes(codes)),))

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        r"""Return $\log p(x \mid y) - \beta\,\mathrm{KL}$ of images, with relaxed codes $y$.

        The result is not a bound on $\log p(x)$. With `straight_through` and $\beta = 1$ it is an
        unbiased estimate of the bound.
        """
        return call(_relaxed_elbo, self, (self._events(x),), context, key=key)

    def sample(
        self, key: jax.Array, shape: int | Shape = (), context: jax.Array | None = None
    ) -> jax.Array:
        """Draw images `(*shape, *event_shape)` whose codes are uniform.

        Few uniform codes are codes of an image. A model of the codes of images draws better ones.
        """
        check_context(self, context)
        codes_key, pixels_key = jax.random.split(key)
        size = (*check_shape("shape", shape, least=0), *self.codes_shape)
        return self.decode(jax.random.randint(codes_key, size, 0, self.num_codes), pixels_key)

    def compute_logits(self, x: jax.Array) -> jax.Array:
        r"""Return the logits `(h, w, K)` of $q(z \mid x)$ for one image, without checks."""
        return self.encoder(self.encode_values(x).reshape(*self.event_shape[:2], -1))

    def infer(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        r"""Return drawn codes `(h, w, K)` of one image, and $\log p(z) - \log q(z \mid x)$."""
        logits = self.compute_logits(x)
        y = _indicate(self, jax.random.categorical(key, logits), logits.dtype)
        return y, -add_terms(y * jax.nn.log_softmax(logits)) - _log_num_grids(self)

    def compute_params(self, y: jax.Array) -> jax.Array:
        """Return the parameters `(*event_shape, P)` of the values, given codes `(h, w, K)`."""
        return self.decoder(y).reshape(*self.event_shape, self.conditional.num_params)

    def _codes(self, codes):
        codes = check_ending("codes", jnp.asarray(codes), self.codes_shape)
        if not jnp.issubdtype(codes.dtype, jnp.integer):
            raise ValueError(f"Expected codes of an integer type, got {codes.dtype}.")
        return codes

    def _padded(self, codes):
        """Return codes with as many axes as an image, for `call`."""
        return codes.reshape(*codes.shape, *(1 for _ in self.event_shape[2:]))


@per_event
def _encode(model, item, context):
    return jnp.argmax(model.compute_logits(*item), -1).astype(int)


@per_event
def _decode(model, item, context):
    codes, *key = item
    return model.draw_values(_indicate_padded(model, codes), *key)


@per_event
def _decode_median(model, item, context):
    values = jnp.arange(model.conditional.num_values)

    def find_median(params):
        cdf = jax.vmap(model.conditional.cdf, (0, None))(values, params)
        return (cdf < 1 / 2).sum()

    return model.map_values(find_median, model.compute_params(_indicate_padded(model, *item)))


def _indicate_padded(model, codes):
    """Return the indicator vectors of codes that `_padded` returned."""
    return _indicate(model, codes.reshape(model.codes_shape), float)


@per_event
def _relaxed_elbo(model, item, context):
    x, key = item
    logits = model.compute_logits(x)
    y = relax(logits, jax.random.gumbel(key, logits.shape, logits.dtype), model.temperature[...])
    if model.straight_through:
        y = y + jax.lax.stop_gradient(_indicate(model, jnp.argmax(y, -1), y.dtype) - y)
    log_q = jax.nn.log_softmax(logits)
    divergence = add_terms(jnp.exp(log_q) * log_q) + _log_num_grids(model)
    return model.score(x, y) - model.kl_weight[...].astype(logits.dtype) * divergence


def relax(logits: jax.Array, noise: jax.Array, temperature: jax.Array) -> jax.Array:
    r"""Return relaxed indicator vectors $\mathrm{softmax}((\ell + g) / \tau)$ `(..., K)`.

    Args:
        logits: $\ell$ `(..., K)`.
        noise: Gumbel noise $g$ `(..., K)`.
        temperature: $\tau$.
    """
    return jax.nn.softmax((logits + noise) / temperature.astype(logits.dtype))


def _indicate(model: DiscreteVAE, codes: jax.Array, dtype: Any) -> jax.Array:
    return jax.nn.one_hot(codes, model.num_codes, dtype=dtype)


def _log_num_grids(model: DiscreteVAE) -> float:
    """Return minus the log-probability of every grid of codes under the uniform prior."""
    return math.prod(model.codes_shape) * math.log(model.num_codes)


def _find_grid(model: DiscreteVAE) -> Shape:
    """Return the shape `(h, w, K)` of the logits.

    Raises:
        ValueError: for an `event_shape` that is not of an image, or logits that are not a grid.
    """
    if len(model.event_shape) not in (2, 3):
        raise ValueError(f"Expected an event_shape (H, W) or (H, W, C), got {model.event_shape}.")
    grid = jax.eval_shape(model.compute_logits, jnp.zeros(model.event_shape)).shape
    if len(grid) != 3 or grid[-1] < 2:
        raise ValueError(f"Expected an encoder with logits (h, w, K), K >= 2, got shape {grid}.")
    return grid


def _check_decoder(model: DiscreteVAE) -> None:
    """Raise `ValueError` if the decoder does not map the codes to parameters of the image."""
    height, width, *channels = model.event_shape
    expected = height, width, math.prod(channels) * model.conditional.num_params
    y = jnp.zeros((*model.codes_shape, model.num_codes))
    if (found := jax.eval_shape(model.decoder, y).shape) != expected:
        raise ValueError(f"Expected a decoder with outputs {expected}, got shape {found}.")
