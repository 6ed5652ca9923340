"""What sampling with caches costs in density passes, for each network of sequences and images.

python experiments/sequence_speed.py # a few minutes on two cores
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from flax import nnx
from measuring.report import compile_seconds, interleave, save, summary

import afflow

C = afflow.conditioners


@dataclass(frozen=True)
class Config:
    """Time models over symbols, with one width for all."""

    length: int = 128
    """Tokens in an event."""
    batch: int = 64
    """Events in one call."""
    width: int = 128
    """Units of a recurrent layer, channels of a WaveNet, features of a transformer."""
    num_symbols: int = 65
    """Symbols."""
    side: int = 28
    """Rows and columns of a binary image."""
    channels: int = 32
    """Channels of the networks of images."""
    repeats: int = 11
    """Timed calls of each function, in turn."""
    full_passes: bool = True
    """Whether to time sampling of sequences without caches as well, one full pass per token."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


def networks(config: Config) -> dict[str, afflow.Conditioner]:
    """Return the networks of sequences by name."""
    sizes, options = (config.length, config.num_symbols), {"features": config.num_symbols}
    hidden = (config.width, config.width)
    dilations = tuple(2**i for i in range(8))
    attention = {"width": config.width, "num_layers": 4, "num_heads": 4}

    def rngs():
        return nnx.Rngs(0)

    return {
        "lstm": C.Recurrent(*sizes, hidden, **options, rngs=rngs()),
        "gru": C.Recurrent(*sizes, hidden, cell=nnx.GRUCell, **options, rngs=rngs()),
        "tcn": C.TCN(*sizes, (config.width,) * 4, **options, rngs=rngs()),
        "wavenet": C.WaveNet(*sizes, dilations, channels=config.width, **options, rngs=rngs()),
        "transformer": C.Transformer(*sizes, **attention, **options, rngs=rngs()),
        "transformer, relative": C.Transformer(
            *sizes, **attention, **options, positions=afflow.nets.Relative(128), rngs=rngs()
        ),
    }


def image_networks(config: Config) -> dict[str, afflow.Conditioner]:
    """Return the networks of binary images by name."""
    shape, sizes = (config.side, config.side), {"channels": config.channels}
    return {
        "pixelcnn": C.PixelCNN(shape, 1, **sizes, num_blocks=8, rngs=nnx.Rngs(0)),
        "gated pixelcnn": C.GatedPixelCNN(shape, 1, **sizes, num_layers=8, rngs=nnx.Rngs(0)),
        "pixelcnn++": C.PixelCNNPP(shape, 1, **sizes, num_blocks=(2, 2, 2), rngs=nnx.Rngs(0)),
        "multiscale": C.Multiscale(shape, 1, **sizes, num_blocks=4, rngs=nnx.Rngs(0)),
        "row lstm": C.RowLSTM(shape, 1, **sizes, num_layers=7, rngs=nnx.Rngs(0)),
        "subscale": C.Subscale(shape, 1, rngs=nnx.Rngs(0)),
        "diagonal lstm": C.DiagonalLSTM(shape, 1, **sizes, num_layers=7, rngs=nnx.Rngs(0)),
    }


def loss(model, x):
    """Return the mean negative log-likelihood of a minibatch."""
    return -model.log_prob(x).mean()


gradient = jax.jit(jax.grad(loss))


def runs_of(
    name: str,
    network: afflow.Conditioner,
    conditional: afflow.Conditional,
    config: Config,
    *,
    full_passes: bool,
) -> dict:
    """Return the functions to time for one network."""
    model = afflow.AutoregressiveModel(network, conditional)
    key = jax.random.key(0)
    x = jax.random.randint(key, (config.batch, *model.event_shape), 0, conditional.num_values)
    x = jnp.asarray(x, jnp.uint8)
    runs = {
        f"{name}: density": lambda: model.log_prob(x),
        f"{name}: sample": lambda: model.sample(key, config.batch),
        f"{name}: gradient": lambda: gradient(model, x),
    }
    if full_passes:
        plain = afflow.AutoregressiveModel(network, conditional, solver=afflow.FullPasses())
        runs[f"{name}: full passes"] = lambda: plain.sample(key, config.batch)
    return runs


def main(config: Config) -> None:
    """Run the experiment."""
    runs, sequences, pictures = {}, networks(config), image_networks(config)
    symbols = afflow.conditionals.Categorical(config.num_symbols), config
    for name, network in sequences.items():
        runs |= runs_of(name, network, *symbols, full_passes=config.full_passes)
    for name, network in pictures.items():
        bits = afflow.conditionals.Bernoulli(), config
        runs |= runs_of(name, network, *bits, full_passes=False)
    compiled = {name: compile_seconds(run) for name, run in runs.items()}
    times = {name: summary(values) for name, values in interleave(runs, config.repeats, 60).items()}
    results = {"times": times, "first_call_seconds": compiled, "in_density_passes": {}}
    print(f"{'':24}{'pass (ms)':>12}" + "".join(f"{k:>14}" for k in ("sample", "gradient", "full")))
    for name in sequences | pictures:
        one = times[f"{name}: density"]["median_ms"]
        kinds = [
            kind for kind in ("sample", "gradient", "full passes") if f"{name}: {kind}" in times
        ]
        ratios = {kind: times[f"{name}: {kind}"]["median_ms"] / one for kind in kinds}
        results["in_density_passes"][name] = ratios
        print(f"{name:24}{one:12.1f}" + "".join(f"{ratio:14.2f}" for ratio in ratios.values()))
    save(config.out / "sequence_speed.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
