"""Factories: autoregressive flows whose conditioners are transformers, for rows and for images."""

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
from flax import nnx

from afflow._tools.arguments import check_instance, check_rngs
from afflow._tools.arrays import to_double
from afflow._tools.shapes import Shape, check_image, check_size
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Chain, Repeat
from afflow.bijectors.elementwise import Standardize
from afflow.bijectors.image import Patches
from afflow.bijectors.permutations import Reverse
from afflow.bijectors.solvers import Incremental, Solver
from afflow.conditioners.transformer import Transformer
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.core.univariate import count_params
from afflow.distributions.standard import Normal
from afflow.models.flow import Flow
from afflow.nets.positions import Absolute, PerPlace, Positions
from afflow.univariates.affine import Affine
from afflow.univariates.spline import RationalQuadraticSpline
from afflow.zoo.stacking import (
    Mix,
    Outside,
    add_mix,
    build_univariate,
    choose_mix,
    stack_layers,
)


def tnaf(
    dim: int,
    *,
    num_blocks: int = 2,
    num_layers: int = 2,
    width: int = 64,
    num_heads: int = 4,
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = RationalQuadraticSpline,
    positions: Positions = PerPlace(),
    solver: Solver = Incremental(),
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    r"""Return a transformer neural autoregressive flow: each coordinate of a row is a token.

    $$z_t = f(x_t;\, c_t(x_{<t})),$$

    where a transformer over the coordinates before gives the parameters of a monotone map $f$. Its
    layers serve all coordinates; only the embedding is separate for each (`nets.PerPlace`). Before
    each block stands a trained linear map, as in `maf`.

    Patacchiola et al. 2024, arXiv:2401.01855. The paper has a neural network as the monotone map:
    `univariates.Sigmoidal`.

    Args:
        dim: number of coordinates `D`.
        num_blocks: number of autoregressive blocks.
        num_layers: layers of attention in the transformer of a block.
        width: features of a row of the transformers.
        num_heads: number of attention heads; divides `width`.
        context_dim: length of the context vector; 0 for an unconditional flow.
        univariate: makes the scalar map of the coordinates.
        positions: how the transformers see the places of the coordinates.
        solver: runs the serial direction, here sampling.
        mix: makes the bijector before each block from `(dim, rngs)`. By default it is a trained
            linear map, and a single block has none.
        rngs: its `params` stream draws the initial weights.
        **outside: `data`, `columns` and `base`, see `Outside`: the units of the flow.

    Raises:
        ValueError: for sizes out of range, or `data` of another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> sizes = {"num_blocks": 1, "num_layers": 1, "width": 8, "num_heads": 2}
        >>> flow = afflow.zoo.tnaf(3, **sizes, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 5).shape
        (5, 3)
    """
    check_size("num_blocks", num_blocks)
    sizes = {"width": width, "num_layers": num_layers, "num_heads": num_heads}
    options: dict[str, Any] = sizes | {"context_dim": context_dim, "positions": positions}

    def make(rngs):
        scalar = build_univariate(univariate)
        network = Transformer(dim, count_params(scalar), **options, rngs=rngs)
        return MaskedAutoregressive(network, scalar, solver)

    mixed = add_mix(dim, mix or choose_mix(num_blocks), make)
    return stack_layers(dim, mixed, num_blocks, rngs, unroll=True, **outside)


def tarflow(
    image_shape: Shape,
    patch: int = 4,
    *,
    num_blocks: int = 4,
    num_layers: int = 4,
    width: int = 128,
    num_heads: int = 4,
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    positions: Positions = Absolute(),
    solver: Solver = Incremental(),
    data: Any = None,
    base: Distribution | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    r"""Return an autoregressive flow of images, with a transformer over their patches: TarFlow.

    An image is cut into `T` patches, the tokens $x_t$. From data to noise, a block maps each patch
    by an affine map, or by another univariate, whose parameters depend on the patches before,

    $$z_t = \big(x_t - \mu_t(x_{<t})\big) \odot e^{-\alpha_t(x_{<t})}.$$

    The next block reads the patches in the reverse order. Before training, each block is the
    identity up to this order, if zero parameters are the identity of the univariate.

    Zhai et al. 2024, arXiv:2412.06329. In the paper a block leaves its first patch unchanged. Here
    the parameters of the first patch depend on the context.

    Args:
        image_shape: `(H, W)` or `(H, W, C)`.
        patch: the side of a patch in pixels; divides `H` and `W`.
        num_blocks: number of autoregressive blocks. A `Repeat` holds them, and sampling scans them.
        num_layers: layers of attention in the transformer of a block.
        width: features of a row of the transformers.
        num_heads: number of attention heads; divides `width`.
        context_dim: length of the context vector, a class say; 0 for an unconditional flow.
        univariate: makes the scalar map of the values of a patch.
        positions: how the transformers see the places of the patches. `Absolute()` is the choice
            of the paper.
        solver: runs the serial direction, one step for each patch.
        data: images `(N, *image_shape)`. The flow uses their mean and standard deviation at each
            pixel to standardise.
        base: the distribution of the noise, in place of the standard normal.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, a `patch` that does not divide the image, or `data` of
            another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> sizes = {"num_blocks": 2, "num_layers": 1, "width": 8, "num_heads": 2}
        >>> flow = afflow.zoo.tarflow((4, 4), patch=2, **sizes, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 4, 4)
    """
    height, width_of_image, channels = check_image(image_shape)
    check_size("patch", patch)
    check_size("num_blocks", num_blocks)
    check_rngs(rngs)
    if height % patch or width_of_image % patch:
        raise ValueError(f"Expected a patch that divides {image_shape}, got {patch}.")
    length, features = height * width_of_image // patch**2, patch**2 * channels
    sizes = {"width": width, "num_layers": num_layers, "num_heads": num_heads}
    options: dict[str, Any] = sizes | {"features": features, "context_dim": context_dim}
    options["positions"] = positions

    def make(rngs):
        scalar = build_univariate(univariate)
        network = Transformer(length, count_params(scalar) * features, **options, rngs=rngs)
        flip = Reverse(length, features=features)
        return Chain([flip, MaskedAutoregressive(network, scalar, solver)])

    # Written out, a training step on a CPU takes 7 ms an image (4 blocks of 2 layers of width 128,
    # 49 tokens, one core). In a scan it takes 19 ms.
    patches = Patches(Repeat(make, num_blocks, unroll=True, rngs=rngs), image_shape)
    if base is not None:
        check_instance("base", base, Distribution)
    units = [] if data is None else [_standardize(data, patches.event_shape)]
    return Flow(base or Normal(patches.event_shape), Chain([patches, *units]))


def _standardize(data: Any, image_shape: Shape) -> Standardize:
    """Return the map to the units of images `(N, *image_shape)`."""
    images = to_double("data", data)
    if images.shape[1:] != image_shape or not np.isfinite(images).all():
        raise ValueError(f"Expected finite data (N, *{image_shape}), got shape {images.shape}.")
    return Standardize.from_data(images)
