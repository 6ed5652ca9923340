"""Density models against exhaustive enumeration, brute force, and equal flows."""

from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize
from scipy import stats

import afflow

KEY = jax.random.key(0)


def fixed_sum(conditioner, total):
    """Return a model of binary vectors with `total` ones."""
    return afflow.AutoregressiveModel(
        afflow.conditioners.FixedSum(conditioner, total), afflow.conditionals.Bernoulli()
    )


DISCRETE = {
    "fixed sum made": lambda: fixed_sum(afflow.MADE(4, 1, (7, 5), rngs=nnx.Rngs(0)), 2),
    "fixed sum nade": lambda: fixed_sum(afflow.conditioners.NADE(5, 1, 3, rngs=nnx.Rngs(0)), 1),
    "fvsbn": lambda: afflow.fvsbn(4, rngs=nnx.Rngs(0)),
    "fvsbn D=1": lambda: afflow.fvsbn(1, rngs=nnx.Rngs(0)),
    "independent": lambda: afflow.zoo.independent_mlps(4, hidden=3, rngs=nnx.Rngs(0)),
    "nade": lambda: afflow.nade(4, hidden=3, rngs=nnx.Rngs(0)),
    "nade D=1": lambda: afflow.nade(1, hidden=3, rngs=nnx.Rngs(0)),
    "nade ordered": lambda: afflow.nade(4, hidden=3, order=[2, 0, 3, 1], rngs=nnx.Rngs(0)),
    "nade categorical": lambda: afflow.nade(
        3, hidden=4, conditional=afflow.conditionals.Categorical(3), rngs=nnx.Rngs(0)
    ),
    "independent categorical": lambda: afflow.zoo.independent_mlps(
        3, hidden=2, conditional=afflow.conditionals.Categorical(3), rngs=nnx.Rngs(0)
    ),
    "made": lambda: afflow.made_model(4, hidden=(7, 5), rngs=nnx.Rngs(0)),
    "made H<D": lambda: afflow.made_model(4, hidden=(1,), order=[3, 2, 1, 0], rngs=nnx.Rngs(0)),
    "made direct": lambda: afflow.made_model(
        4, hidden=(7,), direct=True, order=[2, 0, 3, 1], rngs=nnx.Rngs(0)
    ),
    "made categorical": lambda: afflow.made_model(
        3, hidden=(5,), conditional=afflow.conditionals.Categorical(3), rngs=nnx.Rngs(0)
    ),
    "made discretized": lambda: afflow.made_model(
        2, hidden=(5,), conditional=afflow.conditionals.DiscretizedLogistics(2, 5), rngs=nnx.Rngs(0)
    ),
    "made ensemble": lambda: afflow.zoo.made_ensemble(
        4, hidden=(6, 6), num_masks=3, endless=True, rngs=nnx.Rngs(0)
    ),
    "made ensemble natural categorical": lambda: afflow.zoo.made_ensemble(
        3,
        hidden=(4,),
        num_masks=2,
        natural=True,
        conditional=afflow.conditionals.Categorical(3),
        rngs=nnx.Rngs(0),
    ),
    "made ensemble D=1": lambda: afflow.zoo.made_ensemble(1, hidden=(3,), rngs=nnx.Rngs(0)),
    "deep nade": lambda: afflow.zoo.deep_nade(4, hidden=(5, 3), rngs=nnx.Rngs(0)),
    "deep nade categorical": lambda: afflow.zoo.deep_nade(
        3, hidden=(5,), conditional=afflow.conditionals.Categorical(3), rngs=nnx.Rngs(0)
    ),
    "eonade": lambda: afflow.zoo.eonade(4, hidden=(5,), num_orders=3, rngs=nnx.Rngs(0)),
}
AGNOSTIC = [name for name in DISCRETE if name.startswith(("made e", "deep", "eo"))]


def build(name):
    """Return the model `DISCRETE[name]` with random weights."""
    return randomize(DISCRETE[name]())


def outcomes(model):
    """Return all outcomes `(K^D, D)` of a model."""
    conditional = model.conditional
    levels = getattr(conditional, "num_classes", getattr(conditional, "num_levels", 2))
    return np.array(list(product(range(levels), repeat=model.event_shape[0])))


def chi_squared(drawn, every, probabilities):
    """Return the p-value of samples `drawn`, given the probability of each outcome in `every`."""
    counts = (drawn[:, None] == every[None]).all(-1).sum(0)
    assert counts.sum() == len(drawn)
    keep = probabilities * len(drawn) > 1
    expected = np.append(probabilities[keep], probabilities[~keep].sum()) * len(drawn)
    observed = np.append(counts[keep], counts[~keep].sum())
    return stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue


@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_sum_to_one_and_samples_match_them(name):
    model = build(name)
    every = outcomes(model)
    probabilities = np.exp(model.log_prob(every))
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-6)
    assert np.ptp(probabilities) > 0.01
    drawn = np.asarray(model.sample(KEY, 4000))
    assert chi_squared(drawn, every, probabilities / probabilities.sum()) > 1e-3


@pytest.mark.parametrize("total", [0, 2, 4])
def test_a_fixed_sum_holds(total):
    """Check probability zero for other sums, total probability one, and finite gradients."""
    model = randomize(fixed_sum(afflow.MADE(4, 1, (5,), rngs=nnx.Rngs(0)), total))
    every = np.array(list(product(range(2), repeat=4)))
    log_probs = np.asarray(model.log_prob(every))
    inside = every.sum(1) == total
    assert (log_probs[~inside] == -np.inf).all()
    np.testing.assert_allclose(np.exp(log_probs[inside]).sum(), 1, rtol=1e-9)
    assert (model.sample(KEY, 200).sum(-1) == total).all()
    assert (model.greedy().sum(-1) == total).all()
    gradient = jax.grad(lambda model: model.log_prob(every[inside]).sum())(model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_sums_that_cannot_be():
    for conditioner, total in (
        (afflow.MADE(4, 1, rngs=nnx.Rngs(0)), 5),
        (afflow.MADE(4, 2, rngs=nnx.Rngs(0)), 2),
    ):
        with pytest.raises(ValueError, match="scalars with one parameter"):
            afflow.conditioners.FixedSum(conditioner, total)


@pytest.mark.parametrize("name", ["nade ordered", "made categorical"])
def test_completion_is_the_exact_conditional(name):
    model = build(name)
    every = outcomes(model)
    order = list(model.order or range(len(every[0])))
    observed = np.isin(np.arange(len(every[0])), order[:2])
    x = every[len(every) // 2]
    agree = (every == x)[:, observed].all(1)
    log_probs = np.asarray(model.log_prob(every[agree]))
    x = np.where(observed, x, 7)  # values that are not observed must not matter
    drawn = model.complete(np.tile(x, (4000, 1)), observed, KEY)
    weights = np.exp(log_probs) / np.exp(log_probs).sum()
    assert chi_squared(np.asarray(drawn), every[agree], weights) > 1e-3
    # the first terms of the chain rule are the prefix's marginal
    terms = np.asarray(model.log_conditionals(every[agree][0]))[observed].sum()
    np.testing.assert_allclose(terms, np.log(np.exp(log_probs).sum()), rtol=1e-5)


@pytest.mark.parametrize("name", ["deep nade", "made ensemble", "deep nade categorical"])
def test_any_subset_completes_and_marginalises(name):
    model = build(name).with_orders(1)
    every = outcomes(model)
    dim = len(every[0])
    observed = np.arange(dim) % 2 == 1
    member = np.asarray(model._member(0).order)
    order = [i for i in member if observed[i]] + [i for i in member if not observed[i]]
    probabilities = np.exp(np.asarray(model.log_conditionals(every, order)).sum(1))
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-6)
    x = every[len(every) // 3]
    agree = (every == x)[:, observed].all(1)
    marginal = np.exp(model.marginal_log_prob(x, observed))
    np.testing.assert_allclose(marginal, probabilities[agree].sum(), rtol=1e-5)
    drawn = model.complete(np.tile(x, (4000, 1)), np.tile(observed, (4000, 1)), KEY)
    weights = probabilities[agree] / marginal
    assert chi_squared(np.asarray(drawn), every[agree], weights) > 1e-3


def conditional_by_enumeration(model, every, x, observed):
    """Return the probabilities of all outcomes given `x[observed]`, by enumeration.

    Each member of the ensemble moves the observed coordinates to the front of its order.
    """
    members = []
    for m in range(model.num_orders):
        draw = model._member(m)
        order = np.asarray(draw.order)
        draw = draw._replace(
            order=np.concatenate([order[observed[order]], order[~observed[order]]])
        )
        members.append(np.exp(np.asarray(find_terms(model, every, draw), float).sum(1)))
    agree = (every == x)[:, observed].all(1)
    joint = np.where(agree, np.sum(members, 0), 0)
    return joint / joint.sum()


@jax.jit
def find_terms(model, every, draw):
    """Return the log-conditionals of the outcomes under one member."""
    return jax.vmap(lambda x: model._log_conditionals(x, draw, None))(every)


@pytest.mark.parametrize("num_orders", [1, 2, 3])
@pytest.mark.parametrize("name", ["deep nade", "made ensemble", "natural"])
def test_every_subset_completes_a_mixture_of_orders(name, num_orders):
    if name == "natural":
        options = {"natural": True, "endless": True, "rngs": nnx.Rngs(0)}
        model = randomize(afflow.zoo.made_ensemble(4, hidden=(8,), **options), 1.0)
        subsets = np.tri(5, 4, -1, dtype=bool)
    else:
        model = randomize(DISCRETE[name](), 1.0)
        subsets = np.array(list(product([False, True], repeat=4)))
    model, every = model.with_orders(num_orders), outcomes(model)
    x = np.array([0, 1, 1, 0])
    shape = len(subsets), 3000, 4
    drawn = model.complete(np.broadcast_to(x, shape), np.broadcast_to(subsets[:, None], shape), KEY)
    for observed, rows in zip(subsets, np.asarray(drawn), strict=True):
        expected = conditional_by_enumeration(model, every, x, observed)
        if name == "natural":  # here `complete` is the conditional of `log_prob`
            agree = (every == x)[:, observed].all(1)
            joint = np.where(agree, np.exp(model.log_prob(every)), 0)
            np.testing.assert_allclose(expected, joint / joint.sum(), rtol=1e-5)
        if not observed.all():
            assert chi_squared(rows, every, expected) > 1e-5


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("name", ["nade", "made ensemble", "deep nade"])
def test_keys_of_every_kind_sample(name, impl):
    model, key = build(name), jax.random.key(0, impl=impl)
    assert model.sample(key, 3).shape == (3, 4)
    x, observed = np.ones((3, 4), int), [True, False, False, False]
    if model.__class__ is afflow.OrderAgnosticModel:
        model.training_log_prob(key, x)
    assert (model.complete(x, observed, key)[:, 0] == 1).all()


def test_completion_leaves_observed_values_alone():
    for model in (build("nade"), build("deep nade")):
        with pytest.raises(ValueError, match="whole numbers in the observed"):
            model.complete(np.array([0.7, 0, 0, 0]), [True, False, False, False], KEY)
        assert model.complete(np.array([1.0, 0.7, 0, 0]), [True, False, False, False], KEY)[0] == 1


def test_observed_coordinates_broadcast():
    model, masks = build("deep nade"), np.array([[1, 0, 0, 0], [0, 1, 1, 0]], bool)
    for x in (np.array([1, 0, 1, 0]), np.array([[1, 0, 1, 0]])):
        drawn = np.asarray(model.complete(x, masks, KEY))
        assert drawn.shape == (2, 4)
        assert (drawn[0, 0], *drawn[1, 1:3]) == (1, 0, 1)


def test_untrained_orders_are_refused():
    natural, members = (
        afflow.zoo.made_ensemble(3, hidden=(4,), natural=natural, rngs=nnx.Rngs(0))
        for natural in (True, False)
    )
    x, late, early = np.zeros(3), [False, True, False], [True, False, False]
    for model, subset in ((natural, late), (members, late), (members, early)):
        with pytest.raises(ValueError, match="trains on all orders"):
            model.complete(x, subset, KEY)
        with pytest.raises(ValueError, match="trains on all orders"):
            model.marginal_log_prob(x, subset)
    np.testing.assert_allclose(natural.marginal_log_prob(x, early), -np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "x"), [("deep nade categorical", [2, 0, 1]), ("deep nade", [1, 0, 1, 1])]
)
def test_training_estimate_is_the_mean_over_orders(name, x):
    model, x = build(name), np.array(x)
    orders = permutations(range(len(x)))
    exact = np.mean([model.log_conditionals(x, order).sum() for order in orders])
    batch = np.tile(x, (5, 1))  # rows of a minibatch share draws; minibatches do not
    keys = jax.random.split(KEY, 20_000)
    estimates = np.asarray(jax.vmap(lambda key: model.training_log_prob(key, batch))(keys))
    for means in (estimates[:, 0], estimates.mean(1)):
        error = means.std() / np.sqrt(len(means))
        assert abs(means.mean() - exact) < 4 * error < 0.2


def test_dropout_is_unbiased_and_each_event_has_its_own():
    options = {"hidden": (40,), "activation": jnp.positive, "rngs": nnx.Rngs(0)}
    model = randomize(afflow.zoo.made_ensemble(3, dropout=0.3, num_masks=1, **options))
    x, draw = jnp.array([1, 0, 1]), model._member(0)
    estimate = jax.vmap(lambda key: model.network.estimate(key, x, draw)[0])
    params = estimate(jax.random.split(KEY, 4000))
    error = params.std(0) / np.sqrt(len(params))
    difference = np.abs(params.mean(0) - model.network.in_order(x, draw))
    assert (error > 0).any()
    assert (difference <= 5 * error + 1e-12).all()
    alike = jnp.array([x, x])
    assert len(set(model.training_log_prob(KEY, alike).tolist())) == 2
    without = afflow.zoo.made_ensemble(3, num_masks=1, **options)
    assert len(set(without.training_log_prob(KEY, alike).tolist())) == 1
    with pytest.raises(ValueError, match="dropout"):
        afflow.zoo.made_ensemble(3, dropout=1.0, **options)


@pytest.mark.parametrize("name", ["nade", "made ensemble", "eonade"])
def test_greedy_takes_every_mode(name):
    model = build(name)
    dim = model.event_shape[0]
    x, nothing = np.zeros(dim, int), np.zeros(dim, bool)
    best = np.asarray(model.complete(x, nothing))
    if hasattr(model, "greedy"):
        np.testing.assert_array_equal(best, model.greedy())
        order, terms = range(dim), model.log_conditionals
    else:
        order = [int(i) for i in model._member(0).order]

        def terms(x):
            return model.log_conditionals(x, order)

    for t, i in enumerate(order):
        flipped = best.copy()
        flipped[i] = 1 - flipped[i]
        assert terms(best)[i] >= terms(flipped)[i]
        earlier = list(order)[:t]
        before, after = np.asarray(terms(best)), np.asarray(terms(flipped))
        np.testing.assert_allclose(before[earlier], after[earlier])


@pytest.mark.parametrize("name", ["nade", "made_model", "made_ensemble"])
def test_a_chunk_at_a_time(name):
    """Check that `chunk` does not change log-probabilities and samples, also of a `Reshaped`."""
    model = randomize(getattr(afflow.zoo, name)(4, rngs=nnx.Rngs(0)))
    for part in (model, afflow.models.Reshaped(model, (2, 2))):
        x = part.sample(KEY, 6)
        np.testing.assert_array_equal(part.sample(KEY, 6, chunk=4), x)
        np.testing.assert_allclose(part.log_prob(x, chunk=4), part.log_prob(x), rtol=1e-12)
        with pytest.raises(ValueError, match="chunk >= 1"):
            part.log_prob(x, chunk=0)


def test_temperature():
    model = build("nade")
    cold = np.asarray(model.sample(KEY, 200, temperature=1e-3))
    assert (cold == np.asarray(model.greedy())).all()
    hot = np.asarray(model.sample(KEY, 2000, temperature=1e3))
    assert abs(hot.mean() - 0.5) < 0.03
    with pytest.raises(ValueError, match="temperature > 0"):
        model.sample(KEY, temperature=0.0)


@pytest.mark.parametrize("component", ["GaussianCDF", "LaplaceCDF", "LogisticCDF"])
def test_rnade_is_a_flow(component):
    base = {"GaussianCDF": "Normal", "LaplaceCDF": "Laplace", "LogisticCDF": "Logistic"}[component]
    component = getattr(afflow.univariates, component)()
    options = {"num_components": 3, "component": component, "rngs": nnx.Rngs(0)}
    model = randomize(afflow.rnade(3, hidden=4, **options))
    layer = afflow.MaskedAutoregressive(
        model.conditioner, afflow.univariates.MixtureCDF(3, component)
    )
    flow = afflow.Flow(getattr(afflow.distributions, base)(3), layer)
    x = 2 * jax.random.normal(KEY, (20, 3))
    np.testing.assert_allclose(model.log_prob(x), flow.log_prob(x), rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_nade_is_the_formula(dtype):
    net = afflow.conditioners.NADE(7, 2, 5, context_dim=2, rescale=True, rngs=nnx.Rngs(0))
    net = jax.tree.map(lambda a: a.astype(dtype), randomize(net))
    x, context = jnp.linspace(-1, 1, 7, dtype=dtype), jnp.ones(2, dtype)
    a = net.c[...] + net.U[...] @ context
    for t, params in enumerate(net(x, context)):
        h = jax.nn.sigmoid(net.rho[t] * a)
        np.testing.assert_allclose(params, net.V[t] @ h + net.b[t], rtol=1e-5)
        a += net.W[t, 0] * x[t]
    assert params.dtype == dtype


@pytest.mark.parametrize("make", [afflow.nade, afflow.zoo.independent_mlps, afflow.zoo.deep_nade])
def test_context_reaches_the_first_coordinate(make):
    hidden = (3,) if make is afflow.zoo.deep_nade else 3
    model = randomize(make(1, hidden=hidden, context_dim=2, rngs=nnx.Rngs(0)))
    log_probs = model.log_prob(jnp.ones((5, 1)), jax.random.normal(KEY, (5, 2)))
    assert len(np.unique(log_probs)) == 5
    assert model.sample(KEY, 3, jnp.ones((5, 2))).shape == (3, 5, 1)
    with pytest.raises(ValueError, match="got no context"):
        model.log_prob(jnp.ones(1))


def test_masked_ensemble_context_reaches_the_first_coordinate():
    model = randomize(afflow.zoo.made_ensemble(1, hidden=(3,), context_dim=2, rngs=nnx.Rngs(0)))
    log_probs = model.log_prob(jnp.ones((5, 1)), jax.random.normal(KEY, (5, 2)))
    assert len(np.unique(log_probs)) == 5


@pytest.mark.parametrize("name", ["fvsbn", "independent", "nade categorical", "deep nade",
                                  "made ensemble natural categorical"])  # fmt: skip
def test_fit_takes_integers(name):
    model = DISCRETE[name]()
    x = np.random.default_rng(0).integers(0, 2, (256, 1)) * np.ones((1, *model.event_shape), int)
    options = {"key": KEY, "max_epochs": 30, "batch_size": 64, "learning_rate": 0.05}
    fitted, history = afflow.fit(model, x.astype(np.uint8), progress=False, **options)
    assert fitted.log_prob(x).mean() > -0.5 * len(x[0]) * np.log(2)
    assert history.validation[-1] < history.validation[0]


def test_choose_order():
    def train(order):
        model = afflow.fvsbn(2, order=order, rngs=nnx.Rngs(0))
        return model, afflow.training.History([], [0.1 * order[0], 1.0], 0)

    assert afflow.zoo.choose_order([(1, 0), (0, 1)], train).order == (0, 1)
    with pytest.raises(ValueError, match="at least one order"):
        afflow.zoo.choose_order([], train)


def test_bad_input():
    made = afflow.MADE(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_params=1"):
        afflow.AutoregressiveModel(made, afflow.conditionals.Bernoulli())
    with pytest.raises(ValueError, match="features=2"):
        afflow.AutoregressiveModel(made, afflow.conditionals.Categorical(2))
    with pytest.raises(ValueError, match="permutation"):
        afflow.fvsbn(3, order=[0, 0, 1], rngs=nnx.Rngs(0))
    model = afflow.fvsbn(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"x.shape \(..., 3\)"):
        model.log_prob(np.zeros(4))
    with pytest.raises(ValueError, match="come first in the order"):
        model.complete(np.zeros(3), [False, True, False], KEY)
    with pytest.raises(ValueError, match="num_orders"):
        afflow.zoo.eonade(3, hidden=(2,), num_orders=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="permutation"):
        afflow.zoo.deep_nade(3, hidden=(2,), rngs=nnx.Rngs(0)).log_conditionals(np.zeros(3), [0, 1])
    for values, expected in (
        ([0.5, 1, 0], -np.inf),
        ([0, 2, 1], -np.inf),
        ([0, np.nan, 1], np.nan),
    ):
        np.testing.assert_equal(float(model.log_prob(np.array(values, float))), expected)


def rows_with_gaps(dim, size, rng, *, anywhere):
    """Return complete rows and rows with NaN. Neighbours agree with probability 0.9."""
    flips = rng.random((size, dim)) < np.r_[0.5, np.full(dim - 1, 0.1)]
    x = (flips.cumsum(1) % 2).astype(float)
    gaps = (
        rng.random((size, dim)) < 0.3
        if anywhere
        else np.arange(dim) >= rng.integers(1, dim + 1, (size, 1))
    )
    return x, np.where(gaps, np.nan, x)


@pytest.mark.parametrize("anywhere", [False, True])
def test_rows_with_missing_values(anywhere):
    """Check that a fit to incomplete rows finds the distribution of the complete rows."""
    x, holed = rows_with_gaps(4, 3000, np.random.default_rng(0), anywhere=anywhere)
    make = afflow.zoo.deep_nade if anywhere else afflow.made_model
    model = make(4, hidden=(16,), rngs=nnx.Rngs(0))
    options = {"key": KEY, "max_epochs": 80, "learning_rate": 0.01, "progress": False}
    model, _ = afflow.fit(model, holed, missing=True, **options)
    truth = np.log(2) + 3 * (-0.9 * np.log(0.9) - 0.1 * np.log(0.1))
    assert abs(-np.mean(model.log_prob(x)) - truth) < 0.06


def test_the_observed_likelihood_is_a_marginal():
    model = build("made")
    every = outcomes(model).astype(float)
    x = np.array([1.0, 0.0, np.nan, np.nan])
    agree = (every[:, :2] == x[:2]).all(1)
    exact = np.log(np.exp(model.log_prob(every[agree])).sum())
    np.testing.assert_allclose(model.observed_log_prob(KEY, x), exact, rtol=1e-9)


@pytest.mark.parametrize("num", [1, 2, 4])
def test_estimates_of_what_is_observed_are_unbiased(num):
    """Check the mean over many keys, in a model with a cost of log 2 per bit."""
    model = afflow.zoo.deep_nade(4, rngs=nnx.Rngs(0))
    x = np.where(np.arange(4) < num, 1.0, np.nan)
    estimates = model.observed_log_prob(KEY, np.tile(x, (4000, 1)))
    error = np.std(estimates) / np.sqrt(4000)
    assert abs(np.mean(estimates) + num * np.log(2)) < 4 * error + 1e-6


def test_missing_values_that_a_model_cannot_take():
    x = np.array([[1.0, np.nan, 0.0, 1.0]] * 9)
    for model, message in (
        (afflow.fvsbn(4, rngs=nnx.Rngs(0)), "after a missing one in row 0"),
        (afflow.zoo.made_ensemble(4, hidden=(4,), rngs=nnx.Rngs(0)), "order"),
        (afflow.made(4, rngs=nnx.Rngs(0)), "after a missing one in row 0"),
        (afflow.maf(4, rngs=nnx.Rngs(0)), "keep the order of the coordinates"),
        (afflow.Normal(4), "Expected a Flow"),
    ):
        with pytest.raises(ValueError, match=message):
            afflow.fit(model, x, missing=True, key=KEY, progress=False)
    good = np.array([[1.0, 0.0, 1.0, np.nan]] * 9)
    fvsbn = afflow.fvsbn(4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="after a missing one"):
        afflow.fit(fvsbn, good, validation=x, missing=True, key=KEY, progress=False)
    with pytest.raises(ValueError, match="missing=True"):
        afflow.fit(afflow.fvsbn(4, rngs=nnx.Rngs(0)), x, key=KEY, progress=False)


def test_every_minibatch_of_a_stream_is_checked_for_missing_values():
    good = np.array([[1.0, 0.0, 1.0, np.nan]] * 4)
    bad = np.array([[1.0, np.nan, 0.0, 1.0]] * 4)
    model, options = afflow.fvsbn(4, rngs=nnx.Rngs(0)), {"validation": 0, "max_epochs": 1}
    options |= {"missing": True, "key": KEY, "progress": False}
    for batches in ([good, bad], [(good, None), (bad, None)]):
        stream = afflow.training.Stream(lambda epoch: batches, num_steps=2)  # noqa: B023
        with pytest.raises(ValueError, match="after a missing one in row 0"):
            afflow.fit(model, stream, **options)
    stream = afflow.training.Stream(lambda epoch: [good, good], num_steps=2)
    assert np.isfinite(afflow.fit(model, stream, **options)[1].train).all()


def test_rnade_learns_the_ends_of_a_beta_density_by_default():
    x = np.random.default_rng(0).beta(0.5, 0.5, size=(5000, 1)).astype(np.float32)
    scaled = (x - 0.5) / 0.35
    model = afflow.rnade(1, rngs=nnx.Rngs(0))
    model, _ = afflow.fit(model, scaled[:3500], key=KEY, progress=False)
    entropy = np.log(np.pi / 4)
    found = np.mean(model.log_prob(scaled[3500:])) - np.log(0.35)
    assert found + entropy > -0.1


def test_masks_of_a_batch_do_not_train_on_missing_values():
    options = {"hidden": (8,), "num_masks": 1, "endless": True}
    model = randomize(afflow.zoo.made_ensemble(4, **options, rngs=nnx.Rngs(0)), 1.0)
    rows = jnp.array([[a, b, jnp.nan, jnp.nan] for a in (0, 1) for b in (0, 1)])
    with pytest.raises(ValueError, match="an order for each row"):
        model.observed_log_prob(KEY, rows)
    found = jax.jit(jax.vmap(model.observed_log_prob, (None, 0)))(KEY, rows)  # of one order
    np.testing.assert_allclose(jnp.exp(found).sum(), 1, rtol=1e-9)


def test_no_probability_has_finite_gradients():
    """Check means of probabilities that are all zero: over orders, draws of noise and members."""
    rows = jnp.array([[1.0], [3.0], [6.0]])
    dice = afflow.made(1, hidden=(4,), columns=[afflow.Whole(1, 6)], data=rows, rngs=nnx.Rngs(0))
    members = [afflow.fvsbn(2, rngs=nnx.Rngs(i)) for i in range(2)]
    cases = [
        (afflow.zoo.deep_nade(2, hidden=(4,), rngs=nnx.Rngs(0)), [0.0, 2.0]),
        (dice, [7.0]),
        (afflow.Ensemble(members), [0.0, 2.0]),
    ]
    for model, x in cases:
        x = jnp.array(x)
        value, gradient = jax.value_and_grad(lambda model, x: model.log_prob(x))(model, x)
        assert value == -jnp.inf
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_contexts_broadcast_over_rows_with_missing_values():
    made = afflow.MADE(3, 1, (8,), context_dim=2, rngs=nnx.Rngs(0))
    model = randomize(afflow.AutoregressiveModel(made, afflow.conditionals.Bernoulli()), 1.0)
    contexts, x = jax.random.normal(KEY, (4, 2)), jnp.array([0.0, 1.0, jnp.nan])
    found = model.observed_log_prob(KEY, x, contexts)
    expected = [model.observed_log_prob(KEY, x, context) for context in contexts]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
