"""Distillation: every objective against quadrature, the measure, the fit, and the errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import cast, randomize

import afflow
from afflow.conditionals import MixtureOf
from afflow.inference import (
    ModelDensity,
    conditional_kl,
    distill,
    gaussian_kl,
    kl_per_token,
    reverse_kl,
    sticking_the_landing,
)

KEY = jax.random.key(0)
SHIFT = afflow.Standardize(jnp.array([0.4, -0.3]), jnp.array([1.3, 0.8]))


def make_student(num_layers=2, context_dim=0):
    """Return affine inverse autoregressive layers in one order, with random weights."""

    def layer(seed):
        made = afflow.MADE(2, 2, (), context_dim=context_dim, rngs=nnx.Rngs(seed))
        return afflow.Inverse(afflow.MaskedAutoregressive(made, afflow.Affine()))

    layers = [*map(layer, range(num_layers)), SHIFT]
    return randomize(afflow.Flow(afflow.Normal(2), afflow.Chain(layers)), 0.3)


def make_flow(num_layers=1, context_dim=0):
    """Return a teacher of masked autoregressive layers in one order, with random weights."""

    def layer(rngs):
        made = afflow.MADE(2, 2, (4,), context_dim=context_dim, activation=jnp.tanh, rngs=rngs)
        return afflow.MaskedAutoregressive(made, afflow.Affine())

    layers = [afflow.Repeat(layer, num_layers, rngs=nnx.Rngs(1)), SHIFT]
    return randomize(afflow.Flow(afflow.Normal(2), afflow.Chain(layers)), 0.3, seed=1)


def make_model(num_components=1, **options):
    """Return a teacher with a mixture of normals at every token, and random weights."""
    conditional = MixtureOf(num_components)
    made = afflow.MADE(2, conditional.num_params, (4,), activation=jnp.tanh, rngs=nnx.Rngs(2))
    return randomize(afflow.AutoregressiveModel(made, conditional, **options), 0.3, seed=2)


TEACHERS = {
    "flow": make_flow,
    "flow of two layers": partial(make_flow, 2),
    "normal model": make_model,
    "mixture model": partial(make_model, 2),
}


def average(f):
    """Return the mean of a function of two standard normal numbers, by a fine grid.

    The bounded log-scales have a kink, at which Gaussian quadrature is poor.
    """
    nodes = np.linspace(-7, 7, 201)
    weights = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
    z = jnp.stack(jnp.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    return jnp.outer(weights, weights).ravel() @ jax.vmap(f)(z)


def find_exact_kl(student, teacher):
    def find_ratio(z):
        x, log_det = student.bijector.forward_and_log_det(z)
        return student.base.log_prob(z) - log_det - teacher.log_prob(x)

    return average(find_ratio)


def find_exact_penalty(student, teacher):
    """Return the mean of the squared differences of log-scales, from the diagonals of Jacobians."""

    def find_squares(z):
        x = student.bijector.forward(z)
        log_s_q = jnp.log(jnp.diag(jax.jacfwd(student.bijector.forward)(z)))
        log_s_p = -jnp.log(jnp.diag(jax.jacfwd(teacher.bijector.inverse)(x)))
        return jnp.sum((log_s_q - log_s_p) ** 2)

    return average(find_squares)


def flatten(gradient):
    return jax.flatten_util.ravel_pytree(nnx.split(gradient, nnx.Param, ...)[1])[0]


def estimate(objective, student, teacher, runs=1500, num_samples=2):
    """Return values `(runs,)` and gradients `(runs, num_params)` of repeated estimates."""

    @jax.jit
    @jax.vmap
    def run(key):
        density = ModelDensity(teacher)
        value, gradient = jax.value_and_grad(objective)(student, density, key, num_samples)
        return value, flatten(gradient)

    return jax.tree.map(np.array, run(jax.random.split(KEY, runs)))


def assert_mean(samples, expected):
    """Check that the mean of `samples` is within 4.5 standard errors of `expected`."""
    error = samples.std(0) / len(samples) ** 0.5
    np.testing.assert_array_less(np.abs(samples.mean(0) - expected), 4.5 * error + 1e-12)


OBJECTIVES = {
    "reverse": reverse_kl,
    "path": sticking_the_landing,
    "conditional": partial(conditional_kl, num_draws=3),
    "gaussian": partial(gaussian_kl, weight=0.0),
}
PAIRS = [
    (objective, teacher)
    for objective in OBJECTIVES
    for teacher in TEACHERS
    if (objective, teacher) != ("gaussian", "mixture model")
]


@pytest.mark.parametrize(("objective", "teacher"), PAIRS)
def test_values_and_gradients_are_unbiased(objective, teacher):
    student, teacher = make_student(), TEACHERS[teacher]()
    values, gradients = estimate(OBJECTIVES[objective], student, teacher)
    value, gradient = jax.jit(jax.value_and_grad(find_exact_kl))(student, teacher)
    assert value > 0.1
    assert_mean(values, float(value))
    assert_mean(gradients, np.array(flatten(gradient)))


def test_the_weight_of_the_scales():
    student, teacher = make_student(), make_flow()
    values, gradients = estimate(gaussian_kl, student, teacher)
    plain, plain_gradients = estimate(partial(gaussian_kl, weight=0.0), student, teacher)
    value, gradient = jax.jit(jax.value_and_grad(find_exact_penalty))(student, teacher)
    assert value > 0.1
    assert_mean(values - plain, 4 * float(value))
    assert_mean(gradients - plain_gradients, 4 * np.array(flatten(gradient)))


def test_conditionals_leave_less_noise():
    """Check that exact conditionals have the least noise, and that more draws have less."""
    student, teacher = make_student(), make_flow()
    names = [reverse_kl, partial(conditional_kl, num_draws=16), partial(gaussian_kl, weight=0.0)]
    noise = [estimate(f, student, teacher, num_samples=1)[1].var(0).sum() for f in names]
    assert noise[0] > 1.3 * noise[1] > 1.3 * 1.02 * noise[2]


def test_the_networks_run_once_for_all_draws():
    calls = []

    class Counted(afflow.MADE):
        def __call__(self, x, context=None):
            calls.append(x.shape)
            return super().__call__(x, context)

    teacher = afflow.AutoregressiveModel(Counted(2, 3, (4,), rngs=nnx.Rngs(0)), MixtureOf(1))
    student = make_student()
    jax.make_jaxpr(lambda: conditional_kl(student, ModelDensity(teacher), KEY, 5))()
    assert calls == [(2,)]


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_float32(objective):
    student, teacher = cast(make_student(), np.float32), cast(make_flow(), np.float32)
    with jax.enable_x64(False):
        f = jax.jit(jax.value_and_grad(objective), static_argnums=3)
        value, gradient = f(student, ModelDensity(teacher), KEY, 4)
    assert value.dtype == flatten(gradient).dtype == np.float32
    same = estimate(objective, make_student(), make_flow(), 2000)[0]
    assert abs(value - same.mean()) < 5 * same.std()


@pytest.mark.parametrize("objective", [conditional_kl, gaussian_kl])
def test_contexts(objective):
    """Check that the loss of two contexts is the mean of the losses."""
    student, teacher = make_student(1, context_dim=1), make_flow(1, context_dim=1)
    density, contexts = ModelDensity(teacher), jnp.array([[0.5], [-1.0]])
    both = objective(student, density, KEY, 4000, contexts)
    alone = [objective(student, density, KEY, 4000, context) for context in contexts]
    np.testing.assert_allclose(both, np.mean(alone), atol=0.05)
    assert abs(alone[0] - alone[1]) > 0.2


def test_the_measure_is_the_divergence():
    student, teacher = make_student(), make_flow()
    kl = kl_per_token(teacher, student, key=KEY, num_samples=4000, chunk=700)
    exact = find_exact_kl(student, teacher) / 2
    assert abs(kl.value - exact) < 4 * kl.standard_error
    assert 0 < kl.standard_error < 0.05 * exact


def test_the_measure_with_contexts():
    student, teacher = make_student(1, context_dim=1), make_flow(1, context_dim=1)
    contexts = jnp.array([[0.5], [-1.0], [2.0]])
    options = {"key": KEY, "num_samples": 3000}
    together = kl_per_token(teacher, student, context=contexts, **options)
    alone = [kl_per_token(teacher, student, context=row[None], **options) for row in contexts]
    error = sum(kl.standard_error**2 for kl in alone) ** 0.5 / 3
    assert abs(together.value - np.mean([kl.value for kl in alone])) < 5 * error


@pytest.mark.parametrize("objective", [reverse_kl, gaussian_kl])
def test_distillation_finds_a_teacher(objective):
    """Check a linear teacher, which the student can equal."""
    teacher = randomize(afflow.made(2, hidden=(), rngs=nnx.Rngs(0)), 0.0)
    (layer,) = teacher.bijector.bijectors
    biases = layer.conditioner.biases[-1]
    biases[...] = jnp.array([0.5, -0.3, 1.0, 0.4])
    options = {"key": KEY, "objective": objective, "num_samples": 16, "max_epochs": 4}
    options |= {"learning_rate": 0.05, "progress": False}
    student, history = distill(teacher, make_student(1), **options)
    assert min(history.validation) < 1e-3 < history.validation[0] + 1
    assert history.validation[history.best_epoch] == min(history.validation)
    again, same = distill(teacher, make_student(1), **options)
    assert same == history
    jax.tree.map(np.testing.assert_array_equal, student, again)


def test_the_best_student_is_returned():
    teacher, student = make_flow(), make_student()
    key, held_out_key = jax.random.split(KEY)
    options = {"num_samples": 2, "num_steps": 4, "max_epochs": 6, "learning_rate": 1.0}
    best, history = distill(teacher, student, key=KEY, held_out=50, progress=False, **options)
    kl = kl_per_token(teacher, best, key=held_out_key, num_samples=50)
    np.testing.assert_allclose(kl.value, min(history.validation), rtol=1e-9)
    assert history.validation[-1] > min(history.validation)


def test_contexts_of_a_fit():
    teacher, student = make_flow(1, context_dim=1), make_student(1, context_dim=1)
    contexts = np.linspace(-1, 1, 7)[:, None]
    options = {"num_samples": 4, "batch_size": 3, "num_steps": 30, "max_epochs": 3}
    options |= {"learning_rate": 0.05, "progress": False}
    start = kl_per_token(teacher, student, key=KEY, num_samples=50, context=contexts)
    student, _ = distill(teacher, student, key=KEY, contexts=contexts, held_out=70, **options)
    end = kl_per_token(teacher, student, key=KEY, num_samples=50, context=contexts)
    assert end.value < 0.5 * start.value


MIXED = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
SPLINE = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.RationalQuadraticSpline(4), 2))
ERRORS = {
    "Expected layers of one order": (conditional_kl, make_student, lambda: MIXED),
    "got MaskedAutoregressive": (conditional_kl, make_flow, make_flow),
    "natural order, got order": (conditional_kl, make_student, partial(make_model, order=[1, 0])),
    r"Expected the conditional MixtureOf\(1": (gaussian_kl, make_student, partial(make_model, 2)),
    "Expected affine layers, got Rational": (gaussian_kl, lambda: SPLINE, make_flow),
    "Expected a Flow or an Auto": (conditional_kl, make_student, afflow.Normal(2)),
}


@pytest.mark.parametrize("message", ERRORS)
def test_students_and_teachers_that_do_not_fit(message):
    objective, student, teacher = ERRORS[message]
    teacher = teacher if isinstance(teacher, nnx.Module) else teacher()
    with pytest.raises(ValueError, match=message):
        objective(student(), ModelDensity(teacher), KEY, 2)


def test_other_errors():
    symbols = afflow.fvsbn(2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="a teacher with a density, got the discrete Bernoulli"):
        distill(symbols, make_student(), key=KEY)
    with pytest.raises(ValueError, match="teacher.log_prob"):
        distill(SHIFT, make_student(), key=KEY)
    with pytest.raises(ValueError, match=r"ModelDensity\(teacher\), got"):
        gaussian_kl(make_student(), make_flow().log_prob, KEY, 2)
    with pytest.raises(ValueError, match=">= 2, got 1"):
        kl_per_token(make_flow(), make_student(), key=KEY, num_samples=1)


def test_losses_are_per_token():
    teacher, student = make_flow(), make_student()
    options = {"num_samples": 500, "num_steps": 5, "max_epochs": 1, "learning_rate": 1e-9}
    _, history = distill(teacher, student, key=KEY, held_out=2000, progress=False, **options)
    error = kl_per_token(teacher, student, key=KEY, num_samples=2000).standard_error
    assert abs(history.train[0] - history.validation[0]) < 5 * np.sqrt(2) * error
    assert history.train[0] > 10 * error  # a factor of the number of tokens would show
