"""Flows of flowjax keep their densities and samples."""

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

flows = pytest.importorskip("flowjax.flows")
B = pytest.importorskip("flowjax.bijections")
D = pytest.importorskip("flowjax.distributions")
eqx = pytest.importorskip("equinox")
paramax = pytest.importorskip("paramax")

KEY = jax.random.key(0)
SMALL = {"flow_layers": 2, "nn_width": 6}
SPLINE = {"transformer": B.RationalQuadraticSpline(knots=3, interval=(-2, 2.5))}


@pytest.fixture(autouse=True)
def _rank_promotion():
    """Let flowjax mix ranks, which the tests of afflow forbid."""
    with jax.numpy_rank_promotion("allow"):
        yield


def scrambled(flow):
    """Return a flow with noise added to every parameter."""
    params, static = eqx.partition(flow, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    moved = [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves]
    return eqx.combine(jax.tree.unflatten(tree, moved), static)


def maf(dim=3, make=flows.masked_autoregressive_flow, base=None, **options):
    base = D.Normal(jnp.zeros(dim)) if base is None else base
    return make(KEY, base_dist=base, **(SMALL | options))


coupling = partial(maf, 4, flows.coupling_flow)

FLOWS = {
    "maf": lambda: maf(nn_depth=2),
    "maf with context": lambda: maf(cond_dim=2, nn_activation=jnp.tanh),
    "maf in two dimensions": lambda: maf(2, base=D.StandardNormal((2,))),
    "iaf": lambda: maf(invert=False),
    "nsf": lambda: maf(**SPLINE),
    "nsf with context": lambda: maf(cond_dim=1, nn_depth=0, **SPLINE),
    "coupling": lambda: coupling(),
    "coupling with context": lambda: coupling(cond_dim=2, invert=False),
    "spline coupling": lambda: coupling(**SPLINE),
    "one layer": lambda: D.Transformed(
        D.StandardNormal((3,)),
        B.Chain([B.Identity((3,)), B.Flip((3,)), B.Permute(jnp.array([1, 2, 0]))]),
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_densities_and_samples_agree(name):
    theirs = scrambled(FLOWS[name]())
    (dim,), cond_shape = theirs.shape, theirs.cond_shape
    x, context = draw((20, dim)), None if cond_shape is None else draw((20, *cond_shape), 1)
    ours = afflow.adapters.from_flowjax(theirs)
    check_density(ours, theirs.log_prob(x, context), x, context)
    bijection = paramax.unwrap(theirs.bijection)
    events = jax.vmap(bijection.transform, (0, None if context is None else 0))(x, context)
    check_samples(ours, events, x, context)


def test_frozen_base_keeps_its_scale():
    theirs, x = maf(base=paramax.non_trainable(D.Normal(jnp.ones(3), 2.0))), draw((10, 3))
    check_density(afflow.adapters.from_flowjax(theirs), theirs.log_prob(x), x)


@pytest.mark.parametrize("frozen", [False, True])
def test_base_is_trained_as_before(frozen):
    base = D.Normal(jnp.zeros(3))
    theirs = maf(base=paramax.non_trainable(base) if frozen else base)
    found = afflow.adapters.from_flowjax(theirs).base
    expected = afflow.Normal if frozen else afflow.distributions.LocationScale
    assert type(found) is expected


def test_converted_flow_saves_and_trains(tmp_path):
    ours = afflow.adapters.from_flowjax(scrambled(maf(**SPLINE)))
    x = jnp.asarray(draw((40, 3)))
    check_saves(ours, tmp_path / "flow.afflow", x)
    check_trains(ours, x)


def with_scale(scale):
    return maf(transformer=eqx.tree_at(lambda a: a.scale, B.Affine(), replace=scale))


def over(bijection):
    return D.Transformed(D.StandardNormal(bijection.shape), bijection)


REFUSED = {
    "another distribution": (
        lambda: D.StandardNormal((2,)),
        r"got flowjax\.distributions\.StandardNormal at the top\.$",
    ),
    "a base": (lambda: maf(base=D.StudentT(jnp.ones(3))), r"StudentT at flow\.base_dist\.$"),
    "a bijection": (
        lambda: flows.planar_flow(KEY, base_dist=D.StandardNormal((2,)), flow_layers=1),
        r"Planar at flow\.bijection\.bijection\.bijection \(layer 0\)\.bijections\[0\]\.$",
    ),
    "a transformer": (
        lambda: maf(transformer=B.Loc(jnp.array(0.0))),
        r"got flowjax\.bijections\.affine\.Loc at .*\(transformer\)\.$",
    ),
    "another scale": (
        lambda: with_scale(paramax.Parameterize(jnp.exp, jnp.array(0.0))),
        r"softplus\(x\) \+ c, got .* at .*\(transformer\)\.$",
    ),
    "a bare scale": (
        lambda: with_scale(jnp.array(1.0)),
        r"positive parameters by paramax\.Parameterize, got",
    ),
    "a frozen scale": (
        lambda: maf(
            transformer=eqx.tree_at(lambda a: a.scale, B.Affine(), replace_fn=paramax.non_trainable)
        ),
        r"parameters are all trained, got",
    ),
    "unwrapped weights": (
        lambda: paramax.unwrap(maf()),
        r"masked weights .* at .*\.layers\[0\]\.$",
    ),
    "matrices": (
        lambda: over(B.Flip((2, 2))),
        r"vectors, got shape \(2, 2\) at flow\.bijection\.$",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_parts_are_named(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        afflow.adapters.from_flowjax(make())
