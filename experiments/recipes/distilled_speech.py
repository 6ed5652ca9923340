"""Distillation of a WaveNet over spoken digits into four inverse autoregressive flows."""

from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from datasets.speech import RATE, Speech, spoken_digits, thin
from jax.tree_util import Partial
from measuring.report import interleave, summary
from measuring.sounds import draw, write_sound

import afflow
from recipes.distilled_stages import Stages, convert
from recipes.spoken_flows import (
    TINY,
    Sizes,
    build_student,
    build_teacher,
    find_likelihood_loss,
    find_start_loss,
    lengthen,
)
from recipes.spoken_windows import DIGITS, Units, Windows, cut, make_contexts, thin_windows


def make_optimizer(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, with a warm-up and then a constant rate."""
    schedule = optax.linear_schedule(0.0, rate, min(200, num_steps // 4 + 1))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def train(
    data: Windows, validation: Windows, sizes: Sizes, config: Any
) -> tuple[dict[str, afflow.Flow], Stages]:
    """Train the teacher on windows; start the student on its noise; distil it."""
    stages = Stages(config.runs, config.label, asdict(config))
    windows = Windows(*map(jnp.asarray, data))
    options = {"optimizer": partial(make_optimizer, sizes.rate), "ema": 0.999}
    options["num_steps"] = sizes.num_steps
    teacher = train_teacher(stages, windows, validation, sizes, options)
    started = start(stages, teacher, windows, sizes, options)
    student = distil(stages, teacher, started, windows, sizes, options)
    return {"teacher": teacher, "start": started, "student": student}, stages


def train_teacher(stages: Stages, windows: Windows, validation: Windows, sizes: Sizes, options):
    """Return the teacher with the best score on some windows for validation."""
    return stages.run(
        "teacher",
        afflow.training.train,
        build_teacher(sizes, windows.contexts.shape[1], stages.seed),
        Partial(partial(find_likelihood_loss, sizes.batch_size), windows),
        validate=Partial(score_mean, thin_windows(validation, sizes.held_out)),
        max_epochs=sizes.epochs[0],
        **options,
    )


def start(stages: Stages, teacher: afflow.Flow, windows: Windows, sizes: Sizes, options):
    """Return a student that maps the noise of the teacher in recordings to the recordings."""
    return stages.run(
        "start",
        afflow.training.train,
        build_student(sizes, windows.contexts.shape[1], stages.seed),
        Partial(partial(find_start_loss, sizes.batch_size), teacher, windows),
        max_epochs=sizes.epochs[1],
        **options,
    )


def distil(
    stages: Stages, teacher: afflow.Flow, student: afflow.Flow, windows: Windows, sizes, options
):
    """Return the student with the least divergence from the teacher on held-out noise."""
    objective = afflow.inference.add_power_loss(
        afflow.inference.gaussian_kl, *windows, weight=sizes.power_weight, num_sounds=2
    )
    return stages.run(
        "student",
        afflow.inference.distill,
        teacher,
        student,
        contexts=windows.contexts,
        objective=objective,
        num_samples=1,
        batch_size=sizes.batch_size,
        max_epochs=sizes.epochs[2],
        held_out=sizes.held_out,
        chunk=4,
        **options,
    )


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
    sizes, seed = TINY if config.small else config.speech, config.seed
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
            write_sound(config.out / f"{config.label}_{name}_{digit}.wav", sound, RATE)
    draw(config.out / f"{config.label}.png", sounds, RATE)
