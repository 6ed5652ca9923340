"""Ensembles: models with different seeds, fitted in one compiled program."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from afflow._tools.calls import make_typed
from afflow._tools.modules import copy_module
from afflow._tools.numerics import log_mean_exp
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_size
from afflow.core.table import get_table
from afflow.training.callbacks import Callback
from afflow.training.checkpoint import Checkpoint
from afflow.training.fitting import fit
from afflow.training.history import History
from afflow.training.objectives import maximum_likelihood
from afflow.training.optimizer import (
    Optimizer,
    choose_learning_rate,
    choose_weight_decay,
    make_optimizer,
)
from afflow.training.sources import drop_noise
from afflow.training.stream import Stream


class Ensemble(Outlined, nnx.Module):
    r"""An equal mixture of models that share one structure.

    $$\log q(x \mid h) = \log \frac1M \sum_{m=1}^M q_m(x \mid h).$$

    Members disagree where data were scarce (Lakshminarayanan et al. 2017, arXiv:1612.01474). The
    arrays of the members are stacked, and the members run in parallel.

    Args:
        models: at least one model, such as a `Flow`. The models differ in their arrays only.

    Raises:
        ValueError: if there are no models, or their structures differ.

    Example:
        >>> import afflow, jax
        >>> def make(loc):
        ...     loc, scale = jax.numpy.full(1, loc), jax.numpy.ones(1)
        ...     base = afflow.distributions.DiagonalNormal(loc, scale)
        ...     return afflow.Flow(base, afflow.Reverse(1))
        >>> ensemble = afflow.Ensemble([make(-1.0), make(1.0)])
        >>> ensemble.log_prob(jax.numpy.zeros((3, 1))).shape, ensemble[1].base.loc[...].tolist()
        ((3,), [1.0])
    """

    def __init__(self, models: Sequence[Any]):
        if len({jax.tree.structure(model) for model in models}) != 1:
            raise ValueError(
                f"Expected models that differ in their arrays only, got {len(models)} of "
                f"different structures: build them alike, with one fixed order of coordinates."
            )
        self.num_members = len(models)
        self.members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)

    def __getitem__(self, index: int) -> Any:
        """Return the member with this index."""
        return jax.tree.map(lambda leaf: leaf[range(self.num_members)[index]], self.members)

    def __len__(self) -> int:
        return self.num_members

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-density of the mixture, with the arguments of a member's `log_prob`."""
        log_probs = self._of_each(lambda member, _: member.log_prob(x, context), 0)
        return log_mean_exp(log_probs)

    def training_log_prob(self, key: jax.Array, x: jax.Array, context: jax.Array | None = None):
        """Return the mean over members of the log-density that `fit` maximises for each member."""
        keys = jax.random.split(make_typed(key), self.num_members)
        losses = self._of_each(lambda m, key: maximum_likelihood(m, key, x, context), keys)
        return -losses.mean(0)

    def without_noise(self) -> Self:
        """Return the ensemble of the members without the noise of training, for validation."""
        return copy_module(self, members=drop_noise(self.members))

    def sample(
        self, key: jax.Array, shape: int | Shape = (), context: jax.Array | None = None
    ) -> jax.Array:
        """Draw samples as a member does, each from a member chosen at random."""
        member_key, key = jax.random.split(make_typed(key))
        keys = jax.random.split(key, self.num_members)
        samples = self._of_each(lambda m, key: m.sample(key, shape, context), keys)
        batch = samples.shape[1 : samples.ndim - len(self.members.event_shape)]
        drawn = jax.random.randint(member_key, batch, 0, self.num_members)
        index = drawn.reshape((1, *batch) + (1,) * len(self.members.event_shape))
        return jnp.take_along_axis(samples, index, axis=0)[0]

    def sample_and_log_prob(
        self, key: jax.Array, shape: int | Shape = (), context: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Draw samples as `sample` does, and compute their log-densities under the mixture."""
        x = self.sample(key, shape, context)
        return x, self.log_prob(x, context)

    def _of_each(self, f: Callable, keys: Any) -> jax.Array:
        return jax.vmap(f, in_axes=(0, None if isinstance(keys, int) else 0))(self.members, keys)


def fit_ensemble(
    make: Callable[[nnx.Rngs], Any],
    x: jax.Array | np.ndarray | Stream,
    *,
    num: int,
    key: jax.Array,
    context: jax.Array | None = None,
    weights: jax.Array | None = None,
    validation: float | jax.Array | tuple[jax.Array, ...] = 0.1,
    batch_size: int | None = None,
    max_epochs: int = 100,
    patience: int = 20,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    optimizer: Optimizer | None = None,
    ema: float | None = 0.999,
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    label: str = "",
) -> tuple[Ensemble, History]:
    """Fit models from different seeds in parallel, and return them as one `Ensemble`.

    Each member is trained as `fit` would train it alone, but all members see the same minibatches.
    Gradients are clipped and scaled for each member separately. The losses are means over members.
    The mean validation loss selects the epoch that is returned for all members.

    Args:
        make: builds a model from `rngs`, with the same structure at every call.
        x: data, as for `fit`. The remaining arguments are those of `fit`, except as noted here.
        num: the number of members, at least one.
        key: a PRNG key. It seeds the members as well as the training.
        context: `(N, *context_shape)` for conditional models.
        weights: `(N,)`, the weight of each row.
        validation: a fraction of the rows to hold out, or held-out data.
        batch_size: the number of rows in a minibatch. The default depends on the number of rows, as
            in `fit`.
        max_epochs: the number of epochs, unless training stops early.
        patience: the number of epochs without a better validation loss before training stops.
        learning_rate: the initial rate of the default optimizer, as in `fit`.
        weight_decay: the weight decay of the default optimizer, as in `fit`.
        optimizer: another optimizer, written for one member.
        ema: the decay of the moving average of the parameters, as in `fit`.
        checkpoint: where to write checkpoints.
        callbacks: called after each epoch.
        progress: show a progress bar.
        label: text in front of the bar.

    Returns:
        The `Ensemble`, and the `History` of the mean losses.

    Raises:
        ValueError: as `fit` does, if `make` builds different structures, or if the models have
            columns.
        NonFiniteLossError: if a loss or a parameter becomes infinite or NaN.

    Example:
        >>> import afflow, jax
        >>> def make(rngs):
        ...     return afflow.made(1, hidden=(4,), rngs=rngs)
        >>> x = jax.random.normal(jax.random.key(0), (90, 1))
        >>> options = {"num": 3, "max_epochs": 2, "progress": False}
        >>> ensemble, _ = afflow.fit_ensemble(make, x, key=jax.random.key(1), **options)
        >>> len(ensemble), ensemble.log_prob(x).shape
        (3, (90,))
    """
    check_size("num", num)
    start_key, key = jax.random.split(make_typed(key))
    keys = jax.random.split(start_key, num)
    members = [make(nnx.Rngs(keys[i])) for i in range(num)]
    if get_table(members[0]) is not None:
        raise ValueError(
            "Expected members without columns: an ensemble takes arrays. Fit flows of tables one "
            "by one, with a key each."
        )
    rate = choose_learning_rate(members[0], x) if learning_rate is None else learning_rate
    decay = choose_weight_decay(members[0], x) if weight_decay is None else weight_decay
    return fit(
        Ensemble(members),
        x,
        key=key,
        context=context,
        weights=weights,
        validation=validation,
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=patience,
        optimizer=lambda steps: each_member(num, make_optimizer(steps, optimizer, rate, decay)),
        ema=ema,
        checkpoint=checkpoint,
        callbacks=callbacks,
        progress=progress,
        label=label,
    )


@lru_cache
def each_member(num: int, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return an optimizer that applies `optimizer` to each of `num` members separately.

    The loss is a mean over members, so each gradient is multiplied by `num` first.
    """

    def update(updates, state, params=None):
        updates = jax.tree.map(partial(jnp.multiply, num), updates)
        return jax.vmap(optimizer.update)(updates, state, params)

    return optax.GradientTransformation(jax.vmap(optimizer.init), update)
