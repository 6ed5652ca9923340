"""The registry of all bijectors and conditioners, on which the shared property tests run."""

from collections.abc import Callable
from functools import cache, partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import afflow

Make = Callable[[], afflow.Bijector]
KEY = jax.random.key(0)
DATA = np.array([[1.0, -2.0, 0.5], [2.0, 3.0, 0.0], [-3.0, 1.0, 4.0], [0.0, 0.0, 1.0]])


def randomize(module, scale: float = 0.4, seed: int = 0):
    """Return the module with random noise added to every parameter."""
    rng = np.random.default_rng(seed)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def moved(a):
        return _array(np.asarray(a) + rng.normal(0, scale, a.shape), a.dtype)

    params = jax.tree.map(moved, params)
    return nnx.merge(graph, params, rest)


def cast(module, dtype):
    """Return the module with every array converted to the float type `dtype`."""
    return jax.tree.map(lambda a: _array(a, dtype), module)


def _array(a, dtype):
    """Return a JAX array, converted by NumPy. JAX would compile the conversion for every shape."""
    return jax.device_put(np.asarray(a).astype(dtype))


def made(dim, num_params=2, hidden=(12, 9), **options) -> afflow.MADE:
    """Return a MADE with random weights and a smooth activation."""
    options = {"activation": jnp.tanh, "rngs": nnx.Rngs(0)} | options
    return randomize(afflow.MADE(dim, num_params, hidden, **options))


def wired() -> afflow.MADE:
    """Return a residual MADE with slots of uneven sizes, and maps without an activation."""
    wiring = afflow.conditioners.Wiring(((0, 1, 1, 2, 3, 4),) * 3, linear=(1, 3))
    return made(5, 2, (6, 6, 6), context_dim=1, residual=True, wiring=wiring)


def autoregressive(dim, hidden=(12, 9), solver=None, **options) -> afflow.MaskedAutoregressive:
    """Return an affine autoregressive layer with random weights."""
    conditioner = made(dim, 2, hidden, **options)
    return afflow.MaskedAutoregressive(conditioner, afflow.Affine(), solver or afflow.Incremental())


def repeated(dim, n=3, **options) -> afflow.Repeat:
    """Return a `Repeat` of `n` autoregressive layers with random weights."""

    def layer(rngs):
        conditioner = afflow.MADE(dim, 2, (8,), activation=jnp.tanh, rngs=rngs, **options)
        return afflow.Chain(
            [afflow.Reverse(dim), afflow.MaskedAutoregressive(conditioner, afflow.Affine())]
        )

    return randomize(afflow.Repeat(layer, n, rngs=nnx.Rngs(0)))


def standardize(dim) -> afflow.Standardize:
    """Return a `Standardize` with different locations and scales."""
    return afflow.Standardize(jnp.arange(1.0, dim + 1), 0.5 + jnp.arange(dim))


def spline(dim, univariate=None, **options) -> afflow.MaskedAutoregressive:
    """Return an autoregressive layer of splines with random weights."""
    univariate = univariate or afflow.RationalQuadraticSpline(4, bound=3.0)
    conditioner = made(dim, univariate.context_shape[0], **options)
    return afflow.MaskedAutoregressive(conditioner, univariate)


def coupling(mask, univariate=None, context_dim=0) -> afflow.Coupling:
    """Return a coupling layer with random weights."""
    univariate = univariate or afflow.Affine()
    passing, rest = int(np.sum(mask)), int(np.size(mask) - np.sum(mask))
    sizes = passing, rest, univariate.context_shape[0], (7,)
    options = {"context_dim": context_dim, "activation": jnp.tanh}
    network = afflow.MLP(*sizes, **options, rngs=nnx.Rngs(0))
    return randomize(afflow.Coupling(mask, network, univariate))


DIAMOND = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]


def bnaf(dim, hidden, **options) -> afflow.bijectors.BNAF:
    """Return a block neural autoregressive layer with random weights."""
    return randomize(afflow.bijectors.BNAF(dim, hidden, rngs=nnx.Rngs(0), **options))


def graphical(adjacency, **options) -> afflow.MaskedAutoregressive:
    """Return an affine layer over the graph `adjacency`, with random weights."""
    options = {"activation": jnp.tanh, "rngs": nnx.Rngs(0)} | options
    conditioner = randomize(afflow.conditioners.Graphical(adjacency, 2, (6, 5), **options))
    return afflow.MaskedAutoregressive(conditioner, afflow.Affine())


def through(univariate, dim) -> afflow.MaskedAutoregressive:
    """Return an autoregressive layer with the given univariate and random weights."""
    return afflow.MaskedAutoregressive(made(dim, *univariate.context_shape, (5,)), univariate)


def nade(dim, num_params=2, **options) -> afflow.conditioners.NADE:
    """Return a NADE with random weights."""
    return randomize(afflow.conditioners.NADE(dim, num_params, 4, **options, rngs=nnx.Rngs(0)))


def recurrent(length=4, num_params=2, hidden=(5, 5), **options) -> afflow.conditioners.Recurrent:
    """Return a recurrent network with random weights."""
    sizes = length, num_params, hidden
    return randomize(afflow.conditioners.Recurrent(*sizes, **options, rngs=nnx.Rngs(0)))


def wavenet(length=5, num_params=2, dilations=(1, 2, 2), **options) -> afflow.conditioners.WaveNet:
    """Return a WaveNet with random weights that sees all tokens."""
    sizes = length, num_params, dilations
    options = {"channels": 4} | options
    return randomize(afflow.conditioners.WaveNet(*sizes, **options, rngs=nnx.Rngs(0)))


def tcn(length=5, num_params=2, channels=(4, 4), **options) -> afflow.conditioners.TCN:
    """Return a small temporal convolutional network with random weights."""
    options = {"kernel_size": 2} | options
    return randomize(
        afflow.conditioners.TCN(length, num_params, channels, **options, rngs=nnx.Rngs(0)), 0.3
    )


def pixelcnn(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.PixelCNN:
    """Return a small PixelCNN with random weights."""
    options = {"channels": 12, "num_blocks": 2, "kernel_size": 3} | options
    return randomize(
        afflow.conditioners.PixelCNN(shape, num_params, **options, rngs=nnx.Rngs(0)), 0.5
    )


def gated(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.GatedPixelCNN:
    """Return a small gated PixelCNN with random weights."""
    options = {"channels": 12, "num_layers": 2, "kernel_size": 5} | options
    return randomize(
        afflow.conditioners.GatedPixelCNN(shape, num_params, **options, rngs=nnx.Rngs(0)), 0.5
    )


def pixelcnn_pp(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.PixelCNNPP:
    """Return a small PixelCNN++ with random weights."""
    options = {"channels": 4, "num_blocks": (1, 1)} | options
    return randomize(
        afflow.conditioners.PixelCNNPP(shape, num_params, **options, rngs=nnx.Rngs(0)), 0.2
    )


def multiscale(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.Multiscale:
    """Return a small multiscale network with random weights."""
    options = {"channels": 12, "num_blocks": 2} | options
    return randomize(
        afflow.conditioners.Multiscale(shape, num_params, **options, rngs=nnx.Rngs(0)), 0.3
    )


def row_lstm(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.RowLSTM:
    """Return a small Row LSTM with random weights."""
    options = {"channels": 6, "num_layers": 2} | options
    return randomize(
        afflow.conditioners.RowLSTM(shape, num_params, **options, rngs=nnx.Rngs(0)), 0.3
    )


def diagonal_lstm(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.DiagonalLSTM:
    """Return a small diagonal LSTM with random weights."""
    options = {"channels": 6, "num_layers": 2, "kernel_size": 3} | options
    return randomize(
        afflow.conditioners.DiagonalLSTM(shape, num_params, **options, rngs=nnx.Rngs(0)), 0.3
    )


def subscale(shape=(3, 4), num_params=2, **options) -> afflow.conditioners.Subscale:
    """Return a small subscale pixel network with random weights."""
    sizes = {"factor": 2, "width": 6, "num_layers": 1, "num_heads": 2, "num_blocks": 1}
    return randomize(
        afflow.conditioners.Subscale(shape, num_params, **sizes | options, rngs=nnx.Rngs(0)), 0.3
    )


def transformer(length=5, num_params=2, **options) -> afflow.conditioners.Transformer:
    """Return a small transformer with random weights."""
    options = {"width": 12, "num_layers": 2, "num_heads": 2} | options
    return randomize(
        afflow.conditioners.Transformer(length, num_params, **options, rngs=nnx.Rngs(0)), 0.3
    )


def translator(length=4, num_params=2, rows=3, **options) -> afflow.conditioners.Transformer:
    """Return a small transformer whose context is a sequence of vectors of two values."""
    sizes = {"num_layers": 1, "num_heads": 2}
    encoder = afflow.nets.Encoder(rows, 2, 12, **sizes, rngs=nnx.Rngs(1))
    return transformer(length, num_params, encoder=encoder, **options)


def tokens(conditioner) -> afflow.MaskedAutoregressive:
    """Return a layer whose tokens are the rows of an event."""
    return afflow.MaskedAutoregressive(conditioner, afflow.Affine())


ELMAN = partial(nnx.SimpleCell, dtype=None)


def each(univariate, dim) -> afflow.Elementwise:
    """Return an `Elementwise` of the given univariate, with random parameters."""
    return randomize(afflow.Elementwise(univariate, dim))


def gaussian_mixture() -> afflow.univariates.MixtureCDF:
    return afflow.univariates.MixtureCDF(2, afflow.univariates.GaussianCDF())


def umnn() -> afflow.univariates.UMNN:
    return afflow.univariates.UMNN(2, (3,), num_nodes=24, rngs=nnx.Rngs(0))


def per_dimension() -> afflow.univariates.PerDimension:
    return afflow.univariates.PerDimension(
        [afflow.Affine(), afflow.univariates.BernsteinPolynomial(3)]
    )


def linear_repeat(dim, n=3) -> afflow.Repeat:
    """Return a `Repeat` of autoregressive layers between linear maps of each kind."""

    def layer(rngs):
        conditioner = afflow.MADE(dim, 2, (8,), activation=jnp.tanh, rngs=rngs)
        return afflow.Chain(
            [
                afflow.bijectors.Rotation.random(dim, rngs.params()),
                afflow.bijectors.Householder(dim, 2, rngs=rngs),
                afflow.MaskedAutoregressive(conditioner, afflow.Affine()),
                afflow.LU(dim, afflow.Reverse(dim)),
                afflow.bijectors.Triangular(dim),
            ]
        )

    return randomize(afflow.Repeat(layer, n, rngs=nnx.Rngs(0)))


def batchnorm(event_shape) -> afflow.bijectors.BatchNorm:
    """Return a `BatchNorm` with random parameters and with statistics of random data."""
    layer = randomize(afflow.bijectors.BatchNorm(event_shape))
    x = 2 + 3 * jax.random.normal(KEY, (9, *layer.event_shape))
    return afflow.bijectors.update_batchnorm(layer, x)


def image_step(shape, rngs) -> afflow.Chain:
    """Return one step of a multi-scale flow: Sylvester, 1x1 convolution and ActNorm."""
    size = int(np.prod(shape))
    bend = afflow.bijectors.Reshape(afflow.bijectors.Sylvester(size, 2, rngs=rngs), shape)
    return randomize(
        afflow.Chain([bend, afflow.bijectors.Conv1x1(shape), afflow.bijectors.ActNorm(shape)])
    )


def interval(dim) -> afflow.bijectors.Interval:
    return afflow.bijectors.Interval(-1 - jnp.arange(dim), 1 + 2 * jnp.arange(dim))


def continuous(dim, **options) -> afflow.bijectors.Continuous:
    """Return a continuous flow that is solved almost exactly.

    The default adjoint is replaced. On JAX 0.10, a flag of `conftest.py` makes its loops give wrong
    results.
    """
    field = afflow.bijectors.MLPField(dim, (8,), rngs=nnx.Rngs(0), **options)
    tight = {"rtol": 1e-11, "atol": 1e-11, "max_steps": 16}
    solver, adjoint = diffrax.Dopri8(), diffrax.DirectAdjoint()
    return randomize(afflow.bijectors.Continuous(field, solver=solver, adjoint=adjoint, **tight))


def embedded(bijector) -> afflow.Embedded:
    """Return an `Embedded` with a random linear network of contexts `(3,)`."""
    network = nnx.Linear(3, *bijector.context_shape, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    return randomize(afflow.Embedded(bijector, network, 3))


def columns() -> afflow.models.Columns:
    """Return the bijector of a table with a real, a positive, a bounded and a whole column."""
    kinds = [afflow.Real(), afflow.Above(-1.0), afflow.Between(0.0, 2.0), afflow.Whole(0)]
    data = np.array([[5.0, 0.5, 1.0, 2.0], [7.0, 3.0, 0.3, 0.0], [6.0, 2.0, 1.7, 5.0]])
    flow = afflow.made(4, columns=kinds, data=data, hidden=(5,), rngs=nnx.Rngs(0))
    return randomize(flow.bijector)


def made_once(makes: dict) -> dict:
    """Return cached versions of `makes`: all tests share a module, which takes long to build."""
    return {name: cache(make) for name, make in makes.items()}


TRIANGULAR: dict[str, Make] = {
    "autoregressive": lambda: autoregressive(3),
    "autoregressive D=1": lambda: autoregressive(1),
    "autoregressive D=2": lambda: autoregressive(2),
    "autoregressive D=1 context": lambda: autoregressive(1, context_dim=2),
    "autoregressive D=2 context": lambda: autoregressive(2, context_dim=2),
    "autoregressive H<D": lambda: autoregressive(7, (3, 5)),
    "autoregressive H<D context": lambda: autoregressive(7, (5, 3), context_dim=2),
    "autoregressive linear": lambda: autoregressive(4, ()),
    "autoregressive linear context": lambda: autoregressive(4, (), context_dim=3),
    "autoregressive direct": lambda: autoregressive(4, direct=True),
    "autoregressive residual": lambda: autoregressive(5, (10, 10, 10), residual=True),
    "autoregressive wiring": lambda: afflow.MaskedAutoregressive(wired(), afflow.Affine()),
    "autoregressive segments": lambda: autoregressive(33, (40, 50)),
    "autoregressive sequential": lambda: autoregressive(4, solver=afflow.FullPasses()),
    "autoregressive inverse": lambda: afflow.Inverse(autoregressive(3, context_dim=2)),
    "elementwise affine": lambda: randomize(afflow.Elementwise(afflow.Affine(), 3)),
    "elementwise affine D=1": lambda: randomize(afflow.Elementwise(afflow.Affine(), 1)),
    "standardize": lambda: standardize(3),
    "spline": lambda: spline(3),
    "spline D=1 context": lambda: spline(1, context_dim=2),
    "spline D=2": lambda: spline(2),
    "spline two bins": lambda: spline(2, afflow.RationalQuadraticSpline(2)),
    "linear spline": lambda: spline(2, afflow.univariates.LinearSpline(4, 3.0)),
    "quadratic spline": lambda: spline(2, afflow.univariates.QuadraticSpline(4, 3.0)),
    "cubic spline": lambda: spline(2, afflow.univariates.CubicSpline(4, 3.0)),
    "elementwise quadratic D=1": lambda: each(afflow.univariates.QuadraticSpline(2), 1),
    "elementwise cubic D=1": lambda: each(afflow.univariates.CubicSpline(3), 1),
    "circular spline": lambda: spline(3, afflow.univariates.CircularSpline(5)),
    "elementwise spline D=1": lambda: randomize(
        afflow.Elementwise(afflow.RationalQuadraticSpline(), 1), 2.0
    ),
    "elementwise circular D=1": lambda: randomize(
        afflow.Elementwise(afflow.univariates.CircularSpline(3, 1.0), 1), 2.0
    ),
    "elementwise additive": lambda: randomize(afflow.Elementwise(afflow.univariates.Additive(), 3)),
    "coupling triangular context": lambda: coupling([True, True, False], context_dim=2),
    "graphical": lambda: graphical(DIAMOND),
    "graphical context": lambda: graphical(DIAMOND, context_dim=2),
    "graphical D=1 context": lambda: graphical([[0]], context_dim=1),
    "embedded": lambda: embedded(autoregressive(2, context_dim=2)),
    "embedded z-scores": lambda: afflow.Embedded(
        autoregressive(2, context_dim=2), afflow.bijectors.ZScores(DATA[:, :2]), 2
    ),
    # univariates
    "logistic mixture": lambda: through(afflow.univariates.MixtureCDF(3), 2),
    "umnn": lambda: through(umnn(), 2),
    "per dimension": lambda: through(per_dimension(), 2),
    "elementwise per dimension D=2": lambda: each(per_dimension(), 2),
    "elementwise logistic mixture D=1": lambda: each(afflow.univariates.MixtureCDF(3), 1),
    "elementwise gaussian mixture D=1": lambda: each(gaussian_mixture(), 1),
    "elementwise ddsf D=1": lambda: each(afflow.univariates.Sigmoidal((2, 3)), 1),
    "elementwise bernstein D=1": lambda: each(afflow.univariates.BernsteinPolynomial(5, 2.0), 1),
    "elementwise sum of squares D=1": lambda: each(afflow.univariates.SumOfSquares(2, 3), 1),
    "elementwise umnn D=1": lambda: each(umnn(), 1),
    "heavy tails": lambda: through(afflow.univariates.HeavyTails(), 2),
    "elementwise heavy tails D=1": lambda: each(afflow.univariates.HeavyTails(), 1),
    "nade": lambda: afflow.MaskedAutoregressive(nade(4, context_dim=1), afflow.Affine()),
    # linear
    "triangular": lambda: randomize(afflow.bijectors.Triangular(3)),
    "triangular D=1": lambda: randomize(afflow.bijectors.Triangular(1)),
    "triangular D=2": lambda: randomize(afflow.bijectors.Triangular(2)),
    # block neural autoregressive
    "bnaf D=1 context": lambda: bnaf(1, (3,), context_dim=2),
    "bnaf D=2": lambda: bnaf(2, (3, 2)),
    "bnaf leaky": lambda: bnaf(3, (4, 2), context_dim=1, leak=0.2),
    # domains
    "domain interval": lambda: interval(3),
    "domain interval D=1": lambda: interval(1),
    "domain interval D=2": lambda: interval(2),
    "domain probit": lambda: afflow.bijectors.Probit(-1 - jnp.arange(3), 1 + 2 * jnp.arange(3)),
    "domain positive": lambda: afflow.bijectors.Positive(3),
    "domain power": lambda: afflow.Chain(
        [
            afflow.bijectors.Exp(3),
            afflow.bijectors.Power(3, 0.7),
            afflow.Inverse(afflow.bijectors.Exp(3)),
        ]
    ),
    "domain tanh": lambda: afflow.bijectors.Tanh(3),
    "domain tanh D=1": lambda: afflow.bijectors.Tanh(1),
    "domain exp": lambda: afflow.bijectors.Exp(3),
    "domain positive D=1": lambda: afflow.bijectors.Positive(1),
    "domain simplex": lambda: afflow.bijectors.Simplex(3),
    "domain simplex of two": lambda: afflow.bijectors.Simplex(1),
    "domain ordered": lambda: afflow.bijectors.Ordered(4),
    "domain ordered D=1": lambda: afflow.bijectors.Ordered(1),
    "domain ordered D=2": lambda: afflow.bijectors.Ordered(2),
    "recurrent": lambda: tokens(recurrent(context_dim=2)),
    "recurrent T=1 context": lambda: tokens(recurrent(1, context_dim=2)),
    "wavenet": lambda: tokens(wavenet(context_dim=2)),
    "transformer": lambda: tokens(transformer(context_dim=2)),
    "guided": lambda: tokens(afflow.conditioners.Guided(transformer(context_dim=2), 1.5)),
    "recurrent spline": lambda: afflow.MaskedAutoregressive(
        recurrent(3, 11), afflow.RationalQuadraticSpline(4)
    ),
}
TRIANGULAR = made_once(TRIANGULAR)

BIJECTORS: dict[str, Make] = {
    "elementwise matrix": lambda: randomize(afflow.Elementwise(afflow.Affine(), (2, 3))),
    "permutation": lambda: afflow.Permutation([2, 0, 3, 1]),
    "permutation random": lambda: afflow.Permutation.random(6, jax.random.key(0)),
    "shuffle": lambda: afflow.Shuffle(5, rngs=nnx.Rngs(1)),
    "shuffle D=1": lambda: afflow.Shuffle(1, rngs=nnx.Rngs(1)),
    "reverse": lambda: afflow.Reverse(3),
    "coupling per dimension": lambda: coupling([True, False, False], per_dimension()),
    "reverse D=1": lambda: afflow.Reverse(1),
    "reverse tokens": lambda: afflow.Reverse(3, features=2),
    "reverse repeat": lambda: afflow.Repeat(lambda rngs: afflow.Reverse(3), 3, rngs=nnx.Rngs(0)),
    "chain": lambda: afflow.Chain(
        [autoregressive(3), afflow.Reverse(3), autoregressive(3), standardize(3)]
    ),
    "chain 2-D context": lambda: afflow.Chain(
        [autoregressive(2, context_dim=1), afflow.Reverse(2), autoregressive(2)]
    ),
    "repeat": lambda: repeated(3),
    "repeat 2-D context": lambda: repeated(2, context_dim=2),
    "repeat inverse": lambda: afflow.Inverse(repeated(4)),
    "triangular splines": lambda: randomize(
        afflow.zoo.triangular_spline_flow(3, num_layers=3, num_bins=3, rngs=nnx.Rngs(0)).bijector
    ),
    "repeat once": lambda: repeated(3, n=1),
    "coupling": lambda: coupling([False, True, False, True]),
    "coupling 2-D spline": lambda: coupling([False, True], afflow.RationalQuadraticSpline(3)),
    "coupling D=1 context": lambda: coupling([False], context_dim=2),
    "coupling additive": lambda: coupling([False, True, True], afflow.univariates.Additive()),
    "coupling matrix": lambda: coupling([[True, False], [False, True]]),
    # linear
    "lu": lambda: randomize(afflow.LU(4)),
    "lu shuffled": lambda: randomize(afflow.LU(5, afflow.Shuffle(5, rngs=nnx.Rngs(1)))),
    "lu of signs": lambda: randomize(afflow.LU(3, afflow.Reverse(3), signs=[-1, 1, -1])),
    "lu D=1": lambda: randomize(afflow.LU(1)),
    "lu D=2 permuted": lambda: randomize(afflow.LU(2, afflow.Reverse(2))),
    "lu permuted": lambda: randomize(afflow.LU(5, afflow.Permutation.random(5, KEY))),
    "householder": lambda: randomize(afflow.bijectors.Householder(4, 3, rngs=nnx.Rngs(0))),
    "householder start": lambda: afflow.bijectors.Householder(4, 4, rngs=nnx.Rngs(0)),
    "householder D=1": lambda: randomize(afflow.bijectors.Householder(1, 1, rngs=nnx.Rngs(0))),
    "householder D=2": lambda: randomize(afflow.bijectors.Householder(2, 5, rngs=nnx.Rngs(0))),
    "rotation": lambda: afflow.bijectors.Rotation.random(4, KEY),
    "rotation D=1": lambda: afflow.bijectors.Rotation.random(1, KEY),
    "linear repeat": lambda: linear_repeat(3),
    # normalisation
    "actnorm": lambda: randomize(afflow.bijectors.ActNorm(3)),
    "actnorm D=1": lambda: randomize(afflow.bijectors.ActNorm(1)),
    "actnorm image": lambda: randomize(afflow.bijectors.ActNorm((2, 1, 3))),
    "batchnorm": lambda: batchnorm(3),
    "batchnorm D=1": lambda: batchnorm(1),
    "batchnorm image": lambda: batchnorm((2, 1, 3)),
    # planar, radial, Sylvester
    "planar": lambda: randomize(afflow.bijectors.Planar(3, rngs=nnx.Rngs(0)), 1.5),
    "planar D=1": lambda: randomize(afflow.bijectors.Planar(1, rngs=nnx.Rngs(0)), 1.5),
    "planar D=2": lambda: randomize(afflow.bijectors.Planar(2, rngs=nnx.Rngs(0)), 1.5),
    "planar repeat": lambda: randomize(
        afflow.Repeat(lambda rngs: afflow.bijectors.Planar(3, rngs=rngs), 3, rngs=nnx.Rngs(0))
    ),
    "radial": lambda: randomize(afflow.bijectors.Radial(3), 1.5),
    "radial D=1": lambda: randomize(afflow.bijectors.Radial(1), 1.5),
    "radial D=2": lambda: randomize(afflow.bijectors.Radial(2), 1.5, seed=1),
    "radial matrix": lambda: randomize(afflow.bijectors.Radial((2, 2))),
    "sylvester": lambda: randomize(afflow.bijectors.Sylvester(4, 3, rngs=nnx.Rngs(0))),
    "sylvester D=1": lambda: randomize(afflow.bijectors.Sylvester(1, 1, rngs=nnx.Rngs(0))),
    "sylvester D=2": lambda: randomize(afflow.bijectors.Sylvester(2, 2, rngs=nnx.Rngs(0)), 1.0),
    "planar inverse": lambda: afflow.Inverse(
        randomize(afflow.bijectors.Planar(2, rngs=nnx.Rngs(0)))
    ),
    "radial inverse": lambda: afflow.Inverse(randomize(afflow.bijectors.Radial(2))),
    "sylvester inverse": lambda: afflow.Inverse(
        randomize(afflow.bijectors.Sylvester(3, 3, rngs=nnx.Rngs(0)))
    ),
    # images
    "reshape": lambda: afflow.bijectors.Reshape(autoregressive(4, context_dim=2), (2, 1, 2)),
    "squeeze": lambda: afflow.bijectors.Squeeze(randomize(afflow.bijectors.ActNorm((1, 2, 4)))),
    "patches": lambda: afflow.bijectors.Patches(
        tokens(made(3, 8, features=4, context_dim=1)), (2, 6)
    ),
    "patches of colours": lambda: afflow.bijectors.Patches(
        tokens(made(2, 6, features=3)), (2, 1, 3)
    ),
    "split": lambda: afflow.bijectors.Split(autoregressive(2, context_dim=2)),
    "conv1x1": lambda: randomize(
        afflow.bijectors.Conv1x1((2, 1, 3), afflow.Permutation([2, 0, 1]))
    ),
    "conv1x1 of signs": lambda: randomize(afflow.bijectors.Conv1x1((1, 2, 2), signs=[-1, 1])),
    "multiscale": lambda: afflow.bijectors.multiscale(image_step, (4, 4, 1), 2, rngs=nnx.Rngs(0)),
    # domains
    "leaky relu": lambda: afflow.bijectors.LeakyReLU(3, 0.2),
    "domain circle": lambda: randomize(afflow.bijectors.CircularShift(3)),
    "domain chain": lambda: afflow.Chain([autoregressive(2), afflow.bijectors.Positive(2)]),
    # tables
    "domain blockwise": lambda: afflow.bijectors.Blockwise(
        4, [afflow.bijectors.Positive(1), autoregressive(2, context_dim=2)], [[2], [3, 0]]
    ),
    "domain columns": columns,
    # tokens of several values
    "tokens made": lambda: tokens(made(3, 4, features=2, context_dim=2)),
    "tokens recurrent": lambda: tokens(recurrent(3, 4, features=2, context_dim=1)),
    "tokens passes": lambda: afflow.MaskedAutoregressive(
        made(3, 4, features=2), afflow.Affine(), afflow.FullPasses()
    ),
    "tokens jacobi": lambda: afflow.MaskedAutoregressive(
        recurrent(3, 4, features=2), afflow.Affine(), afflow.Jacobi()
    ),
    "tokens transformer": lambda: tokens(transformer(17, 4, features=2)),
    "tokens guided": lambda: tokens(
        afflow.conditioners.Guided(
            transformer(3, 4, features=2, num_layers=1), 2.0, temperature=3.0
        )
    ),
    "tokens wavenet": lambda: tokens(wavenet(3, 4, features=2, context_dim=1)),
    "tokens tcn": lambda: tokens(tcn(4, 4, features=2)),
    "tokens gated": lambda: tokens(gated((2, 2), 4, features=2)),
    "tokens pixelcnn pp": lambda: tokens(pixelcnn_pp((2, 2), 4, features=2)),
    "tokens multiscale": lambda: tokens(multiscale((2, 2), 4, num_blocks=1, features=2)),
    "tokens row lstm": lambda: tokens(row_lstm((2, 2), 4, num_layers=1, features=2)),
    "tokens diagonal lstm": lambda: tokens(diagonal_lstm((2, 2), 4, num_layers=1, features=2)),
    "tokens subscale": lambda: tokens(subscale((2, 2), 4, features=2)),
    "tokens nade": lambda: tokens(nade(3, num_params=4, features=2)),
    # continuous flows
    "continuous context": lambda: continuous(2, context_dim=2),
    "continuous D=1": lambda: continuous(1),
}
BIJECTORS = TRIANGULAR | made_once(BIJECTORS)


def flow(factory, dim=2, **options) -> afflow.Flow:
    """Return a small conditional flow of `factory`, with random weights."""
    options = {"num_layers": 1, "hidden": (12,), "context_dim": 2} | options
    return randomize(factory(dim, data=DATA[:, :dim], **options, rngs=nnx.Rngs(0)))


def circular_nsf() -> afflow.Flow:
    sizes = {"num_layers": 1, "hidden": (5,), "num_bins": 3, "context_dim": 2}
    return randomize(afflow.zoo.circular_nsf(2, **sizes, rngs=nnx.Rngs(0)))


def glow() -> afflow.Flow:
    sizes = {"num_levels": 1, "num_steps": 2, "width": 3, "context_dim": 2}
    return randomize(afflow.zoo.glow((2, 2, 2), **sizes, rngs=nnx.Rngs(0)))


def one_layer(factory) -> afflow.Flow:
    """Return a flow of a factory that has no argument `num_layers`."""
    return randomize(factory(2, hidden=(12,), context_dim=2, data=DATA[:, :2], rngs=nnx.Rngs(0)))


def lu(dim, rngs) -> afflow.LU:
    """Return an `LU` map that starts as a reversal, as a value of `mix`."""
    return afflow.LU(dim, afflow.Reverse(dim))


def tarflow() -> afflow.Flow:
    sizes = {"num_blocks": 3, "num_layers": 1, "width": 4, "num_heads": 2, "context_dim": 2}
    return randomize(afflow.zoo.tarflow((2, 4), 2, **sizes, rngs=nnx.Rngs(0)))


def tnaf() -> afflow.Flow:
    sizes = {"num_blocks": 2, "num_layers": 1, "width": 4, "num_heads": 2, "context_dim": 2}
    return randomize(afflow.zoo.tnaf(3, data=DATA[:, :3], **sizes, rngs=nnx.Rngs(0)))


FLOWS: dict[str, Callable[[], afflow.Flow]] = {
    "maf": lambda: flow(afflow.maf, 3, num_layers=3),
    "iaf": lambda: flow(afflow.iaf),
    "made": lambda: one_layer(afflow.made),
    "nsf mixed by lu": lambda: flow(afflow.nsf, 3, num_bins=3, mix=lu),
    "coupling mixed by lu": lambda: flow(afflow.coupling_flow, 3, num_layers=2, mix=lu),
    "realnvp": lambda: flow(afflow.realnvp, 3, num_layers=6),
    "nice": lambda: flow(afflow.zoo.nice, 3, num_layers=2),
    "nsf_coupling": lambda: flow(afflow.nsf_coupling, num_layers=2, num_bins=3),
    "naf": lambda: flow(afflow.naf, sigmoids=(3,)),
    "bnaf": lambda: flow(afflow.bnaf, hidden=(3,)),
    "umnn": lambda: flow(afflow.zoo.umnn, embedding=2, integrand=(3,)),
    "sospf": lambda: flow(afflow.zoo.sospf, num_layers=5, degree=2),
    "bpf": lambda: flow(afflow.zoo.bpf, degree=4),
    "gaussianization_flow": lambda: flow(afflow.zoo.gaussianization_flow, num_components=3),
    "circular_nsf": circular_nsf,
    "glow": glow,
    "tarflow": tarflow,
    "tnaf": tnaf,
    "cnf": lambda: one_layer(afflow.cnf),
}

CONDITIONERS: dict[str, Callable[[], afflow.Conditioner]] = {
    "made": lambda: made(5, 3),
    "made D=1": lambda: made(1, 2),
    "made D=1 context": lambda: made(1, 2, context_dim=2),
    "made H=1": lambda: made(6, 2, (1,)),
    "made H<D context": lambda: made(6, 2, (3, 4), context_dim=2),
    "made linear": lambda: made(5, 2, ()),
    "made linear context": lambda: made(5, 2, (), context_dim=1),
    "made direct": lambda: made(4, 1, direct=True, context_dim=2),
    "made residual": lambda: made(5, 2, (8, 8, 8, 8, 8), residual=True, context_dim=1),
    "made wiring": wired,
    "made wide": lambda: made(9, 2, (512, 520)),
    "graphical": lambda: graphical(DIAMOND, context_dim=1).conditioner,
    "graphical chain": lambda: graphical(np.eye(5, k=-1)).conditioner,
    "periodic": lambda: afflow.conditioners.Periodic(made(6, 2, (7,), context_dim=1)),
    "periodic beside others": lambda: afflow.conditioners.Periodic(
        made(8, 2, (9,), context_dim=1), angles=[2, 0]
    ),
    "bnaf context": lambda: bnaf(3, (3, 2), context_dim=1).network,
    "bnaf leaky": lambda: bnaf(3, (3, 2), leak=0.2).network,
    "graphical linear": lambda: randomize(
        afflow.conditioners.Graphical(DIAMOND, 3, (), rngs=nnx.Rngs(0))
    ),
    "nade": lambda: nade(7, context_dim=2, rescale=True),
    "nade D=1": lambda: nade(1),
    "independent": lambda: randomize(
        afflow.conditioners.IndependentMLPs(5, 2, 3, context_dim=2, rngs=nnx.Rngs(0))
    ),
    "made tokens context": lambda: made(4, 3, features=2, context_dim=1),
    "nade tokens": lambda: nade(4, features=3),
    "lstm context": lambda: recurrent(context_dim=2, residual=True),
    "lstm T=1 context": lambda: recurrent(1, context_dim=2),
    "gru tokens context": lambda: recurrent(3, 4, features=2, cell=nnx.GRUCell, context_dim=1),
    "elman one layer": lambda: recurrent(5, 3, (6,), cell=ELMAN),
    "wavenet context": lambda: wavenet(context_dim=2),
    "wavenet T=1 context": lambda: wavenet(1, context_dim=2),
    "wavenet three taps": lambda: wavenet(7, 3, (1, 2), kernel_size=3),
    "wavenet tokens aligned": lambda: wavenet(4, 4, features=2, context_dim=2, aligned=True),
    "wavenet at another length": lambda: wavenet(3, context_dim=1).with_length(6),
    "tcn context": lambda: tcn(context_dim=2),
    "tcn tokens": lambda: tcn(6, 3, (4, 5), features=2, kernel_size=3),
    "tcn at another length": lambda: tcn(3).with_length(6),
    "convolutional markov": lambda: randomize(
        afflow.conditioners.ConvolutionalMarkov(3, 2, 2, features=2)
    ),
    "pixelcnn column context": lambda: pixelcnn((4, 1), context_dim=2),
    "pixelcnn row": lambda: pixelcnn((1, 4), 1),
    "pixelcnn colours": lambda: pixelcnn((1, 2, 3), 1),
    "gated context": lambda: gated(context_dim=2),
    "gated row": lambda: gated((1, 4), 1),
    "gated column tokens": lambda: gated((4, 1), 3, features=3),
    "pixelcnn pp context": lambda: pixelcnn_pp(context_dim=2),
    "pixelcnn pp row": lambda: pixelcnn_pp((1, 4), 1),
    "pixelcnn pp column tokens": lambda: pixelcnn_pp((4, 1), 3, features=3, num_blocks=(1,)),
    "multiscale context": lambda: multiscale(context_dim=2),
    "multiscale row": lambda: multiscale((1, 4), 1),
    "multiscale column tokens": lambda: multiscale((4, 1), 3, features=3),
    "row lstm context": lambda: row_lstm(context_dim=2),
    "row lstm T=1 context": lambda: row_lstm((1, 1), 1, context_dim=1),
    "row lstm row": lambda: row_lstm((1, 4), 1),
    "row lstm column tokens": lambda: row_lstm((4, 1), 3, features=3),
    "diagonal lstm context": lambda: diagonal_lstm(context_dim=2),
    "diagonal lstm T=1 context": lambda: diagonal_lstm((1, 1), 1, context_dim=1),
    "diagonal lstm row": lambda: diagonal_lstm((1, 4), 1),
    "diagonal lstm column tokens": lambda: diagonal_lstm((4, 1), 3, features=3),
    "subscale context": lambda: subscale(context_dim=2),
    "subscale image context": lambda: subscale((2, 3), context_dim=(2, 3, 2)),
    "subscale T=1 context": lambda: subscale((1, 1), 1, context_dim=1),
    "subscale row": lambda: subscale((1, 5), 1),
    "subscale column tokens": lambda: subscale((4, 1), 3, features=3),
    "transformer context": lambda: transformer(context_dim=2),
    "transformer T=1 context": lambda: transformer(1, context_dim=1),
    "transformer tokens": lambda: transformer(4, 4, features=2, positions=afflow.nets.Relative(2)),
    "transformer encoder context": lambda: translator(),
    "transformer absolute": lambda: transformer(positions=afflow.nets.Absolute()),
    "transformer per place": lambda: transformer(
        4, 4, features=2, positions=afflow.nets.PerPlace(), context_dim=1
    ),
    "transformer segments": lambda: transformer(18, 1, num_layers=1),
    "transformer at another length": lambda: transformer(3).with_length(7),
    "guided context": lambda: afflow.conditioners.Guided(
        transformer(18, 1, num_layers=1, context_dim=2), 1.5, [0.3, -0.2]
    ),
    "guided made context": lambda: afflow.conditioners.Guided(
        made(4, 2, context_dim=2), 0.7, grows=False
    ),
    "guided by temperature": lambda: afflow.conditioners.Guided(
        transformer(4, 2, features=2), 2.0, temperature=3.0
    ),
    "hidden markov": lambda: randomize(afflow.conditioners.HiddenMarkov(4, 3, 2, rngs=nnx.Rngs(0))),
    "recurrent at another length": lambda: recurrent(3, context_dim=1).with_length(6),
}
CONDITIONERS = made_once(CONDITIONERS)


def events(module, num: int = 5, scale: float = 1.0, dtype=jnp.float64):
    """Return `num` random events for a module, and contexts or `None`."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(scale * rng.normal(size=(num, *module.event_shape)), dtype)
    if module.context_shape is None:
        return x, None
    return x, jnp.asarray(rng.normal(size=(num, *module.context_shape)), dtype)


def batched(f):
    """Return `f` mapped over events, and over contexts unless they are `None`."""

    def mapped(x, context):
        return jax.vmap(f, in_axes=(0, None if context is None else 0))(x, context)

    return mapped
