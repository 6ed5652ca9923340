"""The elementwise nonlinearities of torch in JAX."""

from collections.abc import Callable
from typing import Any

import jax

from afflow.adapters.converted.parts import refuse


def exact_gelu(h: jax.Array) -> jax.Array:
    """Return the GELU by the error function, the default of torch. That of JAX is approximate."""
    return jax.nn.gelu(h, approximate=False)


_SAME = {
    "elu": jax.nn.elu,
    "gelu": exact_gelu,
    "leaky_relu": jax.nn.leaky_relu,
    "leakyrelu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "tanh": jax.nn.tanh,
}
_DEFAULTS = {
    "alpha": 1.0,
    "approximate": "none",
    "beta": 1.0,
    "negative_slope": 0.01,
    "threshold": 20.0,
}


def convert_activation(activation: Any, library: str, place: str) -> Callable:
    """Return the function of JAX for a function or a module of torch.

    Raises:
        ValueError: for a nonlinearity that is not known, or a module with options.
    """
    kind = activation if hasattr(activation, "__name__") else type(activation)
    name = kind.__name__.lower()
    changed = [k for k, v in _DEFAULTS.items() if getattr(activation, k, v) != v]
    if name not in _SAME or not _is_of_torch(kind) or changed:
        refuse(library, f"an activation of torch among {', '.join(_SAME)}", activation, place)
    return _SAME[name]


def _is_of_torch(kind: Any) -> bool:
    home = getattr(kind, "__module__", None) or type(getattr(kind, "__self__", kind)).__module__
    return home.partition(".")[0] in ("torch", "builtins")
