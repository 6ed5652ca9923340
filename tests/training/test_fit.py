"""`fit` learns, stops early, is reproducible, and raises clear errors."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.training import fitting, loop
from afflow.training.optimizer import choose_learning_rate, choose_weight_decay
from afflow.training.rows import shuffle
from afflow.training.sources import _compute_mean_loss as mean_loss
from afflow.training.sources import choose_batch_size

KEY = jax.random.key(0)
X = np.array([2.0, -1.0]) + np.random.default_rng(0).normal(size=(600, 2)) * [0.5, 3.0]
OPTIONS = {"key": KEY, "batch_size": 100, "progress": False}
OF_STREAMS = OPTIONS | {"batch_size": None}


def small(context_dim=0, **options):
    """Return a small flow."""
    return afflow.made(2, hidden=(8,), context_dim=context_dim, rngs=nnx.Rngs(0), **options)


def embedding():
    """Return a small flow whose context is embedded by a linear map."""
    flow, network = small(3), nnx.Linear(1, 3, rngs=nnx.Rngs(0))
    return afflow.Flow(flow.base, afflow.Embedded(flow.bijector, network, 1))


def stream_of(*parts):
    """Return a stream of one minibatch."""
    return afflow.training.Stream(lambda epoch: [parts], num_steps=1)


def gaussian_loss(x):
    """Return the best loss of a diagonal normal on `x`, in nats."""
    return 0.5 * np.log(2 * np.pi * np.e * x.var(0)).sum()


@pytest.fixture(scope="module")
def fitted():
    """Return a fitted flow and its history."""
    return afflow.fit(small(), X, max_epochs=60, learning_rate=0.03, **OPTIONS)


def test_learns_a_gaussian(fitted):
    flow, _ = fitted
    assert abs(-flow.log_prob(X).mean() - gaussian_loss(X)) < 0.05


def test_history(fitted):
    _, history = fitted
    assert len(history.train) == len(history.validation) <= 60
    assert history.best_epoch == np.argmin(history.validation)


def test_same_key_same_bits(fitted):
    again, history = afflow.fit(small(), X, max_epochs=60, learning_rate=0.03, **OPTIONS)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(fitted[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history == fitted[1]
    other = OPTIONS | {"key": jax.random.key(1)}
    assert afflow.fit(small(), X, max_epochs=1, **other)[1].train != history.train[:1]


def test_returns_the_best_parameters():
    held_out = X[:100]
    options = OPTIONS | {"validation": held_out, "optimizer": optax.sgd(0.05), "patience": 3}
    flow, history = afflow.fit(small(), X[100:], max_epochs=40, **options)
    best = min(history.validation)
    np.testing.assert_allclose(-flow.log_prob(held_out).mean(), best, rtol=1e-5)
    assert len(history.train) <= history.best_epoch + 4


def test_stops_early():
    options = OPTIONS | {"optimizer": optax.sgd(0.0), "patience": 3}
    _, history = afflow.fit(small(), X, max_epochs=40, **options)
    assert len(history.train) == 4
    assert history.best_epoch == 0


def test_an_optimizer_that_knows_the_number_of_steps():
    seen = []

    def make(num_steps):
        seen.append(num_steps)
        return optax.sgd(optax.cosine_decay_schedule(0.0, num_steps))

    _, history = afflow.fit(small(), X, max_epochs=3, **OPTIONS | {"optimizer": make})
    assert seen == [3 * (540 // OPTIONS["batch_size"])]
    assert history.validation[0] == history.validation[2]


def test_without_validation_returns_the_last():
    flow, history = afflow.fit(small(), X, max_epochs=5, validation=0, **OPTIONS)
    assert history.validation == []
    assert history.best_epoch == 4
    assert -flow.log_prob(X).mean() < -small().log_prob(X).mean()


def test_conditional():
    context = np.random.default_rng(1).normal(size=(600, 1))
    x = np.concatenate([context, -context], 1) + 0.1 * X
    held_out = x[:50], context[:50]
    options = OPTIONS | {"context": context, "validation": held_out, "learning_rate": 0.03}
    flow, _ = afflow.fit(small(1), x, max_epochs=80, **options)
    with_context = flow.log_prob(x, context).mean()
    shuffled = flow.log_prob(x, context[::-1].copy()).mean()
    assert with_context > -gaussian_loss(0.1 * X) - 0.2 > shuffled


def test_only_params_are_trained():
    flow = small(data=X)
    trained, _ = afflow.fit(flow, X, max_epochs=2, **OPTIONS)
    before, after = (f.bijector.bijectors[-1].mean[...] for f in (flow, trained))
    np.testing.assert_array_equal(before, after)


def test_the_start_is_not_changed():
    flow = small()
    before = jax.tree.map(np.array, flow)
    afflow.fit(flow, X, max_epochs=2, **OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, before, flow)


def test_progress_bar(capfd):
    pytest.importorskip("tqdm")
    afflow.fit(small(), X, max_epochs=2, **OPTIONS | {"progress": True})
    shown = capfd.readouterr().err
    assert "validation=" in shown
    assert "compiling" in shown.partition("validation=")[0]


def test_the_order_of_each_copy_is_not_trained():
    """Check that every copy in a `Repeat` keeps a separate random order."""
    flow = afflow.maf(9, num_layers=3, hidden=(9,), rngs=nnx.Rngs(0))
    rows = np.random.default_rng(0).normal(size=(60, 9))
    options = {"optimizer": optax.adamw(0.1, weight_decay=0.5), "batch_size": 10, "max_epochs": 1}
    fitted, _ = afflow.fit(flow, rows, **OPTIONS | options)
    before, after = (
        np.asarray(part.order[...])
        for model in (flow, fitted)
        for _, part in nnx.iter_graph(model)
        if isinstance(part, afflow.Shuffle)
    )
    np.testing.assert_array_equal(after, before)
    assert len(np.unique(before, axis=0)) == 3


def test_small_data():
    _, history = afflow.fit(small(), X[:3], max_epochs=2, **OPTIONS | {"batch_size": 256})
    assert np.isfinite(history.train).all()


def test_diverging_loses_nothing():
    options = OPTIONS | {"optimizer": optax.sgd(1e300)}
    with pytest.raises(afflow.training.NonFiniteLossError, match=r"in epoch \d") as caught:
        afflow.fit(small(), X, max_epochs=3, **options)
    assert np.isfinite(caught.value.flow.log_prob(X)).all()
    assert len(caught.value.history.train) == caught.value.epoch + 1


def test_unknown_symbols_are_refused_before_training():
    model, options = afflow.nade(2, hidden=3, rngs=nnx.Rngs(0)), OPTIONS | {"max_epochs": 1}
    rows = np.zeros((50, 2), int)
    rows[7, 1] = 2
    with pytest.raises(ValueError, match="Expected values from 0 to 1, got 2"):
        afflow.fit(model, rows, **options)
    with pytest.raises(ValueError, match="whole numbers"):
        afflow.fit(model, rows / 4, **options)
    with pytest.raises(ValueError, match="Expected values from 0 to 1, got 2"):
        afflow.fit(model, stream_of(rows), validation=0, **OF_STREAMS | {"max_epochs": 1})


def test_rows_outside_the_domain_are_named():
    layers = [afflow.Elementwise(afflow.Affine(), 2), afflow.bijectors.Positive(2)]
    flow = afflow.Flow(afflow.Normal(2), afflow.Chain(layers))
    x = np.abs(X)
    x[[5, 8], 1] = -1.0
    with pytest.raises(afflow.training.NonFiniteLossError) as caught:
        afflow.fit(flow, x, max_epochs=1, **OPTIONS)
    assert caught.value.__notes__[0].startswith("Row 5 had density 0")


def test_lists_are_data():
    rows, context = X[:40].tolist(), X[:40, :1].tolist()
    flow = afflow.made(2, hidden=(4,), context_dim=1, rngs=nnx.Rngs(0))
    options = OPTIONS | {"batch_size": 8, "context": context, "validation": (rows, context)}
    found, expected = (
        afflow.fit(flow, x, max_epochs=1, **options)[1] for x in (rows, np.asarray(rows))
    )
    assert found == expected


BAD_ARGUMENTS = {
    "a seed": ({"key": 0}, r"jax\.random\.key"),
    "a name": ({"optimizer": "adam"}, "optax optimizer"),
    "a rate": ({"learning_rate": -1.0}, "learning_rate > 0"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    given, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        afflow.fit(small(), X, max_epochs=1, **OPTIONS | given)


def test_keys_of_numpy_and_optimizers_of_any_class():
    key, every_second = np.array([0, 1], np.uint32), optax.MultiSteps(optax.adam(1e-3), 2)
    _, history = afflow.fit(
        small(), X, max_epochs=1, **OPTIONS | {"key": key, "optimizer": every_second}
    )
    assert np.isfinite(history.train).all()


def test_nothing_to_train():
    with pytest.raises(ValueError, match="nnx.Param"):
        afflow.fit(afflow.Flow(afflow.Normal(2), afflow.Reverse(2)), X, **OPTIONS)


def bad_rows():
    """Return data with a NaN and an infinite value."""
    x = X.copy()
    x[[3, 7], 1] = np.nan, np.inf
    return x


def test_weights_count_rows():
    """Check that whole weights equal repeated rows, in training and in validation."""
    weights = np.repeat([0.0, 1.0, 3.0], 200)
    options = OPTIONS | {"batch_size": 600, "max_epochs": 2, "optimizer": optax.sgd(0.01)}
    start = randomized()
    _, history = afflow.fit(start, X, weights=weights, validation=(X, None, weights), **options)
    counted = np.repeat(X, weights.astype(int), 0)
    before = -start.log_prob(counted).mean()
    np.testing.assert_allclose(history.train[0], before, rtol=1e-9)
    options |= {"batch_size": 800, "validation": counted}
    _, expected = afflow.fit(start, counted, **options)
    np.testing.assert_allclose(history.validation, expected.validation, rtol=1e-9)


def randomized():
    """Return a small flow away from its initial values."""
    return jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size).reshape(a.shape)), small())


def test_an_objective_of_ones_own():
    def half_squares(model, key, x, context):
        return 0.5 * (model.bijector.inverse(x) ** 2).sum(-1)

    def objective(model, key, x, context):
        return jax.vmap(lambda row: half_squares(model, key, row, None))(x)

    options = OPTIONS | {"objective": objective, "optimizer": optax.sgd(0.0), "validation": 0}
    _, history = afflow.fit(small(), X, max_epochs=1, **options)
    np.testing.assert_allclose(history.train[0], 0.5 * (X**2).sum(1).mean(), rtol=1e-9)


def test_ema_is_validated_and_returned():
    """Check the average of parameters that move by -1 in each step against its exact value."""
    flow = afflow.Flow(afflow.Normal(1), afflow.Elementwise(afflow.univariates.Additive(), 1))

    def slope(model, key, x, context):
        return jnp.zeros(len(x)) + model.bijector.params[...].sum()

    options = OPTIONS | {"objective": slope, "optimizer": optax.sgd(1.0), "ema": 0.5}
    flow, history = afflow.fit(flow, X[:, :1], max_epochs=4, **options)
    expected, average = [], 0.0
    for t in range(1, 21):
        decay = min(0.5, t / (t + 9))
        average = decay * average - (1 - decay) * t
        expected.append(average)
    np.testing.assert_allclose(history.validation, expected[4::5], rtol=1e-6)
    np.testing.assert_allclose(flow.bijector.params[...], [expected[-1:]], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"ema": None}, {"validation": 0, "ema": None}])
def test_steps_reuse_the_memory_of_the_state_and_of_nothing_else(monkeypatch, options):
    """Check that the models that a user holds survive the steps after them."""
    states, seen, start = [], [], small()
    take = loop._take

    def note(*args):
        states.append(args[-2])
        return take(*args)

    def callback(epoch):
        seen.append((epoch.model, epoch.model.log_prob(X[:1]).item()))

    monkeypatch.setattr(loop, "_take", note)
    options = OPTIONS | {"max_epochs": 3, "callbacks": [callback]} | options
    trained, _ = afflow.fit(start, X, **options)
    assert len(states) > 2
    assert all(leaf.is_deleted() for state in states for leaf in jax.tree.leaves(state))
    before = start.log_prob(X[:1]).item()
    values = [before, *(value for _, value in seen)]
    assert [before, *(model.log_prob(X[:1]).item() for model, _ in seen)] == values
    assert len(set(values)) == 4
    assert trained.log_prob(X[:1]).item() == values[-1]


def test_callbacks_see_each_epoch_and_may_stop(tmp_path):
    seen = []

    def callback(epoch):
        assert np.isfinite(epoch.model.log_prob(X)).all()
        assert epoch.steps_per_second > 0
        seen.append((epoch.number, epoch.history.validation[-1]))
        return epoch.number == 2

    log = tmp_path / "log.csv"
    options = OPTIONS | {"callbacks": [callback, afflow.training.CSVLogger(log)]}
    _, history = afflow.fit(small(), X, max_epochs=9, **options)
    assert seen == list(enumerate(history.validation))
    assert len(seen) == 3
    rows = np.loadtxt(log, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(rows, np.c_[np.arange(3), history.train, history.validation])


def test_parameters_that_turn_infinite_in_the_last_step():
    """Check that infinite parameters are an error, which no loss shows without validation."""
    optimizer = optax.scale_by_schedule(lambda step: jnp.where(step == 5, jnp.inf, 0.0))
    options = OPTIONS | {"validation": 0, "optimizer": optimizer}
    with pytest.raises(afflow.training.NonFiniteLossError, match="finite parameters"):
        afflow.fit(small(), X, max_epochs=1, **options)


def test_train_without_data():
    def loss(flow, key, batch):
        assert batch is None
        return -flow.log_prob(5 + jax.random.normal(key, (32, 2))).mean()

    options = {"num_steps": 40, "max_epochs": 5, "chunk": 16, "learning_rate": 0.1}
    flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.univariates.Additive(), 2))
    flow, history = afflow.training.train(flow, loss, key=KEY, progress=False, **options)
    np.testing.assert_allclose(flow.bijector.params[..., 0], 5.0, atol=0.3)
    assert len(history.train) == 5


def test_chunks_change_nothing():
    """Check that each step has a separate key, however many steps are compiled together."""

    def loss(flow, key, batch):
        return jax.random.uniform(key) + 0 * flow.bijector.params[...].sum()

    def history(chunk):
        flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.univariates.Additive(), 2))
        options = {"num_steps": 7, "max_epochs": 2, "chunk": chunk, "progress": False}
        return afflow.training.train(flow, loss, key=KEY, **options)[1].train

    steps = [float(jax.random.uniform(jax.random.fold_in(KEY, t))) for t in range(14)]
    expected = np.mean([steps[:7], steps[7:]], 1)
    np.testing.assert_allclose(history(None), expected, rtol=1e-6)
    np.testing.assert_allclose(history(3), expected, rtol=1e-6)


def test_a_second_fit_of_the_same_shape_compiles_nothing():
    """Check new data, epochs, learning rate and weight decay."""
    afflow.fit(small(), X, max_epochs=1, **OPTIONS)
    compiled = loop._take._cache_size(), mean_loss._cache_size()
    numbers = {"max_epochs": 2, "learning_rate": 1e-2, "weight_decay": 0.1}
    afflow.fit(small(), X + 1, **numbers, **OPTIONS)
    assert (loop._take._cache_size(), mean_loss._cache_size()) == compiled


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_default_optimizer_is_adamw_on_kernels(decay):
    """Check `fit` against optax with an explicit schedule and mask."""

    def mask(params):
        is_kernel = lambda path, _: "kernel" in jax.tree_util.keystr(path)  # noqa: E731
        return jax.tree_util.tree_map_with_path(is_kernel, params)

    def make(num_steps):
        schedule = optax.cosine_decay_schedule(1e-2, num_steps)
        adam = optax.adamw(schedule, weight_decay=decay, mask=mask)
        return optax.chain(optax.clip_by_global_norm(5.0), adam)

    options = OPTIONS | {"max_epochs": 3, "learning_rate": 1e-2}
    flow, _ = afflow.fit(small(), X, weight_decay=decay, **options)
    expected, _ = afflow.fit(small(), X, optimizer=make, **options)
    for a, b in zip(jax.tree.leaves(flow), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_batch_and_weight_decay_follow_the_number_of_rows():
    sizes = {n: choose_batch_size(n) for n in (1, 100, 455, 4000, 100_000, 10**7)}
    assert sizes == {1: 16, 100: 16, 455: 16, 4000: 64, 100_000: 256, 10**7: 1024}
    flow, nade = small(), afflow.nade(2, hidden=2, rngs=nnx.Rngs(0))
    decays = [choose_weight_decay(flow, np.ones((n, 2))) for n in (1000, 10)]
    assert decays == [0.12, 3.0]
    assert choose_weight_decay(nade, np.ones((10, 2))) == 0.0
    assert choose_weight_decay(flow, short_stream()) == 0.0
    rates = [choose_learning_rate(flow, np.ones((n, 2))) for n in (1000, 4000, 10**6)]
    np.testing.assert_allclose(rates, [0.001, 0.001 * 4**0.25, 0.002])
    for factory, rate in ((afflow.nade, 0.003), (afflow.rnade, 0.02), (afflow.fvsbn, 0.03)):
        assert choose_learning_rate(factory(2, rngs=nnx.Rngs(0)), np.ones((16_000, 2))) == rate
    assert choose_learning_rate(afflow.fvsbn(300, rngs=nnx.Rngs(0)), np.ones((9, 300))) == 0.01
    for model, x in ((flow, short_stream()), (afflow.Ensemble([nade]), np.ones((16_000, 2)))):
        assert choose_learning_rate(model, x) == 1e-3


@pytest.mark.parametrize(
    ("flow", "x", "context", "named"),
    [
        (small(), 1000 + X, None, "x of about unit scale.*column 0 is 1002"),
        (small(), X * [1.0, 1e-3], None, "column 1 is -0.00098"),
        (small(1), X / 3, 1e4 * X[:, :1], "context of about unit scale.*column 0"),
        (embedding(), X / 3, 1e4 * X[:, :1], "context of about unit scale.*column 0"),
        (small(), stream_of(1000 + X), None, "x of about unit scale.*column 0 is 1002"),
        (small(1), stream_of(X / 3, 1e4 * X[:, :1]), None, "context of about unit scale"),
        (small(), stream_of(X / 3), None, None),
        (afflow.Ensemble([small(), small()]), 1000 + X, None, "x of about unit scale"),
        (afflow.Ensemble([small(data=1000 + X)]), 1000 + X, None, None),
        (afflow.rnade(2, hidden=2, rngs=nnx.Rngs(0)), 1000 + X, None, "x of about unit scale"),
        (small(1, data=(X, X[:, :1])), X, X[:, :1], None),
        (small(data=1000 + X), 1000 + X, None, None),
        (small(), X / 3, None, None),
    ],
)
def test_warns_of_units_that_a_flow_does_not_know(flow, x, context, named):
    is_stream = isinstance(x, afflow.training.Stream)
    options = (OF_STREAMS if is_stream else OPTIONS) | {"max_epochs": 1, "validation": 0}
    options |= {"context": context}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        afflow.fit(flow, x, **options)
    found = [str(w.message) for w in caught if "unit scale" in str(w.message)]
    assert len(found) == (named is not None)
    if named:
        assert re.search(named, found[0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"validation": (X, X)}, "validation: .*no context.*\\(600, 2\\)"),
        ({"validation": X[:5, :1]}, "validation: .*got \\(5, 1\\)"),
        ({"x": X[:400, 0], "validation": 0}, "got \\(400,\\)"),
        ({"x": X[:400, 0]}, "got \\(400,\\)"),
        ({"context_dim": 1, "context": X[:, :1], "validation": X[:9]}, "validation: .*no context"),
    ],
)
def test_rows_are_checked_before_training(options, named):
    options = {"x": X, "callbacks": [pytest.fail]} | OPTIONS | options
    with pytest.raises(ValueError, match=named):
        afflow.fit(small(options.pop("context_dim", 0)), options.pop("x"), **options)


@pytest.fixture
def on_disk(tmp_path):
    """Return the data as a memory-mapped file."""
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def test_rows_in_a_file_each_count_once(on_disk):
    weights = 1 + np.arange(600.0)
    options = OPTIONS | {"optimizer": optax.sgd(0.0), "validation": 0.5, "max_epochs": 2}
    start = randomized()
    _, plain = afflow.fit(start, on_disk, **options)
    expected = -2 * start.log_prob(X).mean()
    np.testing.assert_allclose(np.add(plain.train, plain.validation), expected, rtol=1e-9)
    _, given = afflow.fit(start, on_disk, **options | {"validation": (on_disk, None, weights)})
    expected = np.average(-start.log_prob(X), weights=weights)
    np.testing.assert_allclose(given.validation, expected, rtol=1e-9)


def spied(mapped):
    """Return rows in a file, and the list of how many rows were read at a time."""
    read = []

    class Spy(np.memmap):
        def __getitem__(self, index):
            part = super().__getitem__(index)
            read.append(len(np.asarray(part)))
            return part

    return mapped.view(Spy), read


def test_held_out_rows_in_a_file_are_read_in_parts_of_equal_memory(on_disk, monkeypatch):
    monkeypatch.setattr(afflow.training.rows, "_NUMBERS", 100)
    spy, read = spied(on_disk)
    _, history = afflow.fit(small(), X, max_epochs=1, **OPTIONS | {"validation": spy})
    assert np.isfinite(history.validation[0])
    assert max(read) == 50  # rows of two numbers


def test_rows_in_a_file_stay_there(on_disk):
    """Check that rows are read in stacks of minibatches, and not all at once."""
    spy, read = spied(on_disk)
    afflow.fit(small(), spy, max_epochs=2, **OPTIONS | {"batch_size": 30, "validation": 0})
    assert read.count(20) == 2  # one stack of 20 minibatches per epoch


def test_weights_of_rows_in_a_file_have_mean_one_where_they_train(on_disk):
    weights = 1 + np.arange(600.0)
    options = OPTIONS | {"optimizer": optax.sgd(0.0), "validation": 0.5, "batch_size": 300}
    start = randomized()
    _, history = afflow.fit(start, on_disk, weights=weights, max_epochs=1, **options)
    losses = -np.asarray(start.log_prob(X))
    total, share = (weights * losses).sum(), weights.sum()
    # The weighted mean of all rows lies between the weighted means of the two parts.
    low, high = sorted([history.train[0], history.validation[0]])
    assert low - 1e-9 <= total / share <= high + 1e-9


def test_weights_need_only_be_finite():
    """Check tiny weights, and weights whose sum overflows in float32."""
    weights = np.repeat([1.0, 3.0], 300)
    options = OPTIONS | {"optimizer": optax.sgd(0.0), "validation": 0, "batch_size": 600}
    start = randomized()
    expected = afflow.fit(start, X, weights=weights, max_epochs=1, **options)[1].train
    for unit in (1e-42, 1e38, 1e300):
        found = afflow.fit(start, X, weights=unit * weights, max_epochs=1, **options)[1].train
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_stream_weights_are_checked_and_have_mean_one():
    start = randomized()
    options = OF_STREAMS | {"optimizer": optax.sgd(0.0), "validation": 0, "max_epochs": 1}

    def train(weights):
        stream = afflow.training.Stream(lambda epoch: iter([(X, None, weights)]), num_steps=1)
        return afflow.fit(start, stream, **options)[1].train

    np.testing.assert_allclose(train(np.full(600, 0.8)), train(np.ones(600)), rtol=1e-12)
    for weights in (np.full(600, -0.5), np.zeros(600), np.full(600, np.nan), np.ones(3)):
        with pytest.raises(ValueError, match="Expected weights"):
            train(weights)


def test_rows_in_a_file_of_another_byte_order(tmp_path):
    X.astype(">f8").tofile(tmp_path / "x.bin")
    mapped = np.memmap(tmp_path / "x.bin", ">f8", "r", shape=X.shape)
    options = OPTIONS | {"optimizer": optax.sgd(0.0), "validation": 0.5, "max_epochs": 1}
    start = randomized()
    _, history = afflow.fit(start, mapped, **options)
    expected = -2 * start.log_prob(X).mean()
    np.testing.assert_allclose(history.train[0] + history.validation[0], expected, rtol=1e-9)


def test_a_validation_part_in_a_file_may_weigh_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(afflow.training.rows, "_NUMBERS", 100)
    x = np.zeros((210, 1), np.float32)
    x[-10:] = 1
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    weights = np.r_[np.zeros(len(x) - 10), np.ones(10)]
    flow = afflow.Flow(afflow.Normal(1), afflow.Elementwise(afflow.Affine(), 1))
    options = OPTIONS | {"optimizer": optax.sgd(0.0), "max_epochs": 1, "batch_size": 600}
    held_out = mapped, None, weights
    _, history = afflow.fit(flow, X[:, :1], **options | {"validation": held_out})
    np.testing.assert_allclose(history.validation, -flow.log_prob(x[-1:]), rtol=1e-6)


def test_too_many_parts_are_refused():
    with pytest.raises(ValueError, match=r"\(x, context, weights\), got 4"):
        afflow.fit(small(), X, **OPTIONS | {"validation": (X, None, None, "junk")})


def test_a_share_without_weight_is_refused():
    weights = np.r_[1.0, np.zeros(599)]
    with pytest.raises(ValueError, match="a positive sum"):
        afflow.fit(small(), X, weights=weights, max_epochs=1, **OPTIONS)


def test_rows_in_a_file_are_learned(on_disk):
    _, history = afflow.fit(small(), on_disk, max_epochs=40, learning_rate=0.03, **OPTIONS)
    assert abs(min(history.validation) - gaussian_loss(X)) < 0.3
    assert history.train[0] - history.train[-1] > 1


def test_a_stream_is_the_same_as_its_rows():
    """Check that a stream of one full minibatch per epoch trains as data in memory."""
    options = OF_STREAMS | {"validation": X[:50], "max_epochs": 3}
    options |= {"learning_rate": 1e-3, "weight_decay": 0.1}
    stream = afflow.training.Stream(lambda epoch: iter([(X, None, np.full(600, 1.0))]), num_steps=1)
    streamed, there = afflow.fit(small(), stream, **options)
    in_memory, here = afflow.fit(small(), X, **options | {"batch_size": 600})
    np.testing.assert_allclose(there.train, here.train, rtol=1e-9)
    np.testing.assert_allclose(there.validation, here.validation, rtol=1e-9)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("place", "x", "context", "message"),
    [
        (0, 0.0, 1e40, "Expected finite context, got 8 of 8"),
        (2, np.nan, 1.0, "Expected finite x of a minibatch, got 8"),
    ],
    ids=["context", "nan"],
)
def test_minibatches_that_are_not_finite_are_refused(place, x, context, message):
    """Check the first minibatch, and the last, which a thread reads during the epoch."""
    batches = [(np.zeros((8, 1)), np.ones((8, 1)))] * 3
    batches[place] = np.full((8, 1), x), np.full((8, 1), context)
    stream = afflow.training.Stream(lambda epoch: batches, num_steps=3)
    with jax.enable_x64(False):
        flow = afflow.made(1, context_dim=1, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match=message):
            afflow.fit(flow, stream, key=KEY, validation=0, progress=False)


def short_stream():
    """Return a stream that has fewer minibatches in every epoch."""
    return afflow.training.Stream(lambda epoch: [X[:10]] * (4 - epoch), num_steps=4)


ERRORS = {
    "a stream that ends": (
        lambda: afflow.fit(small(), short_stream(), **OF_STREAMS | {"validation": 0}),
        "4 minibatches in epoch 1, got 3",
    ),
    "a fraction of a stream": (
        lambda: afflow.fit(small(), short_stream(), **OF_STREAMS),
        "held-out data as validation of a Stream",
    ),
    "negative weights": (
        lambda: afflow.fit(small(), X, weights=-np.ones(600), **OPTIONS),
        "none negative",
    ),
    "an ema of 1": (lambda: afflow.fit(small(), X, ema=1.0, **OPTIONS), r"ema in \(0, 1\)"),
    "NaN rows": (lambda: afflow.fit(small(), bad_rows(), **OPTIONS), "2 of 600 rows.*index 3"),
    "NaN contexts": (
        lambda: afflow.fit(small(2), X, context=bad_rows(), **OPTIONS),
        "finite context, got 2",
    ),
    "integers": (lambda: afflow.fit(small(), X.astype(int), **OPTIONS), "dequantize"),
    "a wrong shape": (lambda: afflow.fit(small(), X[:, :1], **OPTIONS), r"\(\.\.\., 2\)"),
    "a missing context": (lambda: afflow.fit(small(1), X, **OPTIONS), "no context"),
    "a short context": (lambda: afflow.fit(small(2), X, context=X[1:], **OPTIONS), "600, got 599"),
    "no rows": (lambda: afflow.fit(small(), X[:0], **OPTIONS), "at least one row"),
    "one row to split": (lambda: afflow.fit(small(), X[:1], **OPTIONS), "validation"),
    "a fraction of 1": (lambda: afflow.fit(small(), X, validation=1.0, **OPTIONS), r"in \[0, 1\)"),
    "no epochs": (lambda: afflow.fit(small(), X, max_epochs=0, **OPTIONS), "max_epochs"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_validation_over_many_batches():
    """Check that the validation loss is the mean over all rows of several batches."""
    x = np.tile(X, (4, 1)) + np.arange(2400.0)[:, None] / 1000
    options = OPTIONS | {"validation": x, "optimizer": optax.sgd(0.0), "patience": 1}
    _, history = afflow.fit(small(), X, max_epochs=1, **options)
    np.testing.assert_allclose(history.validation[0], -small().log_prob(x).mean(), rtol=1e-9)
    assert jnp.isfinite(history.validation[0])


def changed(before, after):
    """Return the paths of the parameter arrays that differ between two models."""
    arrays = zip(afflow.training.paths_of(before), _copies(before), _copies(after), strict=True)
    return {name for name, a, b in arrays if (a != b).any()}


def _copies(flow):
    """Yield every parameter array. The copies in a `Repeat` count separately."""
    for path, variable in nnx.to_flat_state(nnx.state(flow, nnx.Param)):
        yield from np.asarray(variable[...]) if "layers" in path else [np.asarray(variable[...])]


LAYER = "bijector.bijectors.0.layers"


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (f"{LAYER}.1", lambda name: name.startswith(f"{LAYER}.1.")),
        ([f"{LAYER}.*.factors", "base"], lambda name: "factors" in name or "base" in name),
        (lambda name: "biases" in name, lambda name: "biases" in name),
    ],
)
def test_parts_are_trained_alone(trainable, expected):
    """Check that all other arrays keep their bits, with weight decay in either optimizer."""
    flow = afflow.maf(
        2, num_layers=3, hidden=(4,), base=afflow.distributions.StudentT(2), rngs=nnx.Rngs(0)
    )
    flow = randomize(flow)
    options = OPTIONS | {"max_epochs": 1, "trainable": trainable}
    for more in ({"weight_decay": 1.0}, {"optimizer": optax.adamw(1e-3, weight_decay=1.0)}):
        trained, _ = afflow.fit(flow, X / 3, **options, **more)
        assert changed(flow, trained) == set(filter(expected, afflow.training.paths_of(flow)))


def test_parts_of_a_table_are_named_from_outside():
    kinds = [afflow.Real(), afflow.Whole()]
    x = np.round(X)
    flow = afflow.made(2, columns=kinds, data=x, hidden=(4,), rngs=nnx.Rngs(0))
    name = "bijector.bijector.bijectors.0.conditioner.biases.1"
    trained, _ = afflow.fit(flow, x, max_epochs=1, trainable=name, **OPTIONS)
    assert changed(flow, trained) == {name}


@pytest.mark.parametrize("trainable", ["bijector.layers", lambda name: False, []])
def test_a_choice_of_nothing(trainable):
    with pytest.raises(ValueError, match="trainable"):
        afflow.fit(small(), X, trainable=trainable, **OPTIONS)


def test_training_that_goes_on_holds_out_the_same_rows():
    """Check that fits with different keys train on the same rows. The held-out rows stay unseen."""
    seen = []

    def objective(model, key, x, context):
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), x)
        return -model.log_prob(x, context)

    def trained_rows(key):
        seen.clear()
        options = OPTIONS | {"key": key, "max_epochs": 3, "validation": 0.5, "batch_size": 150}
        afflow.fit(small(), X, objective=objective, **options)
        jax.effects_barrier()
        return {tuple(row) for rows in seen if len(rows) == 150 for row in rows}

    assert trained_rows(KEY) == trained_rows(jax.random.key(1))


def test_signed_weights_stand_for_the_sample_that_is_left():
    """Check that rows with weight -1 cancel similar rows with weight 1, and the related errors."""
    rng = np.random.default_rng(0)
    kept, excess = X, 3 + rng.normal(size=(200, 2))
    x = np.concatenate([kept, excess, excess + 1e-3 * rng.normal(size=excess.shape)])
    weights = np.concatenate([np.ones(len(kept)), np.ones(200), -np.ones(200)])
    options = OPTIONS | {"max_epochs": 60, "learning_rate": 0.03, "validation": (kept,)}
    flow, _ = afflow.fit(small(), x, weights=weights, signed_weights=True, **options)
    assert abs(-flow.log_prob(kept).mean() - gaussian_loss(kept)) < 0.06
    with pytest.raises(ValueError, match="signed_weights"):
        afflow.fit(small(), x, weights=weights, **options)
    with pytest.raises(ValueError, match="positive sum"):
        afflow.fit(small(), x, weights=-weights, signed_weights=True, **options)
    few = np.where(np.arange(len(x)) < 550, 1.0, -1.0)
    with pytest.warns(UserWarning, match="cancel most"):
        afflow.fit(small(), x, weights=few, signed_weights=True, **options | {"max_epochs": 1})


def test_signed_weights_whose_sum_is_not_positive_in_a_share():
    """Check the error for held-out weights with a negative sum, which flips the loss."""
    weights = np.ones(600)
    weights[shuffle(600)[:60]] = -0.5
    options = OPTIONS | {"weights": weights, "signed_weights": True}
    with pytest.raises(ValueError, match="positive sum"):
        afflow.fit(small(), X, **options)


def test_a_run_with_other_settings_is_another_run(tmp_path):
    """Check that a checkpoint of another learning rate is an error."""
    options = OPTIONS | {"max_epochs": 1, "checkpoint": afflow.Checkpoint(tmp_path / "run")}
    afflow.fit(small(), X, **options)
    with pytest.raises(ValueError, match="optimizer"):
        afflow.fit(small(), X, learning_rate=0.3, **options)


def test_a_learning_rate_may_be_an_array():
    afflow.fit(small(), X, learning_rate=jnp.array(1e-3), max_epochs=1, **OPTIONS)


def test_long_rows_are_validated_a_few_at_a_time():
    x = np.random.default_rng(0).normal(2.0, 3.0, (20, 9000))  # 8 at a time, and a rest of 4
    flow = afflow.Flow(afflow.Normal(9000), afflow.Elementwise(afflow.Affine(), 9000))
    options = {"key": jax.random.key(0), "validation": x, "max_epochs": 1, "progress": False}
    fitted, history = afflow.fit(flow, x, **options)
    np.testing.assert_allclose(history.validation[0], -fitted.log_prob(x).mean(), rtol=1e-6)


def test_accumulated_steps_are_steps_of_larger_minibatches():
    """Check that two minibatches of 8 rows make a step of 16 rows, with the same schedule."""
    options = OPTIONS | {"max_epochs": 2, "validation": 0, "batch_size": 8}
    single, _ = afflow.fit(small(), X[:64], **options | {"batch_size": 16})
    double, _ = afflow.fit(small(), X[:64], accumulate=2, **options)
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)
    compiled = loop._take._cache_size()
    afflow.fit(small(), X[:64] + 1, accumulate=2, learning_rate=0.1, **options)
    assert loop._take._cache_size() == compiled
    with pytest.raises(ValueError, match="accumulate"):
        afflow.fit(small(), X[:64], accumulate=0, **options)


@pytest.mark.parametrize("name", ["context", "weights", "batch_size"])
def test_a_stream_holds_what_an_array_is_given_beside(name):
    given = {"context": np.ones((9, 1)), "weights": np.ones(9), "batch_size": 3}[name]
    with pytest.raises(ValueError, match=f"no {name} beside a Stream"):
        afflow.fit(
            small(), stream_of(X[:9]), key=KEY, validation=0, progress=False, **{name: given}
        )


@pytest.mark.parametrize(
    ("chunk", "steps", "expected"),
    [(None, None, None), (None, 7, 7), (5, None, 5), (5, 12, 4), (50, 12, 12), (5, 7, 1)],
)
def test_checkpoints_within_an_epoch_keep_stacks_small(chunk, steps, expected):
    assert fitting._choose_chunk(chunk, steps) == expected


def test_missing_values_of_a_file_are_checked_in_parts(tmp_path, monkeypatch):
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(90, 2))
    rows[:] = X[:90]
    rows[5, 1] = np.nan
    sizes, convert = [], fitting.to_double
    monkeypatch.setattr("afflow.training.rows._NUMBERS", 40)
    monkeypatch.setattr(
        fitting, "to_double", lambda name, x: sizes.append(len(x)) or convert(name, x)
    )
    afflow.fit(small(), rows, **OPTIONS, missing=True, max_epochs=1)
    assert max(sizes) == 20
    assert sum(sizes) == 90
