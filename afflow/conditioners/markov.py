"""Markov chains and hidden Markov models over symbols: the classical baselines."""

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.shapes import check_size
from afflow.core.conditioner import Conditioner
from afflow.nets.causal_convolution import convolve, make_queue


class Markov(Conditioner):
    r"""A Markov chain of order $k$: one row of logits for every sequence of $k$ symbols.

    $$p(x_t \mid x_{<t}) = \mathrm{softmax}(A_{x_{t-1}, \dots, x_{t-k}}).$$

    Before the first token stands a symbol of its own, so the table has $(K + 1)^k$ rows of `K`
    logits. They start at zero, the uniform distribution. A density and a sample take one look-up
    for each token. With `Categorical(K)` it is a model, whose maximum of likelihood are the
    relative frequencies.

    Args:
        length: number of tokens `T`.
        num_symbols: number of symbols `K`.
        order: the order $k$.

    Raises:
        ValueError: for sizes below one.

    Example:
        >>> import afflow
        >>> chain = afflow.conditioners.Markov(5, 3, order=2)
        >>> model = afflow.AutoregressiveModel(chain, afflow.conditionals.Categorical(3))
        >>> chain.A.shape, model.with_length(9).event_shape
        ((16, 3), (9,))
    """

    knows_length = False

    def __init__(self, length: int, num_symbols: int, order: int = 1):
        check_size("length", length)
        check_size("num_symbols", num_symbols, least=2)
        check_size("order", order)
        self.event_shape, self.context_shape = (length, num_symbols), None
        self.num_params, self.order = num_symbols, order
        self.A = nnx.Param(jnp.zeros(((num_symbols + 1) ** order, num_symbols)))

    def __call__(self, x, context=None):
        length, base = len(x), self.num_params + 1
        symbols = jnp.argmax(x, -1)  # (T,)
        rows = jnp.zeros(length, int)
        for k in range(1, self.order + 1):
            before = jnp.pad(symbols, (k, 0), constant_values=self.num_params)[:length]
            rows = rows + before * base ** (k - 1)
        return self.A[...][rows]

    def init_cache(self, context=None, dtype=float):
        return jnp.full(self.order, self.num_params, dtype)  # floats, as every cache

    def step(self, x_prev, t, cache):
        symbol = jnp.argmax(x_prev, -1).astype(cache.dtype)
        cache = jnp.where(t == 0, cache, jnp.concatenate([symbol[None], cache[:-1]]))
        powers = (self.num_params + 1) ** jnp.arange(self.order)
        return self.A[...][(cache.astype(int) * powers).sum()], cache


class ConvolutionalMarkov(Conditioner):
    r"""Parameters that are linear in the last $k$ tokens: a Markov chain with shared weights.

    $$p_t = b + \sum_{j=1}^{k} W_j\, x_{t-j}.$$

    Before the first token stand zeros. One convolution gives all rows. Where `Markov` has a row of
    logits for every sequence of $k$ symbols, the logits here are sums of $k$ terms. The weights
    start at zero. With `Affine()` it is a linear autoregression of order $k$.

    Args:
        length: number of tokens `T`.
        num_params: parameters per token `P`.
        order: the order $k$.
        features: values in a token, 1 for a scalar. With more, an event is `(T, features)`.

    Raises:
        ValueError: for sizes below one.

    Example:
        >>> import afflow
        >>> chain = afflow.conditioners.ConvolutionalMarkov(5, 3, order=2, features=3)
        >>> model = afflow.AutoregressiveModel(chain, afflow.conditionals.Categorical(3))
        >>> chain.W.shape, model.with_length(9).event_shape
        ((2, 3, 3), (9,))
    """

    knows_length = False

    def __init__(self, length: int, num_params: int, order: int = 1, *, features: int = 1):
        self._set_sizes(length, num_params, (), features=features)
        check_size("order", order)
        self.order = order
        self.W = nnx.Param(jnp.zeros((order, features, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    def __call__(self, x, context=None):
        return self.read(x, self.begin(context, x.dtype))[0]

    def init_cache(self, context=None, dtype=float):
        dtype = jnp.result_type(self.W[...], dtype)
        return make_queue(1, self.order, self.features, dtype)

    def step(self, x_prev, t, cache):
        params, cache = self.prefill(x_prev[None], t, cache)
        return params[0], cache

    def prefill(self, x_prev, t, cache, key=None):
        x_prev = x_prev.reshape(len(x_prev), self.features)
        is_first = (t + jnp.arange(len(x_prev)) == 0)[:, None]
        params, cache = convolve(cache, jnp.where(is_first, 0, x_prev), t, self.W[...])
        return params + self.b[...][None], cache


class HiddenMarkov(Conditioner):
    r"""A hidden Markov model over symbols: each token updates the belief about a hidden state.

    $$p(x_t \mid x_{<t}) = \sum_s \pi_t(s)\, B_{s x_t}, \qquad
    \pi_{t+1}(s') \propto \sum_s \pi_t(s)\, B_{s x_t} A_{s s'},$$

    the forward recursion in its normalised form. The rows are the log-probabilities of the `K`
    symbols, for `Categorical(K)` of any `height`. A density takes one scan over the tokens, and so
    does a sample.

    Rabiner 1989.

    Args:
        length: number of tokens `T`.
        num_symbols: number of symbols `K`.
        num_states: number of hidden states `S`.
        rngs: its `params` stream draws the initial weights, which part the states.

    Raises:
        ValueError: for sizes below one.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> hidden = afflow.conditioners.HiddenMarkov(5, 3, 4, rngs=nnx.Rngs(0))
        >>> model = afflow.AutoregressiveModel(hidden, afflow.conditionals.Categorical(3))
        >>> model.log_prob(jnp.array([0, 2, 1, 1, 0])).shape
        ()
    """

    knows_length = False

    def __init__(self, length: int, num_symbols: int, num_states: int, *, rngs: nnx.Rngs):
        check_size("length", length)
        check_size("num_symbols", num_symbols, least=2)
        check_size("num_states", num_states)
        self.event_shape, self.context_shape = (length, num_symbols), None
        self.num_params = num_symbols
        self.start = nnx.Param(jnp.zeros(num_states))
        shapes = (num_states, num_states), (num_states, num_symbols)
        self.A, self.B = (nnx.Param(jax.random.normal(draw_key(rngs), shape)) for shape in shapes)

    def __call__(self, x, context=None):
        def body(log_belief, x_t):
            return self._update(log_belief, x_t), log_belief

        _, log_beliefs = jax.lax.scan(body, self.init_cache(dtype=x.dtype), x)  # (T, S)
        return jax.vmap(self._symbols)(log_beliefs)

    def init_cache(self, context=None, dtype=float):
        start = jax.nn.log_softmax(self.start[...])
        return start.astype(jnp.result_type(start, dtype))

    def step(self, x_prev, t, cache):
        cache = jnp.where(t == 0, cache, self._update(cache, x_prev))
        return self._symbols(cache), cache

    def _symbols(self, log_belief):
        """Return the log-probability of every symbol `(K,)`."""
        log_b = jax.nn.log_softmax(self.B[...])
        return jax.nn.logsumexp(log_belief[:, None] + log_b, axis=0)

    def _update(self, log_belief, x_t):
        """Return the belief after a symbol, given as one positive number in a row of zeros `(K,)`.

        Before the first token the row is zero, and the division is by one.
        """
        log_b, log_a = jax.nn.log_softmax(self.B[...]), jax.nn.log_softmax(self.A[...])
        height = x_t.sum()
        joint = log_belief + (log_b * x_t[None]).sum(-1) / jnp.where(height == 0, 1, height)
        return jax.nn.logsumexp(jax.nn.log_softmax(joint)[:, None] + log_a, axis=0)
