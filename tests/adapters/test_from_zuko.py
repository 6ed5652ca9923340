"""Flows of zuko keep their densities and samples."""

from functools import partial

import jax.numpy as jnp
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
zuko = pytest.importorskip("zuko")

SMALL = {"hidden_features": (8, 6), "transforms": 2}


def scrambled(flow):
    """Return a flow of zuko in double precision, with noise added to every parameter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in flow.double().parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data += 0.3 * noise
    return flow


def elu_nsf():
    return zuko.flows.NSF(3, bins=4, activation=torch.nn.ELU, randperm=True, **SMALL)


FLOWS = {
    "maf": lambda: (zuko.flows.MAF(4, **SMALL), 0),
    "maf with context": lambda: (zuko.flows.MAF(3, 2, activation=torch.nn.GELU, **SMALL), 2),
    "maf in passes": lambda: (zuko.flows.MAF(5, 2, passes=3, randperm=True, **SMALL), 2),
    "maf in two passes": lambda: (zuko.flows.MAF(5, passes=2, **SMALL), 0),
    "nsf": lambda: (elu_nsf(), 0),
    "nsf with context": lambda: (zuko.flows.NSF(3, 2, bins=3, slope=1e-2, **SMALL), 2),
    "nsf in passes": lambda: (zuko.flows.NSF(4, passes=2, bins=3, **SMALL), 0),
    "nice": lambda: (zuko.flows.NICE(4, activation=torch.nn.Tanh, **SMALL), 0),
    "realnvp with context": lambda: (zuko.flows.RealNVP(5, 2, randmask=True, **SMALL), 2),
    "additive": lambda: (
        zuko.flows.NICE(4, univariate=zuko.transforms.AdditiveTransform, shapes=[()], **SMALL),
        0,
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_densities_and_samples_agree(name):
    theirs, context_dim = FLOWS[name]()
    theirs, dim = scrambled(theirs), theirs.base().event_shape[0]
    x, context = draw((20, dim)), draw((20, context_dim), 1) if context_dim else None
    ours = afflow.adapters.from_zuko(theirs)
    with torch.no_grad():
        built = theirs(None if context is None else torch.from_numpy(context))
        log_prob = built.log_prob(torch.from_numpy(x))
        events = built.transform.inv(torch.from_numpy(x))
    check_density(ours, log_prob.numpy(), x, context)
    check_samples(ours, events.numpy(), x, context)


def test_base_keeps_its_scale():
    theirs = scrambled(zuko.flows.MAF(2, transforms=1, hidden_features=(4,)))
    theirs.base.loc += 1
    theirs.base.scale *= 2
    ours = afflow.adapters.from_zuko(theirs)
    x = draw((10, 2))
    check_density(ours, theirs().log_prob(torch.from_numpy(x)).detach().numpy(), x)


def test_converted_flow_saves_and_trains(tmp_path):
    ours = afflow.adapters.from_zuko(scrambled(elu_nsf()))
    x = jnp.asarray(draw((40, 3)))
    check_saves(ours, tmp_path / "flow.afflow", x)
    check_trains(ours, x)


def test_sampling_is_incremental():
    layer = afflow.adapters.from_zuko(zuko.flows.MAF(3, transforms=1)).bijector
    assert isinstance(layer.solver, afflow.Incremental)
    assert isinstance(layer.conditioner, afflow.MADE)


def with_univariate(univariate, shapes=((), ())):
    return zuko.flows.MAF(3, univariate=univariate, shapes=shapes)


def with_adjacency():
    adjacency = torch.tensor([[True, False], [True, True]])
    layer = zuko.flows.MaskedAutoregressiveTransform(2, adjacency=adjacency)
    return zuko.flows.Flow(layer, zuko.flows.MAF(2).base)


def with_other_masks():
    flow = zuko.flows.MAF(3, hidden_features=(4,))
    flow.transform.transforms[1].hyper[2].mask[-1, 0] = True
    return flow


AFFINE = zuko.transforms.MonotonicAffineTransform
REFUSED = {
    "an adjacency": (
        with_adjacency,
        r"order of the coordinates, got an adjacency matrix at flow\.transform\.$",
    ),
    "other masks": (with_other_masks, r"at map 1 of flow\.transform\.transforms\[1\]\.hyper\.$"),
    "residual blocks": (
        lambda: zuko.flows.MAF(3, residual=True),
        r"got zuko\.nn\.Residual at .*\.hyper\[2\]\.$",
    ),
    "layer norms": (
        lambda: zuko.flows.NICE(3, normalize=True),
        r"got zuko\.nn\.LayerNorm at .*\.hyper\[2\]\.$",
    ),
    "another flow": (
        lambda: zuko.flows.SOSPF(3),
        r"got zuko\.flows\.polynomial\.SOSPF at the top\.$",
    ),
    "another transform": (
        lambda: zuko.flows.Flow(zuko.flows.GF(2).transform, zuko.flows.MAF(2).base),
        r"ElementWiseTransform at flow\.transform\.transforms\[0\]\.$",
    ),
    "a univariate": (
        lambda: with_univariate(zuko.transforms.SOSPolynomialTransform, [(2, 3), ()]),
        r"got zuko\.transforms\.SOSPolynomialTransform at .*\.univariate\.$",
    ),
    "an option": (
        lambda: with_univariate(partial(AFFINE, cache_size=1)),
        r"options among \['slope'\], got \['cache_size'\]",
    ),
    "shapes": (lambda: with_univariate(AFFINE, ((2,), ())), r"got .* at .*\.shapes\.$"),
    "an activation": (
        lambda: zuko.flows.MAF(3, activation=torch.nn.Hardtanh),
        r"got Hardtanh.* at .*\.hyper\.$",
    ),
    "options of an activation": (
        lambda: zuko.flows.MAF(3, activation=partial(torch.nn.ELU, alpha=2.0)),
        r"got ELU\(alpha=2\.0\)",
    ),
    "a base": (
        lambda: zuko.flows.Flow(zuko.flows.MAF(2).transform, zuko.flows.NCSF(2).base),
        r"got UnconditionalDistribution.* at flow\.base\.$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_parts_are_named(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        afflow.adapters.from_zuko(make())
