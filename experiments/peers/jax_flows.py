"""The flows of the JAX libraries, with all timed functions under `jax.jit`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from peers import EPOCH, Sizes


class Flow(NamedTuple):
    """A flow as functions of its parameters.

    `fit(x, batch)` runs one epoch of a training loop that is compiled as a whole. One of the
    minibatches is held out for validation.
    """

    params: Any
    log_prob: Callable[[Any, jax.Array], jax.Array]
    sample: Callable[[Any, jax.Array, int], jax.Array]
    fit: Callable[[jax.Array, int], Any] | None = None


def afflow_maf(sizes: Sizes) -> Flow:
    """Build `afflow.maf` with weights moved off their start at the identity."""
    from flax import nnx

    import afflow

    rng = np.random.default_rng(sizes.seed)
    options = {"num_layers": sizes.num_layers, "hidden": (sizes.width, sizes.width)}
    options |= {"activation": jax.nn.relu, "mix": lambda dim, rngs: afflow.Reverse(dim)}
    flow = afflow.maf(sizes.dim, **options, rngs=nnx.Rngs(sizes.seed))
    optimizer, key = optax.adam(1e-3), jax.random.key(sizes.seed)

    def fit(x, batch):
        held_out, x = x[:batch], x[batch:]
        options = {"max_epochs": 1, "progress": False}
        return afflow.fit(
            flow,
            x,
            key=key,
            validation=held_out,
            batch_size=batch,
            optimizer=optimizer,
            **options,
        )

    graph, params, rest = nnx.split(flow, nnx.Param, ...)
    params = jax.tree.map(lambda a: a + rng.normal(0, 0.01, a.shape).astype(a.dtype), params)
    return Flow(
        params,
        lambda params, x: nnx.merge(graph, params, rest).log_prob(x),
        lambda params, key, n: nnx.merge(graph, params, rest).sample(key, n),
        fit,
    )


def flowjax_maf(sizes: Sizes) -> Flow:
    """Build `flowjax.flows.masked_autoregressive_flow`."""
    import equinox as eqx
    from flowjax.distributions import StandardNormal
    from flowjax.flows import masked_autoregressive_flow
    from paramax import NonTrainable

    flow = masked_autoregressive_flow(
        jax.random.key(sizes.seed),
        base_dist=StandardNormal((sizes.dim,)),
        flow_layers=sizes.num_layers,
        nn_width=sizes.width,
        nn_depth=2,
    )
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable)
    )
    return Flow(
        params,
        lambda params, x: eqx.combine(params, static).log_prob(x),
        lambda params, key, n: eqx.combine(params, static).sample(key, (n,)),
    )


def numpyro_maf(sizes: Sizes) -> Flow:
    """Build inverse autoregressive transforms, from data to noise.

    For a density, `TransformedDistribution` would run each network twice: once for the value and
    once for the log-determinant. `call_with_intermediates` runs it once.
    """
    from numpyro.distributions import Normal
    from numpyro.distributions.flows import InverseAutoregressiveTransform
    from numpyro.distributions.transforms import ComposeTransform, PermuteTransform
    from numpyro.nn import AutoregressiveNN

    init, apply = AutoregressiveNN(sizes.dim, [sizes.width, sizes.width])
    keys = jax.random.split(jax.random.key(sizes.seed), sizes.num_layers)
    base = Normal(jnp.zeros(sizes.dim), 1.0).to_event(1)

    def to_noise(params):
        parts = []
        for weights in params:
            parts.append(InverseAutoregressiveTransform(lambda x, w=weights: apply(w, x)))
            parts.append(PermuteTransform(jnp.arange(sizes.dim)[::-1]))
        return ComposeTransform(parts)

    def log_prob(params, x):
        transform = to_noise(params)
        z, intermediates = transform.call_with_intermediates(x)
        return base.log_prob(z) + transform.log_abs_det_jacobian(x, z, intermediates)

    return Flow(
        [init(key, (sizes.dim,))[1] for key in keys],
        log_prob,
        lambda params, key, n: to_noise(params).inv(base.sample(key, (n,))),
    )


BUILD = {"afflow": afflow_maf, "flowjax": flowjax_maf, "numpyro": numpyro_maf}


def build(library: str, sizes: Sizes, x: np.ndarray) -> dict[str, Callable]:
    """Return the functions to time, and `log_prob` and `num_params` for checks."""
    flow, data = BUILD[library](sizes), jnp.asarray(x)
    key = jax.random.key(sizes.seed)
    optimizer = optax.adam(1e-3)
    state = flow.params, optimizer.init(flow.params)
    log_prob, sample = jax.jit(flow.log_prob), jax.jit(flow.sample, static_argnums=2)

    @jax.jit
    def step(params, opt_state, x):
        loss, grads = jax.value_and_grad(lambda p: -flow.log_prob(p, x).mean())(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def train():
        nonlocal state
        state, loss = jax.block_until_ready(step(*state, data))
        return loss

    calls = {
        "score": lambda: log_prob(flow.params, data).block_until_ready(),
        "sample": lambda: sample(flow.params, key, sizes.batch).block_until_ready(),
        "train": train,
        "log_prob": lambda x: log_prob(flow.params, jnp.asarray(x)),
        "num_params": lambda: sum(leaf.size for leaf in jax.tree.leaves(flow.params)),
    }
    if flow.fit is None:
        return calls
    epoch = jnp.tile(data, (EPOCH + 1, 1))
    return calls | {"fit": lambda: jax.block_until_ready(flow.fit(epoch, sizes.batch)) and None}
