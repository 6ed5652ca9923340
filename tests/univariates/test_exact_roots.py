"""Roots of the searched univariates against the exact maps, evaluated with 50 digits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flax import nnx
from mpmath import mpf

import afflow


def exact(values) -> list:
    """Return numbers as mpmath floats."""
    return [mpf(float(v)) for v in np.ravel(values)]


def bounded(s, bound):
    return s / (1 + abs(s) / bound)


def gains(num, dtype):
    """Return the gains as rounded to the float type."""
    return exact((4.0 ** ((2 * np.arange(num) + 1) / num - 1)).astype(dtype))


def with_tails(curve, bound):
    """Return a curve with its end tangents outside of the bound."""

    def value(y):
        inside = min(max(y, -bound), bound)
        z, slope = curve(inside)
        return z + slope * (y - inside)

    return value


def sigmoidal(univariate, p):
    """Return the map of one layer, the logit of a mixture of logistic functions."""
    (num,) = univariate.hidden
    gain, p = gains(num, p.dtype), exact(p)
    a, b, logits = p[:num], p[num : 2 * num], [mpf(0), *p[2 * num :]]
    weights = [mpmath.exp(v) for v in logits]
    slopes = [mpmath.exp(bounded(g * v, 7)) for g, v in zip(gain, a, strict=True)]

    def value(y):
        u = [s * y + g * v for s, g, v in zip(slopes, gain, b, strict=True)]
        below = sum(w / (1 + mpmath.exp(-v)) for w, v in zip(weights, u, strict=True))
        above = sum(w / (1 + mpmath.exp(v)) for w, v in zip(weights, u, strict=True))
        return mpmath.log(below / above)

    return value


def bernstein(univariate, p):
    bound, degree = mpf(univariate.bound), univariate.degree
    start, *rest = exact(p)
    slopes = [mpmath.exp(bounded(v, 7)) for v in rest]
    theta = [sum(slopes[:k]) * 2 * bound / degree for k in range(degree + 1)]
    theta = [v - theta[-1] / 2 + start for v in theta]

    def polynomial(coefficients, t):
        n = len(coefficients) - 1
        terms = enumerate(coefficients)
        return sum(mpmath.binomial(n, k) * t**k * (1 - t) ** (n - k) * v for k, v in terms)

    def curve(y):
        t = (y + bound) / (2 * bound)
        return polynomial(theta, t), polynomial(slopes, t)

    return with_tails(curve, bound)


def sum_of_squares(univariate, p):
    bound, least, num = mpf(univariate.bound), mpf(univariate.min_slope), univariate.num_polynomials
    gain, (start, *free) = gains(num, p.dtype), exact(p)
    size = univariate.degree + 1
    rows = [free[k * size : (k + 1) * size] for k in range(num)]
    first = exact(np.asarray(1 / np.sqrt(num), p.dtype))[0]
    rows = [[bounded(g * v, 5) for v in row] for g, row in zip(gain, rows, strict=True)]
    rows = [[row[0] + first, *row[1:]] for row in rows]

    def slope(t):
        squares = sum(sum(a * (t / bound) ** r for r, a in enumerate(row)) ** 2 for row in rows)
        return least + (1 - least) * squares

    return with_tails(lambda y: (start + mpmath.quad(slope, [0, y]), slope(y)), bound)


def umnn(univariate, p):
    """Return the map as computed, a Gauss-Legendre sum with the nodes of the float type."""
    bound, most = mpf(univariate.bound), univariate.max_log_scale
    start, *h = exact(p)
    nodes, weights = np.polynomial.legendre.leggauss(univariate.num_nodes)
    nodes, weights = (exact((v / 2).astype(p.dtype)) for v in (1 + nodes, weights))
    kernels = [[exact(row) for row in np.asarray(k[...])] for k in univariate.kernels]
    biases = [exact(np.asarray(b[...])) for b in univariate.biases]

    def apply(kernel, v):
        return [sum(k * x for k, x in zip(row, v, strict=True)) for row in kernel]

    def f(t):
        phi = [t / bound, *h]
        for kernel, bias in zip(kernels[:-1], biases, strict=True):
            phi = [mpmath.tanh(u + b) for u, b in zip(apply(kernel, phi), bias, strict=True)]
        inner = sum(a * b for a, b in zip(h, apply(kernels[-1], phi), strict=True))
        return mpmath.exp(bounded(inner, most))

    def area(y):
        return y * sum(w * f(y * s) for s, w in zip(nodes, weights, strict=True))

    return with_tails(lambda y: (start + area(y), mpmath.diff(area, y)), bound)


def sizes(univariate, logits):
    """Return the sizes of the bins of a spline."""
    weights = [mpmath.exp(bounded(v, 30)) for v in logits]
    least, num = mpf(univariate.min_bin), univariate.num_bins
    shares = [least + (1 - num * least) * w / sum(weights) for w in weights]
    return [2 * mpf(univariate.bound) * share for share in shares]


def spline(univariate, widths, heights, slopes):
    """Return the cubic Hermite interpolant of the knots, which is the identity outside."""
    bound = mpf(univariate.bound)

    def value(y):
        if abs(y) >= bound:
            return y
        x, z = -bound, -bound
        for k, width in enumerate(widths):
            if y <= x + width or k == len(widths) - 1:
                break
            x, z = x + width, z + heights[k]
        xi, s = (y - x) / widths[k], heights[k] / widths[k]
        a, d = slopes[k : k + 2]
        return z + widths[k] * xi * (a + xi * (3 * s - 2 * a - d + xi * (a + d - 2 * s)))

    return value


def quadratic_spline(univariate, p):
    p = exact(p)
    widths = sizes(univariate, p[: univariate.num_bins])
    free = [mpmath.exp(bounded(v, 7)) for v in p[univariate.num_bins :]]
    halves = [(a + b) / 2 for a, b in zip(widths[:-1], widths[1:], strict=True)]
    left = 2 * mpf(univariate.bound) - (widths[0] + widths[-1]) / 2
    scale = left / sum(f * w for f, w in zip(free, halves, strict=True))
    slopes = [mpf(1), *(scale * f for f in free), mpf(1)]
    pairs = zip(widths, slopes[:-1], slopes[1:], strict=True)
    return spline(univariate, widths, [w * (a + b) / 2 for w, a, b in pairs], slopes)


def cubic_spline(univariate, p):
    num, p = univariate.num_bins, exact(p)
    widths, heights = sizes(univariate, p[:num]), sizes(univariate, p[num:])
    s = [h / w for h, w in zip(heights, widths, strict=True)]
    inner = []
    for k in range(num - 1):
        parabola = (s[k] * widths[k + 1] + s[k + 1] * widths[k]) / (widths[k] + widths[k + 1])
        inner.append(2 * min(s[k], s[k + 1], parabola / 2))
    slopes = [min(mpf(1), 2 * s[0]), *inner, min(mpf(1), 2 * s[-1])]
    return spline(univariate, widths, heights, slopes)


MAPS = {
    "sigmoidal": (lambda: afflow.univariates.Sigmoidal((3,), spread=0.0), sigmoidal),
    "bernstein": (lambda: afflow.univariates.BernsteinPolynomial(5), bernstein),
    "sum of squares": (lambda: afflow.univariates.SumOfSquares(2, 3), sum_of_squares),
    "umnn": (lambda: afflow.univariates.UMNN(2, (4,), num_nodes=12, rngs=nnx.Rngs(0)), umnn),
    "quadratic spline": (lambda: afflow.univariates.QuadraticSpline(5), quadratic_spline),
    "cubic spline": (lambda: afflow.univariates.CubicSpline(5), cubic_spline),
}


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", MAPS)
def test_roots_are_exact_to_some_ulp(name, dtype):
    """Check that the exact map of the root is `z`, up to some ulp in the root and in `z`.

    The parameters reach flat and steep places.
    """
    mpmath.mp.dps = 50
    make, exact_map = MAPS[name]
    univariate = jax.tree.map(lambda a: a.astype(dtype), make())
    solve = jax.jit(jax.vmap(univariate.forward, (0, None)))
    z = jnp.asarray([-7, -3, -0.4, 0, 1e-3, 1.1, 2.5, 9], dtype)
    eps = float(jnp.finfo(dtype).eps)
    for seed, scale in enumerate((0.3, 2.0, 8.0)):
        p = np.random.default_rng(seed).normal(0, scale, univariate.context_shape)
        p = jnp.asarray(p, dtype)
        x, value = solve(z, p), exact_map(univariate, np.asarray(p))
        assert np.isfinite(x).all()
        for x_t, z_t in zip(exact(x), exact(z), strict=True):
            dx, dz = 16 * eps * max(abs(x_t), 5), 16 * eps * max(abs(z_t), 5)
            assert value(x_t + dx) >= z_t - dz
            assert value(x_t - dx) <= z_t + dz
