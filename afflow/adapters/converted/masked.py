"""A `MADE` with the weights of a masked network of another library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from flax import nnx

from afflow.adapters.converted.parts import refuse, to_jax
from afflow.conditioners.made import MADE, Wiring


class MaskedLayer(NamedTuple):
    """A masked linear map in the order of units of its library."""

    kernel: np.ndarray  # (rows, columns)
    bias: np.ndarray  # (rows,)
    mask: np.ndarray  # (rows, columns), booleans


@dataclass
class MaskedNet:
    """A masked network of another library. Its inputs are the event, then the context.

    Args:
        library: the name of the library, for errors.
        place: the place of the network in the flow, for errors.
        layers: the masked linear maps.
        slots: for each hidden layer, the slot of every unit, in any order.
        order: the coordinates `(D,)` in the order in which they depend on each other.
        outputs: the rows of the last map, `(D, P)`, for each coordinate and parameter.
        activation: the elementwise nonlinearity.
        residual: whether the hidden layers after the first form residual blocks.
        linear: the numbers of maps without an activation in front.
    """

    library: str
    place: str
    layers: Sequence[MaskedLayer]
    slots: Sequence[np.ndarray]
    order: np.ndarray
    outputs: np.ndarray
    activation: Callable
    residual: bool = False
    linear: Sequence[int] = field(default=())

    @property
    def units(self) -> list[np.ndarray]:
        """For each hidden layer, the units of the library in the order of the conditioner."""
        return [np.argsort(slots, kind="stable") for slots in self.slots]

    def to_made(self) -> MADE:
        """Return the conditioner of the coordinates in the order `order`.

        Raises:
            ValueError: if a mask differs from the mask of the conditioner.
        """
        made = self._make_blank()
        units = self.units
        rows = [*units, self.outputs[self.order].ravel()]
        maps = zip(
            self.layers, [self._find_inputs(), *units], rows, made.connections(), strict=True
        )
        for number, (layer, cols, rows, slots) in enumerate(maps):
            mask = layer.mask[rows][:, cols]
            self._check_mask(number, mask, slots)
            made.kernels[number] = nnx.Param(to_jax(layer.kernel[rows][:, cols] * mask))
            made.biases[number] = nnx.Param(to_jax(layer.bias[rows]))
        return made

    def _make_blank(self) -> MADE:
        slots = tuple(tuple(sorted(layer.tolist())) for layer in self.slots)
        dim, num_params = self.outputs.shape
        return MADE(
            dim,
            num_params,
            tuple(len(layer) for layer in slots),
            context_dim=self.layers[0].kernel.shape[1] - dim,
            activation=self.activation,
            residual=self.residual,
            direct=False,
            wiring=Wiring(slots, tuple(self.linear)),
            rngs=nnx.Rngs(0),
        )

    def _find_inputs(self) -> np.ndarray:
        """Return the columns of the first map: the context, then all coordinates but the last."""
        dim, width = len(self.order), self.layers[0].kernel.shape[1]
        return np.concatenate([np.arange(dim, width), self.order[:-1]])

    def _check_mask(self, number: int, mask: np.ndarray, slots: tuple) -> None:
        cols, rows = slots
        if not np.array_equal(mask, rows[:, None] >= cols):
            place = f"map {number} of {self.place}"
            refuse(self.library, "the masks of an order of the coordinates", "other masks", place)
