"""One task in afflow and in the library that a user would take otherwise.

Each function does a whole task, as a user would write it, from the first import to the score. The
lines of its body are counted for the table of `libraries.py`, which imports the library before the
clock starts.
"""

import numpy as np


def table_by_distrax(train: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Fit eight couplings of splines to rows; return the mean log-density of test rows."""
    import distrax
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    dim, num_bins, epochs, patience = train.shape[1], 8, 100, 20
    mask, size = np.arange(dim) % 2 == 0, 3 * num_bins + 1

    class Networks(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([self.make(rngs) for _ in range(8)])

        def make(self, rngs):
            last = nnx.Linear(64, dim * size, kernel_init=nnx.initializers.zeros, rngs=rngs)
            parts = nnx.Linear(dim, 64, rngs=rngs), nnx.tanh, nnx.Linear(64, 64, rngs=rngs)
            return nnx.Sequential(*parts, nnx.tanh, last)

    def make_spline(params):
        return distrax.RationalQuadraticSpline(params, -5.0, 5.0, boundary_slopes="identity")

    def log_prob(networks, x):
        layers = []
        for number, network in enumerate(networks.layers):

            def condition(x, network=network):
                return network(x).reshape(*x.shape, size)

            inputs = mask if number % 2 else ~mask
            layers.append(distrax.MaskedCoupling(inputs, condition, make_spline))
        base = distrax.MultivariateNormalDiag(jnp.zeros(dim), jnp.ones(dim))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers))).log_prob(x)

    @nnx.jit
    def step(networks, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda n: -log_prob(n, x).mean())(networks)
        optimizer.update(networks, grads)
        return loss

    score = nnx.jit(lambda networks, x: log_prob(networks, x).mean())
    rng = np.random.default_rng(seed)
    rows = rng.permutation(train)
    held_out, rows = rows[: len(rows) // 10], rows[len(rows) // 10 :]
    networks = Networks(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(networks, optax.adam(1e-3), wrt=nnx.Param)
    best, best_score, waited = nnx.state(networks), -np.inf, 0
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows) - 63, 64):
            step(networks, optimizer, rows[order[start : start + 64]])
        value, waited = float(score(networks, held_out)), waited + 1
        if value > best_score:
            best, best_score, waited = jax.tree.map(jnp.array, nnx.state(networks)), value, 0
        if waited == patience:
            break
    nnx.update(networks, best)
    return float(score(networks, test))


def table_by_flowjax(train: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Fit a spline flow to rows; return the mean log-density of test rows."""
    import jax
    import jax.numpy as jnp
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    flow_key, train_key = jax.random.split(jax.random.key(seed))
    base = Normal(jnp.zeros(train.shape[1]))
    spline = RationalQuadraticSpline(knots=8, interval=4)
    flow = masked_autoregressive_flow(flow_key, base_dist=base, transformer=spline)
    flow, _ = fit_to_data(train_key, flow, train, show_progress=False)
    return float(flow.log_prob(test).mean())


def table_by_afflow(train: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Fit a spline flow to rows; return the mean log-density of test rows."""
    import jax
    from flax import nnx

    import afflow

    flow = afflow.nsf(train.shape[1], data=train, rngs=nnx.Rngs(seed))
    flow, _ = afflow.fit(flow, train, key=jax.random.key(seed), progress=False)
    return float(flow.log_prob(test).mean())


def guide_by_numpyro(model, seed: int) -> float:
    """Fit a guide of inverse autoregressive layers; return its evidence lower bound."""
    import jax
    import optax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoIAFNormal

    guide = AutoIAFNormal(model)
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, 3000))
    adam = optax.chain(optax.clip_by_global_norm(5.0), adam)
    svi = SVI(model, guide, adam, Trace_ELBO(num_particles=16))
    params = svi.run(jax.random.key(seed), 3000, progress_bar=False).params
    return -float(Trace_ELBO(4096).loss(jax.random.key(seed + 1), params, model, guide))


def guide_by_afflow(model, seed: int) -> float:
    """Fit a guide of inverse autoregressive layers; return its evidence lower bound."""
    import jax
    import optax
    from numpyro.infer import SVI, Trace_ELBO

    import afflow

    guide = afflow.adapters.AutoFlow(model, afflow.iaf)
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, 3000))
    adam = optax.chain(optax.clip_by_global_norm(5.0), adam)
    svi = SVI(model, guide, adam, Trace_ELBO(num_particles=16))
    params = svi.run(jax.random.key(seed), 3000, progress_bar=False).params
    return -float(Trace_ELBO(4096).loss(jax.random.key(seed + 1), params, model, guide))


def anomalies_by_sklearn(train: np.ndarray, test: np.ndarray, is_anomaly, seed: int) -> float:
    """Fit an isolation forest to normal rows; return the area under the ROC curve."""
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    detector = make_pipeline(StandardScaler(), IsolationForest(random_state=seed)).fit(train)
    return float(roc_auc_score(is_anomaly, -detector.score_samples(test)))


def anomalies_by_afflow(train: np.ndarray, test: np.ndarray, is_anomaly, seed: int) -> float:
    """Fit a flow to normal rows; return the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from afflow.adapters import FlowDensity

    detector = make_pipeline(StandardScaler(), FlowDensity(random_state=seed)).fit(train)
    return float(roc_auc_score(is_anomaly, -detector.score_samples(test)))
