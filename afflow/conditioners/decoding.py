"""The choice between XLA and the GPU kernel for decoding a masked network."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.lowering import get_shared_memory, on_gpu
from afflow.conditioners.blocks import Tiling, choose_block_cuts, choose_block_sizes
from afflow.conditioners.lanes import is_elementwise, is_tileable
from afflow.conditioners.masked import Masked
from afflow.conditioners.substitution import Network, substitute
from afflow.core.conditioner import Emit

_MOST_EVENTS = 65_536  # beyond, the segments of `substitute` are expected to be faster
_FULLEST = 128  # the most units that a slot may have
_SHARE = 0.75  # the share of a program's shared memory that operands may take


def decode(
    network: Network,
    layers: Sequence[Masked],
    emit: Emit,
    inputs: Any,
    x_first: jax.Array,
    *,
    kernel: bool | tuple[int, int, int] | None = None,
    activation: Callable | None = None,
) -> tuple[jax.Array, Any]:
    """Decode a batch by `substitute` or by `substitute_in_kernel`, which take the same arguments.

    Args:
        network: the layers between the masked linear maps.
        layers: the masked linear maps.
        emit: maps an input and the parameters of one slot to `x_t, aux_t`.
        inputs: a pytree of `(T, ..., B)`.
        x_first: `(..., B)`, the input of slot 0.
        kernel: whether to use the kernel, or the three numbers of its `Tiling`. Without an
            NVIDIA GPU the kernel is then interpreted. By default the kernel runs on NVIDIA GPUs
            if it can compute the network, if the operands fit into shared memory, and for at
            most `_MOST_EVENTS` events.
        activation: the nonlinearity inside `network`, if it has one.

    Returns:
        `x` and `aux`, stacked to `(T, ..., B)`.

    Raises:
        ValueError: if `kernel` asks for the kernel and it cannot compute this network.
    """
    args, batch = (network, layers, emit, inputs, x_first), x_first.shape[-1]
    if not batch or kernel is False or (kernel is None and not on_gpu()):
        return substitute(*args)
    obstacle = find_obstacle(layers, emit, inputs, activation)
    if kernel and obstacle:
        raise ValueError(f"Expected a network that the kernel can decode, got {obstacle}.")
    if obstacle or (
        kernel is None and (batch > _MOST_EVENTS or not _is_small_enough(layers, inputs))
    ):
        return substitute(*args)
    # Imported here: at the top, Pallas would make `import afflow` take half as long again.
    from afflow.conditioners.kernel import substitute_in_kernel

    tiled = partial(
        substitute_in_kernel, tiling=Tiling(*kernel) if isinstance(kernel, tuple) else None
    )
    default = partial(tiled, interpret=True) if kernel else substitute
    return jax.lax.platform_dependent(cuda=lambda: tiled(*args), default=lambda: default(*args))


def find_obstacle(
    layers: Sequence[Masked], emit: Emit, inputs: Any, activation: Callable | None
) -> str | None:
    """Return the reason why the kernel cannot decode a network, or `None` if it can."""
    num_slots = len(jax.tree.leaves(inputs)[0])
    types = {a.dtype for m in layers for a in (m.bias, *jax.tree.leaves(inputs))}
    if types != {jnp.dtype(jnp.float32)}:
        return f"arrays of {', '.join(sorted(map(str, types)))} and not float32"
    if any(a.ndim > 2 for a in jax.tree.leaves(inputs)):
        return "tokens that are vectors"
    fullest = max(np.bincount(m.cols, minlength=num_slots).max() for m in layers)
    if fullest > _FULLEST:
        return f"{fullest} units in a slot, more than {_FULLEST}"
    if activation is not None and not is_elementwise(activation):
        return f"the activation {activation}, which is not known to be elementwise"
    params = jnp.zeros(max(len(m.rows) // num_slots for m in layers if m.emitted), jnp.float32)
    if not is_tileable(emit, jax.tree.map(lambda a: a[0, ..., 0], inputs), params):
        return "a univariate with operations that have no rule in `lanes`"
    return None


def _is_small_enough(layers: Sequence[Masked], inputs: Any) -> bool:
    """Return whether the operands of a block fit into the shared memory of this GPU.

    Each block of weights is split into a large and a small part, of 4 bytes per weight each.
    On an H200 with 227 KiB of shared memory, a network with 176 KiB by this count compiled and
    a network with 320 KiB did not.
    """
    cuts = choose_block_cuts(layers, len(jax.tree.leaves(inputs)[0]), Tiling.of(1).units)
    sizes = [choose_block_sizes(layer, cuts) for layer in layers]
    return sum(8 * size.height * size.cols for size in sizes) <= _SHARE * get_shared_memory()
