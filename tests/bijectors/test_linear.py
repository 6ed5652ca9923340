"""Linear, normalising, residual and image layers: properties beyond the shared tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import BIJECTORS, KEY, image_step, randomize

import afflow
from afflow._tools.positive import positive, positive_inverse


def test_positive_inverts():
    s = jnp.linspace(-8, 50, 30)
    np.testing.assert_allclose(positive_inverse(positive(s)), s, rtol=1e-9, atol=1e-12)
    assert np.isnan(positive_inverse(jnp.array([0.0, -1.0, 1e4, jnp.inf, jnp.nan]))).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.bijectors.Triangular(4),
        lambda: afflow.LU(4),
        lambda: afflow.bijectors.Householder(4, 2, rngs=nnx.Rngs(0)),
    ],
)
def test_linear_starts_as_the_identity(make):
    x = jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(make().forward(x), x, rtol=1e-12)


def test_lu_is_its_factors():
    permutation = afflow.Permutation([2, 0, 3, 1])
    lu = randomize(afflow.LU(4, permutation))
    factors = np.array(lu.factors[...])
    lower = np.tril(factors, -1) + np.eye(4)
    upper = np.triu(factors, 1) + np.diag(positive(jnp.diag(factors)))
    matrix = np.eye(4)[list(permutation.order)] @ lower @ upper
    x = jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(lu.inverse(x), matrix @ x + lu.b[...], rtol=1e-12)


def test_householder_is_the_product_of_its_reflections():
    layer = randomize(afflow.bijectors.Householder(4, 3, rngs=nnx.Rngs(0)))
    product = np.eye(4)
    for v in np.asarray(layer.v[...]):
        product = product @ (np.eye(4) - 2 * np.outer(v, v) / (v @ v))
    matrix = jax.jacfwd(layer.forward)(jnp.zeros(4))
    np.testing.assert_allclose(matrix, product, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), -1, rtol=1e-12)


def test_householder_can_leave_the_identity():
    layer = afflow.bijectors.Householder(3, 2, rngs=nnx.Rngs(0))
    grad = jax.grad(lambda layer: layer.forward(jnp.array([1.0, 2.0, 3.0]))[0])(layer)
    assert jnp.abs(grad.v[...]).max() > 0.01


def test_rotation_is_drawn_proper():
    for seed in range(4):
        q = afflow.bijectors.Rotation.random(3, jax.random.key(seed)).matrix[...]
        np.testing.assert_allclose(np.linalg.det(q), 1, rtol=1e-6)


def test_linear_shapes_are_checked():
    with pytest.raises(ValueError, match="dim >= 1"):
        afflow.bijectors.Triangular(0)
    with pytest.raises(ValueError, match="num_reflections >= 1"):
        afflow.bijectors.Householder(2, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 coordinates"):
        afflow.LU(3, afflow.Reverse(2))
    with pytest.raises(ValueError, match="orthogonal"):
        afflow.bijectors.Rotation(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="square"):
        afflow.bijectors.Rotation(jnp.ones((2, 3)))


def nested(kind):
    """Return a flow with normalisation layers in a `Chain` and in a `Repeat`."""

    def layer(rngs):
        return afflow.Chain([afflow.LU(3), afflow.Reverse(3), kind(3)])

    repeated = randomize(afflow.Repeat(layer, 3, rngs=nnx.Rngs(0)))
    return afflow.Flow(afflow.Normal(3), afflow.Chain([kind(3), repeated, kind(3)]))


def skewed(num=200):
    """Return correlated data with different locations and scales."""
    z = jax.random.normal(KEY, (num, 3))
    return jnp.array([[1.0, -20.0, 3.0]]) + z @ jnp.array([[1.0, 9, 0], [0, 1, 2], [0, 0, 0.1]])


def test_actnorm_whitens_what_reaches_it():
    flow, x = nested(afflow.bijectors.ActNorm), skewed()
    before = jax.tree.leaves(flow)
    new = afflow.bijectors.initialize_actnorm(flow, x)
    for old, leaf in zip(before, jax.tree.leaves(flow), strict=True):
        assert old is leaf
    for start in range(3):  # each of the repeated layers, from noise to data
        outer, repeated, inner = new.bijector.bijectors
        copy = jax.tree.map(lambda leaf, i=start: leaf[i], repeated.layers)
        z = jax.vmap(inner.inverse)(x)
        for i in reversed(range(start + 1, 3)):
            z = jax.vmap(jax.tree.map(lambda leaf, i=i: leaf[i], repeated.layers).inverse)(z)
        z = jax.vmap(copy.bijectors[2].inverse)(z)
        np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)
    z = jax.vmap(new.bijector.inverse)(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)


def test_actnorm_counts_pixels():
    x = 5 + 3 * jax.random.normal(KEY, (50, 2, 4, 3))
    layer = afflow.bijectors.initialize_actnorm(afflow.bijectors.ActNorm((2, 4, 3)), x)
    z, log_det = jax.vmap(layer.inverse_and_log_det)(x)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, rtol=1e-9)
    np.testing.assert_allclose(log_det, -8 * jnp.log(x.std((0, 1, 2))).sum(), rtol=1e-9)


def test_actnorm_reports_what_it_cannot_normalise():
    x = skewed().at[:, 1].set(2.0)
    with pytest.raises(ValueError, match=r"channels \[1\]"):
        afflow.bijectors.initialize_actnorm(afflow.bijectors.ActNorm(3), x)
    with pytest.raises(ValueError, match=r"x.shape \(N, 3\), got \(3,\)"):
        afflow.bijectors.initialize_actnorm(afflow.bijectors.ActNorm(3), x[0])
    within = Hidden(afflow.bijectors.ActNorm(3))
    with pytest.raises(ValueError, match="inside Hidden: override walk"):
        afflow.bijectors.initialize_actnorm(within, x)


class Hidden(afflow.Bijector):
    """A bijector with an inner layer that does not override `walk`."""

    def __init__(self, layer):
        self.layer, self.event_shape, self.context_shape = layer, layer.event_shape, None

    def forward_and_log_det(self, x, context=None):
        return self.layer.forward_and_log_det(x)

    def inverse_and_log_det(self, y, context=None):
        return self.layer.inverse_and_log_det(y)


def inside_out(rngs):
    """Return an `Inverse` with an `ActNorm`, which runs forward on the way from data to noise."""
    return afflow.Inverse(afflow.Chain([afflow.bijectors.ActNorm(3), afflow.LU(3)]))


@pytest.mark.parametrize(
    "bijector",
    [
        afflow.Inverse(afflow.bijectors.ActNorm(3)),
        afflow.Inverse(afflow.Inverse(afflow.bijectors.ActNorm(3))),
        afflow.Chain([afflow.Inverse(afflow.bijectors.ActNorm(3)), inside_out(None)]),
        afflow.Inverse(
            afflow.Chain(
                [
                    afflow.LU(3),
                    afflow.Repeat(lambda _: afflow.bijectors.ActNorm(3), 2, rngs=nnx.Rngs(0)),
                ]
            )
        ),
    ],
)
def test_actnorm_whitens_inside_inverses(bijector):
    x = skewed()
    z = jax.vmap(afflow.bijectors.initialize_actnorm(randomize(bijector), x).inverse)(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)


def test_repeated_inverses_are_visited_in_their_order():
    x = skewed()
    repeat = randomize(afflow.Repeat(inside_out, 3, rngs=nnx.Rngs(0)))
    new = afflow.bijectors.initialize_actnorm(repeat, x)
    last = jax.tree.map(lambda leaf: leaf[2], new.layers).bijector  # nearest to the data
    z = jax.vmap(last.bijectors[0].forward)(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)


def test_batchnorm_is_refused_inside_an_inverse():
    layer = afflow.Inverse(afflow.bijectors.BatchNorm(3))
    with pytest.raises(ValueError, match="no BatchNorm inside an Inverse"):
        afflow.bijectors.update_batchnorm(layer, skewed())


def test_walk_enters_what_embeds_the_context():
    made = randomize(afflow.MADE(3, 2, (4,), context_dim=2, rngs=nnx.Rngs(0)))
    layer = afflow.MaskedAutoregressive(made, afflow.Affine())
    x, context = skewed(), 100 + jax.random.normal(KEY, (200, 2))
    inner = afflow.Chain([afflow.bijectors.ActNorm(3), layer])
    flow = afflow.Embedded(inner, afflow.bijectors.ZScores(context), 2)
    z = jax.vmap(afflow.bijectors.initialize_actnorm(flow, x, context).inverse)(x, context)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)
    with pytest.raises(ValueError, match="network that returns"):
        afflow.Embedded(inner, afflow.bijectors.ZScores(x), 3)


def test_walk_takes_context():
    made = afflow.MADE(3, 2, (4,), context_dim=2, rngs=nnx.Rngs(0))
    layer = afflow.MaskedAutoregressive(randomize(made), afflow.Affine())
    flow = afflow.Flow(afflow.Normal(3), afflow.Chain([afflow.bijectors.ActNorm(3), layer]))
    x, context = skewed(), jax.random.normal(KEY, (200, 2))
    new = afflow.bijectors.initialize_actnorm(flow, x, context)
    z = jax.vmap(new.bijector.inverse)(x, context)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)
    for wrong in (None, context[:, :1]):
        with pytest.raises(ValueError, match=r"context.shape \(..., 2\)"):
            afflow.bijectors.initialize_actnorm(flow, x, wrong)
    of_one = afflow.bijectors.initialize_actnorm(flow, x, context[0]).bijector
    z = jax.vmap(of_one.inverse, (0, None))(x, context[0])
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)


def test_batchnorm_takes_the_statistics_of_the_data():
    flow, x = nested(afflow.bijectors.BatchNorm), skewed()
    new = afflow.bijectors.update_batchnorm(flow, x)
    z = jax.vmap(new.bijector.inverse)(x)
    outer = new.bijector.bijectors[0]
    np.testing.assert_allclose(z.mean(0), outer.beta[...], atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-3)
    again = afflow.bijectors.update_batchnorm(new, 100 * x, momentum=1.0)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(new), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batchnorm_moves_by_momentum():
    x = skewed()
    layer = afflow.bijectors.update_batchnorm(afflow.bijectors.BatchNorm(3), x, momentum=0.75)
    np.testing.assert_allclose(layer.mean[...], 0.25 * x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(layer.variance[...], 0.75 + 0.25 * x.var(0), rtol=1e-12)
    with pytest.raises(ValueError, match="momentum"):
        afflow.bijectors.update_batchnorm(layer, x, momentum=2.0)


def test_fit_holds_the_statistics():
    flow = afflow.bijectors.update_batchnorm(
        afflow.Flow(afflow.Normal(3), afflow.bijectors.BatchNorm(3)), skewed()
    )
    options = {"key": KEY, "max_epochs": 1, "batch_size": 50, "progress": False}
    fitted, _ = afflow.fit(flow, skewed(), **options)
    np.testing.assert_array_equal(fitted.bijector.mean[...], flow.bijector.mean[...])
    assert jnp.abs(fitted.bijector.gamma[...] - flow.bijector.gamma[...]).max() > 0


def stiff(make, drive):
    """Return a layer at the edge of its constraint, with every parameter moved by `drive`."""
    return jax.tree.map(lambda a: a + drive * jnp.sign(a + 0.5), make)


@pytest.mark.parametrize("drive", [-200.0, -20.0, 20.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.bijectors.Planar(3, rngs=nnx.Rngs(0)),
        lambda: afflow.bijectors.Radial(3),
        lambda: afflow.bijectors.Sylvester(3, 2, rngs=nnx.Rngs(0)),
    ],
)
def test_residual_layers_stay_invertible(make, drive):
    layer = stiff(make(), drive)
    x = jax.random.normal(KEY, (20, 3))
    y, log_det = jax.vmap(layer.forward_and_log_det)(x)
    back, log_det_back = jax.vmap(layer.inverse_and_log_det)(y)
    assert jnp.isfinite(log_det).all()
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(log_det, -log_det_back, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.bijectors.Planar(3, rngs=nnx.Rngs(0)),
        lambda: afflow.bijectors.Radial(3),
        lambda: afflow.bijectors.Sylvester(3, 2, rngs=nnx.Rngs(0)),
    ],
)
def test_residual_layers_start_as_the_identity(make):
    x = jax.random.normal(KEY, (3,))
    np.testing.assert_allclose(make().forward(x), x, rtol=1e-12)
    np.testing.assert_allclose(make().inverse(x), x, rtol=1e-12)
    assert jnp.isnan(make().inverse(x.at[1].set(jnp.nan))).any()
    grad = jax.grad(lambda layer: jnp.sum(layer.inverse(x) ** 3))(make())
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(grad)) > 0


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_jacobians_of_both_directions_are_inverse(name):
    layer = BIJECTORS[name]()
    x = jax.random.normal(KEY, layer.event_shape)
    forward = jax.jacrev(layer.forward)(x)
    inverse = jax.jacrev(layer.inverse)(layer.forward(x))
    np.testing.assert_allclose(forward @ inverse, np.eye(len(x)), atol=1e-9)


def test_radial_at_its_centre():
    layer = randomize(afflow.bijectors.Radial(2))
    x0 = layer.x0[...]
    for method in (layer.forward_and_log_det, layer.inverse_and_log_det):
        grads = jax.grad(lambda x, f=method: f(x)[0].sum() + f(x)[1])(x0)
        assert jnp.isfinite(grads).all()
    np.testing.assert_allclose(layer.inverse(x0), x0, rtol=1e-12)


def test_sylvester_of_rank_one_is_planar():
    layer = randomize(afflow.bijectors.Sylvester(3, 1, rngs=nnx.Rngs(0)))
    r, r_tilde, b = layer._parameters(jnp.zeros(()))
    q = layer._embed(jnp.ones(1))
    planar = afflow.bijectors.Planar(3, rngs=nnx.Rngs(0))
    planar.w, planar.b = nnx.Param(r_tilde[0, 0] * q), nnx.Param(b[0])
    kappa = r[0, 0] * r_tilde[0, 0]
    along = positive_inverse(1 + kappa)  # the w.u that gives kappa
    planar.u = nnx.Param(along * planar.w[...] / jnp.sum(planar.w[...] ** 2))
    x = jax.random.normal(KEY, (3,))
    for a, b in zip(layer.forward_and_log_det(x), planar.forward_and_log_det(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_sylvester_shapes_are_checked():
    with pytest.raises(ValueError, match="rank <= dim"):
        afflow.bijectors.Sylvester(2, 3, rngs=nnx.Rngs(0))


def test_squeeze_moves_blocks_to_channels():
    layer = afflow.bijectors.Squeeze(afflow.bijectors.ActNorm((2, 3, 8)))
    x = jax.random.normal(KEY, (4, 6, 2))
    squeezed = layer.enter(x)
    np.testing.assert_array_equal(squeezed[1, 2], x[2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(layer.leave(squeezed), x)


def test_conv1x1_counts_pixels():
    layer = randomize(afflow.bijectors.Conv1x1((2, 5, 3)))
    x = jax.random.normal(KEY, (2, 5, 3))
    y, log_det = layer.inverse_and_log_det(x)
    np.testing.assert_allclose(y[1, 4], layer.lu.inverse(x[1, 4]), rtol=1e-12)
    one = layer.lu.inverse_and_log_det(x[0, 0])[1]
    np.testing.assert_allclose(log_det, 10 * one, rtol=1e-12)


def test_multiscale_leaves_early_noise_alone():
    """Check that one step alone computes the noise that leaves the first level."""
    bijector = afflow.bijectors.multiscale(image_step, (4, 4, 1), 2, rngs=nnx.Rngs(0))
    split, step = bijector.bijector.bijectors
    x = jax.random.normal(KEY, (4, 4, 1))
    noise = bijector.enter(bijector.inverse(x))
    np.testing.assert_allclose(noise[..., 2:], step.inverse(bijector.enter(x))[..., 2:])
    assert split.bijector.event_shape == (2, 2, 2)


def test_walk_reaches_every_scale():
    bijector = afflow.bijectors.multiscale(image_step, (4, 4, 1), 2, rngs=nnx.Rngs(0))
    flow = afflow.Flow(afflow.Normal((4, 4, 1)), bijector)
    x = 7 + 2 * jax.random.normal(KEY, (300, 4, 4, 1))
    new = afflow.bijectors.initialize_actnorm(flow, x)
    outer = new.bijector
    split, step = outer.bijector.bijectors
    z = jax.vmap(lambda x: step.bijectors[2].inverse(outer.enter(x)))(x)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, rtol=1e-9)
    half = jax.vmap(lambda x: step.inverse(outer.enter(x))[..., :2])(x)
    inner = split.bijector
    z = jax.vmap(lambda x: inner.bijector.bijectors[2].inverse(inner.enter(x)))(half)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, rtol=1e-9)
    assert new.sample(KEY, 2).shape == (2, 4, 4, 1)


def test_image_shapes_are_checked():
    with pytest.raises(ValueError, match="H/2"):
        afflow.bijectors.Squeeze(afflow.bijectors.ActNorm((2, 2, 3)))
    with pytest.raises(ValueError, match="one size"):
        afflow.bijectors.Reshape(afflow.Reverse(4), (2, 3))
    with pytest.raises(ValueError, match="H, W, C"):
        afflow.bijectors.Conv1x1((2, 2))
    with pytest.raises(ValueError, match="num_levels"):
        afflow.bijectors.multiscale(image_step, (6, 4, 1), 2, rngs=nnx.Rngs(0))


def test_a_rotation_of_integers_has_gradients():
    flow = afflow.Flow(afflow.Normal(2), afflow.bijectors.Rotation(np.array([[0, -1], [1, 0]])))
    gradient = jax.grad(lambda flow: flow.log_prob(jnp.ones(2)))(flow)
    np.testing.assert_array_equal(gradient.bijector.matrix[...], 0)
