"""Factories: the published autoregressive density models."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from flax import nnx

from afflow.conditionals.bernoulli import Bernoulli
from afflow.conditionals.mixture import MixtureOf
from afflow.conditioners.any_order.deep_nade import DeepNADE
from afflow.conditioners.any_order.made import AgnosticMADE
from afflow.conditioners.independent import IndependentMLPs
from afflow.conditioners.made import MADE
from afflow.conditioners.nade import NADE
from afflow.core.conditional import Conditional
from afflow.models.any_order import OrderAgnosticModel
from afflow.models.autoregressive import AutoregressiveModel
from afflow.training.fitting import History
from afflow.univariates.mixture_cdf import Component, GaussianCDF

Activation = Callable[[jax.Array], jax.Array]

# Default learning rates, chosen on held-out rows. With 0.001, 60 epochs end 4 to 8 nats short for
# `fvsbn`. On mushrooms they end more than a nat short for `nade`, and 150 epochs end 0.6 nats short
# for `made_ensemble`. For `rnade`, 100 epochs end 0.45 nats short on 1,000 red wines.
_OF_ONE_LAYER, _OF_HIDDEN_LAYERS, _OF_RNADE = 0.03, 0.003, 0.02


def fvsbn(
    dim: int,
    *,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    order: Sequence[int] | None = None,
    rngs: nnx.Rngs,
) -> AutoregressiveModel:
    r"""Return a fully visible sigmoid belief network: one logistic regression per coordinate.

    $$p(x_t = 1 \mid x_{<t}) = \sigma(b_t + \textstyle\sum_{i<t} W_{ti} x_i)$$

    with $O(D^2)$ parameters. The loss is convex, so the default learning rate of `fit` is high:
    0.03, or $3/D$ above 100 coordinates.

    Frey 1998; Neal 1992.

    Args:
        dim: number of coordinates `D`.
        conditional: the distribution of a coordinate.
        context_dim: length of the context vector; 0 for none.
        order: the coordinates in the order of the chain rule; by default the natural order.
        rngs: unused, since all weights start at zero.

    Raises:
        ValueError: for sizes out of range, or an order that is not a permutation.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = afflow.fvsbn(4, rngs=nnx.Rngs(0))
        >>> round(model.log_prob(jnp.array([0, 1, 1, 0])).item(), 4)
        -2.7726
    """
    sizes = dim, conditional.num_params, ()
    options = {"features": conditional.features, "context_dim": context_dim, "rngs": rngs}
    made = MADE(*sizes, **options)
    rate = min(_OF_ONE_LAYER, 3 / dim)  # a step moves a logit by up to `dim` times the rate
    return AutoregressiveModel(made, conditional, order, learning_rate=rate)


def independent_mlps(
    dim: int,
    *,
    hidden: int = 20,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    activation: Activation = jax.nn.tanh,
    order: Sequence[int] | None = None,
    rngs: nnx.Rngs,
) -> AutoregressiveModel:
    """Return a model with a separate network of `hidden` units for every coordinate.

    It has $O(D^2 H)$ parameters. The other arguments are described at `nade`.

    Bengio & Bengio 2000.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.zoo.independent_mlps(4, hidden=3, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 5).shape
        (5, 4)
    """
    sizes = dim, conditional.num_params, hidden
    options = {"features": conditional.features, "activation": activation}
    net = IndependentMLPs(*sizes, **options, context_dim=context_dim, rngs=rngs)
    return AutoregressiveModel(net, conditional, order)


def nade(
    dim: int,
    *,
    hidden: int = 500,
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    activation: Activation = jax.nn.sigmoid,
    order: Sequence[int] | None = None,
    rngs: nnx.Rngs,
) -> AutoregressiveModel:
    """Return a neural autoregressive distribution estimator.

    All conditionals share weights. The model has $O(D H)$ parameters, and a density and a sample
    both take $O(D H)$ time. The default learning rate of `fit` is 0.003.

    Larochelle & Murray 2011.

    Args:
        dim: number of coordinates `D`.
        hidden: number of hidden units `H`.
        conditional: the distribution of a coordinate.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        order: the coordinates in the order of the chain rule; by default the natural order.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or an order that is not a permutation.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = afflow.nade(4, hidden=8, rngs=nnx.Rngs(0))
        >>> x, observed = jnp.array([1, 1, 0, 0]), jnp.array([True, True, False, False])
        >>> model.complete(x, observed, jax.random.key(0))[:2].tolist()
        [1, 1]
    """
    sizes = dim, conditional.num_params, hidden
    options = {"features": conditional.features, "activation": activation}
    net = NADE(*sizes, **options, context_dim=context_dim, rngs=rngs)
    return AutoregressiveModel(net, conditional, order, learning_rate=_OF_HIDDEN_LAYERS)


def rnade(
    dim: int,
    *,
    hidden: int = 50,
    num_components: int = 20,
    component: Component = GaussianCDF(),
    context_dim: int = 0,
    activation: Activation = jax.nn.relu,
    order: Sequence[int] | None = None,
    rngs: nnx.Rngs,
) -> AutoregressiveModel:
    """Return a real-valued NADE: mixtures of Gaussians, or of another kernel.

    The scales of the activations are learned, as in the paper. The model does not standardise: give
    `fit` rows of about unit scale. The default learning rate of `fit` is 0.02.

    Uria et al. 2013, arXiv:1306.0186.

    Args:
        dim: number of coordinates `D`.
        hidden: number of hidden units `H`.
        num_components: components of each mixture.
        component: the kernel, `GaussianCDF()`, `LaplaceCDF()` or `LogisticCDF()`.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        order: the coordinates in the order of the chain rule; by default the natural order.
        rngs: its `params` stream draws the initial weights.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = afflow.rnade(2, hidden=8, num_components=3, rngs=nnx.Rngs(0))
        >>> model.log_prob(jnp.zeros((3, 2))).shape
        (3,)
    """
    conditional = MixtureOf(num_components, component)
    options = {"activation": activation, "rescale": True, "context_dim": context_dim}
    net = NADE(dim, conditional.num_params, hidden, **options, rngs=rngs)
    return AutoregressiveModel(net, conditional, order, learning_rate=_OF_RNADE)


def made_model(
    dim: int,
    *,
    hidden: tuple[int, ...] = (500,),
    conditional: Conditional = Bernoulli(),
    context_dim: int = 0,
    activation: Activation = jax.nn.tanh,
    residual: bool = False,
    dropout: float = 0.0,
    direct: bool | None = True,
    order: Sequence[int] | None = None,
    rngs: nnx.Rngs,
) -> AutoregressiveModel:
    """Return a masked autoencoder with one mask: every conditional in one dense pass.

    `afflow.made` is the corresponding flow. `residual`, `dropout` and `direct` are described at
    `MADE`, and the other arguments at `nade`. With direct connections, the default, the model
    contains `fvsbn`. The defaults were chosen on held-out rows of sets of 1,600 to 20,000 rows. On
    few rows, rectified units or a second hidden layer overfit. The default learning rate of `fit`
    is 0.003.

    Germain et al. 2015, arXiv:1502.03509.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> categorical = afflow.conditionals.Categorical(3)
        >>> model = afflow.made_model(
        ...     4, hidden=(8,), conditional=categorical, rngs=nnx.Rngs(0)
        ... )
        >>> model.sample(jax.random.key(0), 5).max().item()
        2
    """
    sizes = dim, conditional.num_params, hidden
    options = {"features": conditional.features, "activation": activation, "residual": residual}
    options |= {"dropout": dropout, "direct": direct, "context_dim": context_dim}
    net = MADE(*sizes, **options, rngs=rngs)
    return AutoregressiveModel(net, conditional, order, learning_rate=_OF_HIDDEN_LAYERS)


def made_ensemble(
    dim: int,
    *,
    hidden: tuple[int, ...] = (500, 500),
    conditional: Conditional = Bernoulli(),
    num_masks: int = 8,
    natural: bool = False,
    endless: bool = False,
    context_dim: int = 0,
    activation: Activation = jax.nn.relu,
    dropout: float = 0.0,
    rngs: nnx.Rngs,
) -> OrderAgnosticModel:
    """Return a MADE with masks that change in training; its density averages over masks.

    The other arguments are described at `nade`. The default learning rate of `fit` is 0.003.

    Germain et al. 2015, arXiv:1502.03509.

    Args:
        dim: number of coordinates `D`.
        hidden: widths of the hidden layers.
        conditional: the distribution of a coordinate.
        num_masks: the number of sets of masks in the average.
        natural: keep the natural order and draw only the connections; by default draw orders too.
        endless: draw new masks in every step of training; by default train on the `num_masks`
            sets only.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        dropout: the probability to drop a hidden unit while `fit` trains.
        rngs: its `params` stream draws the initial weights.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = afflow.zoo.made_ensemble(4, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(model.log_prob(jnp.array([0, 1, 1, 0])).item(), 4)
        -2.7726
    """
    sizes = dim, conditional.num_params, hidden
    options = {"features": conditional.features, "activation": activation, "dropout": dropout}
    net = AgnosticMADE(*sizes, **options, context_dim=context_dim, rngs=rngs)
    choice: dict[str, Any] = {"natural": natural, "members_only": not endless}
    choice["learning_rate"] = _OF_HIDDEN_LAYERS
    return OrderAgnosticModel(net, conditional, num_masks, **choice)


def deep_nade(
    dim: int,
    *,
    hidden: tuple[int, ...] = (500, 500),
    conditional: Conditional = Bernoulli(),
    num_orders: int = 1,
    context_dim: int = 0,
    activation: Activation = jax.nn.relu,
    rngs: nnx.Rngs,
) -> OrderAgnosticModel:
    """Return an order-agnostic deep NADE, which completes and marginalises any subset.

    The other arguments are described at `nade`.

    Uria, Murray & Larochelle 2014, arXiv:1310.1757.

    Args:
        dim: number of coordinates `D`.
        hidden: widths of the hidden layers.
        conditional: the distribution of a coordinate.
        num_orders: the number of orders in the average of the density (EoNADE if above one).
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        rngs: its `params` stream draws the initial weights.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = afflow.zoo.deep_nade(4, hidden=(8,), rngs=nnx.Rngs(0))
        >>> x, observed = jnp.array([0, 1, 0, 1]), jnp.array([False, True, False, True])
        >>> model.complete(x, observed, jax.random.key(0))[jnp.array([1, 3])].tolist()
        [1, 1]
    """
    sizes = dim, conditional.num_params, hidden
    options = {"features": conditional.features, "activation": activation}
    net = DeepNADE(*sizes, **options, context_dim=context_dim, rngs=rngs)
    return OrderAgnosticModel(net, conditional, num_orders)


def eonade(
    dim: int,
    *,
    hidden: tuple[int, ...] = (500, 500),
    conditional: Conditional = Bernoulli(),
    num_orders: int = 8,
    context_dim: int = 0,
    activation: Activation = jax.nn.relu,
    rngs: nnx.Rngs,
) -> OrderAgnosticModel:
    """Return a `deep_nade` whose density averages over `num_orders` orders.

    The arguments are described at `deep_nade`.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> afflow.zoo.eonade(4, hidden=(8,), rngs=nnx.Rngs(0)).num_orders
        8
    """
    options = {"context_dim": context_dim, "activation": activation, "rngs": rngs}
    return deep_nade(dim, hidden=hidden, conditional=conditional, num_orders=num_orders, **options)


def choose_order(
    orders: Iterable[Sequence[int]],
    train: Callable[[Sequence[int]], tuple[AutoregressiveModel, History]],
) -> AutoregressiveModel:
    """Return the model with the lowest validation loss among several orders.

    Args:
        orders: the orders to try.
        train: fits a model in a given order; returns the model and its history, as `fit` does.

    Raises:
        ValueError: if there are no orders to try.

    Example:
        >>> import afflow, jax, numpy as np
        >>> from flax import nnx
        >>> x = np.random.default_rng(0).integers(0, 2, (64, 2))
        >>> def train(order):
        ...     model = afflow.fvsbn(2, order=order, rngs=nnx.Rngs(0))
        ...     key = jax.random.key(0)
        ...     return afflow.fit(model, x, key=key, max_epochs=2, progress=False)
        >>> afflow.zoo.choose_order([(0, 1), (1, 0)], train).event_shape
        (2,)
    """
    fitted = [train(order) for order in orders]
    if not fitted:
        raise ValueError("Expected at least one order, got none.")
    return min(fitted, key=lambda pair: min(pair[1].validation))[0]
