"""Models of images: what a pixel sees, enumeration of small images, and cached sampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import (
    diagonal_lstm,
    gated,
    multiscale,
    pixelcnn,
    pixelcnn_pp,
    randomize,
    row_lstm,
    subscale,
)

import afflow

KEY = jax.random.key(0)


def find_seen(network, seed=0):
    """Return which tokens `(T, T)` each row of parameters depends on, over three random images."""
    seen, differentiate = False, jax.jit(jax.jacfwd(network))
    for key in jax.random.split(jax.random.key(seed), 3):
        x = jax.random.normal(key, network.event_shape)
        jacobian = differentiate(x)
        jacobian = jacobian.reshape(len(x), network.num_params, len(x), -1)
        seen = seen | (jacobian != 0).any((1, 3))
    return np.asarray(seen)


def walk(shape, reaches):
    """Return which pixels `(H W, H W)` are reached through layers, each a set of moves (di, dj)."""
    height, width = shape
    total = np.eye(height * width, dtype=bool)
    for moves in reaches:
        one = np.zeros_like(total)
        for i, j, (di, dj) in itertools.product(range(height), range(width), moves):
            if 0 <= i + di < height and 0 <= j + dj < width:
                one[i * width + j, (i + di) * width + j + dj] = True
        total = one.astype(int) @ total > 0
    return total


def masked_moves(size, *, present):
    """Return the moves of a masked square kernel."""
    half = size // 2
    square = itertools.product(range(-half, 1), range(-half, half + 1))
    return [move for move in square if move < (0, 0) or (present and move == (0, 0))]


@pytest.mark.parametrize("shape", [(5, 7), (6, 4), (1, 8), (7, 1)])
def test_a_pixelcnn_has_its_blind_spot(shape):
    network = pixelcnn(shape, num_blocks=2, kernel_size=5)
    stay = [(0, 0)]
    inner = masked_moves(3, present=True)
    expected = walk(shape, [masked_moves(5, present=False), inner + stay, inner + stay])
    found = find_seen(network)
    np.testing.assert_array_equal(found, expected)
    before = np.tri(len(found), k=-1, dtype=bool)
    assert not (found & ~before).any()
    if shape == (5, 7):  # far to the right, a row above, is out of reach
        assert not found[3 * 7 + 1, 2 * 7 + 6]


@pytest.mark.parametrize("shape", [(5, 7), (6, 4), (1, 8), (7, 1), (3, 3)])
def test_a_gated_pixelcnn_sees_every_pixel_before(shape):
    found = find_seen(gated(shape, num_layers=5, kernel_size=7, layer_kernel_size=5))
    np.testing.assert_array_equal(found, np.tri(len(found), k=-1, dtype=bool))


def test_a_gated_pixelcnn_sees_its_reach_and_no_further():
    found = find_seen(gated((6, 9), num_layers=2, kernel_size=3)).reshape(6, 9, 6, 9)
    i, j = np.indices((6, 9))
    for a, b in itertools.product(range(6), range(9)):
        rows, left = a - i, b - j
        above = (rows >= 1) & (rows <= 3) & (np.abs(left) <= 2)
        beside = (rows == 0) & (left >= 1) & (left <= 3)
        shifted = (rows >= 1) & (rows <= 3) & (left >= -1) & (left <= 2)
        assert (found[a, b] <= (above | beside)).all()
        assert (found[a, b] >= (beside | shifted)).all()


@pytest.mark.parametrize(
    ("shape", "num_blocks"),
    [((6, 5), (2, 1)), ((4, 6), (2, 1, 1)), ((1, 8), (2, 1)), ((7, 1), (1,))],
)
def test_a_pixelcnn_pp_sees_every_pixel_before(shape, num_blocks):
    found = find_seen(pixelcnn_pp(shape, num_blocks=num_blocks))
    np.testing.assert_array_equal(found, np.tri(len(found), k=-1, dtype=bool))


@pytest.mark.parametrize("shape", [(5, 6), (4, 4), (1, 7), (5, 1), (2, 2), (1, 1)])
def test_a_multiscale_network_sees_the_groups_before(shape):
    i, j = np.indices(shape).reshape(2, -1)
    joined = i | j
    strides = np.where(joined, joined & -joined, 2 * max(shape))  # of the level of each pixel
    places = 2 * (i // strides % 2) + j // strides % 2
    number = -4 * np.log2(strides) + places
    network = multiscale(shape, num_blocks=4)
    order = np.array(network.order)
    found = find_seen(network)[np.argsort(order)][:, np.argsort(order)]
    np.testing.assert_array_equal(found, number[:, None] > number)
    assert (np.diff(number[order]) >= 0).all()
    assert network.num_groups == len(np.unique(number))


def test_a_multiscale_network_takes_few_steps():
    assert multiscale((28, 28), num_blocks=1, channels=2).num_groups == 16


@pytest.mark.parametrize("shape", [(5, 7), (4, 6), (1, 8), (7, 1)])
def test_a_row_lstm_sees_triangles(shape):
    beside = [(0, 0), (0, -1)]
    up = [[(-1, d) for d in (-1, 0, 1)]] * shape[0]
    triangle = sum((walk(shape, up[:rows]).astype(int) for rows in range(shape[0])), start=0)
    layer = triangle @ walk(shape, [beside]) + np.eye(len(triangle), dtype=int)
    first = walk(shape, [masked_moves(3, present=False)])
    for num_layers in (1, 2):
        found = find_seen(row_lstm(shape, num_layers=num_layers, kernel_size=3))
        expected = np.linalg.matrix_power(layer, num_layers) @ first > 0
        np.testing.assert_array_equal(found, expected)
    before = np.tri(len(found), k=-1, dtype=bool)
    assert not (found & ~before).any()
    if shape == (5, 7):  # far to the right, a row above, is out of reach
        assert not found[4 * 7, 3 * 7 + 6]


@pytest.mark.parametrize("shape", [(5, 7), (6, 4), (1, 8), (7, 1), (3, 3)])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_diagonal_lstm_sees_every_pixel_before(shape, num_layers):
    found = find_seen(diagonal_lstm(shape, num_layers=num_layers))
    np.testing.assert_array_equal(found, np.tri(len(found), k=-1, dtype=bool))


def test_colours_see_the_colours_before():
    found = find_seen(pixelcnn((3, 3, 3), 1, num_blocks=1)).reshape(9, 3, 9, 3)
    own = found[np.arange(9), :, np.arange(9)]  # (pixel, colour, colour)
    np.testing.assert_array_equal(own, np.broadcast_to(np.tri(3, k=-1, dtype=bool), (9, 3, 3)))
    others = found[:, 0].any(-1)
    for colour in range(3):  # of another pixel, all colours or none
        np.testing.assert_array_equal(
            found[:, colour][~np.eye(9, dtype=bool)].all(-1), others[~np.eye(9, dtype=bool)]
        )


def make(name):
    """Return a small model of images with random weights."""
    models = {
        "pixelcnn": lambda: afflow.zoo.pixelcnn(
            (3, 3), channels=8, num_blocks=1, kernel_size=3, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "gated": lambda: afflow.zoo.gated_pixelcnn(
            (3, 3), channels=6, num_layers=2, kernel_size=3, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "pixelcnn colours": lambda: afflow.zoo.pixelcnn(
            (2, 2, 2), channels=8, num_blocks=1, kernel_size=3, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "gated colours": lambda: afflow.zoo.gated_pixelcnn(
            (2, 2, 2), channels=6, num_layers=2, kernel_size=3, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "pixelcnn pp": lambda: afflow.zoo.pixelcnn_pp(
            (3, 3), channels=4, num_blocks=(1, 1), context_dim=2, rngs=nnx.Rngs(0)
        ),
        "pixelcnn pp colours": lambda: afflow.zoo.pixelcnn_pp(
            (2, 1, 2),
            conditional=afflow.conditionals.ChannelLogistics(2, 2, 4),
            channels=4,
            num_blocks=(1, 1),
            context_dim=2,
            rngs=nnx.Rngs(0),
        ),
        "multiscale": lambda: afflow.zoo.multiscale(
            (3, 3), channels=4, num_blocks=1, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "multiscale colours": lambda: afflow.zoo.multiscale(
            (2, 2, 2), channels=4, num_blocks=1, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "row lstm": lambda: afflow.zoo.row_lstm(
            (3, 3), channels=4, num_layers=2, kernel_size=3, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "diagonal lstm": lambda: afflow.zoo.diagonal_lstm(
            (3, 3), channels=4, num_layers=2, kernel_size=3, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "row lstm colours": lambda: afflow.zoo.row_lstm(
            (2, 2, 2), channels=4, num_layers=1, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "diagonal lstm colours": lambda: afflow.zoo.diagonal_lstm(
            (2, 2, 2), channels=4, num_layers=1, context_dim=2, rngs=nnx.Rngs(0)
        ),
        "gated levels": lambda: afflow.zoo.gated_pixelcnn(
            (2, 2),
            conditional=afflow.conditionals.DiscretizedLogistics(2, 4),
            channels=6,
            num_layers=1,
            context_dim=2,
            rngs=nnx.Rngs(0),
        ),
    }
    return randomize(models[name](), 0.3 if "pp" in name else 0.7)


NAMES = [
    "pixelcnn",
    "gated",
    "pixelcnn pp",
    "multiscale",
    "multiscale colours",
    "row lstm",
    "diagonal lstm",
    "pixelcnn pp colours",
    "pixelcnn colours",
    "gated colours",
    "row lstm colours",
    "diagonal lstm colours",
    "gated levels",
]


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_small_images_sum_to_one(name):
    model, context = make(name), jnp.array([[0.3, -1.0], [2.0, 0.5]])
    values = 4 if "levels" in name or name == "pixelcnn pp colours" else 2
    size = int(np.prod(model.event_shape))
    x = np.array(list(itertools.product(range(values), repeat=size))).reshape(
        -1, *model.event_shape
    )
    log_prob = model.log_prob(x[:, None], context)
    np.testing.assert_allclose(jnp.exp(log_prob).sum(0), 1, rtol=1e-9)
    assert jnp.std(log_prob[:, 0] - log_prob[:, 1]) > 1e-3
    terms = model.log_conditionals(x[:7], context[0])
    np.testing.assert_allclose(terms.reshape(7, -1).sum(1), log_prob[:7, 0], rtol=1e-9)
    num = 4000
    drawn = np.asarray(model.sample(KEY, num, context[0])).reshape(num, -1)
    share = np.bincount(drawn @ values ** np.arange(size)[::-1], minlength=len(x)) / num
    p = np.exp(log_prob[:, 0])
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / num) + 1e-3).all()


class Plain(afflow.Conditioner):
    """A conditioner without its steps: decoding takes a full pass for each token."""

    def __init__(self, network):
        self.network, self.event_shape = network, network.event_shape
        self.num_params, self.context_shape = network.num_params, network.context_shape

    def __call__(self, x, context=None):
        return self.network(x, context)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_cached_sampling_equals_full_passes(name, dtype):
    model, context = make(name), jnp.array([[0.3, -1.0], [2.0, 0.5]], dtype)
    model = jax.tree.map(lambda a: a.astype(dtype), model)
    inner = model.model
    slow = afflow.AutoregressiveModel(Plain(inner.conditioner), inner.conditional, inner.order)
    slow = afflow.models.Reshaped(slow, model.event_shape)
    np.testing.assert_array_equal(model.sample(KEY, 5, context), slow.sample(KEY, 5, context))
    np.testing.assert_array_equal(model.greedy(context), slow.greedy(context))


@pytest.mark.parametrize("name", ["gated", "gated colours", "diagonal lstm"])
def test_a_raster_prefix_is_completed(name):
    model, context = make(name), jnp.array([0.3, -1.0])
    x = model.sample(KEY, (), context)
    observed = np.zeros(model.token_axes, bool)
    observed[0] = True
    drawn = model.complete(x, observed, jax.random.split(KEY, 1)[0], context)
    np.testing.assert_array_equal(drawn[0], x[0])
    best = model.complete(x, observed, context=context)
    assert model.log_prob(best, context) >= model.log_prob(drawn, context) - 2
    with pytest.raises(ValueError, match="come first"):
        model.complete(x, observed[::-1], KEY, context)


@pytest.mark.parametrize("name", ["gated_pixelcnn", "row_lstm", "diagonal_lstm"])
def test_an_image_is_trained_on_and_saved(tmp_path, name):
    sizes = {"channels": 6, "num_layers": 2, "kernel_size": 3}
    model = getattr(afflow.zoo, name)((3, 3), **sizes, dropout=0.2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).integers(0, 2, (64, 3, 1)) * np.ones((1, 1, 3), int)
    options = {"key": KEY, "max_epochs": 30, "progress": False, "learning_rate": 0.01}
    fitted, history = afflow.fit(model, x, **options)
    assert history.validation[history.best_epoch] < 4  # 9 log 2 is 6.2; 3 log 2 is 2.1
    afflow.save(fitted, tmp_path / "model.zip")
    again = afflow.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(again.log_prob(x[:3]), fitted.log_prob(x[:3]))


@pytest.mark.parametrize(
    "make_network", [gated, pixelcnn_pp, row_lstm, diagonal_lstm, multiscale, subscale]
)
def test_dropout_is_noise_of_training_alone(make_network):
    network = make_network(dropout=0.5)
    x = jax.random.normal(KEY, network.event_shape)
    params, noisy = jax.jit(network)(x), jax.jit(network.noisy)
    keys = jax.random.split(KEY, 2)
    first, second = (noisy(key, x) for key in keys)
    assert (first != params).all()
    assert (first != second).all()
    np.testing.assert_array_equal(first, noisy(keys[0], x))
    np.testing.assert_array_equal(jax.jit(network.without_noise().noisy)(KEY, x), params)
    jacobian = jax.jit(jax.jacfwd(lambda x: network.noisy(KEY, x)))(x)
    after = np.triu(np.ones((len(x), len(x)), bool))
    assert (jacobian.swapaxes(1, 2)[after] == 0).all()


def test_bits_of_small_images_with_and_without_dequantization():
    model, shape, n = make("gated levels"), (2, 2), 4
    context = jnp.array([0.3, -1.0])
    x = np.array(list(itertools.product(range(n), repeat=4))).reshape(-1, 2, 2)
    log_p = model.log_prob(x, context)
    bits = afflow.bits_per_dim(log_p, shape, levels=1)
    p = np.exp(log_p)
    np.testing.assert_allclose((p * bits).sum(), -(p * np.log2(p)).sum() / 4, rtol=1e-9)
    y = afflow.dequantize(KEY, x, n)  # under the density that is constant in each cell
    log_density = model.log_prob(afflow.models.quantize(y, n), context) + 4 * np.log(n)
    np.testing.assert_allclose(afflow.bits_per_dim(log_density, shape, n), bits, rtol=1e-9)


def test_shapes_that_do_not_fit_are_errors():
    nade = afflow.nade(6, hidden=3, rngs=nnx.Rngs(0))
    for shape in [(2, 2), (7,)]:
        with pytest.raises(ValueError, match="6 elements"):
            afflow.models.Reshaped(nade, shape)
    with pytest.raises(ValueError, match="odd number"):
        gated(kernel_size=4)
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, C\)"):
        pixelcnn((4,))
    with pytest.raises(ValueError, match="channels are features"):
        gated((2, 2, 3))
    for make_lstm in (row_lstm, diagonal_lstm):
        with pytest.raises(ValueError, match="channels are features"):
            make_lstm((2, 2, 3))
        with pytest.raises(ValueError, match="kernel_size >= 3"):
            make_lstm(kernel_size=1)
    with pytest.raises(ValueError, match="odd number"):
        row_lstm(state_kernel_size=2)
    model = afflow.models.Reshaped(nade, (2, 3))
    with pytest.raises(ValueError, match="x.shape"):
        model.log_prob(jnp.zeros((3, 2)))
