"""The parts of converted flows, without the other libraries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.adapters.converted.activations import convert_activation
from afflow.adapters.converted.affine import ConvertedAffine, SigmoidScale, SoftplusScale
from afflow.adapters.converted.masked import MaskedLayer, MaskedNet
from afflow.adapters.converted.networks import GatedResNet
from afflow.adapters.converted.parts import chain, chain_calls, gather, reorder
from afflow.adapters.converted.shifted import ShiftedMADE
from afflow.adapters.converted.spline import (
    ConvertedSpline,
    FlowjaxKnots,
    NflowsKnots,
    ZukoKnots,
)

RNG = np.random.default_rng(0)
UNIVARIATES = {
    "softplus": ConvertedAffine(SoftplusScale(1e-2)),
    "sigmoid": ConvertedAffine(SigmoidScale(2.0, 1e-3)),
    "zuko": ConvertedSpline(ZukoKnots(4, 2.0, 1e-3)),
    "nflows": ConvertedSpline(NflowsKnots(3, 2.0, 1e-3, 2e-3, 1e-3, 2.5)),
    "flowjax": ConvertedSpline(FlowjaxKnots(3, (-2.0, 1.5), 1e-3, 2e-3, 1e-3)),
}
INSIDE = jnp.linspace(-1.9, 1.4, 9)


def draw(*shape):
    return np.random.default_rng(len(shape)).normal(0, 0.6, shape)


@pytest.mark.parametrize("name", UNIVARIATES)
def test_univariates_invert_and_have_their_slopes(name):
    univariate = UNIVARIATES[name]
    params = jnp.asarray(draw(*univariate.context_shape))
    x = jnp.concatenate([INSIDE, jnp.array([-2.5, -2.0, 2.0, 3.0])])
    y, log_slopes = jax.vmap(univariate.forward_and_log_det, (0, None))(x, params)
    back, log_slopes_back = jax.vmap(univariate.inverse_and_log_det, (0, None))(y, params)
    slopes = jax.vmap(jax.grad(univariate.forward), (0, None))(INSIDE, params)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(log_slopes_back, -log_slopes, atol=1e-12)
    np.testing.assert_allclose(log_slopes[: len(INSIDE)], jnp.log(slopes), atol=1e-12)
    assert float(jnp.abs(y - x).max()) > 0.1


@pytest.mark.parametrize("name", ["zuko", "nflows", "flowjax"])
def test_splines_are_the_identity_outside(name):
    univariate = UNIVARIATES[name]
    params = jnp.asarray(draw(*univariate.context_shape))
    for x in (-2.01, 2.01):
        y, log_slope = univariate.forward_and_log_det(jnp.array(x), params)
        assert (y, log_slope) == (x, 0)


def masked_net(order, activation=jnp.tanh):
    """Return a masked network with hidden units in random order, and its plain evaluation."""
    dim, context_dim, widths = len(order), 2, (7, 6)
    position = np.argsort(order)
    slots = [RNG.permutation(np.arange(width) % dim) for width in widths]
    inputs = np.concatenate([position + 1, np.zeros(context_dim, int)])
    outputs = np.repeat(position, 3)
    degrees = [inputs, *slots, outputs]
    layers = []
    for before, after in zip(degrees[:-1], degrees[1:], strict=True):
        mask = after[:, None] >= before
        layers.append(MaskedLayer(RNG.normal(size=mask.shape), RNG.normal(size=len(after)), mask))

    def evaluate(x, context):
        h = jnp.concatenate([x, context])
        for layer in layers[:-1]:
            h = activation((layer.kernel * layer.mask) @ h + layer.bias)
        return ((layers[-1].kernel * layers[-1].mask) @ h + layers[-1].bias).reshape(dim, 3)

    rows = np.arange(dim * 3).reshape(dim, 3)
    net = MaskedNet("a library", "flow.net", layers, slots, np.array(order), rows, activation)
    return net, evaluate


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_masked_networks_keep_their_outputs(order):
    net, evaluate = masked_net(order)
    x, context = jnp.asarray(draw(4)), jnp.asarray(draw(2))
    found = net.to_made()(x[np.array(order)], context)
    np.testing.assert_allclose(found, evaluate(x, context)[np.array(order)], atol=1e-12)


def test_other_masks_are_refused():
    net, _ = masked_net((0, 1, 2))
    net.layers[1].mask[0, 0] ^= True
    with pytest.raises(ValueError, match=r"got other masks at map 1 of flow\.net\.$"):
        net.to_made()


def shifted():
    made = afflow.MADE(4, 2, (6, 6, 6), residual=True, activation=jnp.tanh, rngs=nnx.Rngs(0))
    shifts = [(draw(6, 3), draw(6)), (draw(6, 3) + 1, draw(6) + 1)]
    return ShiftedMADE(randomize(made), shifts)


def test_shifts_are_biases_of_the_first_layer_and_of_each_block():
    net, x, context = shifted(), jnp.asarray(draw(4)), jnp.asarray(draw(3))
    made, (first, second) = net.made, zip(net.kernels, net.biases, strict=True)
    expected = list(made.biases)
    expected[0] = nnx.Param(expected[0][...] + jnp.tanh(first[0][...] @ context + first[1][...]))
    expected[1] = nnx.Param(expected[1][...] + second[0][...] @ context + second[1][...])
    found = net(x, context)
    made.biases = nnx.List(expected)
    np.testing.assert_allclose(found, made(x), atol=1e-12)


def test_shifted_layer_is_a_bijector_of_both_solvers():
    net, univariate = shifted(), afflow.Affine()
    layer = afflow.MaskedAutoregressive(net, univariate)
    full = afflow.MaskedAutoregressive(net, univariate, afflow.FullPasses())
    z, contexts = jnp.asarray(draw(5, 4)), jnp.asarray(draw(5, 3))
    x = jax.vmap(layer.forward)(z, contexts)
    np.testing.assert_allclose(x, jax.vmap(full.forward)(z, contexts), atol=1e-12)
    np.testing.assert_allclose(jax.vmap(layer.inverse)(x, contexts), z, atol=1e-12)


def test_gates_scale_the_blocks():
    layers = [
        (draw(5, 4), draw(5)),
        (draw(5, 5), draw(5)),
        (draw(5, 5) + 1, draw(5)),
        (draw(6, 5), draw(6)),
    ]
    gate = draw(5, 2), draw(5)
    x, context = jnp.asarray(draw(2)), jnp.asarray(draw(2)) + 1
    (w, b), (w1, b1), (w2, b2), (v, c) = layers
    h = w @ jnp.concatenate([x, context]) + b
    update = w2 @ jnp.tanh(w1 @ jnp.tanh(h) + b1) + b2
    h = h + update * jax.nn.sigmoid(gate[0] @ context + gate[1])
    found = GatedResNet(layers, [gate], 3, jnp.tanh)(x, context)
    np.testing.assert_allclose(found, (v @ h + c).reshape(2, 3), atol=1e-12)


def test_orders_and_chains():
    x, indices = jnp.array([10.0, 20.0, 30.0]), np.array([2, 0, 1])
    assert gather(indices).inverse(x).tolist() == [30.0, 10.0, 20.0]
    units = afflow.Standardize(jnp.arange(3.0), jnp.ones(3))
    assert reorder(units, indices).inverse(x).tolist() == [9.0, 18.0, 30.0]
    merged = chain([gather(indices), gather(indices), units, gather(indices)])
    assert [type(part) for part in merged.bijectors] == [
        afflow.Permutation,
        afflow.Standardize,
        afflow.Permutation,
    ]
    expected = gather(indices).inverse(
        gather(indices).inverse(units.inverse(gather(indices).inverse(x)))
    )
    assert merged.inverse(x).tolist() == expected.tolist()
    assert chain([gather(indices), gather(np.argsort(indices))]).inverse(x).tolist() == x.tolist()
    called = chain_calls([gather(indices), units])
    assert called.inverse(x).tolist() == units.inverse(gather(indices).inverse(x)).tolist()


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="an activation of torch among elu"):
        convert_activation(partial(jnp.tanh), "a library", "flow.net")
