"""Models of sequences against enumeration: tokens, generation and beam search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import cast, randomize, recurrent, tcn, transformer, translator, wavenet

import afflow
from afflow.models.generation import keep_top

KEY = jax.random.key(0)
CONTEXT = jnp.array([[0.5, -1.0], [2.0, 1.0]])


def symbols(length=4, num=3, **options) -> afflow.AutoregressiveModel:
    """Return a recurrent model over symbols."""
    network = recurrent(length, num, (6,), features=num, **options)
    return afflow.AutoregressiveModel(randomize(network, 1.0), afflow.conditionals.Categorical(num))


def chords(context_dim=0) -> afflow.AutoregressiveModel:
    """Return a recurrent model over tokens of two binary values, with a NADE in each token."""
    inner = randomize(afflow.nade(2, hidden=4, context_dim=3, rngs=nnx.Rngs(0)), 1.0)
    network = recurrent(3, 3, (5,), features=2, context_dim=context_dim)
    return afflow.AutoregressiveModel(network, afflow.models.TokenModel(inner))


def everything(length, num):
    """Return every sequence of symbols."""
    return jnp.array(list(itertools.product(range(num), repeat=length)))


MODELS = {
    "lstm": lambda: symbols(context_dim=2),
    "gru": lambda: symbols(cell=nnx.GRUCell, context_dim=2),
    "wavenet": lambda: afflow.AutoregressiveModel(
        wavenet(4, 3, features=3, context_dim=2), afflow.conditionals.Categorical(3)
    ),
    "transformer": lambda: afflow.AutoregressiveModel(
        transformer(4, 3, features=3, context_dim=2), afflow.conditionals.Categorical(3)
    ),
    "nade": lambda: randomize(afflow.nade(4, hidden=3, context_dim=2, rngs=nnx.Rngs(0)), 1.0),
    "made": lambda: randomize(
        afflow.made_model(
            4,
            hidden=(6,),
            conditional=afflow.conditionals.Categorical(3),
            context_dim=2,
            rngs=nnx.Rngs(0),
        ),
        1.0,
    ),
    "levels": lambda: afflow.AutoregressiveModel(
        recurrent(4, 6, (5,), context_dim=2),
        afflow.conditionals.DiscretizedLogistics(num_levels=3, num_components=2),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_symbols_sum_to_one_and_beams_find_all_of_them(name):
    model = MODELS[name]()
    x = everything(4, model.conditional.num_values)
    log_prob = model.log_prob(x, CONTEXT[0])
    np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1, rtol=1e-10)
    events, found = model.beam_search(context=CONTEXT, width=len(x))
    best = jnp.argsort(-log_prob)
    np.testing.assert_array_equal(events[0], x[best])
    np.testing.assert_allclose(found[0], log_prob[best], rtol=1e-10)
    np.testing.assert_allclose(model.log_prob(events, CONTEXT[:, None]), found, rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_greedy_is_a_beam_of_width_one(name):
    model = MODELS[name]()
    greedy = model.greedy(CONTEXT)
    events, log_probs = model.beam_search(context=CONTEXT, width=1)
    drawn, drawn_log_prob = model.generate(KEY, context=CONTEXT, top_k=1)
    np.testing.assert_array_equal(events[:, 0], greedy)
    np.testing.assert_array_equal(drawn, greedy)
    np.testing.assert_allclose(log_probs[:, 0], model.log_prob(greedy, CONTEXT), rtol=1e-10)
    np.testing.assert_allclose(drawn_log_prob, log_probs[:, 0], rtol=1e-10)


def test_a_prompt_is_kept_and_conditioned_on():
    model, prompt, num = symbols(context_dim=2), jnp.array([1, 2]), 20_000
    drawn, log_prob = model.generate(KEY, prompt, context=CONTEXT[0], shape=num)
    np.testing.assert_array_equal(drawn[:, :2], jnp.broadcast_to(prompt, (num, 2)))
    x = everything(4, 3)
    x = x[(x[:, :2] == prompt[None]).all(1)]
    exact = jax.nn.log_softmax(model.log_prob(x, CONTEXT[0]))
    place = drawn[:, 2] * 3 + drawn[:, 3]
    np.testing.assert_allclose(log_prob, exact[place], rtol=1e-9)
    p = np.exp(exact)
    share = np.bincount(place, minlength=9) / num
    assert (np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / num)).all()
    events, found = model.beam_search(prompt, context=CONTEXT[0], width=9)
    np.testing.assert_allclose(found, -jnp.sort(-exact), rtol=1e-9)
    np.testing.assert_array_equal(events[:, :2], jnp.broadcast_to(prompt, (9, 2)))


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1]])
def test_a_wide_beam_finds_the_most_probable_completion(order):
    model = afflow.nade(4, hidden=3, context_dim=2, order=order, rngs=nnx.Rngs(0))
    model = randomize(model, 1.0)
    x, first = everything(4, 2), np.array(order or [0, 1])[:2]
    observed = np.isin(np.arange(4), first)
    for event in x[::5]:
        fits = x[(x[:, first] == event[None, first]).all(1)]
        best = fits[jnp.argmax(model.log_prob(fits, CONTEXT[0]))]
        found = model.complete(event, observed, context=CONTEXT, width=4)
        np.testing.assert_array_equal(found[0], best)
        greedy = model.complete(event, observed, context=CONTEXT)
        narrow = model.complete(event, observed, context=CONTEXT, width=1)
        np.testing.assert_array_equal(narrow, greedy)


def test_prompts_and_contexts_broadcast():
    model = symbols(context_dim=2)
    prompts = jnp.array([[[1]], [[2]], [[0]]])  # (3, 1, 1)
    drawn, log_prob = model.generate(KEY, prompts, context=CONTEXT, shape=(5,))
    assert (drawn.shape, log_prob.shape) == ((5, 3, 2, 4), (5, 3, 2))
    np.testing.assert_array_equal(drawn[..., 0], jnp.broadcast_to(prompts[..., 0], (5, 3, 2)))


def test_a_stop_token_ends_one_row_and_not_its_neighbour():
    model, stop = symbols(9), 0
    drawn, log_prob = model.generate(KEY, stop=stop, shape=200)
    free, _ = model.generate(KEY, shape=200)
    terms = model.log_conditionals(drawn)
    for row, other, term, value in zip(drawn, free, terms, log_prob, strict=True):
        ends = np.flatnonzero(other == stop)
        size = ends[0] + 1 if ends.size else 9
        np.testing.assert_array_equal(row[:size], other[:size])
        assert (row[size:] == stop).all()
        np.testing.assert_allclose(value, term[:size].sum(), rtol=1e-9)
    assert len({tuple(row.tolist()).index(stop) for row in drawn if stop in row}) > 3


def test_beams_stop_and_lengths_are_weighed():
    model = symbols(5, 2)
    events, found = model.beam_search(width=32, stop=0)
    assert np.isfinite(found).sum() == 6  # a stop after 0 to 4 ones, or five ones
    for event, value in zip(events[:6], found[:6], strict=True):
        size = np.flatnonzero(np.append(event, 0) == 0)[0] + 1
        np.testing.assert_allclose(value, model.log_conditionals(event)[:size].sum(), rtol=1e-9)
    longest, _ = model.beam_search(width=32, stop=0, length_penalty=50.0)
    assert (longest[0] == 1).sum() >= 4


def test_top_k_and_top_p_renormalise():
    p = jnp.array([0.05, 0.5, 0.15, 0.3])
    cases = {
        (None, None): p,
        (3, None): jnp.array([0, 0.5, 0.15, 0.3]) / 0.95,
        (None, 0.7): jnp.array([0, 0.5, 0, 0.3]) / 0.8,
        (None, 0.5): jnp.array([0, 1.0, 0, 0]),
        (1, 0.9): jnp.array([0, 1.0, 0, 0]),
        (3, 0.6): jnp.array([0, 0.5, 0, 0.3]) / 0.8,
        (9, 1.0): p,
    }
    for (top_k, top_p), expected in cases.items():
        found = jax.nn.softmax(keep_top(jnp.log(p), jnp.array(1.0), top_k, top_p))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    tempered = jax.nn.softmax(keep_top(jnp.log(p), jnp.array(0.5)))
    np.testing.assert_allclose(tempered, p**2 / (p**2).sum(), rtol=1e-12)


def test_tokens_of_several_values():
    model = chords(context_dim=2)
    x = everything(6, 2).reshape(-1, 3, 2)
    log_prob = model.log_prob(x, CONTEXT[1])
    np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1, rtol=1e-10)
    num = 20_000
    drawn = model.sample(KEY, num, CONTEXT[1])
    share = np.bincount(drawn.reshape(num, 6) @ 2 ** np.arange(6)[::-1], minlength=64) / num
    p = np.exp(log_prob)
    assert (np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / num)).all()
    observed = jnp.array([True, False, False])
    completed = model.complete(x[37], observed, KEY, CONTEXT)
    np.testing.assert_array_equal(completed[:, 0], jnp.broadcast_to(x[37, 0], (2, 2)))
    generated, value = model.generate(KEY, x[37, :1], context=CONTEXT)
    np.testing.assert_array_equal(generated[:, 0], completed[:, 0])
    terms = model.log_conditionals(generated, CONTEXT)
    np.testing.assert_allclose(value, terms[:, 1:].sum(1), rtol=1e-9)
    with pytest.raises(ValueError, match="over symbols"):
        model.beam_search()


def test_the_mode_of_a_token_is_greedy_within_it():
    model = chords()
    first = model.greedy()[0]
    inner, params = model.conditional.model, model.conditioner(jnp.zeros((3, 2)))[0]
    np.testing.assert_array_equal(first, inner.greedy(params))


@pytest.mark.parametrize("make", [symbols, chords])
def test_rows_of_different_lengths_end_in_nan(make):
    model = make()
    x = model.sample(KEY, 4).astype(float)
    size = jnp.array([0, 1, 2, len(x[0])])
    there = (jnp.arange(len(x[0]))[None] < size[:, None]).reshape(
        *x.shape[:2], *(1,) * (x.ndim - 2)
    )
    padded = jnp.where(there, x, jnp.nan)
    found = model.observed_log_prob(KEY, padded)
    terms = model.log_conditionals(x)
    expected = jnp.where(there.reshape(terms.shape), terms, 0).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    gradient = jax.grad(lambda model: model.observed_log_prob(KEY, padded[:1]).sum())(model)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))  # a row without tokens
    fitted, history = afflow.fit(
        model, padded, key=KEY, missing=True, validation=0, max_epochs=1, progress=False
    )
    assert np.isfinite(history.train[0])


def test_weights_serve_any_length():
    model = symbols(4, context_dim=2)
    x = everything(2, 3)
    short = model.with_length(2)
    np.testing.assert_allclose(jnp.exp(short.log_prob(x, CONTEXT[0])).sum(), 1, rtol=1e-10)
    terms = model.log_conditionals(everything(4, 3), CONTEXT[0])[::9, :2]
    np.testing.assert_allclose(short.log_conditionals(x, CONTEXT[0]), terms, rtol=1e-10)
    drawn, _ = model.generate(KEY, length=11, context=CONTEXT)
    assert drawn.shape == (2, 11)
    assert model.event_shape == (4,)
    with pytest.raises(ValueError, match="4 tokens"):
        MODELS["nade"]().with_length(5)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: wavenet(12, 1, (1, 2)), 4),
        (lambda: tcn(12, 1, (12, 12)), 7),
        (lambda: tcn(12, 1, (12,), kernel_size=3), 5),
    ],
)
def test_convolutions_see_their_receptive_field_and_no_further(make, size):
    network = make()
    jacobian = jax.jacfwd(network)(jnp.zeros(12))[:, 0]  # (T, T)
    assert network.receptive_field == size
    distance = jnp.arange(12)[:, None] - jnp.arange(12)[None]
    np.testing.assert_array_equal(jacobian != 0, (distance >= 1) & (distance <= size))


@pytest.mark.parametrize("order", [1, 3])
def test_a_convolutional_markov_chain_is_a_sum_over_the_last_tokens(order):
    network = randomize(afflow.conditioners.ConvolutionalMarkov(6, 2, order, features=3), 1.0)
    x = np.random.default_rng(0).normal(size=(6, 3))
    expected = np.tile(network.b[...], (6, 1))
    for t in range(6):
        for j in range(1, min(order, t) + 1):
            expected[t] += x[t - j] @ np.asarray(network.W[j - 1])
    np.testing.assert_allclose(network(jnp.asarray(x)), expected, rtol=1e-10)


def test_independent_values_of_a_token():
    keys = afflow.conditionals.Independent(afflow.conditionals.Categorical(3), 2)
    assert (keys.num_params, keys.features, keys.event_shape) == (6, 6, (2,))
    params = jax.random.normal(KEY, (6,))
    p = np.outer(jax.nn.softmax(params[:3]), jax.nn.softmax(params[3:]))
    x = everything(2, 3)
    log_prob = jax.vmap(keys.log_prob, (0, None))(x, params)
    np.testing.assert_allclose(log_prob, np.log(p).reshape(9), rtol=1e-10)
    np.testing.assert_array_equal(keys.mode(params), np.unravel_index(p.argmax(), (3, 3)))
    np.testing.assert_allclose(keys.cdf(jnp.array([1, 0]), params), p[:2, :1].sum(), rtol=1e-10)
    drawn = jax.vmap(keys.sample, (0, None))(jax.random.split(KEY, 20_000), params)
    share = np.bincount(drawn @ np.array([3, 1]), minlength=9) / 20_000
    assert (np.abs(share - p.reshape(9)) < 4.5 * np.sqrt(p * (1 - p) / 20_000).reshape(9)).all()
    model = afflow.AutoregressiveModel(recurrent(2, 6, features=6), keys)
    x = everything(4, 3).reshape(-1, 2, 2)
    np.testing.assert_allclose(jnp.exp(model.log_prob(x)).sum(), 1, rtol=1e-10)
    with pytest.raises(ValueError, match="of scalars"):
        afflow.conditionals.Independent(keys, 2)


def test_an_aligned_context_has_a_row_for_each_token():
    network = wavenet(5, 2, (1, 2), context_dim=3, aligned=True)
    assert network.context_shape == (5, 3)
    assert network.with_length(8).context_shape == (8, 3)
    x, context = jnp.arange(5.0), jnp.ones((5, 3))
    jacobian = jax.jacfwd(lambda context: network(x, context))(context)  # (T, P, T, C)
    seen = (jacobian != 0).all((1, 3))
    assert (jnp.diagonal(seen)).all()
    assert not jnp.triu(seen, 1).any()


def test_relative_scores_are_those_of_each_distance():
    """The skewed product equals a loop over pairs of tokens."""
    rng = np.random.default_rng(0)
    relative = afflow.nets.Relative(3)
    q, e = rng.normal(size=(6, 2, 4)), rng.normal(size=(2, 4, 4))
    found = relative.scores(jnp.asarray(q), jnp.asarray(e), jnp.arange(6), 6)
    for t, n in itertools.product(range(6), repeat=2):
        if n <= t:
            expected = (q[t] * e[:, min(t - n, 3)]).sum(-1)
            np.testing.assert_allclose(found[:, t, n], expected, rtol=1e-12)
    one = relative.scores(jnp.asarray(q[4:5]), jnp.asarray(e), jnp.array([4]), 6)
    np.testing.assert_allclose(one[:, 0, :5], found[:, 4, :5], rtol=1e-12)


def of_symbols(conditioner, num=3) -> afflow.AutoregressiveModel:
    """Return a model over symbols with random weights."""
    return afflow.AutoregressiveModel(
        randomize(conditioner, 1.0), afflow.conditionals.Categorical(num)
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_markov_chain_is_its_table(order):
    model = of_symbols(afflow.conditioners.Markov(4, 3, order))
    x = everything(4, 3)
    np.testing.assert_allclose(jnp.exp(model.log_prob(x)).sum(), 1, rtol=1e-10)
    table = jax.nn.log_softmax(model.conditioner.A[...]).reshape(*(4,) * order, 3)
    for event in x[::7]:
        past, total = [3] * order, 0.0  # 3 stands before the first token
        for symbol in event.tolist():
            total += table[tuple(past[::-1])][symbol]  # the last symbol has the smallest stride
            past = [symbol, *past][:order]
        np.testing.assert_allclose(model.log_prob(event), total, rtol=1e-10)
    drawn, log_prob = model.generate(KEY, length=7, shape=20)
    np.testing.assert_allclose(log_prob, model.with_length(7).log_prob(drawn), rtol=1e-10)
    best, found = model.beam_search(width=81)
    np.testing.assert_allclose(found, -jnp.sort(-model.log_prob(x)), rtol=1e-10)


def test_a_fitted_markov_chain_has_the_relative_frequencies():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (400, 3))
    model = afflow.AutoregressiveModel(
        afflow.conditioners.Markov(3, 2), afflow.conditionals.Categorical(2)
    )
    model, _ = afflow.fit(
        model,
        x,
        key=KEY,
        validation=0,
        batch_size=400,
        max_epochs=300,
        learning_rate=0.1,
        progress=False,
    )
    p = jax.nn.softmax(model.conditioner.A[...])
    np.testing.assert_allclose(p[2, 1], x[:, 0].mean(), atol=1e-3)
    after_one = x[:, 1:][x[:, :-1] == 1]
    np.testing.assert_allclose(p[1, 1], after_one.mean(), atol=1e-3)


def test_a_hidden_markov_model_sums_over_its_states():
    model = of_symbols(afflow.conditioners.HiddenMarkov(4, 3, 2, rngs=nnx.Rngs(0)))
    net, x = model.conditioner, everything(4, 3)
    start, a, b = (jax.nn.softmax(w[...]) for w in (net.start, net.A, net.B))
    total = jnp.zeros(len(x))
    for states in itertools.product(range(2), repeat=4):
        p = start[states[0]] * b[states[0], x[:, 0]]
        for t in range(1, 4):
            p = p * a[states[t - 1], states[t]] * b[states[t], x[:, t]]
        total = total + p
    np.testing.assert_allclose(jnp.exp(model.log_prob(x)), total, rtol=1e-10)
    other = afflow.AutoregressiveModel(net, afflow.conditionals.Categorical(3, height=0.5))
    np.testing.assert_allclose(other.log_prob(x), model.log_prob(x), rtol=1e-10)
    drawn, log_prob = model.generate(KEY, length=6, shape=20)
    np.testing.assert_allclose(log_prob, model.with_length(6).log_prob(drawn), rtol=1e-10)


def test_rotary_scores_depend_on_the_distance_alone():
    rng, rotary = np.random.default_rng(0), afflow.nets.Rotary()
    q, k = (jnp.asarray(np.broadcast_to(rng.normal(size=(1, 2, 5)), (7, 2, 5))) for _ in range(2))
    places = jnp.arange(7)
    scores = jnp.einsum("thd,nhd->htn", rotary.turn(q, places), rotary.turn(k, places))
    np.testing.assert_allclose(scores[:, 1:, 1:], scores[:, :-1, :-1], rtol=1e-10)
    assert (scores[:, 3, 1] != scores[:, 3, 2]).all()


@pytest.mark.parametrize("positions", [afflow.nets.Absolute(), afflow.nets.PerPlace()])
def test_vectors_of_places_have_one_length(positions):
    with pytest.raises(ValueError, match="4 tokens"):
        transformer(4, positions=positions).with_length(5)


def test_the_heads_divide_the_width():
    with pytest.raises(ValueError, match="divides width 12"):
        transformer(4, num_heads=5)


@pytest.mark.parametrize("width", [16, 256])
def test_initial_weights_keep_the_size_of_rows(width):
    options = {"width": width, "num_heads": 2, "num_layers": 1, "rngs": nnx.Rngs(0)}
    network = afflow.conditioners.Transformer(
        50, 1, features=8, positions=afflow.nets.Absolute(), **options
    )
    rows = jax.random.normal(KEY, (50, width))
    for made in [network.places[...], *network.layers[0].project(rows, jnp.arange(50))]:
        np.testing.assert_allclose(made.std(), 1.0, rtol=0.15)
    symbols = jax.vmap(afflow.conditionals.Categorical(8).encode)(jnp.arange(8))
    for tokens in (jax.random.normal(KEY, (50, 8)), symbols):
        embedded = network.token_scale * tokens @ network.E[...]
        np.testing.assert_allclose(embedded.std(), 8**-0.25, rtol=0.25)
    added = network.layers[0].transform(rows)  # a row may double in size over all blocks
    assert 0.2 < added.std() < 1.0


@pytest.mark.parametrize("make", [recurrent, transformer, tcn])
def test_dropout_is_noise_of_training_alone(make):
    network = randomize(make(4, 3, features=3, dropout=0.5), 1.0)
    model = afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(3))
    x = everything(4, 3)
    noisy = model.training_log_prob(KEY, x)
    assert (noisy != model.log_prob(x)).mean() > 0.9
    assert (noisy != model.training_log_prob(jax.random.key(1), x)).mean() > 0.9
    still = model.without_noise()
    np.testing.assert_array_equal(still.training_log_prob(KEY, x), model.log_prob(x))
    options = {"key": KEY, "batch_size": 20, "max_epochs": 1, "progress": False}
    fitted, history = afflow.fit(model, x, validation=x[:30], **options)
    np.testing.assert_allclose(history.validation[0], -fitted.log_prob(x[:30]).mean(), rtol=1e-6)
    assert fitted.conditioner.dropout == 0.5


def test_a_recurrent_flow_and_model_are_saved(tmp_path):
    for i, model in enumerate((symbols(cell=nnx.GRUCell), chords(), symbols(dropout=0.1))):
        x = model.sample(KEY, 5)
        afflow.save(model, tmp_path / f"{i}.zip")
        loaded = afflow.load(tmp_path / f"{i}.zip")
        np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))


def test_float32_generation_equals_the_pass():
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), symbols(12, 4))
    with jax.enable_x64(False):
        drawn, log_prob = model.generate(KEY, shape=50)
        np.testing.assert_allclose(log_prob, model.log_prob(drawn), rtol=1e-5)


def test_wrong_arguments():
    model = symbols()
    with pytest.raises(ValueError, match="n <= 4"):
        model.generate(KEY, jnp.zeros(5, int))
    with pytest.raises(ValueError, match="top_p"):
        model.generate(KEY, top_p=0.0)
    with pytest.raises(ValueError, match="top_k"):
        model.generate(KEY, top_k=0)
    with pytest.raises(ValueError, match="temperature"):
        model.generate(KEY, temperature=0.0)
    with pytest.raises(ValueError, match="width"):
        model.beam_search(width=0)
    for stop in (3, -1, 0.5):
        with pytest.raises(ValueError, match="from 0 to 2 as stop"):
            model.generate(KEY, stop=stop)
        with pytest.raises(ValueError, match="from 0 to 2 as stop"):
            model.beam_search(stop=stop)
    for call in (model.beam_search, lambda **options: model.generate(KEY, **options)):
        with pytest.raises(ValueError, match="length >= 1"):
            call(length=0)
    ordered = afflow.fvsbn(3, order=[2, 0, 1], rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="without an order"):
        ordered.generate(KEY)
    with pytest.raises(ValueError, match="a context"):
        afflow.models.TokenModel(afflow.fvsbn(3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="dropout"):
        recurrent(dropout=1.0)


@pytest.mark.parametrize("name", ["lstm", "wavenet", "transformer", "levels", "chain", "made"])
@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_a_prompt_in_one_pass_gives_the_tokens_of_a_prompt_in_steps(name, size):
    models = {
        "lstm": lambda: symbols(7),
        "wavenet": lambda: afflow.AutoregressiveModel(
            wavenet(7, 3, features=3), afflow.conditionals.Categorical(3)
        ),
        "transformer": lambda: afflow.AutoregressiveModel(
            transformer(7, 3, features=3), afflow.conditionals.Categorical(3)
        ),
        "levels": lambda: afflow.AutoregressiveModel(
            recurrent(7, 6, (5,)),
            afflow.conditionals.DiscretizedLogistics(num_levels=3, num_components=2),
        ),
        "chain": lambda: afflow.AutoregressiveModel(
            randomize(afflow.conditioners.Markov(7, 3, 2), 1.0), afflow.conditionals.Categorical(3)
        ),
        "made": lambda: randomize(
            afflow.made_model(
                7,
                hidden=(6,),
                conditional=afflow.conditionals.Categorical(3),
                rngs=nnx.Rngs(0),
            ),
            1.0,
        ),
    }
    model = models[name]()
    whole, _ = model.generate(KEY)
    drawn, log_prob = model.generate(KEY, whole[:size])
    np.testing.assert_array_equal(drawn, whole)  # the key of a token depends on its place only
    terms = model.log_conditionals(drawn)
    np.testing.assert_allclose(log_prob, terms[size:].sum(), rtol=1e-10)
    parts = list(model.stream(KEY, whole[:size], 7, chunk=2))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), whole[size:])
    np.testing.assert_allclose([value for _, value in parts], add_pairs(terms[size:]), rtol=1e-10)


def add_pairs(terms):
    """Return the sums of the terms two by two."""
    return [terms[i : i + 2].sum() for i in range(0, len(terms), 2)]


def test_a_stream_goes_on_for_ever_and_ends_at_its_stop():
    model = symbols(4)
    long, _ = model.generate(KEY, length=40)
    stream = model.stream(KEY, chunk=8)
    found = np.concatenate([x for x, _ in itertools.islice(stream, 5)])
    np.testing.assert_array_equal(found, long)
    stopped, values = zip(*model.stream(KEY, chunk=8, stop=2), strict=True)
    end = np.flatnonzero(long == 2)[0] + 1
    np.testing.assert_array_equal(np.concatenate(stopped), long[:end])
    terms = model.with_length(40).log_conditionals(long)
    np.testing.assert_allclose(sum(values), terms[:end].sum(), rtol=1e-10)
    attention = afflow.AutoregressiveModel(
        transformer(4, 3, features=3), afflow.conditionals.Categorical(3)
    )
    with pytest.raises(ValueError, match="Expected a length"):
        attention.stream(KEY)
    with pytest.raises(ValueError, match="one prompt and one context"):
        model.stream(KEY, jnp.zeros((2, 1), int))


def test_a_context_that_is_a_sequence(tmp_path):
    net = translator(4, 3, features=3)
    model = afflow.AutoregressiveModel(net, afflow.conditionals.Categorical(3))
    x, context = everything(4, 3), jax.random.normal(KEY, (2, 3, 2))
    log_prob = model.log_prob(x[:, None], context)
    np.testing.assert_allclose(jnp.exp(log_prob).sum(0), 1, rtol=1e-10)
    assert (jnp.abs(log_prob[:, 0] - model.log_prob(x, context[0, ::-1])) > 1e-3).any()
    events, found = model.beam_search(context=context, width=len(x))
    np.testing.assert_allclose(found, -jnp.sort(-log_prob.T), rtol=1e-9)
    drawn, value = model.generate(KEY, context=context, shape=3)
    np.testing.assert_allclose(value, model.log_prob(drawn, context), rtol=1e-9)
    afflow.save(model, tmp_path / "model.zip")
    again = afflow.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(again.log_prob(x[5], context), model.log_prob(x[5], context))
    with pytest.raises(ValueError, match="rows of width 8"):
        transformer(4, 3, width=8, encoder=net.encoder)


def test_a_context_of_symbols():
    """It enters as vectors of mean square one; no symbol is a vector of zeros, and NaN is seen."""
    sizes = {"num_layers": 1, "num_heads": 2}
    by_values = afflow.nets.Encoder(4, 3, 8, **sizes, rngs=nnx.Rngs(0))
    by_symbols = afflow.nets.Encoder(4, 3, 8, symbols=True, **sizes, rngs=nnx.Rngs(0))
    values = np.sqrt(3) * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]])
    symbols = jnp.array([1.0, 0.0, -1.0, 2.0])
    np.testing.assert_allclose(by_symbols(symbols), by_values(jnp.asarray(values)), rtol=1e-12)
    assert jnp.isnan(by_symbols(symbols.at[1].set(jnp.nan))).all()
    net = transformer(4, 3, width=8, features=3, encoder=by_symbols)
    model = afflow.AutoregressiveModel(net, afflow.conditionals.Categorical(3))
    total = jnp.exp(model.log_prob(everything(4, 3)[:, None], jnp.stack([symbols, symbols[::-1]])))
    np.testing.assert_allclose(total.sum(0), 1, rtol=1e-10)


@pytest.mark.parametrize("make", [afflow.zoo.deep_nade, afflow.zoo.made_ensemble])
def test_a_wide_beam_completes_any_subset(make):
    options = {"hidden": (6,), "conditional": afflow.conditionals.Categorical(3), "context_dim": 2}
    options |= {"endless": True} if make is afflow.zoo.made_ensemble else {}
    model = randomize(make(3, **options, rngs=nnx.Rngs(0)), 1.0)
    x = everything(3, 3)
    for observed in itertools.product([False, True], repeat=3):
        observed = np.array(observed)
        draw = model._member(0)
        order = np.array(draw.order)[np.argsort(~observed[np.array(draw.order)], stable=True)]
        exact = model.log_conditionals(x, order, CONTEXT[0]).sum(-1)
        for event in x[::7]:
            fits = (x == event[None])[:, observed].all(1)
            best = x[fits][jnp.argmax(exact[fits])]
            found = model.complete(event, observed, context=CONTEXT, width=9)
            np.testing.assert_array_equal(found[0], best)
            narrow = model.complete(event, observed, context=CONTEXT, width=1)
            greedy = model.complete(event, observed, context=CONTEXT)
            np.testing.assert_array_equal(narrow, greedy)
    mixture = afflow.conditionals.MixtureOf(2)
    values = afflow.zoo.deep_nade(2, hidden=(4,), conditional=mixture, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="over symbols"):
        values.complete(jnp.zeros(2), [True, False], width=2)


@pytest.mark.parametrize("make", [afflow.made_model, afflow.nade, afflow.fvsbn])
def test_a_context_of_more_digits_than_the_weights(make):
    model = cast(randomize(make(3, context_dim=2, rngs=nnx.Rngs(0)), 1.0), jnp.float32)
    assert CONTEXT.dtype == jnp.float64
    drawn = model.sample(KEY, 5, CONTEXT)
    assert drawn.shape == (5, 2, 3)
    np.testing.assert_array_equal(model.sample(KEY, 5, CONTEXT.astype(jnp.float32)), drawn)


def test_a_beam_of_bytes_has_no_stop_symbol():
    """Check that no symbol is taken for the missing stop symbol, which was -1 as a byte."""
    model = symbols(2, 256)
    bias = 9.0 * (jnp.arange(256) == 255)
    model = jax.tree.map(lambda leaf: leaf + bias if leaf.shape == (256,) else leaf, model)
    nothing = np.zeros(2, bool)
    expected = model.complete(np.zeros(2, int), nothing, width=2)
    np.testing.assert_array_equal(model.complete(np.zeros(2, np.uint8), nothing, width=2), expected)
    beams, log_probs = model.beam_search(np.zeros(0, np.uint8), width=2)
    np.testing.assert_allclose(model.log_prob(beams), log_probs, rtol=1e-9)
    assert (beams == 255).any()


@pytest.mark.parametrize("prompt", [[7], [-1], [1.5], [np.nan]])
def test_values_that_the_model_does_not_have_are_refused(prompt):
    model, given = symbols(), np.arange(4) == 0
    with pytest.raises(ValueError, match="Expected (values from 0 to 2|whole numbers)"):
        model.generate(KEY, prompt)
    with pytest.raises(ValueError, match="Expected (values from 0 to 2|whole numbers)"):
        model.beam_search(prompt)
    for options in ({"key": KEY}, {"width": 2}):
        with pytest.raises(ValueError, match="Expected (values from 0 to 2|whole numbers)"):
            model.complete(np.array([*prompt, 9, 9, 9]), given, **options)
