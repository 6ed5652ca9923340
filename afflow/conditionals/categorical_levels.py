"""CategoricalLevels: a softmax over the levels of a pixel."""

from dataclasses import dataclass

from afflow._tools.shapes import check_size
from afflow.conditionals.categorical import Softmax
from afflow.conditionals.discretized import centre


@dataclass(frozen=True)
class CategoricalLevels(Softmax):
    r"""$p(x; \theta) = e^{\theta_x} / \sum_k e^{\theta_k}$ over the levels $0, \dots, L-1$.

    The parameters are `L` logits. Unlike a symbol of `Categorical`, a level is one number for a
    conditioner, $2x/(L-1) - 1$. Every level has a probability of its own, so that images with few
    frequent levels are fitted faster than by the smooth curves of `DiscretizedLogistics`.

    Van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        num_levels: the number of integers `L`, at least 2.

    Raises:
        ValueError: if `num_levels < 2`.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import CategoricalLevels
        >>> round(CategoricalLevels(4).log_prob(jnp.array(3), jnp.zeros(4)).item(), 4)
        -1.3863
        >>> CategoricalLevels(5).encode(jnp.array(4)).item()
        1.0
    """

    num_levels: int = 256

    def __post_init__(self):
        check_size("num_levels", self.num_levels, least=2)

    @property
    def num_values(self) -> int:
        return self.num_levels

    def encode(self, x):
        return centre(x, self.num_levels)
