"""Flows of nflows keep their densities and samples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign_flows import (
    check_density,
    check_samples,
    check_saves,
    check_trains,
    draw,
)

import afflow

torch = pytest.importorskip("torch")
flows = pytest.importorskip("nflows.flows")
T = pytest.importorskip("nflows.transforms")
ResidualNet = pytest.importorskip("nflows.nn.nets").ResidualNet
StandardNormal = pytest.importorskip("nflows.distributions").StandardNormal

AFFINE = T.MaskedAffineAutoregressiveTransform
SPLINE = partial(
    T.MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    num_bins=4,
    tails="linear",
    tail_bound=2.5,
)


def scrambled(flow):
    """Return a flow in double precision and evaluation mode, with noise in every parameter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in flow.double().eval().parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data += 0.3 * noise
    for module in flow.modules():
        if hasattr(module, "running_var"):
            module.running_mean += 0.5
            module.running_var += torch.linspace(0.5, 2, len(module.running_var))
    return flow


def build(dim, *transforms):
    return flows.Flow(T.CompositeTransform(transforms), StandardNormal([dim]))


def resnet(*sizes, context_dim=None, **options):
    return ResidualNet(*sizes, hidden_features=6, context_features=context_dim, **options)


def coupling(kind=T.AffineCouplingTransform, mask=(1, -1, -1, 1), context_dim=None, **options):
    network = partial(resnet, context_dim=context_dim, activation=torch.tanh)
    return kind(list(mask), network, **options)


RQ_COUPLING = partial(
    coupling, T.PiecewiseRationalQuadraticCouplingTransform, num_bins=3, tails="linear"
)


def stacked_maf():
    return flows.MaskedAutoregressiveFlow(4, 7, 2, 2, batch_norm_between_layers=True)


FLOWS = {
    "maf": lambda: (stacked_maf(), 4, 0),
    "maf of feedforward blocks": lambda: (
        flows.MaskedAutoregressiveFlow(
            3, 6, 2, 1, False, use_random_masks=True, use_random_permutations=True
        ),
        3,
        0,
    ),
    "maf with context": lambda: (
        build(3, AFFINE(3, 6, 2, activation=torch.tanh), T.LULinear(3), AFFINE(3, 6, 2)),
        3,
        2,
    ),
    "feedforward blocks with context": lambda: (
        build(3, AFFINE(3, 6, 2, use_residual_blocks=False)),
        3,
        2,
    ),
    "nsf": lambda: (build(3, SPLINE(3, 6), T.RandomPermutation(3), SPLINE(3, 6)), 3, 0),
    "nsf with context": lambda: (build(3, SPLINE(3, 6, 2, num_blocks=1)), 3, 2),
    "realnvp": lambda: (
        flows.SimpleRealNVP(4, 6, 2, 1, batch_norm_between_layers=True, dropout_probability=0.1),
        4,
        0,
    ),
    "volume-preserving": lambda: (
        flows.SimpleRealNVP(3, 6, 2, 1, use_volume_preserving=True),
        3,
        0,
    ),
    "couplings with context": lambda: (
        build(4, coupling(context_dim=2), RQ_COUPLING(mask=(-1, 1, 1, -1), context_dim=2)),
        4,
        2,
    ),
    "spline coupling": lambda: (build(4, RQ_COUPLING(tail_bound=2.0), coupling()), 4, 0),
    "units and an inverse": lambda: (
        build(
            2,
            T.PointwiseAffineTransform(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])),
            T.InverseTransform(coupling(mask=(1, -1))),
            T.ReversePermutation(2),
        ),
        2,
        0,
    ),
}


def has_inverse(flow):
    """Return whether torch still has the function that the inverse of an LU calls."""
    layers = [module for module in flow.modules() if isinstance(module, T.LULinear)]
    return not layers or hasattr(torch, "triangular_solve")


@pytest.mark.parametrize("name", FLOWS)
def test_densities_and_samples_agree(name):
    theirs, dim, context_dim = FLOWS[name]()
    theirs, x = scrambled(theirs), draw((20, dim))
    context = draw((20, context_dim), 1) if context_dim else None
    ours = afflow.adapters.from_nflows(theirs)
    args = [None if a is None else torch.from_numpy(a) for a in (x, context)]
    with torch.no_grad():
        log_prob = theirs.log_prob(*args)
        noise = theirs.transform_to_noise(*args)
        events = theirs._transform.inverse(*args)[0] if has_inverse(theirs) else None
    check_density(ours, log_prob.numpy(), x, context)
    check_samples(ours, x, noise.numpy(), context)
    if events is not None:
        check_samples(ours, events.numpy(), x, context)


def test_converted_flow_saves_and_trains(tmp_path):
    ours = afflow.adapters.from_nflows(scrambled(stacked_maf()))
    x = jnp.asarray(draw((40, 4)))
    check_saves(ours, tmp_path / "flow.afflow", x)
    check_trains(ours, x)


def test_converted_flow_with_context_saves(tmp_path):
    ours = afflow.adapters.from_nflows(scrambled(FLOWS["couplings with context"]()[0]))
    check_saves(ours, tmp_path / "flow.afflow", *map(jnp.asarray, (draw((5, 4)), draw((5, 2)))))


def test_gradients_of_samples_with_context_agree_with_full_passes():
    ours = afflow.adapters.from_nflows(scrambled(FLOWS["nsf with context"]()[0])).bijector
    full = afflow.MaskedAutoregressive(ours.conditioner, ours.univariate, afflow.FullPasses())
    z, context = jnp.asarray(draw(3)), jnp.asarray(draw(2, 1))
    for differentiate in (jax.jacfwd, jax.jacrev):
        found, expected = (
            differentiate(layer.forward, argnums=(0, 1))(z, context) for layer in (ours, full)
        )
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-9), found, expected)


REFUSED = {
    "another flow": (lambda: StandardNormal([2]), r"StandardNormal at the top\.$"),
    "a base": (
        lambda: flows.Flow(T.LULinear(2), stacked_maf()),
        r"MaskedAutoregressiveFlow at flow\._distribution\.$",
    ),
    "an embedding": (
        lambda: flows.Flow(T.LULinear(2), StandardNormal([2]), torch.nn.Linear(3, 2)),
        r"torch\.nn\.modules\.linear\.Linear at flow\._embedding_net\.$",
    ),
    "a transform": (
        lambda: build(2, T.LULinear(2), T.QRLinear(2, 2)),
        r"nflows\.transforms\.qr\.QRLinear at flow\._transform\._transforms\[1\]\.$",
    ),
    "training mode": (lambda: stacked_maf().train(), r"BatchNorm in evaluation mode .*\[2\]\.$"),
    "dropout": (
        lambda: build(2, AFFINE(2, 4, dropout_probability=0.5)).train(),
        r"got dropout at .*autoregressive_net\.blocks\[0\]\.$",
    ),
    "normalised blocks": (
        lambda: build(2, AFFINE(2, 4, use_batch_norm=True)),
        r"got a block with it at .*\.blocks\[0\]\.$",
    ),
    "normalised feedforward blocks": (
        lambda: build(2, AFFINE(2, 4, use_batch_norm=True, use_residual_blocks=False)),
        r"got a block with it at .*\.blocks\[0\]\.$",
    ),
    "splines without tails": (
        lambda: build(2, SPLINE(2, 4, tails=None)),
        r"tails='linear', got tails=None at .*\[0\]\.$",
    ),
    "passing coordinates that move": (
        lambda: build(4, RQ_COUPLING(apply_unconditional_transform=True)),
        r"got an unconditional transform at .*\[0\]\.$",
    ),
    "a network": (
        lambda: build(2, T.AffineCouplingTransform([1, -1], lambda i, o: torch.nn.Linear(i, o))),
        r"Linear at flow\._transform\._transforms\[0\]\.transform_net\.$",
    ),
    "an activation": (
        lambda: build(2, AFFINE(2, 4, activation=torch.sin)),
        r"an activation of torch .* at .*\.autoregressive_net\.$",
    ),
    "images": (
        lambda: build(2, T.Permutation(torch.arange(2), dim=2)),
        r"permutations of axis 1, got axis 2",
    ),
    "one scale for all": (
        lambda: build(2, T.PointwiseAffineTransform(1.0, 2.0)),
        r"a shift and a scale \(D,\), got \(\) and \(\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_parts_are_named(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        afflow.adapters.from_nflows(make())


def test_scales_beyond_the_range_are_refused():
    flow = scrambled(build(2, T.LULinear(2)))
    flow._transform._transforms[0].unconstrained_upper_diag.data += 2000
    with pytest.raises(ValueError, match="scales between 0.0009 and 1100"):
        afflow.adapters.from_nflows(flow)


def test_another_activation_of_the_scale_is_refused():
    net = partial(ResidualNet, hidden_features=4, num_blocks=1)
    coupling = T.AffineCouplingTransform([0, 1], lambda a, b: net(a, b))
    coupling.scale_activation = torch.exp  # as versions of nflows after 0.14 allow
    flow = flows.Flow(coupling, StandardNormal([2]))
    with pytest.raises(ValueError, match="scale_activation"):
        afflow.adapters.from_nflows(flow)
