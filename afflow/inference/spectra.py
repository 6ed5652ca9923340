"""A loss on the power of short-time spectra, for students that make sounds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from afflow._tools.arguments import check_callable, check_number
from afflow._tools.shapes import check_size
from afflow.inference.divergences import Divergence
from afflow.inference.importance import LogDensity
from afflow.inference.variational import as_pytree
from afflow.models.flow import Flow


def find_spectrum(x: jax.Array, frame: int = 256, hop: int = 64) -> jax.Array:
    r"""Return the root of the mean power of a sound at every frequency.

    $$\phi_f(x) = \sqrt{\tfrac1N \textstyle\sum_n |X_n(f)|^2}, \qquad
    X_n(f) = \sum_{j < F} w_j\, x_{nH + j}\, e^{-2\pi i f j / F},$$

    with a Hann window $w$ of $F$ samples, scaled to $\sum_j w_j^2 = 1$, and moved by $H$ samples
    between the $N$ frames. White noise of variance 1 has $\phi_f$ about 1.

    Args:
        x: a sound `(T,)` of at least `frame` samples.
        frame: the number of samples $F$ in a frame.
        hop: the number of samples $H$ from one frame to the next.

    Returns:
        $\phi_f$ for the frequencies $f = 0, \dots, F/2$: `(frame // 2 + 1,)`.

    Raises:
        ValueError: for a sound shorter than a frame, or sizes out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> tone = jnp.sin(2 * jnp.pi * 8 / 64 * jnp.arange(256))
        >>> afflow.inference.find_spectrum(tone, frame=64, hop=16).argmax().item()
        8
    """
    check_size("frame", frame, least=2)
    check_size("hop", hop)
    if x.ndim != 1 or len(x) < frame:
        raise ValueError(f"Expected a sound of at least {frame} samples, got shape {x.shape}.")
    starts = np.arange(0, len(x) - frame + 1, hop)
    frames = x[starts[:, None] + np.arange(frame)]  # (N, F)
    window = np.hanning(frame + 1)[:-1]
    window = jnp.asarray(window / np.sqrt(np.square(window).sum()), x.dtype)
    spectra = jnp.fft.rfft(frames * window[None])
    power = jnp.square(spectra.real) + jnp.square(spectra.imag)
    return jnp.sqrt(power.mean(0) + jnp.finfo(x.dtype).eps)  # a finite gradient at silence


def add_power_loss(
    objective: Divergence,
    sounds: jax.Array,
    contexts: jax.Array | None = None,
    *,
    weight: float = 1.0,
    num_sounds: int = 8,
    frame: int = 256,
    hop: int = 64,
) -> Divergence:
    r"""Return an objective plus an energy distance between spectra of samples and of recordings.

    $$L(\theta) + \lambda T\, \mathbb{E}\big[ \tfrac12 \lVert\phi(x) - \phi(y)\rVert
    + \tfrac12 \lVert\phi(x') - \phi(y)\rVert - \tfrac12 \lVert\phi(x) - \phi(x')\rVert\big],$$

    where $y$ is a recording, $x$ and $x'$ are two samples with its context, $\phi$ is
    `find_spectrum`, and the norm is the root of the mean square over frequencies. The divergence
    from a teacher is small for a student that whispers: a quiet sound can be as probable as a loud
    one. This loss holds the power of samples to the power of recordings. Parallel WaveNet compares
    one sample with a recording of the same words. Without such pairs that distance favours samples
    that vary too little. The last term removes this bias: the mean is smallest where samples and
    recordings of a context have one distribution of spectra.

    van den Oord et al. 2017, arXiv:1711.10433, section 4.2; Gritsenko et al. 2020,
    arXiv:2008.01160.

    Args:
        objective: the objective $L$, such as `gaussian_kl`.
        sounds: recordings `(N, T)`, as long as the student's samples.
        contexts: the contexts of the recordings `(N, *context_shape)`, for a student with context.
        weight: the weight $\lambda$.
        num_sounds: the number of recordings in a step.
        frame: the number of samples $F$ in a frame of the spectrum.
        hop: the number of samples from one frame to the next.

    Raises:
        ValueError: for shapes that do not match, or numbers out of range.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Normal(300), afflow.Reverse(300))
        >>> sounds = jnp.zeros((4, 300))
        >>> objective = afflow.inference.add_power_loss(afflow.inference.reverse_kl, sounds)
        >>> loss = objective(flow, flow.log_prob, jax.random.key(0), 2)  # the divergence is zero
        >>> 100 < loss.item() < 300
        True
    """
    check_callable("objective", objective, "afflow.inference.gaussian_kl")
    check_number("weight", weight, lambda weight: weight >= 0, "at least 0")
    check_size("num_sounds", num_sounds)
    sounds = jnp.asarray(sounds)
    if sounds.ndim != 2 or (contexts is not None and len(contexts) != len(sounds)):
        shape = None if contexts is None else np.shape(contexts)
        raise ValueError(
            f"Expected sounds (N, T) and contexts (N, ...), got {sounds.shape} and {shape}."
        )
    contexts = None if contexts is None else jnp.asarray(contexts)
    f = partial(_add_distance, weight, num_sounds, frame, hop)
    return Partial(f, as_pytree(objective), sounds, contexts)


def _add_distance(
    weight: float,
    num_sounds: int,
    frame: int,
    hop: int,
    objective: Divergence,
    sounds: jax.Array,
    contexts: jax.Array | None,
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
) -> jax.Array:
    """Return the objective plus the weighted distance of spectra."""
    key, rows_key, noise_key = jax.random.split(key, 3)
    rows = jax.random.randint(rows_key, (num_sounds,), 0, len(sounds))
    given = None if contexts is None else contexts[rows]
    shape = (2, num_sounds) if given is None else 2
    drawn = flow.sample(noise_key, shape, given)  # (2, num_sounds, T)
    find = jax.vmap(partial(find_spectrum, frame=frame, hop=hop))
    (x, other), y = jax.vmap(find)(drawn), find(sounds[rows])
    distance = _find_norm(x - y) + _find_norm(other - y) - _find_norm(x - other)
    divergence = objective(flow, log_density, key, num_samples, context)
    return divergence + weight * sounds.shape[1] * distance.mean() / 2


def _find_norm(difference: jax.Array) -> jax.Array:
    """Return the root of the mean square over the last axis."""
    return jnp.sqrt(jnp.square(difference).mean(-1) + jnp.finfo(difference.dtype).eps)
