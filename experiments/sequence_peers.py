"""Sampling of the same sequence networks in afflow, netket and flax, in one process.

    python experiments/sequence_peers.py             # minutes on one core (extra `peers`)
    python experiments/sequence_peers.py --lengths 16 --batch 8 --repeats 3

Two networks are built by a peer and copied to afflow, weights included: netket's `FastARNNConv1D`,
and a transformer of flax's `MultiHeadAttention` with its cache. The script asserts that both
libraries give the same log-probabilities, and that each decoding agrees with its full pass.
Then it times samples and densities, in turn. netket is left out if it is not installed.
"""

from dataclasses import dataclass, fields
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import jax
import tyro
from measuring.report import compile_seconds, interleave, save, summary
from peers.copies import copy_convolutions, copy_decoder
from peers.sequences import Model, Shared, Sizes, flax_decoder, netket_convolutions

import afflow

COMPILATIONS: list[str] = []
"""What JAX traced, lowered or compiled since the list was emptied."""


@dataclass(frozen=True)
class Config(Shared):
    """The same networks in two libraries, timed in turn."""

    lengths: tuple[int, ...] = (128, 256)
    """Sites or tokens of an event."""
    repeats: int = 11
    """Timed calls of each function, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


NETWORKS = {
    "netket": (netket_convolutions, copy_convolutions),
    "flax": (flax_decoder, copy_decoder),
}
TOLERANCE = 1e-5
"""Largest relative difference of log-probabilities."""


def check(peer: Model, ours: afflow.AutoregressiveModel, x: jax.Array) -> dict:
    """Assert that both models are one model, and that each decodes what its full pass computes.

    Returns:
        The largest difference of log-probabilities in each comparison, divided by the largest
        log-probability.
    """
    drawn, while_drawing = peer.decoded()
    ours_drawn, ours_while_drawing = ours.generate(jax.random.key(1), shape=len(x))
    pairs = {
        "both models": (ours.log_prob(x), peer.log_prob(peer.prepare(x))),
        "decoding of the peer": (while_drawing, peer.log_prob(drawn)),
        "decoding of afflow": (ours_while_drawing, ours.log_prob(ours_drawn)),
    }
    errors = {name: float(abs(a - b).max() / abs(b).max()) for name, (a, b) in pairs.items()}
    assert max(errors.values()) < TOLERANCE, errors
    return errors


def compare(name: str, length: int, config: Config) -> dict[str, Any]:
    """Time one network in both libraries, at one length."""
    settings = {field.name: getattr(config, field.name) for field in fields(Shared)}
    sizes = Sizes(length=length, **settings)
    build, copy = NETWORKS[name]
    peer = build(sizes)
    ours = copy(sizes, peer.weights)
    key, num_symbols = jax.random.key(sizes.seed), ours.conditional.num_classes
    x = jax.random.randint(key, (sizes.batch, length), 0, num_symbols)
    events = peer.prepare(x)
    runs = {
        f"{name}: sample": peer.sample,
        "afflow: sample": lambda: ours.sample(key, sizes.batch),
        f"{name}: density": lambda: peer.log_prob(events),
        "afflow: density": lambda: ours.log_prob(x),
    }
    first = {run: compile_seconds(call) for run, call in runs.items()}
    errors = check(peer, ours, x)
    COMPILATIONS.clear()
    seconds = interleave(runs, config.repeats, 60)
    assert not COMPILATIONS, "A timed call compiled."
    times = {run: summary(values) for run, values in seconds.items()}
    ratios = {
        kind: times[f"{name}: {kind}"]["median_ms"] / times[f"afflow: {kind}"]["median_ms"]
        for kind in ("sample", "density")
    }
    return {
        "times": times,
        "first_call_seconds": first,
        "peer_over_afflow": ratios,
        "relative_errors": errors,
    }


def main(config: Config) -> None:
    """Run the experiment; the results are written after every network and length."""
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: COMPILATIONS.append(event)
    )
    names = [name for name in NETWORKS if find_spec(name)]
    results: dict[str, Any] = {"versions": {name: version(name) for name in names}, "networks": {}}
    print(f"{'median milliseconds':28}{'peer':>10}{'afflow':>10}{'ratio':>8}")
    for name, length in product(names, config.lengths):
        row = results["networks"][f"{name}, T={length}"] = compare(name, length, config)
        save(config.out / "sequence_peers.json", config, results)
        for kind, ratio in row["peer_over_afflow"].items():
            pair = (row["times"][f"{who}: {kind}"]["median_ms"] for who in (name, "afflow"))
            cells = "".join(f"{median:10.1f}" for median in pair)
            print(f"{f'{name}, T={length}: {kind}':28}{cells}{ratio:8.2f}")


if __name__ == "__main__":
    main(tyro.cli(Config))
