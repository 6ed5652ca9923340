"""Flows of flowjax as flows of afflow."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow.adapters.converted import parts
from afflow.adapters.converted.affine import ConvertedAffine, SoftplusScale
from afflow.adapters.converted.masked import MaskedLayer, MaskedNet
from afflow.adapters.converted.networks import build_mlp
from afflow.adapters.converted.spline import ConvertedSpline, FlowjaxKnots
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Inverse
from afflow.bijectors.coupling import Coupling
from afflow.bijectors.permutations import Reverse
from afflow.core.bijector import Bijector
from afflow.models.flow import Flow

_refuse = partial(parts.refuse, "flowjax")


class Started(NamedTuple):
    """A univariate, and the values of its raw parameters at zero outputs of a network."""

    univariate: Bijector
    start: np.ndarray


def from_flowjax(flow: Any) -> Flow:
    """Return a flow of flowjax as a flow of afflow, with the same weights and the same density.

    These parts are known: `Transformed` with a base `Normal` or `StandardNormal`, and the
    bijections `MaskedAutoregressive`, `Coupling`, `Permute`, `Flip`, `Identity`, `Invert`, `Chain`
    and `Scan`. `masked_autoregressive_flow` and `coupling_flow` are made of them. The transformer
    is `RationalQuadraticSpline`, or `Affine` with a softplus and a least scale.

    A network of flowjax adds its outputs to the start of the transformer's parameters. Here the
    biases of the last layer hold the start.

    Ward 2024, https://github.com/danielward27/flowjax.

    Args:
        flow: the flow. Its arrays are copied.

    Raises:
        ValueError: for a part that is not known. The error names the part and its place.

    Example:
        With flowjax installed, the density of the result is the density of the flow:

            theirs = masked_autoregressive_flow(key, base_dist=Normal(jnp.zeros(3)), cond_dim=2)
            ours = afflow.adapters.from_flowjax(theirs)
            ours.log_prob(x, context)  # theirs.log_prob(x, context)
    """
    parts.check_name("flowjax.distributions.Transformed", flow, "flowjax", "the top")
    read = parts.find_converter(_BASES, flow.base_dist, "flowjax", "flow.base_dist")
    bijector = parts.invert(_convert(flow.bijection, "flow.bijection"))
    loc, scale, trained = read(flow.base_dist)
    return parts.build_flow(bijector, loc, scale, trained=trained)


def _convert(bijection: Any, place: str) -> Bijector:
    """Return the bijector whose `inverse` is the `transform` of a bijection."""
    return parts.find_converter(_BIJECTIONS, bijection, "flowjax", place)(bijection, place)


def _convert_invert(bijection: Any, place: str) -> Bijector:
    return parts.invert(_convert(bijection.bijection, f"{place}.bijection"))


def _convert_chain(bijection: Any, place: str) -> Bijector:
    layers = enumerate(bijection.bijections)
    return parts.chain_calls([_convert(b, f"{place}.bijections[{i}]") for i, b in layers])


def _convert_scan(bijection: Any, place: str) -> Bijector:
    """Convert every layer of the scan, whose arrays have the layers as first axis."""
    leaves, tree = jax.tree.flatten(bijection.bijection)
    arrays = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    num_layers = next(len(leaf) for leaf, is_array in zip(leaves, arrays, strict=True) if is_array)
    layers = []
    for i in range(num_layers):
        picked = [a[i] if is_array else a for a, is_array in zip(leaves, arrays, strict=True)]
        layer = jax.tree.unflatten(tree, picked)
        layers.append(_convert(layer, f"{place}.bijection (layer {i})"))
    return parts.chain_calls(layers)


def _convert_permute(bijection: Any, place: str) -> Bijector:
    _check_vector(bijection, place)
    return parts.gather(np.asarray(bijection.permutation[0]))


def _convert_flip(bijection: Any, place: str) -> Bijector:
    _check_vector(bijection, place)
    return Reverse(*bijection.shape)


def _convert_identity(bijection: Any, place: str) -> Bijector:
    _check_vector(bijection, place)
    return parts.gather(np.arange(*bijection.shape))


def _check_vector(bijection: Any, place: str) -> None:
    if len(bijection.shape) != 1:
        _refuse("events that are vectors", f"shape {bijection.shape}", place)


def _convert_masked(bijection: Any, place: str) -> Bijector:
    (dim,), (context_dim,) = bijection.shape, bijection.cond_shape or (0,)
    mlp, place = bijection.masked_autoregressive_mlp, f"{place}.masked_autoregressive_mlp"
    layers = [_read_masked(layer, f"{place}.layers[{i}]") for i, layer in enumerate(mlp.layers)]
    univariate, start = _convert_transformer(bijection, len(layers[-1].bias) // dim, place)
    layers[-1] = layers[-1]._replace(bias=layers[-1].bias + np.tile(start, dim))
    ranks = [np.arange(mlp.width_size) % (dim - (not context_dim)) - bool(context_dim)]
    net = MaskedNet(
        library="flowjax",
        place=place,
        layers=layers,
        slots=[rank + 1 for rank in ranks * mlp.depth],
        order=np.arange(dim),
        outputs=np.arange(len(layers[-1].bias)).reshape(dim, -1),
        activation=_read_activation(mlp, place),
    )
    return MaskedAutoregressive(net.to_made(), Inverse(univariate))


def _read_masked(layer: Any, place: str) -> MaskedLayer:
    weight = layer.weight
    if getattr(weight, "fn", None) is not jnp.where:
        _refuse("masked weights (paramax.Parameterize of jnp.where)", type(weight).__name__, place)
    mask, kernel, _ = weight.args
    return MaskedLayer(
        np.asarray(_unwrap(kernel)), np.asarray(_unwrap(layer.bias)), np.asarray(mask)
    )


def _convert_coupling(bijection: Any, place: str) -> Bijector:
    num_passing, dim = bijection.untransformed_dim, bijection.dim
    num_rest, mlp = dim - num_passing, bijection.conditioner
    layers = [(np.asarray(_unwrap(a.weight)), np.asarray(_unwrap(a.bias))) for a in mlp.layers]
    kernel, bias = layers.pop()
    univariate, start = _convert_transformer(bijection, len(bias) // num_rest, place)
    layers.append((kernel, bias + np.tile(start, num_rest)))
    (context_dim,) = bijection.cond_shape or (0,)
    activation = _read_activation(mlp, f"{place}.conditioner")
    network = build_mlp(layers, (num_rest, len(start)), context_dim, activation)
    return Coupling(np.arange(dim) < num_passing, network, Inverse(univariate))


def _read_activation(mlp: Any, place: str) -> Callable:
    """Return the activation of a network, after a check that none follows the last layer."""
    probe = jnp.array([-2.0, 0.5])
    if not (np.asarray(mlp.final_activation(probe)) == np.asarray(probe)).all():
        _refuse("networks that end in a linear map", mlp.final_activation, place)
    if jax.tree.leaves(mlp.activation) != [mlp.activation]:
        _refuse("an activation without parameters", mlp.activation, place)
    return mlp.activation


def _convert_transformer(bijection: Any, num_params: int, place: str) -> Started:
    """Return the univariate whose `forward` is the transformer, and the start of its parameters."""
    build = bijection.transformer_constructor
    start, moved = build(jnp.zeros(num_params)), build(jnp.arange(1.0, num_params + 1))
    place = f"{place} (transformer)"
    univariate, read = parts.find_converter(_TRANSFORMERS, start, "flowjax", place)(start, place)
    first, last = (
        np.concatenate([np.ravel(_unwrap(a)) for a in read(part)]) for part in (start, moved)
    )
    if univariate.context_shape != first.shape or not np.allclose(
        last - first, np.arange(1, num_params + 1), atol=1e-4
    ):
        _refuse("transformers whose parameters are all trained", start, place)
    return Started(univariate, first)


def _convert_affine(transformer: Any, place: str) -> tuple[Bijector, Callable]:
    def read(part):
        return part.loc, part.scale.args[0]

    least = _find_least(transformer.scale, place)
    return ConvertedAffine(SoftplusScale(least)), read


def _convert_spline(transformer: Any, place: str) -> tuple[Bijector, Callable]:
    def read(part):
        return part.x_pos.arr, part.y_pos.arr, part.derivatives.args[0]

    x, y = transformer.x_pos, transformer.y_pos
    for positions in (x, y):
        parts.check_name("paramax.wrappers.RealToIncreasingOnInterval", positions, "flowjax", place)
    (low, high), least = transformer.interval, _find_least(transformer.derivatives, place)
    ends, minima = (float(low), float(high)), (float(x.min_width), float(y.min_width))
    return ConvertedSpline(FlowjaxKnots(transformer.knots + 1, ends, *minima, least)), read


def _find_least(positive: Any, place: str) -> float:
    """Return the `c` of a parameter wrapped as `softplus(x) + c`."""
    function = getattr(positive, "fn", None)
    if function is None:
        _refuse("positive parameters by paramax.Parameterize", positive, place)
    probe = jnp.array([-1e5, -3.0, 0.0, 1.0, 30.0])
    found = np.asarray(function(probe))
    if not np.allclose(found, np.asarray(jax.nn.softplus(probe)) + found[0], rtol=1e-6, atol=0):
        _refuse("positive parameters softplus(x) + c", function, place)
    return _round(float(found[0]))


def _round(least: float) -> float:
    """Return a constant that was computed in single precision as the decimal that was meant."""
    return float(f"{least:.6g}")


def _read_normal(base: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the mean and the standard deviation of a base, and whether they are trained."""
    frozen = import_module("paramax").NonTrainable
    leaves = jax.tree.leaves(base, is_leaf=lambda leaf: isinstance(leaf, frozen))
    trained = any(isinstance(leaf, jax.Array) for leaf in leaves)
    unwrapped = _unwrap(base)
    return np.asarray(unwrapped.loc), np.asarray(unwrapped.scale), trained


def _read_standard(base: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    return np.zeros(base.shape), np.ones(base.shape), False


def _unwrap(tree: Any) -> Any:
    return import_module("paramax").unwrap(tree)


_BASES = {
    "flowjax.distributions.Normal": _read_normal,
    "flowjax.distributions.StandardNormal": _read_standard,
}
_BIJECTIONS = {
    "flowjax.bijections.chain.Chain": _convert_chain,
    "flowjax.bijections.coupling.Coupling": _convert_coupling,
    "flowjax.bijections.jax_transforms.Scan": _convert_scan,
    "flowjax.bijections.masked_autoregressive.MaskedAutoregressive": _convert_masked,
    "flowjax.bijections.utils.Flip": _convert_flip,
    "flowjax.bijections.utils.Identity": _convert_identity,
    "flowjax.bijections.utils.Invert": _convert_invert,
    "flowjax.bijections.utils.Permute": _convert_permute,
}
_TRANSFORMERS = {
    "flowjax.bijections.affine.Affine": _convert_affine,
    "flowjax.bijections.rational_quadratic_spline.RationalQuadraticSpline": _convert_spline,
}
