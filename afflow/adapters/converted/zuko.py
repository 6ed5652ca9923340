"""Flows of zuko as flows of afflow."""

import math
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from afflow.adapters.converted import parts
from afflow.adapters.converted.activations import convert_activation
from afflow.adapters.converted.masked import MaskedLayer, MaskedNet
from afflow.adapters.converted.networks import build_mlp
from afflow.adapters.converted.spline import ConvertedSpline, ZukoKnots
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Inverse
from afflow.bijectors.coupling import Coupling
from afflow.core.bijector import Bijector
from afflow.models.flow import Flow
from afflow.univariates.additive import Additive
from afflow.univariates.affine import Affine

_FLOWS = (
    "zuko.flows.autoregressive.MAF",
    "zuko.flows.coupling.NICE",
    "zuko.flows.coupling.RealNVP",
    "zuko.flows.spline.NSF",
    "zuko.lazy.Flow",
)
_refuse = partial(parts.refuse, "zuko")


def from_zuko(flow: Any) -> Flow:
    """Return a flow of zuko as a flow of afflow, with the same weights and the same density.

    These parts are known: `MAF`, `NSF`, `NICE` and `RealNVP`, and a `Flow` of
    `MaskedAutoregressiveTransform`s with an order and of `GeneralCouplingTransform`s. Their
    univariates are `MonotonicAffineTransform`, `MonotonicRQSTransform` or `AdditiveTransform`,
    also with options. The base is a `DiagNormal`. Samples are drawn by the fast solver of `MADE`.

    Rozet et al. 2022, https://github.com/probabilists/zuko.

    Args:
        flow: the flow. Its tensors are copied.

    Raises:
        ValueError: for a part that is not known. The error names the part and its place.

    Example:
        With zuko installed, the density of the result is the density of the flow:

            theirs = zuko.flows.NSF(features=3, context=5)
            ours = afflow.adapters.from_zuko(theirs)
            ours.log_prob(x, context)  # theirs(context).log_prob(x)
    """
    if parts.name_part(flow) not in _FLOWS:
        _refuse(" or ".join(_FLOWS), parts.name_part(flow), "the top")
    loc, scale, trained = _read_base(flow.base)
    bijector = _convert(flow.transform, "flow.transform")
    return parts.build_flow(bijector, loc, scale, trained=trained)


def _convert(transform: Any, place: str) -> Bijector:
    """Return the bijector whose `inverse` is a transform of zuko, from data to noise."""
    return parts.find_converter(_TRANSFORMS, transform, "zuko", place)(transform, place)


def _convert_composed(transform: Any, place: str) -> Bijector:
    layers = enumerate(transform.transforms)
    return parts.chain_calls([_convert(t, f"{place}.transforms[{i}]") for i, t in layers])


def _convert_inverse(transform: Any, place: str) -> Bijector:
    return parts.invert(_convert(transform.transform, f"{place}.transform"))


def _convert_autoregressive(transform: Any, place: str) -> Bijector:
    univariate = _convert_univariate(transform, place)
    if transform.order is None:
        _refuse("an order of the coordinates", "an adjacency matrix", place)
    groups = parts.to_numpy(transform.order)
    order = np.argsort(groups, kind="stable")
    layers, activation = _read_network(transform.hyper, "zuko.nn.MaskedLinear", f"{place}.hyper")
    masked = [
        MaskedLayer(*_read_linear(layer), parts.to_numpy(layer.mask).astype(bool))
        for layer in layers
    ]
    widths = [layer.out_features for layer in layers[:-1]]
    has_context = transform.hyper.in_features > len(groups)
    net = MaskedNet(
        library="zuko",
        place=f"{place}.hyper",
        layers=masked,
        slots=[_find_slots(groups, width, has_context=has_context) for width in widths],
        order=order,
        outputs=np.arange(len(groups) * transform.total).reshape(len(groups), -1),
        activation=activation,
    )
    return parts.reorder(MaskedAutoregressive(net.to_made(), univariate), order)


def _find_slots(groups: np.ndarray, width: int, *, has_context: bool) -> np.ndarray:
    """Return the slot of each hidden unit: the number of coordinates that the unit may see.

    A unit sees all groups of coordinates before its group. Without a context, no unit belongs to
    the first group.
    """
    _, counts = np.unique(groups, return_counts=True)
    seen = np.cumsum(counts) - counts
    reachable = seen if has_context else seen[1:]
    return reachable[np.arange(width) % len(reachable)]


def _convert_coupling(transform: Any, place: str) -> Bijector:
    univariate = _convert_univariate(transform, place)
    passes = parts.to_numpy(transform.mask).astype(bool)
    layers, activation = _read_network(transform.hyper, "zuko.nn.Linear", f"{place}.hyper")
    shape = int((~passes).sum()), transform.total
    context_dim = transform.hyper.in_features - int(passes.sum())
    network = build_mlp([_read_linear(layer) for layer in layers], shape, context_dim, activation)
    return Coupling(passes, network, univariate)


def _read_network(network: Any, linear: str, place: str) -> tuple[list[Any], Callable]:
    """Return the linear maps of a network and the activation between them."""
    layers, between = list(network)[::2], list(network)[1::2]
    for number, layer in enumerate(layers):
        found = parts.name_part(layer)
        if found != linear:
            _refuse(f"{linear} and activations in turn", found, f"{place}[{2 * number}]")
    kinds = {repr(activation) for activation in between}
    if len(kinds) > 1:
        _refuse("one activation", ", ".join(sorted(kinds)), place)
    return layers, convert_activation(between[0], "zuko", place)


def _read_linear(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel = parts.to_numpy(layer.weight)
    bias = np.zeros_like(kernel[:, 0]) if layer.bias is None else parts.to_numpy(layer.bias)
    return kernel, bias


def _convert_univariate(transform: Any, place: str) -> Bijector:
    """Return the univariate whose `inverse` is the univariate of zuko."""
    kind, options = transform.univariate, {}
    while isinstance(kind, partial) and not kind.args:
        kind, options = kind.func, kind.keywords | options
    convert = parts.find_converter(_UNIVARIATES, kind, "zuko", f"{place}.univariate")
    known = set(signature(convert).parameters) - {"sizes"}
    if not set(options) <= known:
        _refuse(f"options among {sorted(known)}", sorted(options), f"{place}.univariate")
    sizes = [math.prod(shape) for shape in transform.shapes]
    univariate = convert(sizes, **options)
    if univariate.context_shape != (sum(sizes),):
        _refuse("the usual shapes of parameters", transform.shapes, f"{place}.shapes")
    return Inverse(univariate)


def _convert_affine(sizes: list[int], slope: float = 1e-3) -> Bijector:
    return Affine(-math.log(slope))


def _convert_spline(sizes: list[int], bound: float = 5.0, slope: float = 1e-3) -> Bijector:
    return ConvertedSpline(ZukoKnots(sizes[0], float(bound), float(slope)))


def _read_base(base: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the mean and the standard deviation of a base, and whether they are parameters."""
    normal = getattr(base, "f", base)
    if parts.name_part(normal) != "zuko.distributions.DiagNormal" or len(base.kwargs) != 2:
        _refuse("an unconditional zuko.distributions.DiagNormal", base, "flow.base")
    loc, scale = (parts.to_numpy(base.kwargs[name]) for name in ("loc", "scale"))
    return loc, scale, any(True for _ in base.parameters())


_TRANSFORMS = {
    "zuko.flows.autoregressive.MaskedAutoregressiveTransform": _convert_autoregressive,
    "zuko.flows.coupling.GeneralCouplingTransform": _convert_coupling,
    "zuko.lazy.LazyComposedTransform": _convert_composed,
    "zuko.lazy.LazyInverse": _convert_inverse,
}
_UNIVARIATES = {
    "zuko.transforms.AdditiveTransform": lambda sizes: Additive(),
    "zuko.transforms.MonotonicAffineTransform": _convert_affine,
    "zuko.transforms.MonotonicRQSTransform": _convert_spline,
}
