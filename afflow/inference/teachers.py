"""The density of a model as the target of a fit."""

from dataclasses import dataclass
from typing import Any

import jax

from afflow._tools.arguments import check_callable


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelDensity:
    r"""The log-density $\log p(x \mid h)$ of one event under a model, for `fit_to_density`.

    It is a pytree: training compiles once for all weights of the model, and does not change them.
    Objectives that read the conditionals of a teacher take the model from `model`.

    Args:
        model: a `Flow`, an `AutoregressiveModel`, or another pytree with a method `log_prob`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> round(afflow.inference.ModelDensity(flow)(jnp.zeros(2)).item(), 4)
        -1.8379
    """

    model: Any

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        return self.model.log_prob(x, context)


def make_density(teacher: Any) -> ModelDensity:
    """Return the density of a teacher.

    Raises:
        ValueError: for a teacher without `log_prob`, or with a discrete conditional.
    """
    check_callable(
        "teacher.log_prob", getattr(teacher, "log_prob", None), "a method of the teacher"
    )
    conditional = getattr(teacher, "conditional", None)
    if getattr(conditional, "is_discrete", False):
        raise ValueError(
            f"Expected a teacher with a density, got the discrete {conditional}: train it with a "
            f"continuous conditional, such as MixtureOf."
        )
    return ModelDensity(teacher)


def get_teacher(log_density: Any) -> Any:
    """Return the teacher whose density is the target.

    Raises:
        ValueError: for a target that is not a `ModelDensity`.
    """
    if not isinstance(log_density, ModelDensity):
        raise ValueError(
            f"Expected the density of a teacher, ModelDensity(teacher), got {log_density!r}."
        )
    return log_density.model
