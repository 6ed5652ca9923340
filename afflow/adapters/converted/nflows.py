"""Flows of nflows as flows of afflow."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from afflow._tools.positive import positive_inverse
from afflow.adapters.converted import parts
from afflow.adapters.converted.activations import convert_activation
from afflow.adapters.converted.affine import ConvertedAffine, SigmoidScale, SoftplusScale
from afflow.adapters.converted.masked import MaskedLayer, MaskedNet
from afflow.adapters.converted.networks import GatedResNet, Layer
from afflow.adapters.converted.shifted import ShiftedMADE
from afflow.adapters.converted.spline import ConvertedSpline, NflowsKnots
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.batchnorm import BatchNorm
from afflow.bijectors.compose import Inverse
from afflow.bijectors.coupling import Coupling
from afflow.bijectors.elementwise import Standardize
from afflow.bijectors.linear import LU
from afflow.core.bijector import Bijector
from afflow.core.conditioner import Conditioner
from afflow.models.flow import Flow
from afflow.univariates.additive import Additive

_FLOWS = (
    "nflows.flows.autoregressive.MaskedAutoregressiveFlow",
    "nflows.flows.base.Flow",
    "nflows.flows.realnvp.SimpleRealNVP",
)
_EPSILON = 1e-5  # of our BatchNorm
_refuse = partial(parts.refuse, "nflows")
_check_name = partial(parts.check_name, library="nflows")


def from_nflows(flow: Any) -> Flow:
    """Return a flow of nflows as a flow of afflow, with the same weights and the same density.

    These parts are known, in a `CompositeTransform` or an `InverseTransform` or alone:

    - the masked affine and rational-quadratic autoregressive transforms, and the additive, affine
      and rational-quadratic coupling transforms with a `ResidualNet`. A spline has linear tails;
    - `RandomPermutation`, `ReversePermutation`, `Permutation`, `LULinear`, `BatchNorm` in
      evaluation mode, and `PointwiseAffineTransform`.

    The base is a `StandardNormal`. There is no embedding network, and no batch normalisation
    within the networks. Dropout is left out, as in evaluation mode.

    Durkan et al. 2020, https://github.com/bayesiains/nflows.

    Args:
        flow: the flow in evaluation mode (`flow.eval()`). Its tensors are copied.

    Raises:
        ValueError: for a part that is not known, or a flow in training mode whose density would
            be random. The error names the part and its place.

    Example:
        With nflows installed, the density of the result is the density of the flow:

            theirs = nflows.flows.MaskedAutoregressiveFlow(3, 32, 5, 2).eval()
            ours = afflow.adapters.from_nflows(theirs)
            ours.log_prob(x)  # theirs.log_prob(x)
    """
    if parts.name_part(flow) not in _FLOWS:
        _refuse(" or ".join(_FLOWS), parts.name_part(flow), "the top")
    embedding, base = flow._embedding_net, flow._distribution
    _check_name("torch.nn.modules.linear.Identity", embedding, place="flow._embedding_net")
    _check_name("nflows.distributions.normal.StandardNormal", base, place="flow._distribution")
    bijector, zeros = _convert(flow._transform, "flow._transform"), np.zeros(tuple(base._shape))
    return parts.build_flow(bijector, zeros, zeros + 1, trained=False)


def _convert(transform: Any, place: str) -> Bijector:
    """Return the bijector whose `inverse` is a transform of nflows, from data to noise."""
    return parts.find_converter(_TRANSFORMS, transform, "nflows", place)(transform, place)


def _convert_composite(transform: Any, place: str) -> Bijector:
    layers = enumerate(transform._transforms)
    return parts.chain_calls([_convert(t, f"{place}._transforms[{i}]") for i, t in layers])


def _convert_inverse(transform: Any, place: str) -> Bijector:
    return parts.invert(_convert(transform._transform, f"{place}._transform"))


def _convert_permutation(transform: Any, place: str) -> Bijector:
    if transform._dim != 1:
        _refuse("permutations of axis 1", f"axis {transform._dim}", place)
    return parts.gather(parts.to_numpy(transform._permutation))


def _convert_lu(transform: Any, place: str) -> Bijector:
    dim = transform.features
    factors = np.zeros((dim, dim), parts.to_numpy(transform.bias).dtype)
    factors[transform.lower_indices] = parts.to_numpy(transform.lower_entries)
    factors[transform.upper_indices] = parts.to_numpy(transform.upper_entries)
    factors[transform.diag_indices] = _invert_positive(transform.upper_diag, place)
    lu = LU(dim)
    lu.factors = nnx.Param(parts.to_jax(factors))
    lu.b = nnx.Param(parts.to_jax(parts.to_numpy(transform.bias)))
    return lu


def _convert_batchnorm(transform: Any, place: str) -> Bijector:
    if transform.training:
        _refuse("a BatchNorm in evaluation mode (call flow.eval())", "training mode", place)
    mean, bias, variance = (
        parts.to_numpy(a) for a in (transform.running_mean, transform.bias, transform.running_var)
    )
    layer = BatchNorm(len(mean))
    layer.mean = nnx.BatchStat(parts.to_jax(mean))
    layer.variance = nnx.BatchStat(parts.to_jax(variance + (transform.eps - _EPSILON)))
    layer.beta = nnx.Param(parts.to_jax(bias))
    layer.gamma = nnx.Param(parts.to_jax(_invert_positive(transform.weight, place)))
    return layer


def _invert_positive(scale: Any, place: str) -> np.ndarray:
    """Return the parameters of positive scales, which afflow keeps between 0.0009 and 1100."""
    raw = np.asarray(positive_inverse(parts.to_jax(parts.to_numpy(scale))))
    if np.isnan(raw).any():
        _refuse("scales between 0.0009 and 1100", parts.to_numpy(scale), place)
    return raw


def _convert_pointwise(transform: Any, place: str) -> Bijector:
    shift, scale = parts.to_numpy(transform._shift), parts.to_numpy(transform._scale)
    if shift.ndim != 1 or shift.shape != scale.shape:
        shapes = f"{shift.shape} and {scale.shape}"
        _refuse("a shift and a scale (D,)", shapes, place)
    return Standardize(-shift / scale, 1 / scale)


def _convert_masked(transform: Any, place: str) -> Bijector:
    net = transform.autoregressive_net
    univariate, columns = _convert_univariate(transform, net, place)
    place = f"{place}.autoregressive_net"
    _check_name("nflows.transforms.made.MADE", net, place=place)
    dim = net.initial_layer.in_features
    outputs = np.arange(net.final_layer.out_features).reshape(dim, -1)[:, columns]
    return MaskedAutoregressive(_convert_made(net, outputs, place), Inverse(univariate))


def _convert_made(net: Any, outputs: np.ndarray, place: str) -> Conditioner:
    """Return the conditioner of a masked network with given rows of outputs, `(D, P)`."""
    residual, dim = net.use_residual_blocks, len(outputs)
    blocks = [_read_block(block, f"{place}.blocks[{i}]") for i, block in enumerate(net.blocks)]
    layers = [net.initial_layer, *(layer for block in blocks for layer in block)]
    masked = [
        MaskedLayer(*_read_linear(layer), parts.to_numpy(layer.mask).astype(bool))
        for layer in (*layers, net.final_layer)
    ]
    masked_net = MaskedNet(
        library="nflows",
        place=place,
        layers=masked,
        slots=[parts.to_numpy(layer.degrees) for layer in layers],
        order=np.arange(dim),
        outputs=outputs,
        activation=_convert_activations([net, *net.blocks], place),
        residual=residual,
        linear=(len(layers),) if residual else (),
    )
    if not hasattr(net, "context_layer"):
        return masked_net.to_made()
    return ShiftedMADE(masked_net.to_made(), _read_shifts(net, masked_net.units))


def _read_shifts(net: Any, units: Sequence[np.ndarray]) -> list[Layer]:
    """Return the maps of the context, with rows in the given orders of the hidden units."""
    readers = [net, *(net.blocks if net.use_residual_blocks else ())]
    maps = [_read_linear(reader.context_layer) for reader in readers]
    orders = [units[0], *units[1::2]][: len(maps)]
    return [(kernel[o], bias[o]) for (kernel, bias), o in zip(maps, orders, strict=True)]


def _convert_coupling(transform: Any, place: str) -> Bijector:
    net = transform.transform_net
    if transform.unconditional_transform is not None:
        _refuse("couplings that pass coordinates unchanged", "an unconditional transform", place)
    _check_name("nflows.nn.nets.resnet.ResidualNet", net, place=f"{place}.transform_net")
    univariate, columns = _convert_univariate(transform, net, place)
    num_rest = transform.num_transform_features
    passes = np.ones(transform.features, bool)
    passes[parts.to_numpy(transform.transform_features)] = False
    if "Piecewise" in type(transform).__name__:
        rows = np.arange(net.final_layer.out_features).reshape(num_rest, -1)
    else:  # one block of rows for each parameter
        rows = np.arange(net.final_layer.out_features).reshape(-1, num_rest).T
    network = _convert_resnet(net, rows[:, columns], f"{place}.transform_net")
    return Coupling(passes, network, Inverse(univariate))


def _convert_resnet(net: Any, outputs: np.ndarray, place: str) -> GatedResNet:
    """Return the network of a coupling with given rows of outputs, `(D, P)`."""
    blocks = [_read_block(block, f"{place}.blocks[{i}]") for i, block in enumerate(net.blocks)]
    layers = [net.initial_layer, *(layer for block in blocks for layer in block)]
    kernel, bias = _read_linear(net.final_layer)
    last = kernel[outputs.ravel()], bias[outputs.ravel()]
    gates = [_read_linear(b.context_layer) for b in net.blocks if hasattr(b, "context_layer")]
    activation = _convert_activations(net.blocks, place)
    maps = [*(_read_linear(layer) for layer in layers), last]
    return GatedResNet(maps, gates, outputs.shape[1], activation)


def _read_block(block: Any, place: str) -> Sequence[Any]:
    """Return the linear maps of a block, after a check that the block has nothing else."""
    if getattr(block, "use_batch_norm", False) or getattr(block, "batch_norm", None) is not None:
        _refuse("blocks without batch normalisation", "a block with it", place)
    if block.training and block.dropout.p > 0:
        _refuse("blocks without dropout in training mode (call flow.eval())", "dropout", place)
    return block.linear_layers if hasattr(block, "linear_layers") else [block.linear]


def _convert_activations(owners: Sequence[Any], place: str) -> Callable:
    found = {convert_activation(owner.activation, "nflows", place) for owner in owners}
    if len(found) > 1:
        _refuse("one activation", found, place)
    return found.pop()


def _read_linear(layer: Any) -> Layer:
    return parts.to_numpy(layer.weight), parts.to_numpy(layer.bias)


def _convert_univariate(transform: Any, net: Any, place: str) -> tuple[Bijector, list[int]]:
    """Return a univariate, and the numbers of its parameters among the outputs of the network."""
    kind = type(transform).__name__
    if kind == "AdditiveCouplingTransform":
        return Additive(), [0]
    if kind == "AffineCouplingTransform":
        default = getattr(type(transform), "DEFAULT_SCALE_ACTIVATION", None)
        if getattr(transform, "scale_activation", default) is not default:
            _refuse("the default scale_activation", "another", place)
        return ConvertedAffine(SigmoidScale(2.0, 1e-3)), [0, 1]
    if kind == "MaskedAffineAutoregressiveTransform":
        return ConvertedAffine(SoftplusScale(transform._epsilon)), [1, 0]
    if transform.tails != "linear":
        _refuse("splines with tails='linear'", f"tails={transform.tails!r}", place)
    least = transform.min_bin_width, transform.min_bin_height, transform.min_derivative
    divisor = float(np.sqrt(getattr(net, "hidden_features", 1)))
    knots = NflowsKnots(transform.num_bins, float(transform.tail_bound), *least, divisor)
    return ConvertedSpline(knots), list(range(knots.num_params))


_TRANSFORMS = {
    "nflows.transforms.autoregressive.MaskedAffineAutoregressiveTransform": _convert_masked,
    "nflows.transforms.autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform": (
        _convert_masked
    ),
    "nflows.transforms.base.CompositeTransform": _convert_composite,
    "nflows.transforms.base.InverseTransform": _convert_inverse,
    "nflows.transforms.coupling.AdditiveCouplingTransform": _convert_coupling,
    "nflows.transforms.coupling.AffineCouplingTransform": _convert_coupling,
    "nflows.transforms.coupling.PiecewiseRationalQuadraticCouplingTransform": _convert_coupling,
    "nflows.transforms.lu.LULinear": _convert_lu,
    "nflows.transforms.normalization.BatchNorm": _convert_batchnorm,
    "nflows.transforms.permutations.Permutation": _convert_permutation,
    "nflows.transforms.permutations.RandomPermutation": _convert_permutation,
    "nflows.transforms.permutations.ReversePermutation": _convert_permutation,
    "nflows.transforms.standard.PointwiseAffineTransform": _convert_pointwise,
}
