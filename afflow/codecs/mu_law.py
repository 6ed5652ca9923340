"""Companding of sound by the mu-law."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from afflow._tools.arrays import real_array
from afflow._tools.shapes import check_size
from afflow._tools.symbols import check_symbols, choose_type

_MOST_LEVELS = 2**16  # up to this size, float32 resolves the cells


@dataclass(frozen=True)
class MuLaw:
    r"""Samples of a sound as symbols, with small cells for quiet sound and large cells for loud.

    $$f(x) = \operatorname{sign}(x) \, \frac{\ln(1 + \mu |x|)}{\ln(1 + \mu)}, \qquad
    k = \lfloor n \, (f(x) + 1) / 2 \rfloor,$$

    with $\mu = n - 1$ and $n$ the number of levels. A symbol $k$ stands for the centre of its cell,
    $f^{-1}((2k + 1) / n - 1)$.

    ITU-T G.711; van den Oord et al. 2016 (WaveNet), arXiv:1609.03499, section 2.2.

    Both methods take NumPy and JAX arrays of any shape. They run inside compiled functions.

    Args:
        levels: the number of symbols $n$, from 2 to 2^16.

    Raises:
        ValueError: for a number of levels out of range.

    Example:
        >>> import afflow, numpy as np
        >>> codec = afflow.codecs.MuLaw()
        >>> symbols = codec.encode(np.array([-1.0, 0.0, 0.01, 1.0]))
        >>> symbols.tolist()
        [0, 128, 157, 255]
        >>> codec.decode(symbols).round(4).tolist()
        [-0.9785, 0.0001, 0.0102, 0.9785]
    """

    levels: int = 256

    def __post_init__(self):
        check_size("levels", self.levels, 2)
        if self.levels > _MOST_LEVELS:
            raise ValueError(f"Expected at most {_MOST_LEVELS} levels, got {self.levels}.")

    @property
    def num_values(self) -> int:
        """The number of symbols."""
        return self.levels

    def encode(self, x: Any) -> Any:
        """Return the symbols of samples, in the smallest unsigned type.

        Args:
            x: samples between -1 and 1, any shape. Samples outside get the symbol of the nearest
                end.

        Raises:
            ValueError: for NaN, or integers outside of -1 to 1, unless the call is inside a
                compiled function.
        """
        x, xp = _read("x", x)
        whole = not isinstance(x, Tracer) and x.dtype.kind in "iu" and x.size
        if whole and (x.min() < -1 or x.max() > 1):
            raise ValueError(
                f"Expected samples between -1 and 1, got {x.dtype} up to {x.max()}: divide them "
                "by the largest integer of their type, 2**15 for a sound of 16 bits."
            )
        if not isinstance(x, Tracer) and xp.isnan(x).any():
            raise ValueError("Expected samples that are numbers, got NaN: cut them out of x.")
        x = xp.clip(x.astype(xp.result_type(x.dtype, np.float32)), -1, 1)
        mu = self.levels - 1
        y = xp.sign(x) * xp.log1p(mu * xp.abs(x)) / math.log1p(mu)
        cells = xp.minimum(xp.floor(self.levels * ((y + 1) / 2)), self.levels - 1)
        return cells.astype(choose_type(self.levels))

    def decode(self, symbols: Any) -> Any:
        """Return the sample at the centre of the cell of each symbol.

        Args:
            symbols: integers from 0 to `levels - 1`, any shape.

        Returns:
            Samples in (-1, 1), in float64 for NumPy arrays and in JAX's default float type for JAX
            arrays.

        Raises:
            ValueError: for symbols out of range, unless the call is inside a compiled function.
        """
        symbols, xp = _read("symbols", symbols)
        if not isinstance(symbols, Tracer):
            check_symbols(np.asarray(symbols), self.levels)
        mu = self.levels - 1
        y = (2 * symbols.astype(float) + 1) / self.levels - 1
        return xp.sign(y) * xp.expm1(xp.abs(y) * math.log1p(mu)) / mu


def _read(name: str, value: Any) -> tuple[Any, Any]:
    """Return a value as an array of numbers, and the module of its functions."""
    array = real_array(name, value)
    return array, np if isinstance(array, np.ndarray) else jnp
