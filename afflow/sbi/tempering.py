"""Sampling from an unnormalised density by tempering a cloud of particles."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from afflow._tools.extras import import_extra

LogDensity = Callable[[jax.Array], jax.Array]

_LEAST = -1e10  # stands for a log-ratio of -inf, so that zero times it is zero


def temper(
    key: jax.Array,
    particles: jax.Array,
    log_start: LogDensity,
    log_ratio: LogDensity,
    *,
    num_moves: int,
    ess: float,
) -> jax.Array:
    r"""Move particles of $p_0$ to $p(z) \propto p_0(z)\,r(z)$ by adaptive tempering.

    The targets are $p_0(z)\,r(z)^{\lambda}$. Each step raises $\lambda$ as far as the effective
    sample size stays at `ess * N`, resamples, and moves every particle by Metropolis steps.

    A proposal adds a multiple of the difference of two random particles (ter Braak 2006,
    doi:10.1007/s11222-006-8769-1). Such proposals have the shape of the target, and with the
    multiple 1 lead from mode to mode.

    Del Moral et al. 2006, doi:10.1111/j.1467-9868.2006.00553.x; BlackJAX (extra `sbi`) runs the
    steps.

    Args:
        key: a PRNG key.
        particles: samples of $p_0$, `(N, D)`.
        log_start: $\log p_0$ of one particle `(D,)`.
        log_ratio: $\log r$ of one particle.
        num_moves: the number of Metropolis steps at each $\lambda$; twice as many at $\lambda = 1$.
        ess: the effective sample size of a step, as a fraction of `N`.

    Returns:
        Samples of $p$, `(N, D)`.
    """
    blackjax = import_extra("blackjax", "sbi", "runs sequential Monte Carlo")
    smc, resample = blackjax.smc, blackjax.smc.resampling.systematic

    def bounded(z):
        ratio = log_ratio(z)
        return jnp.where(ratio > _LEAST, ratio, jnp.full_like(ratio, _LEAST))

    parts = log_start, bounded, move(blackjax), blackjax.rmh.init, resample
    adapt = smc.adaptive_tempered.build_kernel(*parts, ess)
    stay = smc.tempered.build_kernel(*parts)

    def draw_cloud(key, state):
        chosen = resample(key, state.weights, len(particles))
        return {"cloud": state.particles[chosen][None]}

    def step(carry):
        key, state = carry
        key, cloud_key, step_key = jax.random.split(key, 3)
        return key, adapt(step_key, state, num_moves, draw_cloud(cloud_key, state))[0]

    start = key, smc.tempered.init(particles)
    key, state = jax.lax.while_loop(lambda carry: carry[1].tempering_param < 1, step, start)
    key, cloud_key = jax.random.split(key)
    cloud = draw_cloud(cloud_key, state)
    return stay(key, state, 2 * num_moves, jnp.ones_like(state.tempering_param), cloud)[0].particles


def move(blackjax) -> Callable:
    """Return a Metropolis step whose proposals are differences of particles of a cloud."""
    kernel = blackjax.rmh.build_kernel()

    def step(key, state, log_density, cloud):
        def propose(key, z):
            pair_key, jump_key, scale_key, noise_key = jax.random.split(key, 4)
            pair = cloud[jax.random.randint(pair_key, (2,), 0, len(cloud))]
            usual = 2.38 / jnp.sqrt(2.0 * len(z))
            scale = usual * jnp.exp(jnp.log(0.05) * jax.random.uniform(scale_key, (), z.dtype))
            scale = jnp.where(jax.random.bernoulli(jump_key, 0.2), jnp.ones_like(scale), scale)
            difference = scale * (pair[0] - pair[1])
            return z + difference + 1e-3 * jax.random.normal(noise_key, z.shape, z.dtype)

        return kernel(key, state, log_density, propose)

    return step
