"""Bijectors for images, with events (H, W, C), and other changes of an event's shape."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_instance
from afflow._tools.numerics import total
from afflow._tools.shapes import Shape, check_image, check_shape
from afflow.bijectors.compose import Chain
from afflow.bijectors.linear import LU
from afflow.bijectors.permutations import Permutation, Shuffle
from afflow.core.bijector import Bijector, of_one_event

Make = Callable[[Shape, nnx.Rngs], Bijector]
Layout = Callable[[jax.Array, Shape], jax.Array]


class Rearranged(Bijector):
    """A bijector that runs on a rearrangement of the elements of an event.

    Args:
        bijector: the map to run, on events of `bijector.event_shape`.
        event_shape: the shape of the events before and after, with the same number of elements.
        lay_in: `lay_in(x, bijector.event_shape)` rearranges an event for `bijector`.
        lay_out: `lay_out(x, event_shape)` undoes `lay_in`.

    Raises:
        ValueError: if the two event shapes have different numbers of elements.
    """

    def __init__(self, bijector: Bijector, event_shape: Shape, lay_in: Layout, lay_out: Layout):
        check_instance("bijector", bijector, Bijector)
        event_shape = check_shape("event_shape", event_shape)
        if math.prod(event_shape) != math.prod(bijector.event_shape):
            raise ValueError(
                f"Expected event shapes of one size, got {event_shape} and {bijector.event_shape}."
            )
        self.bijector = bijector
        self.lay_in, self.lay_out = lay_in, lay_out
        self.event_shape = event_shape
        self.context_shape = bijector.context_shape

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        y, log_det = self.bijector.forward_and_log_det(self.enter(x), context)
        return self.leave(y), log_det

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        x, log_det = self.bijector.inverse_and_log_det(self.enter(y), context)
        return self.leave(x), log_det

    def walk(self, x, context, visit, *, forward=False):
        entered = jax.vmap(self.enter)(x)
        return jax.vmap(self.leave)(self.bijector.walk(entered, context, visit, forward=forward))

    def enter(self, x: jax.Array) -> jax.Array:
        """Rearrange an event to the event shape of the inner bijector."""
        return self.lay_in(x, self.bijector.event_shape)

    def leave(self, x: jax.Array) -> jax.Array:
        """Undo `enter`."""
        return self.lay_out(x, self.event_shape)


def Reshape(bijector: Bijector, event_shape: Shape) -> Rearranged:  # noqa: N802 (reads as a bijector)
    """Return a bijector that runs `bijector` on events reshaped in row-major order.

    Noise and data both have the shape `event_shape`.

    Args:
        bijector: the map to run, on events of `bijector.event_shape`.
        event_shape: the shape of events, with the same number of elements.

    Raises:
        ValueError: if the two event shapes have different numbers of elements.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> afflow.bijectors.Reshape(afflow.Reverse(4), (2, 2)).forward(x).tolist()
        [[4.0, 3.0], [2.0, 1.0]]
    """
    return Rearranged(bijector, event_shape, jnp.reshape, jnp.reshape)


def Squeeze(bijector: Bijector) -> Rearranged:  # noqa: N802
    """Return a bijector that merges 2 by 2 pixels to one pixel, and runs `bijector` on the result.

    A merged pixel has four times the channels: `bijector` has events `(H / 2, W / 2, 4 C)`. The
    output of `bijector` is split into pixels again, so noise and data both have the shape
    `(H, W, C)`. Dinh et al. 2017, arXiv:1605.08803, section 3.6.

    Args:
        bijector: the map to run on the merged pixels.

    Raises:
        ValueError: if the events of `bijector` are not `(H / 2, W / 2, 4 C)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> layer = afflow.bijectors.Squeeze(afflow.bijectors.ActNorm((14, 14, 4)))
        >>> layer.event_shape, layer.enter(jnp.zeros((28, 28, 1))).shape
        ((28, 28, 1), (14, 14, 4))
    """
    check_instance("bijector", bijector, Bijector)
    shape = bijector.event_shape
    if len(shape) != 3 or shape[2] % 4:
        raise ValueError(f"Expected a bijector of event_shape (H/2, W/2, 4 C), got {shape}.")
    event_shape = (2 * shape[0], 2 * shape[1], shape[2] // 4)
    return Rearranged(bijector, event_shape, _space_to_depth, _depth_to_space)


def Patches(bijector: Bijector, image_shape: Shape) -> Rearranged:  # noqa: N802
    """Return a bijector that cuts an image into square patches, and runs `bijector` on them.

    The patches of `p` by `p` pixels are the tokens of an event `(T, p * p * C)`, in raster order.
    Noise and data both have the shape `image_shape`. The sizes of the image and of `bijector` give
    `p`. Zhai et al. 2024, arXiv:2412.06329, section 2.2.

    Args:
        bijector: the map to run, on events `(T, p * p * C)`.
        image_shape: `(H, W)` or `(H, W, C)`.

    Raises:
        ValueError: if such an image cannot be cut into `T` square patches of `p * p * C` values.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> swap = afflow.Reverse(4, features=4)  # the order of the patches
        >>> image = jnp.arange(16.0).reshape(4, 4)
        >>> afflow.bijectors.Patches(swap, (4, 4)).forward(image).tolist()[0]
        [10.0, 11.0, 8.0, 9.0]
    """
    check_instance("bijector", bijector, Bijector)
    height, width, channels = check_image(image_shape)
    shape, p = bijector.event_shape, _find_patch(bijector.event_shape, channels)
    tokens, features = height * width // p**2, p**2 * channels
    if height % p or width % p or shape not in ((tokens, features), (tokens,) * (features == 1)):
        raise ValueError(
            f"Expected a bijector whose events are the square patches (T, p * p * C) of an image "
            f"{image_shape}, got event_shape {shape}."
        )
    return Rearranged(bijector, image_shape, _space_to_depth, _depth_to_space)


class Split(Bijector):
    """A bijector that maps the first half of the channels and leaves the second half unchanged.

    In a multi-scale flow, the second half is noise already. Only the first half goes on to deeper
    levels. Channels are the last axis of an event, so `Split` also works on vectors.
    Dinh et al. 2017, arXiv:1605.08803, section 3.6.

    Args:
        bijector: the map of the first half, on events `(..., C / 2)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Split(afflow.Reverse(2)).forward(jnp.arange(4.0)).tolist()
        [1.0, 0.0, 2.0, 3.0]
    """

    def __init__(self, bijector: Bijector):
        check_instance("bijector", bijector, Bijector)
        *pixels, channels = bijector.event_shape
        self.bijector = bijector
        self.event_shape = (*pixels, 2 * channels)
        self.context_shape = bijector.context_shape

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        half, rest = jnp.split(x, 2, axis=-1)
        half, log_det = self.bijector.forward_and_log_det(half, context)
        return jnp.concatenate([half, rest], -1), log_det

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        half, rest = jnp.split(y, 2, axis=-1)
        half, log_det = self.bijector.inverse_and_log_det(half, context)
        return jnp.concatenate([half, rest], -1), log_det

    def walk(self, x, context, visit, *, forward=False):
        half, rest = jnp.split(x, 2, axis=-1)
        half = self.bijector.walk(half, context, visit, forward=forward)
        return jnp.concatenate([half, rest], -1)


class Conv1x1(Bijector):
    r"""An invertible 1x1 convolution: one `LU` map of the channels, the same at every pixel.

    $$x_{hw} = P L U y_{hw} + b, \qquad
    \log|\det J_{f^{-1}}| = H W \sum_i \log |U_{ii}|.$$

    The map starts as the permutation $P$, which is not trained.
    Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.2.

    Args:
        event_shape: `(H, W, C)`.
        permutation: the permutation $P$ of the `C` channels; by default the identity.
        signs: +1 or -1 for each entry of the diagonal of $U$, `(C,)`; by default all positive.

    Raises:
        ValueError: if `event_shape` does not have three axes, or if `permutation` or `signs` does
            not fit `C` channels.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> layer = afflow.bijectors.Conv1x1((1, 2, 2), afflow.Reverse(2))
        >>> layer.inverse(jnp.arange(4.0).reshape(1, 2, 2)).tolist()
        [[[1.0, 0.0], [3.0, 2.0]]]
    """

    def __init__(
        self,
        event_shape: Shape,
        permutation: Permutation | Shuffle | None = None,
        *,
        signs: ArrayLike | None = None,
    ):
        event_shape = check_shape("event_shape", event_shape)
        if len(event_shape) != 3:
            raise ValueError(f"Expected event_shape (H, W, C), got {event_shape}.")
        self.lu = LU(event_shape[2], permutation, signs=signs)
        self.event_shape = tuple(event_shape)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return _per_pixel(self.lu.forward_and_log_det, x)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return _per_pixel(self.lu.inverse_and_log_det, y)


def multiscale(make: Make, event_shape: Shape, num_levels: int, *, rngs: nnx.Rngs) -> Bijector:
    """Return the bijector of a multi-scale flow. Noise and data have the same shape.

    From data to noise, each level squeezes its input and runs a step on the squeezed event. The
    second half of the channels is then noise. The first half is the input of the next level. The
    last level keeps all channels. Dinh et al. 2017, arXiv:1605.08803, fig. 4; Kingma and Dhariwal
    2018, arXiv:1807.03039, fig. 2b.

    Args:
        make: `make(shape, rngs)` builds the step of a level, for squeezed events of shape `shape`.
        event_shape: `(H, W, C)`, with `H` and `W` divisible by `2 ** num_levels`.
        num_levels: the number of scales, at least one.
        rngs: passed to `make`.

    Raises:
        ValueError: if `event_shape` does not have three axes, if `H` or `W` is not divisible by
            `2 ** num_levels`, or if `num_levels < 1`.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> def step(shape, rngs):
        ...     layers = [afflow.bijectors.Conv1x1(shape), afflow.bijectors.ActNorm(shape)]
        ...     return afflow.Chain(layers)
        >>> bijector = afflow.bijectors.multiscale(step, (8, 8, 3), 3, rngs=nnx.Rngs(0))
        >>> afflow.Flow(afflow.Normal((8, 8, 3)), bijector).event_shape
        (8, 8, 3)
    """
    if len(event_shape) != 3 or num_levels < 1 or any(n % 2**num_levels for n in event_shape[:2]):
        raise ValueError(
            f"Expected event_shape (H, W, C) with H and W divisible by 2 ** num_levels, "
            f"num_levels >= 1, got {event_shape} and {num_levels}."
        )
    height, width, channels = event_shape
    step = make((height // 2, width // 2, 4 * channels), rngs)
    if num_levels == 1:
        return Squeeze(step)
    kept = (height // 2, width // 2, 2 * channels)
    return Squeeze(Chain([Split(multiscale(make, kept, num_levels - 1, rngs=rngs)), step]))


def _space_to_depth(x, shape):
    """Merge squares of pixels of an image to events `(..., p * p * C)`."""
    height, width, *channels = x.shape
    p = _find_patch(shape, math.prod(channels))
    return x.reshape(height // p, p, width // p, p, -1).swapaxes(1, 2).reshape(shape)


def _depth_to_space(x, shape):
    """Undo `_space_to_depth`."""
    height, width, *channels = shape
    p = _find_patch(x.shape, math.prod(channels))
    return x.reshape(height // p, width // p, p, p, -1).swapaxes(1, 2).reshape(shape)


def _find_patch(shape: Shape, channels: int) -> int:
    """Return the side `p` of the squares in events `(..., p * p * C)`, or `(T,)` of scalars."""
    return max(math.isqrt(shape[-1] // channels), 1) if len(shape) > 1 else 1


def _per_pixel(f, x):
    x, log_dets = jax.vmap(jax.vmap(f))(x)
    return x, total(log_dets)
