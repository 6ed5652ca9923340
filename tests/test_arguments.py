"""Wrong arguments raise an error that names the expected value, before anything is compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow import plots, saving, sbi, training

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(200, 2))
FLOW = afflow.maf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0))
CONDITIONAL = afflow.maf(2, num_layers=1, hidden=(4,), context_dim=3, rngs=nnx.Rngs(0))
NADE = afflow.nade(2, hidden=3, rngs=nnx.Rngs(0))
DEEP = afflow.zoo.deep_nade(2, hidden=(3,), rngs=nnx.Rngs(0))
NORMAL = {"log_density": lambda x: -(x**2).sum() / 2}
PRIOR = sbi.gaussian([0.0, 0.0], [1.0, 1.0])
H = np.ones((200, 3), np.float32)
OPTIONS = {"key": KEY, "max_epochs": 1, "progress": False}


class Foreign:
    """A bijector of another library."""

    def forward(self, x):
        return x


def maf(dim=2, **options):
    """Return a `maf` with default keys."""
    return afflow.maf(dim, **{"rngs": nnx.Rngs(0)} | options)


def fit(flow, x, **options):
    """Fit with the default options of this file."""
    return afflow.fit(flow, x, **OPTIONS | options)


CALLS = {
    "sample(1000)": lambda: FLOW.sample(1000),
    "sample(1000,key)": lambda: FLOW.sample(1000, KEY),
    "sample(0,5)": lambda: FLOW.sample(0, 5),
    "sample(key,2.5)": lambda: FLOW.sample(KEY, 2.5),
    "sample(key,-1)": lambda: FLOW.sample(KEY, -1),
    "sample(key, key)": lambda: FLOW.sample(KEY, KEY),
    "sample(key,'a')": lambda: FLOW.sample(KEY, "a"),
    "sample(key,ctx)": lambda: CONDITIONAL.sample(KEY, jnp.ones((5, 3))),
    "fit X[:,0]": lambda: fit(FLOW, X[:, 0]),
    "fit scalar": lambda: fit(FLOW, 3.0),
    "fit(X,FLOW)": lambda: fit(X, FLOW),
    "fit key=0": lambda: fit(FLOW, X, key=0),
    "validation (X,X)": lambda: fit(FLOW, X, validation=(X, X)),
    "validation wrong dim": lambda: fit(FLOW, X, validation=np.ones((5, 3))),
    "validation str": lambda: fit(FLOW, X, validation="a"),
    "validation 1.5": lambda: fit(FLOW, X, validation=1.5),
    "validation no context": lambda: fit(
        CONDITIONAL, X, context=np.ones((200, 3), np.float32), validation=X
    ),
    "Chain of class": lambda: afflow.Chain([afflow.Reverse, afflow.Reverse(2)]),
    "Chain of flow": lambda: afflow.Chain([FLOW, afflow.Reverse(2)]),
    "Chain of int": lambda: afflow.Chain([3]),
    "Chain single": lambda: afflow.Chain(afflow.Reverse(2)),
    "Inverse class": lambda: afflow.Inverse(afflow.Reverse),
    "strings": lambda: fit(FLOW, np.array([["a", "b"]] * 9)),
    "foreign in chain": lambda: afflow.Chain([Foreign()]),
    "foreign Flow": lambda: afflow.Flow(afflow.Normal(2), Foreign()),
    "Elementwise(Interval)": lambda: afflow.Elementwise(afflow.bijectors.Interval(0.0, 1.0), 2),
    "Elementwise(class)": lambda: afflow.Elementwise(afflow.Affine, 2),
    "MaskedAR class": lambda: afflow.MaskedAutoregressive(
        afflow.MADE(2, 2, rngs=nnx.Rngs(0)), afflow.Affine
    ),
    "MaskedAR swapped": lambda: afflow.MaskedAutoregressive(
        afflow.Affine(), afflow.MADE(2, 2, rngs=nnx.Rngs(0))
    ),
    "num_layers 2.5": lambda: maf(2, num_layers=2.5, rngs=nnx.Rngs(0)),
    "num_layers str": lambda: maf(2, num_layers="2", rngs=nnx.Rngs(0)),
    "hidden int": lambda: maf(2, hidden=8, rngs=nnx.Rngs(0)),
    "hidden neg": lambda: maf(2, hidden=(-8,), rngs=nnx.Rngs(0)),
    "dim tuple": lambda: maf((2,), rngs=nnx.Rngs(0)),
    "dim data": lambda: maf(X, rngs=nnx.Rngs(0)),
    "context_dim -1": lambda: maf(2, context_dim=-1, rngs=nnx.Rngs(0)),
    "activation str": lambda: maf(2, activation="relu", rngs=nnx.Rngs(0)),
    "activation None": lambda: maf(2, activation=None, rngs=nnx.Rngs(0)),
    "rngs int": lambda: maf(2, rngs=0),
    "mix obj": lambda: maf(2, mix=afflow.Reverse(2), rngs=nnx.Rngs(0)),
    "mix class": lambda: maf(2, mix=afflow.Reverse, rngs=nnx.Rngs(0)),
    "base class": lambda: maf(2, base=afflow.Normal, rngs=nnx.Rngs(0)),
    "base wrong": lambda: maf(2, base=afflow.Normal(3), rngs=nnx.Rngs(0)),
    "solver class": lambda: maf(2, solver=afflow.Jacobi, rngs=nnx.Rngs(0)).sample(KEY),
    "univariate class arg": lambda: maf(2, univariate=3, rngs=nnx.Rngs(0)),
    "context 4 vs 7": lambda: fit(CONDITIONAL, X, context=np.ones((150, 3), np.float32)),
    "log_prob swapped": lambda: CONDITIONAL.log_prob(
        np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    ),
    "log_prob batch mismatch": lambda: CONDITIONAL.log_prob(
        np.ones((4, 2), np.float32), np.ones((7, 3), np.float32)
    ),
    "log_prob None": lambda: FLOW.log_prob(None),
    "log_prob str": lambda: FLOW.log_prob("abc"),
    "log_prob ints": lambda: FLOW.log_prob(np.ones((3, 2), int)),
    "weights wrong": lambda: fit(FLOW, X, weights=np.ones(3)),
    "batch 0": lambda: fit(FLOW, X, batch_size=0),
    "lr -1": lambda: fit(FLOW, X, learning_rate=-1.0),
    "lr str": lambda: fit(FLOW, X, learning_rate="a"),
    "lr 0": lambda: fit(FLOW, X, learning_rate=0.0),
    "ema 2": lambda: fit(FLOW, X, ema=2.0),
    "patience -1": lambda: fit(FLOW, X, patience=-1),
    "optimizer str": lambda: fit(FLOW, X, optimizer="adam"),
    "objective str": lambda: fit(FLOW, X, objective="ml"),
    "callbacks fn": lambda: fit(FLOW, X, callbacks=print),
    "checkpoint str": lambda: fit(FLOW, X, checkpoint="/tmp/zz"),
    "nade complete": lambda: NADE.complete(np.ones((3, 2)), [True], KEY),
    "nade complete swapped": lambda: NADE.complete([True, False], np.ones((3, 2)), KEY),
    "deep nade complete swapped": lambda: DEEP.complete([True, False], np.ones((3, 2)), KEY),
    "marginal swapped": lambda: DEEP.marginal_log_prob([True, False], np.ones((3, 2))),
    "Permutation floats": lambda: afflow.Permutation([0.5, 1]),
    "Permutation int": lambda: afflow.Permutation(3),
    "Repeat obj": lambda: afflow.Repeat(afflow.Reverse(2), 3, rngs=nnx.Rngs(0)),
    "Repeat 0": lambda: afflow.Repeat(lambda r: afflow.Reverse(2), 0, rngs=nnx.Rngs(0)),
    "Spline bins": lambda: afflow.RationalQuadraticSpline(1),
    "Spline bins f": lambda: afflow.RationalQuadraticSpline(4.5),
    "Spline bound": lambda: afflow.RationalQuadraticSpline(4, -1.0),
    "Normal -1": lambda: afflow.Normal(-1),
    "Normal str": lambda: afflow.Normal("a"),
    "Flow swapped": lambda: afflow.Flow(afflow.Reverse(2), afflow.Normal(2)),
    "Flow classes": lambda: afflow.Flow(afflow.Normal, afflow.Reverse),
    "Embedded non-callable": lambda: afflow.Embedded(CONDITIONAL.bijector, 3, 4),
    "Coupling mask": lambda: afflow.Coupling(
        [1, 2], afflow.MLP(1, 1, 2, (4,), rngs=nnx.Rngs(0)), afflow.Affine()
    ),
    "save swapped": lambda: afflow.save("/tmp/aa.zip", FLOW),
    "prefix too long": lambda: afflow.models.prefix_log_prob(
        afflow.made(2, rngs=nnx.Rngs(0)), np.ones(3)
    ),
    "dequantize float": lambda: afflow.dequantize(KEY, np.ones(3)),
    "dequantize swapped": lambda: afflow.dequantize(np.ones(3, int), KEY),
    "fit_ensemble num": lambda: afflow.fit_ensemble(
        lambda r: afflow.made(2, rngs=r), X, num=0, **OPTIONS
    ),
    "purify swapped": lambda: afflow.inference.purify(X, NADE, 1),
    "p-value scalar": lambda: afflow.inference.find_p_value(3.0, 2.0),
    "ess scalar": lambda: afflow.inference.effective_sample_size(3.0),
    "weights of no samples": lambda: afflow.importance_weights(
        FLOW, jnp.sum, key=KEY, num_samples=0
    ),
    "moments": lambda: afflow.inference.moments(FLOW, key=KEY, num_samples=1),
    "StudentT": lambda: afflow.distributions.StudentT(2, -1.0),
    "Mixture one": lambda: afflow.distributions.Mixture(afflow.Normal(2)),
    "Uniform swapped": lambda: afflow.Uniform(2, 1.0, 0.0),
    "standardize scalar data": lambda: afflow.Standardize.from_data(3.0),
    "check_bijector class": lambda: afflow.check_bijector(afflow.Reverse, key=KEY),
    "export a platform": lambda: saving.export(FLOW, "/tmp/a.zip", platforms=["abacus"]),
    "export one platform": lambda: saving.export(FLOW, "/tmp/a.zip", platforms="cpu"),
    "save_parameters swapped": lambda: saving.save_parameters("/tmp/a", FLOW),
    "load_parameters swapped": lambda: saving.load_parameters("/tmp/a", FLOW),
    "card": lambda: afflow.save(FLOW, "/tmp/a.zip", card=3),
    "accumulate 1.5": lambda: fit(FLOW, X, accumulate=1.5),
    "rate search low": lambda: training.find_learning_rate(FLOW, X, key=KEY, low=-1.0),
    "rate search key": lambda: training.find_learning_rate(FLOW, X, key=1),
    "parquet of a number": lambda: training.read_parquet(3, 8),
    "box swapped": lambda: sbi.box([1.0], [0.0]),
    "box scalars": lambda: sbi.box(0.0, 1.0),
    "independent of one": lambda: sbi.independent(PRIOR),
    "constrain swapped": lambda: sbi.constrain(PRIOR.bijector, afflow.Normal(2)),
    "npe of a distribution": lambda: sbi.npe(afflow.Normal(2), X, H, key=KEY),
    "npe lengths": lambda: sbi.npe(PRIOR, X[:9], H, key=KEY),
    "npe key": lambda: sbi.npe(PRIOR, X, H, key=0),
    "npe of a flow": lambda: sbi.npe(PRIOR, X, H, key=KEY, flow=FLOW),
    "npe embedding": lambda: sbi.npe(PRIOR, X, H, key=KEY, embedding=3),
    "nle of scalars": lambda: sbi.nle(X, X[:, 0], key=KEY),
    "nre hidden": lambda: sbi.nre(X, H, key=KEY, hidden=8),
    "Posterior of a density": lambda: sbi.Posterior(PRIOR, FLOW, X[0]),
    "simulate a number": lambda: sbi.simulate(3, PRIOR, 5, key=KEY),
    "simulate none": lambda: sbi.simulate(lambda key, theta: theta, PRIOR, 0, key=KEY),
    "simulate without keys": lambda: sbi.simulate(lambda theta: theta, PRIOR, 5, key=KEY),
    "c2st of other shapes": lambda: sbi.c2st(X, H, seed=0),
    "ranks without posterior": lambda: sbi.compute_ranks(X, X, H, key=KEY, num_samples=9),
    "ranks of an array": lambda: sbi.bin_ranks(X),
    "uniformity of an array": lambda: sbi.assess_uniformity(X),
    "ecdf of an array": lambda: sbi.compare_ecdf(X),
    "predict without posterior": lambda: sbi.predict(X, print, H[0], key=KEY, num_samples=5),
    "corner of a line": lambda: plots.corner(X[:, 0]),
    "corner density": lambda: plots.corner(X, density=FLOW),
    "coverage of an array": lambda: plots.coverage_curve(X),
    "histograms of an array": lambda: plots.rank_histograms(X),
    "curves of an array": lambda: plots.training_curves(X),
    "grid of a line": lambda: plots.pushed_grid(afflow.made(1, rngs=nnx.Rngs(0))),
    "from_zuko of afflow": lambda: afflow.adapters.from_zuko(FLOW),
    "from_nflows of afflow": lambda: afflow.adapters.from_nflows(FLOW),
    "from_flowjax of afflow": lambda: afflow.adapters.from_flowjax(FLOW),
    "vae of nothing": lambda: afflow.zoo.vae(0, rngs=nnx.Rngs(0)),
    "tnaf of nothing": lambda: afflow.zoo.tnaf(0, rngs=nnx.Rngs(0)),
    "calibrate an array": lambda: afflow.calibrate(X, key=KEY),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments(name):
    with pytest.raises(ValueError, match="xpected"):
        CALLS[name]()


def rngs():
    return nnx.Rngs(0)


def two_layers(name):
    """Return arguments of a factory of flows."""
    layers = {} if name == "made" else {"num_layers": 1}
    return {"dim": 2, "hidden": (4,), "context_dim": 0, "rngs": rngs()} | layers


NETWORK = {"hidden": (4,), "context_dim": 0, "activation": jax.nn.relu, "rngs": rngs()}
SUBJECTS = [
    (afflow.Normal, {"event_shape": 2}),
    (afflow.Uniform, {"event_shape": 2, "low": 0.0, "high": 1.0}),
    (afflow.Reverse, {"dim": 2}),
    (afflow.Permutation, {"order": [1, 0]}),
    (afflow.Shuffle, {"dim": 2, "rngs": rngs()}),
    (afflow.LU, {"dim": 2}),
    (afflow.Standardize, {"mean": jnp.zeros(2), "std": jnp.ones(2)}),
    (afflow.Elementwise, {"univariate": afflow.Affine(), "event_shape": 2}),
    (afflow.MADE, {"dim": 2, "num_params": 2, "features": 1, **NETWORK}),
    (afflow.MLP, {"num_inputs": 1, "num_outputs": 1, "num_params": 2, **NETWORK}),
    (
        afflow.MaskedAutoregressive,
        {
            "conditioner": afflow.MADE(2, 2, (4,), rngs=rngs()),
            "univariate": afflow.Affine(),
            "solver": afflow.Incremental(),
        },
    ),
    (
        afflow.Coupling,
        {
            "mask": [True, False],
            "network": afflow.MLP(1, 1, 2, (4,), rngs=rngs()),
            "univariate": afflow.Affine(),
        },
    ),
    (afflow.Chain, {"bijectors": [afflow.Reverse(2)]}),
    (afflow.Inverse, {"bijector": afflow.Reverse(2)}),
    (afflow.Repeat, {"make": lambda rngs: afflow.Reverse(2), "n": 2, "rngs": rngs()}),
    (afflow.Flow, {"base": afflow.Normal(2), "bijector": afflow.Reverse(2)}),
    (afflow.Affine, {"max_log_scale": 7.0}),
    (afflow.RationalQuadraticSpline, {"num_bins": 4, "bound": 3.0}),
    (afflow.univariates.CircularSpline, {"num_bins": 4, "bound": 3.0}),
    (afflow.univariates.MixtureCDF, {"num_components": 3}),
    (afflow.univariates.BernsteinPolynomial, {"degree": 4, "bound": 3.0, "max_log_scale": 7.0}),
    (afflow.univariates.SumOfSquares, {"num_polynomials": 2, "degree": 2, "bound": 3.0}),
    (afflow.univariates.Sigmoidal, {"hidden": (3,)}),
    (afflow.univariates.UMNN, {"embedding": 2, "hidden": (3,), "bound": 3.0, "rngs": rngs()}),
    (afflow.univariates.LinearSpline, {"num_bins": 4, "bound": 3.0, "min_bin": 0.1}),
    (afflow.bijectors.ActNorm, {"event_shape": 2}),
    (afflow.bijectors.BatchNorm, {"event_shape": 2}),
    (afflow.bijectors.Positive, {"event_shape": 2}),
    (afflow.bijectors.Interval, {"low": 0.0, "high": 1.0}),
    (afflow.bijectors.Householder, {"dim": 2, "num_reflections": 1, "rngs": rngs()}),
    (afflow.bijectors.Planar, {"dim": 2, "rngs": rngs()}),
    (afflow.bijectors.Radial, {"event_shape": 2}),
    (afflow.bijectors.Sylvester, {"dim": 2, "rank": 1, "rngs": rngs()}),
    (afflow.bijectors.Rotation, {"matrix": jnp.eye(2)}),
    (afflow.bijectors.Triangular, {"dim": 2}),
    (afflow.bijectors.Logit, {"event_shape": 2}),
    (afflow.bijectors.Exp, {"event_shape": 2}),
    (afflow.bijectors.LeakyReLU, {"event_shape": 2, "slope": 0.1}),
    (afflow.bijectors.Conv1x1, {"event_shape": (2, 2, 2)}),
    (afflow.bijectors.Squeeze, {"bijector": afflow.bijectors.ActNorm((2, 2, 4))}),
    (
        afflow.bijectors.Patches,
        {"bijector": afflow.Reverse(4, features=4), "image_shape": (4, 4)},
    ),
    (afflow.Permutation, {"order": [1, 0], "features": 2}),
    (afflow.bijectors.Split, {"bijector": afflow.Reverse(2)}),
    (afflow.bijectors.Reshape, {"bijector": afflow.Reverse(4), "event_shape": (2, 2)}),
    (
        afflow.distributions.MultivariateNormal,
        {"mean": jnp.zeros(2), "covariance": jnp.eye(2)},
    ),
    (afflow.distributions.StudentT, {"event_shape": 2, "df": 3.0}),
    (afflow.distributions.Laplace, {"event_shape": 2}),
    (afflow.distributions.Mixture, {"components": [afflow.Normal(2), afflow.Normal(2)]}),
    (afflow.distributions.VonMises, {"event_shape": 2, "concentration": 1.0}),
    (
        afflow.conditioners.NADE,
        {"dim": 2, "num_params": 1, "hidden": 3, "context_dim": 0, "rngs": rngs()},
    ),
    (afflow.conditioners.Graphical, {"adjacency": [[0, 0], [1, 0]], "num_params": 2, **NETWORK}),
    (
        afflow.conditioners.Guided,
        {
            "conditioner": afflow.MADE(2, 2, (3,), context_dim=3, rngs=nnx.Rngs(0)),
            "weight": 1.0,
            "null_context": np.zeros(3),
            "temperature": 1.0,
        },
    ),
    (afflow.zoo.guide, {"model": CONDITIONAL, "weight": 1.0, "null_context": np.zeros(3)}),
    (afflow.zoo.cool, {"flow": FLOW, "temperature": 0.5}),
    (
        afflow.models.NoisyFlow,
        {"flow": FLOW, "noise_std": 0.1, "drop_context": 0.1, "levels": 3, "num_draws": 1}
        | {"low": -1.0, "high": 1.0},
    ),
    (
        afflow.zoo.tarflow,
        {"image_shape": (2, 2), "patch": 1, "num_blocks": 1, "num_layers": 1, "width": 4}
        | {"num_heads": 2, "context_dim": 0, "univariate": afflow.Affine, "rngs": rngs()}
        | {"positions": afflow.nets.Absolute(), "solver": afflow.Incremental()}
        | {"data": X.reshape(-1, 2, 2), "base": afflow.Normal((2, 2))},
    ),
    (afflow.conditionals.Categorical, {"num_classes": 3}),
    (afflow.conditionals.CategoricalLevels, {"num_levels": 4}),
    (
        afflow.conditionals.MixtureOf,
        {"component": afflow.univariates.GaussianCDF(), "num_components": 3},
    ),
    (afflow.conditionals.DiscretizedLogistics, {"num_levels": 4, "num_components": 2}),
    *((getattr(afflow, name), two_layers(name)) for name in ("maf", "iaf", "nsf", "made")),
    *((getattr(afflow.zoo, name), two_layers(name)) for name in ("realnvp", "nice", "naf")),
    (afflow.coupling_flow, two_layers("coupling_flow")),
    *(
        (getattr(afflow, name), {"dim": 2, "rngs": rngs()})
        for name in ("nade", "rnade", "made_model", "fvsbn")
    ),
    (afflow.Above, {"low": 0.0}),
    (afflow.Between, {"low": 0.0, "high": 1.0}),
    (afflow.Whole, {"low": 0, "high": 3}),
    (afflow.Categories, {"values": ["a", "b"]}),
    (training.Stream, {"make": lambda epoch: [X], "num_steps": 1}),
    (
        afflow.AutoregressiveModel,
        {"conditioner": NADE.conditioner, "conditional": NADE.conditional, "order": [1, 0]}
        | {"solver": afflow.Incremental(), "learning_rate": 0.01},
    ),
    (
        afflow.OrderAgnosticModel,
        {"network": afflow.conditioners.DeepNADE(2, 1, (3,), rngs=rngs()), "num_orders": 2}
        | {"conditional": afflow.conditionals.Bernoulli()},
    ),
    (afflow.importance_weights, {"flow": FLOW, "key": KEY, "num_samples": 3} | NORMAL),
    (
        partial(afflow.fit_to_density, max_epochs=1, progress=False),
        {"flow": FLOW, "key": KEY, "num_samples": 3, "num_steps": 1, "learning_rate": 0.1}
        | {"objective": afflow.inference.reverse_kl}
        | NORMAL,
    ),
    *(
        (getattr(afflow.inference, name), {"log_weights": np.arange(30.0)})
        for name in ("elbo", "log_evidence", "pareto_k", "pareto_smoothed")
        + ("effective_sample_size",)
    ),
    (
        afflow.models.sample_rest,
        {"flow": afflow.made(2, rngs=rngs()), "key": KEY, "prefix": np.ones(1), "shape": 2},
    ),
    (
        afflow.conditioners.Periodic,
        {"conditioner": afflow.MADE(4, 2, rngs=rngs()), "angles": [0]},
    ),
    (
        afflow.distributions.LocationScale,
        {"base": afflow.Normal(2), "loc": np.zeros(2), "scale": np.ones(2)},
    ),
    (afflow.univariates.PerDimension, {"univariates": [afflow.Affine(), afflow.Affine()]}),
    (
        afflow.bijectors.Blockwise,
        {"dim": 2, "bijectors": [afflow.Reverse(1)], "blocks": [[1]]},
    ),
    (afflow.bijectors.Hutchinson, {"event_shape": 2, "key": KEY, "num_probes": 1}),
    (afflow.bijectors.Power, {"event_shape": 2, "exponent": 2.0}),
    (afflow.bits_per_dim, {"log_prob": np.zeros(3), "event_shape": 2, "levels": 256}),
    (NADE.complete, {"x": np.ones((3, 2)), "observed": [True, False], "key": KEY}),
    (DEEP.complete, {"x": np.ones((3, 2)), "observed": [False, True], "key": KEY}),
    (DEEP.marginal_log_prob, {"x": np.ones((3, 2)), "subset": [False, True]}),
]


@pytest.mark.parametrize(
    ("subject", "good"), SUBJECTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_argument_of_another_type(subject, good):
    """Each argument in turn is an object of no use, or a text."""
    subject(**good)
    for name in good:
        for wrong in (object(), "text"):
            with pytest.raises(ValueError, match="xpected"):
                subject(**good | {name: wrong})


def test_unknown_arguments_of_a_factory():
    with pytest.raises(TypeError, match="hiden"):
        maf(hiden=(3,))


def test_glow_without_actnorm_is_warned_of():
    sizes = {"num_levels": 1, "num_steps": 1, "width": 2, "rngs": nnx.Rngs(0)}
    images = 100 + 50 * np.random.default_rng(0).normal(size=(32, 4, 4, 1))
    with pytest.warns(UserWarning, match="initialize_actnorm"):
        fit(afflow.zoo.glow((4, 4, 1), **sizes), images, batch_size=32, validation=0)


def test_a_box_is_named_in_the_note():
    def log_density(z):
        return jnp.where((jnp.abs(z) < 0.1).all(), 0.0, -jnp.inf)

    with pytest.raises(afflow.training.NonFiniteLossError) as caught:
        afflow.fit_to_density(FLOW, log_density, key=KEY, num_steps=5, progress=False)
    assert any("Interval" in note for note in caught.value.__notes__)
