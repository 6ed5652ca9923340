"""Compare NUTS with NUTS through a fitted flow (NeuTra) on two posteriors of NumPyro.

    python experiments/numpyro_posteriors.py --help

Writes the posterior means, held against exact samples, and the effective samples a second of
processor time. The posteriors are the eight schools, centred, and Neal's funnel in ten dimensions.
Hoffman et al. 2019, arXiv:1903.03704.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import tyro
from measuring.report import save
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.reparam import NeuTraReparam
from targets.posteriors import EFFECTS, ERRORS, POSTERIORS

import afflow

VECTORIZED = {"chain_method": "vectorized", "progress_bar": False}


@dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    small: bool = False
    """Run a few steps of everything, to see that it runs."""
    chains: int = 4
    warmup: int = 500
    samples: int = 1000
    steps: int = 3000
    """Steps of the fit of the flow."""
    particles: int = 16
    num_layers: int = 2
    hidden: tuple[int, ...] = (32, 32)
    learning_rate: float = 3e-3
    reference: int = 100_000
    """Exact samples of each posterior."""
    seed: int = 0
    out: Path = Path(__file__).parent / "results" / "numpyro_posteriors.json"


def eight_schools() -> None:
    """Draw the mean, the scale and the effects of eight schools, centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


def funnel() -> None:
    """Draw a log-variance and nine normals with this log-variance."""
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    with numpyro.plate("rest", 9):
        numpyro.sample("x", dist.Normal(0.0, jax.numpy.exp(v / 2)))


def stack_schools(sites: dict[str, jax.Array]) -> np.ndarray:
    """Return samples `(..., 10)` in the coordinates of the exact samples."""
    columns = [sites["mu"][..., None], np.log(sites["tau"])[..., None], sites["theta"]]
    return np.concatenate(columns, -1)


def stack_funnel(sites: dict[str, jax.Array]) -> np.ndarray:
    """Return samples `(..., 10)` in the coordinates of the exact samples."""
    return np.concatenate([sites["v"][..., None], sites["x"]], -1)


Stack = Callable[[dict[str, jax.Array]], np.ndarray]
CASES: dict[str, tuple[Callable, Stack]] = {
    "eight_schools": (eight_schools, stack_schools),
    "funnel": (funnel, stack_funnel),
}


class Chains(NamedTuple):
    """Samples of chains side by side, and the processor seconds of the parts of the run."""

    sites: dict[str, jax.Array]  # (chains, samples, ...)
    num_steps: jax.Array
    diverging: jax.Array
    seconds: dict[str, float]


def run_nuts(model: Callable, config: Config) -> Chains:
    """Warm chains up, then sample. The seconds of the warm-up include a compilation."""
    kernel = NUTS(model, target_accept_prob=0.9)
    options = {"num_warmup": config.warmup, "num_samples": config.samples}
    chain = MCMC(kernel, **options, num_chains=config.chains, **VECTORIZED)
    start = time.process_time()
    chain.warmup(jax.random.key(config.seed))
    state = jax.block_until_ready(chain.last_state)
    seconds = {"warmup_seconds": time.process_time() - start}

    def step(state, _):
        state = kernel.sample(state, (), {})
        return state, (state.z, state.num_steps, state.diverging)

    draw = jax.jit(lambda state: jax.lax.scan(step, state, length=config.samples)[1])
    draw = draw.lower(state).compile()
    start = time.process_time()
    z, num_steps, diverging = jax.block_until_ready(draw(state))
    seconds["sampling_seconds"] = time.process_time() - start
    to_sites = jax.jit(jax.vmap(jax.vmap(kernel.postprocess_fn((), {}))))
    sites = to_sites(jax.tree.map(lambda a: a.swapaxes(0, 1), z))
    return Chains(sites, num_steps, diverging, seconds)


def fit_guide(model: Callable, config: Config) -> tuple[NeuTraReparam, float]:
    """Fit a flow as the guide of a model. Return the reparameterisation, and the seconds."""
    make_flow = partial(afflow.iaf, num_layers=config.num_layers, hidden=config.hidden)
    guide = afflow.adapters.AutoFlow(model, make_flow)
    optimizer = numpyro.optim.ClippedAdam(config.learning_rate)
    svi = SVI(model, guide, optimizer, Trace_ELBO(num_particles=config.particles))
    start = time.process_time()
    result = svi.run(jax.random.key(config.seed), config.steps, progress_bar=False)
    jax.block_until_ready(result.params)
    return NeuTraReparam(guide, result.params), time.process_time() - start


def score(x: np.ndarray, exact: np.ndarray, run: Chains, **seconds: float) -> dict[str, Any]:
    """Score samples `(chains, samples, D)` against exact samples `(N, D)`.

    Errors of means are in units of the exact standard deviations. Seconds are processor time, which
    other programs on the machine do not add to.
    """
    sizes, seconds = effective_sample_size(x), run.seconds | seconds
    error = (x.mean((0, 1)) - exact.mean(0)) / exact.std(0)
    return seconds | {
        "means": x.mean((0, 1)).tolist(),
        "exact_means": exact.mean(0).tolist(),
        "largest_error_of_a_mean": float(np.abs(error).max()),
        "least_effective_samples": float(sizes.min()),
        "least_effective_samples_a_second": float(sizes.min() / seconds["sampling_seconds"]),
        "least_effective_samples_a_second_in_all": float(sizes.min() / sum(seconds.values())),
        "largest_r_hat": float(gelman_rubin(x).max()),
        "leapfrog_steps_a_sample": float(run.num_steps.mean()),
        "divergences": int(run.diverging.sum()),
    }


def compare(name: str, config: Config) -> dict[str, Any]:
    """Sample one posterior with both methods, and score the samples."""
    model, stack = CASES[name]
    exact = POSTERIORS[name](config.reference).reference
    plain = run_nuts(model, config)
    results = {"nuts": score(stack(plain.sites), exact, plain)}
    neutra, fit_seconds = fit_guide(model, config)
    moved = run_nuts(neutra.reparam(model), config)
    sites = neutra.transform_sample(moved.sites["auto_shared_latent"])
    return results | {"neutra": score(stack(sites), exact, moved, fit_seconds=fit_seconds)}


def main(config: Config) -> None:
    """Compare both methods on both posteriors, print the scores and write them one by one."""
    if config.small:
        sizes = {"chains": 2, "warmup": 20, "samples": 20, "steps": 20, "reference": 1000}
        out = config.out.with_stem(f"{config.out.stem}_small")
        config = Config(**sizes, small=True, out=out)
    results = {}
    for name in CASES:
        results[name] = compare(name, config)
        for method, row in results[name].items():
            print(name, method, row, flush=True)
        save(config.out, config, results)
    print(f"Written: {config.out.name}")


if __name__ == "__main__":
    main(tyro.cli(Config))
