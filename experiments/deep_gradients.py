"""What a gradient through samples costs, for each deep conditioner of sequences and images.

    python experiments/deep_gradients.py  # about six minutes on two cores

A layer of affine maps draws samples. Their gradient comes once from the implicit function theorem,
as in the library, and once from backpropagation through the steps with their caches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx
from measuring.gradients import Backpropagated, time_gradients
from measuring.report import save

import afflow

C = afflow.conditioners


@dataclass(frozen=True)
class Config:
    """Differentiate the samples of networks of about one width."""

    length: int = 256
    """Tokens of a sequence."""
    side: int = 16
    """Rows and columns of an image."""
    width: int = 64
    """Units of a recurrent layer, channels of a convolution, features of a transformer."""
    batch: int = 16
    """Events in one call."""
    repeats: int = 11
    """Timed calls of each function, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


KINDS = {"implicit": afflow.MaskedAutoregressive, "backpropagation": Backpropagated}


def networks(config: Config) -> dict[str, Callable[[nnx.Rngs], afflow.Conditioner]]:
    """Return functions that make the networks, by name."""
    length, shape, width = config.length, (config.side, config.side), config.width
    channels = {"channels": width // 2}
    attention = {"width": width, "num_layers": 2, "num_heads": 4}
    return {
        "lstm": lambda rngs: C.Recurrent(length, 2, (width, width), rngs=rngs),
        "tcn": lambda rngs: C.TCN(length, 2, (width,) * 4, rngs=rngs),
        "wavenet": lambda rngs: C.WaveNet(
            length, 2, tuple(2**i for i in range(8)), channels=width, rngs=rngs
        ),
        "transformer": lambda rngs: C.Transformer(length, 2, **attention, rngs=rngs),
        "pixelcnn": lambda rngs: C.PixelCNN(shape, 2, **channels, num_blocks=4, rngs=rngs),
        "gated pixelcnn": lambda rngs: C.GatedPixelCNN(
            shape, 2, **channels, num_layers=4, rngs=rngs
        ),
        "pixelcnn++": lambda rngs: C.PixelCNNPP(shape, 2, **channels, num_blocks=(1, 1), rngs=rngs),
        "row lstm": lambda rngs: C.RowLSTM(shape, 2, **channels, num_layers=4, rngs=rngs),
        "diagonal lstm": lambda rngs: C.DiagonalLSTM(shape, 2, **channels, num_layers=4, rngs=rngs),
    }


def make_layer(kind: str, make: Callable, seed: int = 0) -> afflow.MaskedAutoregressive:
    """Return a layer with small random weights, also where the library starts from zeros."""
    layer = KINDS[kind](make(nnx.Rngs(seed)), afflow.Affine())
    rng = np.random.default_rng(seed)

    def move(a):
        return a + 0.02 * rng.normal(size=a.shape).astype(a.dtype)

    return jax.tree.map(move, layer)


def main(config: Config) -> None:
    """Run the experiment."""
    results = {}
    print(f"{'':16}{'pass (ms)':>10}{'training':>10}{'implicit':>22}{'backpropagation':>22}")
    for name, make in networks(config).items():
        layers = {kind: make_layer(kind, make) for kind in KINDS}
        shape = config.batch, *layers["implicit"].event_shape
        z = jax.random.normal(jax.random.key(0), shape)
        results[name] = row = time_gradients(layers, z, config.repeats)
        unit = row["density pass"]["median_ms"]
        parts = [f"{name:16}{unit:10.1f}{row['density gradient']['median_ms'] / unit:10.1f}"]
        for kind in KINDS:
            times, memory = row[kind]["median_ms"] / unit, row[kind]["temporaries_mb"]
            parts.append(f"{times:12.1f} {memory:6.0f} MB")
        print("".join(parts), flush=True)
        save(config.out / "deep_gradients.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
