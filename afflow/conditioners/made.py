"""MADE: one masked multilayer perceptron for all the conditionals."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from afflow._tools.arguments import check_callable, check_rngs, draw_key
from afflow._tools.batch_last import batch_last
from afflow._tools.lowering import multiply
from afflow._tools.shapes import Shape
from afflow.conditioners.decoding import decode
from afflow.conditioners.masked import Masked
from afflow.conditioners.substitution import Segment, advance, make_buffers
from afflow.core.conditioner import Conditioner, Emit


@dataclass(frozen=True)
class Wiring:
    """The slot of every hidden unit of a `MADE`, and the maps that read their inputs unactivated.

    Args:
        slots: for each hidden layer, the slots of its units in increasing order, from 0 to `D - 1`.
        linear: the numbers of masked linear maps without an activation in front. Map `i` reads
            hidden layer `i - 1`.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> wiring = afflow.conditioners.Wiring(slots=((1, 1, 2),))
        >>> made = afflow.MADE(3, 1, hidden=(3,), wiring=wiring, rngs=nnx.Rngs(0))
        >>> cols, rows = made.connections()[0]
        >>> cols.tolist(), rows.tolist()
        ([1, 2], [1, 1, 2])
    """

    slots: tuple[tuple[int, ...], ...]
    linear: tuple[int, ...] = ()

    def check(self, dim: int, hidden: tuple[int, ...]) -> None:
        """Raise `ValueError` unless the slots fit the widths `hidden` and are sorted."""
        widths = tuple(len(layer) for layer in self.slots)
        if widths != tuple(hidden):
            raise ValueError(f"Expected slots for hidden layers of widths {hidden}, got {widths}.")
        for layer in self.slots:
            if list(layer) != sorted(layer) or layer[0] < 0 or layer[-1] >= dim:
                raise ValueError(f"Expected increasing slots from 0 to {dim - 1}, got {layer}.")


class MADE(Conditioner):
    r"""The masked autoencoder: row `t` of the output depends on `x[:t]` and the context.

    Every unit has a *slot* and sees only units of the same or an earlier slot. Input $x_i$ has
    slot $i + 1$, the context has slot 0, and output row `t` has slot `t`. The hidden units are
    spread evenly, in order, over the slots of the inputs, and over slot 0 if there is a
    context. The slot of a hidden unit is the degree $m(k)$ of the paper. The output layer
    starts at zero.

    Germain et al. 2015, arXiv:1502.03509; residual blocks as in Durkan et al. 2019,
    arXiv:1906.04032.

    Args:
        dim: number of coordinates `D`.
        num_params: parameters per coordinate `P`.
        hidden: widths of the hidden layers; `()` is a masked linear map.
        features: numbers that encode a coordinate, 1 for a scalar. With more, an event is
            `(D, features)`, for `AutoregressiveModel`.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        residual: read `hidden` as one layer followed by pre-activation residual blocks of
            two layers, $h + W'\sigma(W\sigma(h))$. The widths must then be equal, and their
            number odd.
        dropout: the probability to drop a hidden unit, during training only. In a residual network,
            the units between the two layers of a block are dropped.
        direct: whether to add masked linear connections from input to output. By default they
            are added only if a hidden layer has fewer units than there are slots. Otherwise
            some output would not see the input just before it.
        wiring: the slots of the hidden units, for weights that were trained elsewhere. By default
            the units are spread evenly over the slots.
        dtype: type of the operands of the matrix products, such as `jnp.bfloat16`. Weights,
            sums and everything else keep their type. The default is the type of the weights.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, for residual widths that are unequal or even in
            number, for a wiring that does not fit the widths, for a `dropout` outside of [0, 1), or
            one that finds no units.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> made = afflow.MADE(5, 2, hidden=(32, 32), rngs=nnx.Rngs(0))
        >>> made(jnp.ones(5)).shape
        (5, 2)
    """

    has_kernel = True

    ABSENT = {"wiring": None, "dropout": 0.0}  # in archives from before they could be chosen

    def __init__(
        self,
        dim: int,
        num_params: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        features: int = 1,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        residual: bool = False,
        dropout: float = 0.0,
        direct: bool | None = None,
        wiring: Wiring | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        options = {"features": features, "context_dim": context_dim, "dropout": dropout}
        self._set_sizes(dim, num_params, hidden, **options)
        check_rngs(rngs)
        if residual and (len(hidden) % 2 == 0 or len(set(hidden)) > 1):
            raise ValueError(
                f"Expected an odd number of equal hidden widths (a layer, then blocks of "
                f"two) with residual=True, got {hidden}."
            )
        self.hidden = tuple(int(width) for width in hidden)
        if dropout and len(hidden) < (2 if residual else 1):
            raise ValueError(
                f"Expected units to drop, got hidden={hidden}, residual={residual}: add hidden "
                "layers. A residual network drops units within its blocks of two layers."
            )
        check_callable("activation", activation, "jax.nn.tanh")
        self.activation = activation
        self.residual = residual
        self.dtype = dtype
        if wiring is not None:
            wiring.check(dim, self.hidden)
        self.wiring = wiring
        narrow = any(width < dim - self._first_slot() for width in hidden)
        self.direct = bool(self.hidden) and (narrow if direct is None else direct)
        pairs = self.connections()
        drawn = [rows[:, None] >= cols for cols, rows in pairs[: len(hidden)]]
        kernels, biases = _draw_initial(drawn, draw_key(rngs)) if drawn else ([], [])
        kernels += [jnp.zeros((len(rows), len(cols))) for cols, rows in pairs[len(hidden) :]]
        biases += [jnp.zeros(dim * num_params)]
        self.kernels = nnx.List([nnx.Param(kernel) for kernel in kernels])
        self.biases = nnx.List([nnx.Param(bias) for bias in biases])

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        layers = self._layers()

        def linear(layer, h):  # includes the activation: the backward pass recomputes both
            if not self._is_activated(layer):
                return layers[layer](h)
            is_dropped = layer % 2 == 0 or not self.residual
            return layers[layer](h, partial(self._act_and_drop, layer, key if is_dropped else None))

        out = self._run(lambda layer, h: h, linear, x, context)
        return out.reshape(-1, self.num_params)  # (D, P)

    def _run(self, act, linear, x, context):
        x = x[:-1].reshape(-1)
        x = x if context is None else jnp.concatenate([context, x])
        return self._network(act, linear, x)

    def init_cache(self, context=None, dtype=float):
        layers = self._serial_layers(None if context is None else context[:, None])
        dim = self.event_shape[0]
        dtype = jnp.result_type(dtype, *(layer.bias for layer in layers))
        buffers = make_buffers(layers, 0, dim, 1, dtype)
        segments = [Segment.cut(layer, layer.bias, 0, dim) for layer in layers]
        return segments, buffers

    def step(self, x_prev, t, cache):
        segments, buffers = cache
        layers, dim = self._serial_layers(None), self.event_shape[0]
        starts = np.stack([layer.starts(0, dim) for layer in layers], 1)  # (D, layers, 2)
        x_prev = jnp.where(t == 0, 0, x_prev)[..., None]
        network = partial(self._network, self._activate)
        starts_t = jnp.asarray(starts)[t]
        params, buffers = advance(network, layers, (0, dim), segments, starts_t, x_prev, buffers)
        return params[:, 0], (segments, buffers)

    def decode(self, emit, inputs, context=None, *, kernel=None):
        return batch_last(partial(_decode, kernel=kernel))((self, emit), (inputs, context))

    def solve_tangent(self, x, context, gain, b):
        if x.ndim > 1:
            return super().solve_tangent(x, context, gain, b)
        return batch_last(_solve_tangent)(self, (self._slopes(x, context), gain, b))

    def solve_cotangent(self, x, context, gain, source, b):
        if x.ndim > 1:
            return super().solve_cotangent(x, context, gain, source, b)
        arrays = self._slopes(x, context), gain, source, b
        return batch_last(_solve_cotangent)(self, arrays)

    def _first_slot(self) -> int:
        return 0 if self.context_shape or self.event_shape[0] == 1 else 1

    def connections(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the slots of the columns and rows of each masked linear map.

        The maps are the layers of the stack in order, then the direct map if there is one.
        """
        dim, first = self.event_shape[0], self._first_slot()
        slots = np.repeat(np.arange(1, dim), self.features)
        inputs = np.concatenate([np.zeros(_get_length(self.context_shape), int), slots])
        hidden = [first + _spread(width, dim - first) for width in self.hidden]
        if self.wiring is not None:
            hidden = [np.array(slots) for slots in self.wiring.slots]
        outputs = np.repeat(np.arange(dim), self.num_params)
        stack = list(pairwise([inputs, *hidden, outputs]))
        return [*stack, (inputs, outputs)] if self.direct else stack

    def _layers(self) -> list[Masked]:
        biases = [bias[...] for bias in self.biases]
        if self.direct:
            biases.append(jnp.zeros_like(biases[-1]))
        kernels = [kernel[...] for kernel in self.kernels]
        if self.dtype is not None:
            kernels = [kernel.astype(self.dtype) for kernel in kernels]
        maps = zip(self.connections(), kernels, biases, strict=True)
        layers = [Masked(*slots, kernel, bias) for slots, kernel, bias in maps]
        last = len(self.hidden)
        return layers[:last] + [layer._replace(emitted=True) for layer in layers[last:]]

    def _serial_layers(self, context: jax.Array | None) -> list[Masked]:
        """Return the layers for `substitute`: the biases take in the context `(C, B)`."""
        layers = [layer._replace(bias=layer.bias[:, None]) for layer in self._layers()]
        for reader in {0, len(layers) - 1} if self.direct else {0}:
            layers[reader] = self._fold(layers[reader], context)
        return layers

    def _fold(self, layer: Masked, context: jax.Array | None) -> Masked:
        width, bias = _get_length(self.context_shape), layer.bias
        if context is not None:
            bias = bias + multiply(layer.kernel[:, :width], context)
        kernel = jnp.pad(layer.kernel[:, width:], ((0, 0), (self.features, 0)))
        slots = np.repeat(np.arange(self.event_shape[0]), self.features)
        return layer._replace(cols=slots, kernel=kernel, bias=bias, placed=True)

    def _network(self, act: Callable, linear: Callable, x: jax.Array) -> jax.Array:
        """Run the layers on `x` with the masked linear maps `linear(layer, h)`.

        `act(layer, h)` is the nonlinearity in front of a layer.
        """
        last = len(self.hidden)
        h = linear(0, x)
        for layer in range(1, last, 2 if self.residual else 1):
            update = linear(layer, act(layer, h))
            if self.residual:
                update = h + linear(layer + 1, act(layer + 1, update))
            h = update
        out = linear(last, act(last, h)) if last else h
        return out + linear(last + 1, x) if self.direct else out

    def _transposed_network(self, linear: Callable, q: jax.Array) -> jax.Array:
        """Run the transposed layers on `q`; the scales of the layers replace the activations."""
        last = len(self.hidden)
        h = linear(last, q)
        for layer in reversed(range(1, last, 2 if self.residual else 1)):
            if self.residual:
                h = h + linear(layer, linear(layer + 1, h))
            else:
                h = linear(layer, h)
        out = linear(0, h) if last else h
        return out + linear(last + 1, q) if self.direct else out

    def _act_and_drop(self, layer: int, key: jax.Array | None, h: jax.Array) -> jax.Array:
        return self._drop(key, layer, self.activation(h))

    def _activate(self, layer: int, h: jax.Array) -> jax.Array:
        return self.activation(h) if self._is_activated(layer) else h

    def _is_activated(self, layer: int) -> bool:
        linear = () if self.wiring is None else self.wiring.linear
        return 0 < layer <= len(self.hidden) and layer not in linear

    def _slopes(self, x: jax.Array, context: jax.Array | None) -> list[jax.Array | None]:
        """Return, for each layer, the derivative at `x` of the nonlinearity in front."""
        layers = self._layers()
        slopes: list[jax.Array | None] = [None] * len(layers)

        def act(layer, h):
            activate = partial(self._activate, layer)
            h, slopes[layer] = jax.jvp(activate, (h,), (jnp.ones_like(h),))
            return h

        self._run(act, lambda layer, h: layers[layer](h), x, context)
        return slopes


def _decode(model: tuple[MADE, Emit], arrays, *, kernel: bool | None):
    (made, emit), (inputs, context) = model, arrays
    layers = made._serial_layers(context)
    dtype = jnp.result_type(*(layer.bias for layer in layers))  # the first has the context
    params = jnp.zeros((made.num_params,), dtype)
    item = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:-1], a.dtype), inputs)
    x, _ = jax.eval_shape(emit, item, params)
    batch = jax.tree.leaves(inputs)[0].shape[-1]
    first = jnp.zeros((*x.shape, batch), x.dtype)
    network, options = partial(made._network, made._activate), {"kernel": kernel}
    return decode(network, layers, emit, inputs, first, activation=made.activation, **options)


def _solve_tangent(made: MADE, arrays):
    """Solve `v = b + gain . (C' v)` by decoding: the equation is a linear autoregressive model."""
    slopes, gain, b = arrays

    def emit(inputs, dp):
        gain, b = inputs
        return b + gain @ dp, None

    layers = [
        layer._replace(bias=jnp.zeros_like(layer.bias), before=slope)
        for layer, slope in zip(made._serial_layers(None), slopes, strict=True)
    ]
    network = partial(made._network, lambda layer, h: h)
    return decode(network, layers, emit, (gain, b), jnp.zeros_like(b[0]))[0]


def _solve_cotangent(made: MADE, arrays):
    """Solve `v = b + C'^T (gain v + source)` by decoding the transposed model from the end."""
    slopes, gain, source, b = arrays
    dim, units = len(b), np.arange(made.num_params)[::-1]
    gain, source = gain[:, units], source[:, units]  # transposed layers have units reversed

    def emit(inputs, out):
        gain, source, b = inputs
        v = b + out[0]
        return gain * v + source, v

    layers = [
        layer._replace(before=slope).transpose(dim - 1)
        for layer, slope in zip(made._serial_layers(None), slopes, strict=True)
    ]
    before = np.maximum(np.arange(dim)[::-1] - 1, 0)  # slot t emits v[t - 1]
    inputs = jax.tree.map(lambda a: a[before], (gain, source, b))
    first = gain[-1] * b[-1][None] + source[-1]
    _, v = decode(made._transposed_network, layers, emit, inputs, first)
    return jnp.concatenate([v[np.arange(dim - 1)[::-1]], b[-1:]])


@jax.jit
def _draw_initial(masks: list[jax.Array], key: jax.Array) -> tuple[list, list]:
    """Draw kernels and biases for units that see `n` inputs.

    Kernels are normal with variance `1 / n`, biases uniform between `-1 / sqrt(n)` and
    `1 / sqrt(n)`.
    """
    kernel_key, bias_key = jax.random.split(key)
    scales = [jax.lax.rsqrt(jnp.maximum(mask.sum(1).astype(float), 1.0)) for mask in masks]
    normal = jax.random.normal(kernel_key, (sum(mask.size for mask in masks),))
    uniform = jax.random.uniform(bias_key, (sum(len(mask) for mask in masks),), minval=-1.0)
    kernels = [
        jnp.where(mask, part.reshape(mask.shape) * scale[:, None], 0)
        for part, mask, scale in zip(_cut(normal, masks), masks, scales, strict=True)
    ]
    parts = _cut(uniform, scales)
    return kernels, [part * scale for part, scale in zip(parts, scales, strict=True)]


def _cut(flat: jax.Array, like: list[jax.Array]) -> list[jax.Array]:
    return jnp.split(flat, np.cumsum([a.size for a in like])[:-1])


def _spread(width: int, num_slots: int) -> np.ndarray:
    """Return the slot of each of `width` units, spread evenly over `num_slots` slots.

    If the slots cannot be equally full, the fuller slots come first. The later segments of
    `substitute` then have no fuller slot, and their steps compute fewer rows.
    """
    units = np.arange(width)
    return units * num_slots // width if width < num_slots else np.sort(units % num_slots)


def _get_length(shape: Shape | None) -> int:
    return shape[0] if shape else 0
