"""Ensembles: models that differ in their seeds, fitted in one compiled program."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_size
from afflow.core.table import table_of
from afflow.training.callbacks import Callback
from afflow.training.checkpoint import Checkpoint
from afflow.training.fitting import fit
from afflow.training.history import History
from afflow.training.objectives import maximum_likelihood
from afflow.training.optimizer import (
    Optimizer,
    optimizer_for,
    usual_learning_rate,
    usual_weight_decay,
)
from afflow.training.stream import Stream


class Ensemble(Outlined, nnx.Module):
    r"""Models of one structure, as the even mixture of their densities.

    $$\log q(x \mid h) = \log \frac1M \sum_{m=1}^M q_m(x \mid h).$$

    Where members disagree, data were few (Lakshminarayanan et al. 2017, arXiv:1612.01474).
    Their arrays are stacked, and they run side by side.

    Args:
        models: at least one, `Flow`s say, which differ in their arrays only.

    Raises:
        ValueError: if there is none, or their structures differ.

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
        """Return one member."""
        return jax.tree.map(lambda leaf: leaf[range(self.num_members)[index]], self.members)

    def __len__(self) -> int:
        return self.num_members

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-density of the mixture, with the arguments of a member's `log_prob`."""
        log_probs = self._of_each(lambda member, _: member.log_prob(x, context), 0)
        return jax.nn.logsumexp(log_probs, axis=0) - np.log(self.num_members)

    def training_log_prob(self, key: jax.Array, x: jax.Array, context: jax.Array | None = None):
        """Return the mean of the members' log-densities: what each is trained on by itself."""
        keys = jax.random.split(key, self.num_members)
        losses = self._of_each(lambda m, key: maximum_likelihood(m, key, x, context), keys)
        return -losses.mean(0)

    def sample(
        self, key: jax.Array, shape: int | Shape = (), context: jax.Array | None = None
    ) -> jax.Array:
        """Draw samples as a member does, each from a member drawn for it."""
        member_key, key = jax.random.split(key)
        keys = jax.random.split(key, self.num_members)
        samples = self._of_each(lambda m, key: m.sample(key, shape, context), keys)
        batch = samples.shape[1 : samples.ndim - len(self.members.event_shape)]
        drawn = jax.random.randint(member_key, batch, 0, self.num_members)
        index = drawn.reshape((1, *batch) + (1,) * len(self.members.event_shape))
        return jnp.take_along_axis(samples, index, axis=0)[0]

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
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    label: str = "",
) -> tuple[Ensemble, History]:
    """Fit models that start from different seeds, side by side; return them as one.

    Each is trained as `fit` would by itself, on the same minibatches: gradients are clipped
    and scaled a member at a time. The losses are means over members, and so is the
    validation loss that chooses the epoch returned.

    Args:
        make: builds a model from `rngs`, each time of the same structure.
        x: as for `fit`, like all that is not listed here.
        num: the number of members, at least one.
        key: seeds the members too.
        context: `(N, *context_shape)` for conditional models.
        weights: `(N,)`, how much each row counts.
        validation: a fraction of the rows to hold out, or held-out data.
        batch_size: rows in a minibatch; by default it follows the number of rows, as in `fit`.
        max_epochs: epochs to train for if not stopped early.
        patience: epochs without a better validation loss before training stops.
        learning_rate: initial rate of the default optimizer, as in `fit`.
        weight_decay: how much of a network's kernels it takes away in a step, as in `fit`.
        optimizer: any other, of one member.
        checkpoint: where to keep checkpoints.
        callbacks: called after each epoch.
        progress: show a progress bar.
        label: stands in front of the bar.

    Returns:
        The `Ensemble`, and the `History` of its mean losses.

    Raises:
        ValueError: as `fit` does, or if `make` builds different structures.
        NonFiniteLossError: if a loss or a parameter turns infinite or NaN.

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
    keys = jax.random.split(key, num)
    members = [make(nnx.Rngs(keys[i])) for i in range(num)]
    if table_of(members[0]) is not None:
        raise ValueError(
            "Expected members without columns: an ensemble takes arrays. Fit flows of tables one "
            "by one, with a key each."
        )
    rate = usual_learning_rate(members[0]) if learning_rate is None else learning_rate
    decay = usual_weight_decay(members[0], x) if weight_decay is None else weight_decay
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
        optimizer=lambda steps: each_member(num, optimizer_for(steps, optimizer, rate, decay)),
        checkpoint=checkpoint,
        callbacks=callbacks,
        progress=progress,
        label=label,
    )


@lru_cache
def each_member(num: int, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimizer at work on each member by itself, on gradients of the mean loss."""

    def update(updates, state, params=None):
        updates = jax.tree.map(partial(jnp.multiply, num), updates)
        return jax.vmap(optimizer.update)(updates, state, params)

    return optax.GradientTransformation(jax.vmap(optimizer.init), update)
