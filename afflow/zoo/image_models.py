"""Factories: autoregressive models of images."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict, Unpack

from flax import nnx

from afflow._tools.shapes import Shape, check_image
from afflow.conditionals.bernoulli import Bernoulli
from afflow.conditioners.made import MADE
from afflow.conditioners.pixels.diagonal_lstm import DiagonalLSTM
from afflow.conditioners.pixels.gated import GatedPixelCNN
from afflow.conditioners.pixels.multiscale import Multiscale
from afflow.conditioners.pixels.pixelcnn import PixelCNN
from afflow.conditioners.pixels.pixelcnn_pp import PixelCNNPP
from afflow.conditioners.pixels.row_lstm import RowLSTM
from afflow.conditioners.pixels.subscale import Subscale
from afflow.core.conditional import Conditional
from afflow.core.conditioner import Conditioner
from afflow.models.autoregressive import AutoregressiveModel
from afflow.models.reshaped import Reshaped
from afflow.models.token_model import TokenModel


class PixelOptions(TypedDict, total=False):
    """The options of a `PixelCNN` that `pixelcnn` passes on."""

    channels: int
    num_blocks: int
    kernel_size: int
    block_kernel_size: int


class GatedOptions(TypedDict, total=False):
    """The options of a `GatedPixelCNN` that `gated_pixelcnn` passes on."""

    channels: int
    num_layers: int
    kernel_size: int
    layer_kernel_size: int
    dropout: float


class PlusOptions(TypedDict, total=False):
    """The options of a `PixelCNNPP` that `pixelcnn_pp` passes on."""

    channels: int
    num_blocks: tuple[int, ...]
    dropout: float


class MultiscaleOptions(TypedDict, total=False):
    """The options of a `Multiscale` network that `multiscale` passes on."""

    channels: int
    num_blocks: int
    dropout: float


class DiagonalOptions(TypedDict, total=False):
    """The options of a `DiagonalLSTM` that `diagonal_lstm` passes on."""

    channels: int
    num_layers: int
    kernel_size: int
    dropout: float


class RowOptions(DiagonalOptions, total=False):
    """The options of a `RowLSTM` that `row_lstm` passes on."""

    state_kernel_size: int


class SubscaleOptions(TypedDict, total=False):
    """The options of a `Subscale` network that `subscale` passes on."""

    width: int
    num_layers: int
    num_heads: int
    num_blocks: int
    dropout: float


def pixelcnn(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **options: Unpack[PixelOptions],
) -> Reshaped:
    """Return a model of images with masked convolutions, a `conditioners.PixelCNN`.

    van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`. The values of a pixel are tokens, one after another.
        conditional: the distribution of a value.
        context_dim: length of the context vector; 0 for none.
        rngs: its `params` stream draws the initial weights.
        **options: `channels`, `num_blocks`, `kernel_size`, `block_kernel_size`, see `PixelCNN`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.zoo.pixelcnn((4, 4), channels=8, num_blocks=1, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 2).shape
        (2, 4, 4)
    """
    sizes = {"features": conditional.features, "context_dim": context_dim}
    network = PixelCNN(event_shape, conditional.num_params, **sizes, **options, rngs=rngs)
    return Reshaped(AutoregressiveModel(network, conditional), event_shape)


def gated_pixelcnn(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    pixel_hidden: tuple[int, ...] = (64,),
    rngs: nnx.Rngs,
    **options: Unpack[GatedOptions],
) -> Reshaped:
    """Return a model of images without a blind spot, a `conditioners.GatedPixelCNN`.

    With several channels, the values of a pixel depend on each other by a MADE whose context is the
    row of parameters of the pixel.

    van den Oord et al. 2016, arXiv:1606.05328.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value.
        context_dim: length of the context vector, a class say; 0 for none.
        pixel_hidden: widths of the MADE of a pixel, for several channels.
        rngs: its `params` stream draws the initial weights.
        **options: `channels`, `num_layers`, `kernel_size`, `layer_kernel_size`, `dropout`, see
            `GatedPixelCNN`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> levels = afflow.conditionals.DiscretizedLogistics(2, 256)
        >>> sizes = {"channels": 8, "num_layers": 1}
        >>> model = afflow.zoo.gated_pixelcnn(
        ...     (4, 4, 3), conditional=levels, **sizes, rngs=nnx.Rngs(0)
        ... )
        >>> model.sample(jax.random.key(0), 2).shape
        (2, 4, 4, 3)
    """
    build = partial(GatedPixelCNN, context_dim=context_dim, rngs=rngs, **options)
    width = options.get("channels", 64)
    return _join_pixels(build, event_shape, conditional, (width, *pixel_hidden), rngs)


def pixelcnn_pp(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    pixel_hidden: tuple[int, ...] = (64,),
    rngs: nnx.Rngs,
    **options: Unpack[PlusOptions],
) -> Reshaped:
    """Return a PixelCNN++: a model of images at several resolutions, a `conditioners.PixelCNNPP`.

    With several channels, the conditional is a `ChannelLogistics`, as in the paper, or a
    conditional of one value; a MADE then joins the values of a pixel, as in `gated_pixelcnn`.

    Salimans et al. 2017, arXiv:1701.05517.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value, or of a pixel.
        context_dim: length of the context vector, a class say; 0 for none.
        pixel_hidden: widths of the MADE of a pixel, for several channels.
        rngs: its `params` stream draws the initial weights.
        **options: `channels`, `num_blocks`, `dropout`, see `PixelCNNPP`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> pixel = afflow.conditionals.ChannelLogistics(3, 5)
        >>> sizes = {"channels": 8, "num_blocks": (1, 1)}
        >>> model = afflow.zoo.pixelcnn_pp(
        ...     (4, 4, 3), conditional=pixel, **sizes, rngs=nnx.Rngs(0)
        ... )
        >>> model.log_prob(jax.numpy.zeros((2, 4, 4, 3), int)).shape
        (2,)
    """
    build = partial(PixelCNNPP, context_dim=context_dim, rngs=rngs, **options)
    width = options.get("channels", 64)
    return _join_pixels(build, event_shape, conditional, (width, *pixel_hidden), rngs)


def multiscale(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    pixel_hidden: tuple[int, ...] = (64,),
    rngs: nnx.Rngs,
    **options: Unpack[MultiscaleOptions],
) -> Reshaped:
    """Return a model of images from coarse to fine, a `conditioners.Multiscale`.

    An image of `N x N` pixels is drawn in `1 + 3 log2(N)` steps. `complete` draws the fine pixels
    of a coarse image. With several channels, the values of a pixel depend on each other by a MADE,
    as in `gated_pixelcnn`.

    Reed et al. 2017, arXiv:1703.03664.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value.
        context_dim: length of the context vector, a class say; 0 for none.
        pixel_hidden: widths of the MADE of a pixel, for several channels.
        rngs: its `params` stream draws the initial weights.
        **options: `channels`, `num_blocks`, `dropout`, see `Multiscale`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.zoo.multiscale((4, 4), channels=8, num_blocks=1, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 2).shape
        (2, 4, 4)
    """
    build = partial(Multiscale, context_dim=context_dim, rngs=rngs, **options)
    width = options.get("channels", 64)
    return _join_pixels(build, event_shape, conditional, (width, *pixel_hidden), rngs)


def row_lstm(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    pixel_hidden: tuple[int, ...] = (64,),
    rngs: nnx.Rngs,
    **options: Unpack[RowOptions],
) -> Reshaped:
    """Return a PixelRNN: a model of images with LSTMs over the rows, a `conditioners.RowLSTM`.

    A pixel sees a triangle of pixels above it. With several channels, the values of a pixel depend
    on each other by a MADE, as in `gated_pixelcnn`.

    van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value.
        context_dim: length of the context vector, a class say; 0 for none.
        pixel_hidden: widths of the MADE of a pixel, for several channels.
        rngs: its `params` stream draws the initial weights.
        **options: `channels`, `num_layers`, `kernel_size`, `state_kernel_size`, `dropout`, see
            `RowLSTM`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.zoo.row_lstm((4, 4), channels=8, num_layers=1, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 2).shape
        (2, 4, 4)
    """
    build = partial(RowLSTM, context_dim=context_dim, rngs=rngs, **options)
    width = options.get("channels", 32)
    return _join_pixels(build, event_shape, conditional, (width, *pixel_hidden), rngs)


def diagonal_lstm(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    pixel_hidden: tuple[int, ...] = (64,),
    rngs: nnx.Rngs,
    **options: Unpack[DiagonalOptions],
) -> Reshaped:
    """Return a PixelRNN: a model of images with LSTMs over the diagonals of the image.

    The network is a `conditioners.DiagonalLSTM`, the Diagonal BiLSTM of the paper. A pixel sees
    every pixel before it. With several channels, the values of a pixel depend on each other by a
    MADE, as in `gated_pixelcnn`.

    van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value.
        context_dim: length of the context vector, a class say; 0 for none.
        pixel_hidden: widths of the MADE of a pixel, for several channels.
        rngs: its `params` stream draws the initial weights.
        **options: `channels`, `num_layers`, `kernel_size`, `dropout`, see `DiagonalLSTM`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.zoo.diagonal_lstm((4, 4), channels=8, num_layers=1, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 2).shape
        (2, 4, 4)
    """
    build = partial(DiagonalLSTM, context_dim=context_dim, rngs=rngs, **options)
    width = options.get("channels", 32)
    return _join_pixels(build, event_shape, conditional, (width, *pixel_hidden), rngs)


def subscale(
    event_shape: Shape,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int | Shape = 0,
    factor: int = 4,
    pixel_hidden: tuple[int, ...] = (64,),
    rngs: nnx.Rngs,
    **options: Unpack[SubscaleOptions],
) -> Reshaped:
    """Return a subscale pixel network: a model of images with a `conditioners.Subscale`.

    The order of the pixels is not raster order: the slices `x[a::factor, b::factor]` come one after
    another. With several channels, the values of a pixel depend on each other by a MADE, as in
    `gated_pixelcnn`.

    Menick and Kalchbrenner 2019, arXiv:1812.01608.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value.
        context_dim: length of the context vector, a class say; 0 for none. Or the shape
            `(H, W, C)` of a context image.
        factor: the distance of the rows, and of the columns, of a slice.
        pixel_hidden: widths of the MADE of a pixel, for several channels.
        rngs: its `params` stream draws the initial weights.
        **options: `width`, `num_layers`, `num_heads`, `num_blocks`, `dropout`, see `Subscale`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 1, "num_heads": 2, "num_blocks": 1}
        >>> model = afflow.zoo.subscale((4, 4), factor=2, **sizes, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 2).shape
        (2, 4, 4)
    """
    build = partial(Subscale, context_dim=context_dim, factor=factor, rngs=rngs, **options)
    widths = options.get("width", 64), *pixel_hidden
    return _join_pixels(build, event_shape, conditional, widths, rngs)


def _join_pixels(
    build: Callable[..., Conditioner],
    event_shape: Shape,
    conditional: Conditional,
    widths: tuple[int, ...],
    rngs: nnx.Rngs,
) -> Reshaped:
    """Return a model of images over a network whose tokens are whole pixels.

    With several channels, a MADE joins the values of a pixel, unless the conditional is one of
    whole pixels.

    Args:
        build: `build(shape, num_params, features=features)` returns the network.
        event_shape: `(H, W)` or `(H, W, C)`.
        conditional: the distribution of a value.
        widths: the number of parameters of a pixel, which the MADE takes as its context, and then
            the widths of the MADE.
        rngs: draws the weights of the MADE.
    """
    *shape, colours = check_image(event_shape)
    token: Any = conditional
    if len(event_shape) == 3 and not conditional.event_shape:
        width, *hidden = widths
        sizes = colours, conditional.num_params, tuple(hidden)
        inner = MADE(*sizes, features=conditional.features, context_dim=width, rngs=rngs)
        token = TokenModel(AutoregressiveModel(inner, conditional))
    network = build(tuple(shape), token.num_params, features=token.features)
    order = getattr(network, "order", None)
    return Reshaped(AutoregressiveModel(network, token, order), event_shape)
