"""Multiscale networks: groups of pixels, each computed at once from the groups before."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.convolution import convolve
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape, check_size
from afflow.conditioners.pixels.pixelcnn import check_plane
from afflow.core.conditioner import Conditioner, find_dtype
from afflow.nets.weights import draw_normal

PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the pixels in a block of two by two


class Multiscale(Conditioner):
    r"""Groups of pixels from coarse to fine: the pixels of a group depend on the groups before.

    $$p_g = n_g(x_{g'}: g' < g), \qquad
    n_g:\; h_0 = W_0 * x, \quad h_{l+1} = h_l + V_l * \mathrm{relu}(U_l * \mathrm{relu}(h_l)),
    \quad p = B\, \mathrm{relu}(h_L).$$

    The first group is the pixel at the upper left. Then the image doubles: of each block of two by
    two pixels the upper left pixel is known, and three groups follow, the pixels to the right,
    below, and diagonally below. A group has a convolutional network $n_g$, which sees the known
    pixels of the blocks. An image of `N x N` pixels has $1 + 3 \log_2 N$ groups.

    The tokens are the pixels in the order of the groups: `order` has their places in raster order,
    for `AutoregressiveModel(order=network.order)`. The pixels of a group are independent given the
    groups before. Sampling takes one step for each group, and costs about one density pass. The
    output weights start at zero.

    Reed et al. 2017, arXiv:1703.03664; here also the first 4 x 4 pixels are groups.

    Args:
        shape: `(H, W)`.
        num_params: parameters per pixel `P`.
        channels: features of a block of pixels.
        num_blocks: number of residual blocks `L` in the networks of the last groups. At each
            coarser level there is one less, but at least one.
        features: numbers in a pixel, 1 for a scalar. With more, an event is `(H W, features)`.
        context_dim: length of the context vector, which every residual block sees; 0 for none.
        dropout: the probability to drop a feature in a residual block, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"channels": 8, "num_blocks": 1}
        >>> network = afflow.conditioners.Multiscale((4, 4), 1, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(16)).shape, network.num_groups, network.order[:4]
        ((16, 1), 7, (0, 2, 8, 10))
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        *,
        channels: int = 64,
        num_blocks: int = 4,
        features: int = 1,
        context_dim: int = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.shape = check_plane(shape)
        sizes = math.prod(self.shape), num_params, (channels,)
        self._set_sizes(*sizes, features=features, context_dim=context_dim, dropout=dropout)
        check_size("num_blocks", num_blocks)
        options = {"context_dim": context_dim, "rngs": rngs}
        networks = []
        for stride, place in self._list_groups():
            depth = max(num_blocks - int(math.log2(stride)), 1) if place else 1
            inputs = 1 + place * features
            networks.append(_GroupNetwork(inputs, channels, num_params, depth, **options))
        self.networks = nnx.List(networks)

    @property
    def num_groups(self) -> int:
        """The number of groups, which is the number of steps of sampling."""
        return len(self._list_groups())

    @property
    def order(self) -> tuple[int, ...]:
        """The place of each token in raster order."""
        height, width = self.shape
        places = np.arange(height * width).reshape(height, width)
        groups = [places[self._find_pixels(*group)].ravel() for group in self._list_groups()]
        return tuple(np.concatenate(groups).tolist())

    @property
    def adjacency(self) -> np.ndarray:
        """Which tokens `(T, T)` each token depends on: the tokens of the groups before."""
        sizes = [math.prod(self._count(*group)) for group in self._list_groups()]
        groups = np.repeat(np.arange(len(sizes)), sizes)
        return groups[:, None] > groups

    def _list_groups(self) -> list[tuple[int, int]]:
        """Return the stride of each group, and the place of its pixels in a block."""
        height, width = self.shape
        levels = range((max(height, width) - 1).bit_length())
        groups = [(2**level, place) for level in reversed(levels) for place in (1, 2, 3)]
        first = (2 ** len(levels), 0)
        return [first, *(group for group in groups if min(self._count(*group)) > 0)]

    def _find_pixels(self, stride: int, place: int) -> tuple[slice, slice]:
        """Return the rows and columns of the pixels of a group."""
        step = 2 * stride if place else stride
        rows, columns = (slice(stride * offset, None, step) for offset in PLACES[place])
        return rows, columns

    def _count(self, stride: int, place: int) -> list[int]:
        """Return the numbers of rows and columns of a group."""
        pixels = zip(self._find_pixels(stride, place), self.shape, strict=True)
        return [len(range(size)[part]) for part, size in pixels]

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        image = x[np.argsort(self.order)].reshape(*self.shape, self.features)
        groups = range(self.num_groups)
        return jnp.concatenate([self._find_params(g, image, context, key) for g in groups])

    def _find_params(self, g, image, context, key):
        """Return the parameters `(n, P)` of group `g` from an image with the groups before."""
        stride, place = self._list_groups()[g]
        rows, columns = self._count(stride, place)
        network = self.networks[g]
        if not place:
            known = jnp.ones((1, 1, 1), image.dtype)
        else:
            height, width = self._count(2 * stride, 0)
            parts = [image[self._find_pixels(stride, p)] for p in range(1, place)]
            parts = [image[:: 2 * stride, :: 2 * stride], *parts]
            known = jnp.concatenate([_fit(part, height, width) for part in parts], -1)
            known = jnp.concatenate([known, jnp.ones_like(known[..., :1])], -1)
        params = network(known, context, lambda n, h: self._drop(key, 100 * g + n, h))
        return params[:rows, :columns].reshape(-1, self.num_params)

    def decode(self, emit, inputs, context=None):
        image = jnp.zeros((*self.shape, self.features), find_dtype(inputs))
        parts, end = [], 0
        for g, group in enumerate(self._list_groups()):
            params = self._find_params(g, image, context, None)
            start, end = end, end + len(params)
            given = jax.tree.map(lambda leaf, lo=start, hi=end: leaf[lo:hi], inputs)
            x, aux = jax.vmap(emit)(given, params)
            parts.append((x, aux))
            pixels = x.reshape(*self._count(*group), self.features).astype(image.dtype)
            image = image.at[self._find_pixels(*group)].set(pixels)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)


class _GroupNetwork(nnx.Module):
    """The convolutional network of a group."""

    def __init__(self, inputs, channels, num_params, num_blocks, *, context_dim, rngs):
        sizes = [inputs] + [channels] * (2 * num_blocks)
        self.kernels = nnx.List([_draw(rngs, 2, 3, 3, size, channels) for size in sizes])
        self.biases = nnx.List([nnx.Param(jnp.zeros(channels)) for _ in sizes])
        pairs = [(context_dim, channels)] * num_blocks
        self.contexts = nnx.List([_draw(rngs, 1, *pair) for pair in pairs])
        self.B = nnx.Param(jnp.zeros((channels, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    def __call__(self, known, context, drop):
        """Return the parameters `(H, W, P)` from known pixels `(H, W, C)`."""
        h = self._convolve(0, known)
        for n, weights in enumerate(self.contexts):
            inner = self._convolve(2 * n + 1, jax.nn.relu(h))
            if context is not None:
                inner = inner + (context @ weights[...])[None, None]
            inner = drop(n, jax.nn.relu(inner))
            h = h + self._convolve(2 * n + 2, inner)
        return multiply_rows(jax.nn.relu(h), self.B[...]) + self.b[...][None, None]

    def _convolve(self, n, h):
        padded = jnp.pad(h, ((1, 1), (1, 1), (0, 0)))
        return convolve(padded, self.kernels[n][...], (1, 1)) + self.biases[n][...][None, None]


def _fit(part: jax.Array, height: int, width: int) -> jax.Array:
    """Return pixels with zeros below and to the right, where the image ends before a block does."""
    rows, columns, _ = part.shape
    return jnp.pad(part, ((0, height - rows), (0, width - columns), (0, 0)))


def _draw(rngs: nnx.Rngs, gain: float, *shape: int) -> nnx.Param:
    return draw_normal(rngs, gain / max(math.prod(shape[:-1]), 1), *shape)
