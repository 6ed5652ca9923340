"""Distillation of a WaveNet over spoken digits into four inverse autoregressive flows."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from datasets.speech import CODEC, RATE, Recordings, Speech, cut_evenly, spoken_digits, thin
from flax import nnx
from jax.tree_util import Partial
from measuring.report import interleave, summary
from measuring.sounds import draw, write_sound

import afflow
from recipes.distilled_stages import Stages, convert

DIGITS = np.arange(10)


@dataclass(frozen=True)
class Sizes:
    """A teacher, its student, and the steps of their training."""

    length: int = 1600
    """Samples in a window."""
    teacher_layers: int = 10
    """Layers of the teacher, with dilations 1, 2, 4, ..."""
    teacher_channels: int = 32
    flows: int = 4
    layers: int = 8
    """Layers of the network of a flow."""
    channels: int = 16
    batch_size: int = 4
    epochs: tuple[int, int, int] = (1000, 1000, 1000)
    """The most epochs of the teacher, the start and the student; `minutes` ends them before."""
    num_steps: int = 50
    """Steps in an epoch."""
    rate: float = 2e-3
    power_weight: float = 1.0
    held_out: int = 32
    num_samples: int = 120
    """Samples that measure the divergence."""
    duration: int = 4000
    """Samples in a sound."""
    max_recordings: int | None = None


SIZES = Sizes()
TINY = Sizes(
    length=300,
    teacher_layers=2,
    teacher_channels=4,
    flows=2,
    layers=2,
    channels=4,
    epochs=(1, 1, 2),
    num_steps=2,
    held_out=4,
    num_samples=20,
    duration=400,
    max_recordings=20,
)


class Windows(NamedTuple):
    """Windows of standardised sound `(N, length)`, and their contexts `(N, 10 + speakers)`."""

    sounds: np.ndarray
    contexts: np.ndarray


class Units(NamedTuple):
    """The units of a sound: the companded values of the mu-law, with scale 1."""

    scale: float

    @staticmethod
    def of(symbols: list[np.ndarray]) -> "Units":
        """Return the units in which all symbols together have standard deviation 1."""
        return Units(float(np.std(np.concatenate(symbols) / 128 - 1)))

    def encode(self, symbols: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return symbols with uniform noise as numbers of scale 1."""
        companded = (symbols + rng.random(symbols.shape)) / 128 - 1
        return (companded / self.scale).astype(np.float32)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the sound between -1 and 1 of numbers of scale 1."""
        symbols = np.floor((np.asarray(x) * self.scale + 1) * 128)
        return CODEC.decode(np.clip(symbols, 0, 255).astype(np.uint8))


def make_contexts(digits: np.ndarray, speakers: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return zeros and ones `(N, 10 + len(names))`: one for the digit, one for the speaker."""
    columns = [digits[:, None] == DIGITS, speakers[:, None] == names]
    return np.hstack(columns).astype(np.float32)


def cut(part: Recordings, units: Units, names: np.ndarray, length: int) -> Windows:
    """Return the windows of a part. Recordings shorter than a window are left out."""
    rows, owners = cut_evenly(part.symbols, length)
    whole = np.isfinite(rows).all(1)
    contexts = make_contexts(part.digits, part.speakers, names)[owners]
    return Windows(units.encode(rows[whole], np.random.default_rng(0)), contexts[whole])


def build_teacher(sizes: Sizes, context_dim: int, seed: int) -> afflow.Flow:
    """Return a WaveNet with one normal a sample. Its log-scales stay above -7."""
    dilations = tuple(2**layer for layer in range(sizes.teacher_layers))
    options = {"channels": sizes.teacher_channels, "context_dim": context_dim}
    network = afflow.conditioners.WaveNet(
        sizes.length, 2, dilations, **options, rngs=nnx.Rngs(seed)
    )
    layer = afflow.MaskedAutoregressive(network, afflow.Affine(7.0))
    return afflow.Flow(afflow.Normal(sizes.length), layer)


def build_student(sizes: Sizes, context_dim: int, seed: int) -> afflow.Flow:
    """Return inverse autoregressive flows of one order; they start as the identity."""
    rngs, options = nnx.Rngs(seed), {"channels": sizes.channels, "context_dim": context_dim}
    dilations = tuple(2**layer for layer in range(sizes.layers))

    def make_layer() -> afflow.Bijector:
        network = afflow.conditioners.WaveNet(sizes.length, 2, dilations, **options, rngs=rngs)
        return afflow.Inverse(afflow.MaskedAutoregressive(network, afflow.Affine(7.0)))

    layers = [make_layer() for _ in range(sizes.flows)]
    return afflow.Flow(afflow.Normal(sizes.length), afflow.Chain(layers))


def lengthen(flow: afflow.Flow, length: int) -> afflow.Flow:
    """Return a flow of WaveNets with the same weights for sounds of another length."""

    def change(bijector: Any) -> afflow.Bijector:
        if isinstance(bijector, afflow.Chain):
            return afflow.Chain([change(part) for part in bijector.bijectors])
        if isinstance(bijector, afflow.Inverse):
            return afflow.Inverse(change(bijector.bijector))
        network = bijector.conditioner.with_length(length)
        return afflow.MaskedAutoregressive(network, bijector.univariate)

    return afflow.Flow(afflow.Normal(length), change(flow.bijector))


def find_likelihood_loss(
    batch_size: int, windows: Windows, teacher: afflow.Flow, key, batch
) -> jax.Array:
    """Return minus the log-density per sample of windows drawn at random."""
    rows = jax.random.randint(key, (batch_size,), 0, len(windows.sounds))
    x = windows.sounds[rows]
    return -teacher.log_prob(x, windows.contexts[rows]).mean() / x.shape[1]


def find_start_loss(
    batch_size: int, teacher: afflow.Flow, windows: Windows, student: afflow.Flow, key, batch
) -> jax.Array:
    """Return the error per sample of the student at the noise that the teacher finds in sounds.

    The teacher's maps at the prefixes of a sound take the sound to noise, and the student's sound
    back to noise. The loss is the mean square of the difference.
    """
    rows = jax.random.randint(key, (batch_size,), 0, len(windows.sounds))

    def find_error(x, context):
        layer = teacher.bijector
        params = layer.conditioner(x, context)
        z = jax.vmap(layer.univariate.inverse)(x, params)
        found = jax.vmap(layer.univariate.inverse)(student.bijector.forward(z, context), params)
        return jnp.square(found - z).mean()

    return jax.vmap(find_error)(windows.sounds[rows], windows.contexts[rows]).mean()


def make_optimizer(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, with a warm-up and then a constant rate."""
    schedule = optax.linear_schedule(0.0, rate, min(200, num_steps // 4 + 1))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def train(
    train: Windows, validation: Windows, sizes: Sizes, config: Any
) -> tuple[dict[str, afflow.Flow], Stages]:
    """Train the teacher on windows; start the student on its noise; distil it."""
    stages = Stages(config.runs, "speech", config.minutes, config.seed)
    context_dim, windows = train.contexts.shape[1], Windows(*map(jnp.asarray, train))
    options = {"optimizer": partial(make_optimizer, sizes.rate), "ema": 0.999}
    options["num_steps"] = sizes.num_steps
    fit, (first, second, third) = afflow.training.train, sizes.epochs
    teacher = stages.run(
        "teacher",
        fit,
        build_teacher(sizes, context_dim, config.seed),
        Partial(partial(find_likelihood_loss, sizes.batch_size), windows),
        validate=Partial(score_mean, thin_windows(validation, sizes.held_out)),
        max_epochs=first,
        **options,
    )
    started = stages.run(
        "start",
        fit,
        build_student(sizes, context_dim, config.seed),
        Partial(partial(find_start_loss, sizes.batch_size), teacher, windows),
        max_epochs=second,
        **options,
    )
    student = stages.run(
        "student",
        afflow.inference.distill,
        teacher,
        started,
        contexts=windows.contexts,
        objective=afflow.inference.add_power_loss(
            afflow.inference.gaussian_kl, *windows, weight=sizes.power_weight, num_sounds=2
        ),
        num_samples=1,
        batch_size=sizes.batch_size,
        max_epochs=third,
        held_out=sizes.held_out,
        chunk=4,
        **options,
    )
    return {"teacher": teacher, "start": started, "student": student}, stages


def thin_windows(windows: Windows, size: int) -> Windows:
    """Return `size` windows, evenly spaced."""
    rows = np.arange(size) * len(windows.sounds) // size
    return Windows(*(part[rows] for part in windows))


def score_mean(windows: Windows, teacher: afflow.Flow) -> float:
    """Return minus the mean log-density of windows in nats per sample."""
    return -score(teacher, windows)["nats_per_sample"]


def find_divergences(flows, contexts, sizes: Sizes, seed: int) -> dict[str, dict[str, float]]:
    """Return the divergence per sample of the student, before and after distillation."""
    rows = np.arange(sizes.num_samples) * len(contexts) // sizes.num_samples
    options = {"key": jax.random.key(seed + 1), "num_samples": 1, "chunk": 4}
    options |= {"context": contexts[rows]}
    find = partial(afflow.inference.kl_per_token, flows["teacher"], **options)
    return {name: convert(find(flows[name])) for name in ("start", "student")}


def time_second(flows: dict[str, afflow.Flow], context: np.ndarray) -> dict[str, Any]:
    """Return the times in which the teacher, with caches, and the student make a second."""
    runs = {
        name: partial(lengthen(flows[name], RATE).sample, jax.random.key(0), (), context)
        for name in ("teacher", "student")
    }
    for run in runs.values():
        jax.block_until_ready(run())
    times = {name: summary(values) for name, values in interleave(runs, 15, 30.0).items()}
    ratio = times["teacher"]["median_ms"] / times["student"]["median_ms"]
    return times | {"teacher_over_student": ratio}


def score(teacher: afflow.Flow, windows: Windows) -> dict[str, float]:
    """Return the log-density of windows in nats per sample, with the standard error."""
    size, parts = 8, []
    for start in range(0, len(windows.sounds), size):
        rows = (part[start : start + size] for part in windows)
        parts.append(np.asarray(teacher.log_prob(*rows)) / windows.sounds.shape[1])
    values = np.concatenate(parts)
    return {"nats_per_sample": values.mean(), "standard_error": values.std() / len(values) ** 0.5}


def speak(flow: afflow.Flow, contexts: np.ndarray, units: Units, sizes: Sizes) -> list[np.ndarray]:
    """Return a sound for each context."""
    x = lengthen(flow, sizes.duration).sample(jax.random.key(5), (), contexts)
    return list(units.decode(np.asarray(x)))


def distil_speech(config: Any) -> dict[str, Any]:
    """Run the task; return its results, and write the sounds and their picture."""
    sizes, seed = TINY if config.small else SIZES, config.seed
    parts = spoken_digits(config.data_dir)
    data = Speech(*(thin(part, sizes.max_recordings) for part in parts))
    names, units = np.unique(parts.train.speakers), Units.of(data.train.symbols)
    windows = {name: cut(part, units, names, sizes.length) for name, part in data._asdict().items()}
    flows, stages = train(windows["train"], windows["validation"], sizes, config)
    contexts = make_contexts(DIGITS, names[DIGITS % len(names)], names)
    results = {
        "kl_per_sample": find_divergences(flows, windows["validation"].contexts, sizes, seed),
        "test": score(flows["teacher"], windows["test"]),
        "second_of_speech": time_second(flows, contexts[0]),
        **stages.report(),
    }
    write_sounds(flows, contexts, units, sizes, config)
    for name, kl in results["kl_per_sample"].items():
        print(f"{name}: KL {kl['value']:.4f} +- {kl['standard_error']:.4f} nats per sample")
    print(
        "times of the teacher over the student:",
        round(results["second_of_speech"]["teacher_over_student"], 1),
    )
    return results


def write_sounds(flows, contexts, units: Units, sizes: Sizes, config: Any) -> None:
    """Write a sound of each digit by the teacher and the student, and a picture of all."""
    config.out.mkdir(parents=True, exist_ok=True)
    sounds = {name: speak(flows[name], contexts, units, sizes) for name in ("teacher", "student")}
    for name, some in sounds.items():
        for digit, sound in zip(DIGITS, some, strict=True):
            write_sound(config.out / f"speech_{name}_{digit}.wav", sound, RATE)
    draw(config.out / "speech.png", sounds, RATE)
