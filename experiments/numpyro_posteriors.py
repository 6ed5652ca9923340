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
from typing import Any

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


def run_nuts(model: Callable, config: Config) -> tuple[MCMC, dict[str, float]]:
    """Run the chains side by side. Return them, and the processor seconds of their parts.

    The warm-up and a first run of the chains compile their programs. The second run is scored.
    """
    kernel = NUTS(model, target_accept_prob=0.9)
    options = {"num_warmup": config.warmup, "num_samples": config.samples}
    chain = MCMC(kernel, **options, num_chains=config.chains, **VECTORIZED)
    seconds = {"warmup_seconds": measure(chain, chain.warmup, config.seed)}
    seconds["compile_seconds"] = measure(chain, chain.run, config.seed)
    chain.post_warmup_state = chain.last_state
    seconds["sampling_seconds"] = measure(chain, chain.run, config.seed)
    seconds["compile_seconds"] -= seconds["sampling_seconds"]
    return chain, seconds


def measure(chain: MCMC, run: Callable, seed: int) -> float:
    """Run the chains, and return the seconds of processor time.

    Other programs on the machine do not add to the processor time.
    """
    start = time.process_time()
    run(jax.random.key(seed), extra_fields=("num_steps", "diverging"))
    jax.block_until_ready(chain.last_state)
    return time.process_time() - start


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


def score(x: np.ndarray, exact: np.ndarray, chain: MCMC, seconds: dict[str, float]) -> dict:
    """Score samples `(chains, samples, D)` against exact samples `(N, D)`.

    Errors of means are in units of the exact standard deviations. Seconds are processor time.
    """
    sizes = effective_sample_size(x)
    error = (x.mean((0, 1)) - exact.mean(0)) / exact.std(0)
    extra = chain.get_extra_fields()
    return seconds | {
        "means": x.mean((0, 1)),
        "exact_means": exact.mean(0),
        "largest_error_of_a_mean": np.abs(error).max(),
        "least_effective_samples": sizes.min(),
        "least_effective_samples_a_second": sizes.min() / seconds["sampling_seconds"],
        "least_effective_samples_a_second_with_preparation": sizes.min() / sum(seconds.values()),
        "largest_r_hat": gelman_rubin(x).max(),
        "leapfrog_steps_a_sample": float(extra["num_steps"].mean()),
        "divergences": int(extra["diverging"].sum()),
    }


def compare(name: str, config: Config) -> dict[str, Any]:
    """Sample one posterior with both methods, and score the samples."""
    model, stack = CASES[name]
    exact = POSTERIORS[name](config.reference).reference
    plain, seconds = run_nuts(model, config)
    results = {"nuts": score(stack(plain.get_samples(group_by_chain=True)), exact, plain, seconds)}
    neutra, fit_seconds = fit_guide(model, config)
    moved, seconds = run_nuts(neutra.reparam(model), config)
    latent = moved.get_samples(group_by_chain=True)["auto_shared_latent"]
    sites = neutra.transform_sample(latent)
    seconds |= {"fit_seconds": fit_seconds}
    return results | {"neutra": score(stack(sites), exact, moved, seconds)}


def main(config: Config) -> None:
    """Compare both methods on both posteriors, print the scores and write them one by one."""
    if config.small:
        sizes = {"chains": 2, "warmup": 20, "samples": 20, "steps": 20, "reference": 1000}
        config = Config(**sizes, small=True, out=config.out)
    results = {}
    for name in CASES:
        results[name] = compare(name, config)
        for method, row in results[name].items():
            print(name, method, {key: np.round(value, 3) for key, value in row.items()}, flush=True)
        save(config.out, config, jax.tree.map(lambda a: np.asarray(a).tolist(), results))
    print(f"Written: {config.out.name}")


if __name__ == "__main__":
    main(tyro.cli(Config))
