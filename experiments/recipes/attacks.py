"""A small convolutional classifier of grey images, and attacks on it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm


class Classifier(nnx.Module):
    """Two convolutions of stride 2 and two dense layers.

    Args:
        shape: the sizes `(H, W)` of an image.
        num_classes: the number of classes.
        channels: the channels of the first convolution; the second has twice as many.
        rngs: its `params` stream draws the initial weights.
    """

    def __init__(
        self, shape: tuple[int, int], num_classes: int, channels: int = 16, *, rngs: nnx.Rngs
    ):
        sizes = [1, channels, 2 * channels]
        self.convolutions = nnx.List(
            nnx.Conv(size, other, (5, 5), 2, rngs=rngs)
            for size, other in zip(sizes, sizes[1:], strict=False)
        )
        height, width = (-(-size // 4) for size in shape)
        self.hidden = nnx.Linear(height * width * sizes[-1], 64, rngs=rngs)
        self.out = nnx.Linear(64, num_classes, rngs=rngs)

    def __call__(self, levels: jax.Array) -> jax.Array:
        """Return logits `(N, num_classes)` of images `(N, H, W)` with levels 0 to 255."""
        h = levels[..., None] / 255  # (N, H, W, 1)
        for convolution in self.convolutions:
            h = jax.nn.relu(convolution(h))
        return self.out(jax.nn.relu(self.hidden(h.reshape(len(h), -1))))


def find_loss(classifier: Classifier, levels: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of labels `(N,)`, in nats."""
    logits = classifier(levels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def fit_classifier(
    levels: np.ndarray, labels: np.ndarray, *, epochs: int, batch_size: int = 128, seed: int = 0
) -> Classifier:
    """Fit a classifier by Adam with a cosine decay of its rate to zero.

    Each step is one compiled call. XLA's gradient of a convolution is slow in a loop on a CPU.
    """
    classifier = Classifier(levels.shape[1:], int(labels.max()) + 1, rngs=nnx.Rngs(seed))
    num_steps = len(levels) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, epochs * num_steps))
    graph, params = nnx.split(classifier)

    @jax.jit
    def step(params, state, levels, labels):
        gradient = jax.grad(lambda params: find_loss(nnx.merge(graph, params), levels, labels))
        updates, state = optimizer.update(gradient(params), state)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(seed)
    for epoch in range(epochs):
        rows = rng.permutation(len(levels))[: num_steps * batch_size].reshape(num_steps, -1)
        for row in tqdm(rows, f"classifier, epoch {epoch + 1}"):
            params, state = step(params, state, levels[row].astype(np.float32), labels[row])
    return nnx.merge(graph, params)


def classify(classifier: Classifier, levels: np.ndarray) -> np.ndarray:
    """Return the most probable class `(N,)` of images `(N, H, W)`."""
    return np.asarray(classifier(jnp.asarray(levels, float)).argmax(-1))


def attack_once(
    classifier: Classifier, levels: np.ndarray, labels: np.ndarray, radius: int
) -> np.ndarray:
    r"""Move every level by `radius` in the direction that raises the loss $J$ (FGSM).

    $$x' = \mathrm{clip}(x + r \operatorname{sign} \nabla_x J(x, y),\ 0,\ 255).$$

    Goodfellow et al. 2015, arXiv:1412.6572.
    """
    return attack(classifier, levels, labels, radius, size=radius, num_steps=1)


def attack_in_steps(
    classifier: Classifier, levels: np.ndarray, labels: np.ndarray, radius: int
) -> np.ndarray:
    r"""Move every level by at most `radius`, in steps of one level along the gradient (BIM).

    The number of steps is $\min(r + 4, 1.25\,r)$. Kurakin et al. 2017, arXiv:1607.02533.
    """
    num_steps = min(radius + 4, -(-5 * radius // 4))
    return attack(classifier, levels, labels, radius, size=1, num_steps=num_steps)


def attack(
    classifier: Classifier,
    levels: np.ndarray,
    labels: np.ndarray,
    radius: int,
    *,
    size: int,
    num_steps: int,
) -> np.ndarray:
    """Return images `(N, H, W)`, `uint8`, after steps of `size` levels along the gradient's sign.

    The images stay within `radius` levels of the given images, and in 0 to 255.
    """
    start = jnp.asarray(levels, float)
    x, lowest, highest = start, jnp.maximum(start - radius, 0), jnp.minimum(start + radius, 255)
    for _ in range(num_steps):
        x = _climb(classifier, x, labels, size, lowest, highest)
    return np.asarray(x).astype(np.uint8)


@jax.jit
def _climb(classifier, x, labels, size, lowest, highest):
    gradient = jax.grad(find_loss, argnums=1)(classifier, x, labels)
    return jnp.clip(x + size * jnp.sign(gradient), lowest, highest)
