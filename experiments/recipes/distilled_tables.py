"""Distillation of a masked autoregressive flow over a table into an inverse one."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from datasets import DENSITIES, Split
from gaussians import summarize
from measuring.report import interleave, summary

import afflow
from recipes.benchmarks import Settings, build
from recipes.distilled_stages import Stages, convert
from recipes.students import mirror, start_layers


@dataclass(frozen=True)
class Sizes:
    """A teacher, its student, and the steps of their training."""

    teacher: Settings
    hidden: tuple[int, ...]
    """Widths of the student's residual networks."""
    batch_size: int
    """Samples in a step of distillation."""
    start_steps: int
    """Steps that fit each layer of the student to its layer of the teacher."""
    steps: int
    """Steps of distillation."""
    epochs: int = 20
    """Parts of distillation, after each of which the student is measured."""
    start_rate: float = 2e-3
    learning_rate: float = 3e-4
    """Initial rate of distillation, low because the start is close."""
    num_samples: int = 20_000
    """Samples that measure the divergence."""


SIZES = {
    "power": Sizes(Settings(cycles=(2,)), (128,) * 3, batch_size=512, start_steps=3000, steps=4000),
    "digits": Sizes(
        Settings(hidden=(64,) * 3, lu=False, batch_size=64, weight_decay=1.0, cycles=(60,)),
        (64,) * 3,
        batch_size=128,
        start_steps=4000,
        steps=4000,
    ),
}
TINY = Sizes(
    Settings(num_layers=2, hidden=(8,), lu=False, batch_size=64, cycles=(1,)),
    (8,),
    batch_size=8,
    start_steps=4,
    steps=4,
    epochs=2,
    num_samples=64,
)


class Course(NamedTuple):
    """The teacher, the student after its start and after distillation, and the stages."""

    teacher: afflow.Flow
    started: afflow.Flow
    student: afflow.Flow
    stages: Stages


def make_optimizer(rate: float, decay: float, num_steps: int) -> optax.GradientTransformation:
    """Return AdamW on clipped gradients, with a cosine decay to zero."""
    schedule = optax.cosine_decay_schedule(rate, num_steps)
    adam = optax.adamw(schedule, weight_decay=decay)
    return optax.chain(optax.clip_by_global_norm(5.0), adam)


def train(data: Split, sizes: Sizes, config: Any) -> Course:
    """Train the teacher on data, then start and distil the student without data."""
    stages = Stages(config.runs, config.label, asdict(config))
    teacher = train_teacher(stages, data, sizes.teacher)
    started, student = train_student(stages, teacher, sizes)
    return Course(teacher, started, student, stages)


def train_teacher(stages: Stages, data: Split, settings: Settings) -> afflow.Flow:
    """Return the flow with the best score on the rows for validation."""
    return stages.run(
        "teacher",
        afflow.fit,
        build("maf", settings, data.train, stages.seed),
        data.train,
        validation=data.validation,
        batch_size=settings.batch_size,
        max_epochs=settings.cycles[0],
        optimizer=partial(make_optimizer, settings.learning_rate, settings.weight_decay),
    )


def train_student(
    stages: Stages, teacher: afflow.Flow, sizes: Sizes
) -> tuple[afflow.Flow, afflow.Flow]:
    """Return the student after its start, and the best student of distillation."""
    started = stages.run(
        "start",
        start_layers,
        teacher,
        mirror(teacher, sizes.hidden, stages.seed),
        batch_size=sizes.batch_size,
        num_steps=sizes.start_steps // sizes.epochs,
        max_epochs=sizes.epochs,
        optimizer=partial(make_optimizer, sizes.start_rate, 0.0),
    )
    return started, stages.run(
        "student",
        afflow.inference.distill,
        teacher,
        started,
        objective=afflow.inference.sticking_the_landing,
        num_samples=sizes.batch_size,
        num_steps=sizes.steps // sizes.epochs,
        max_epochs=sizes.epochs,
        held_out=2048,
        chunk=2048,
        optimizer=partial(make_optimizer, sizes.learning_rate, 0.0),
    )


def measure(course: Course, data: Split, sizes: Sizes, config: Any) -> dict[str, Any]:
    """Return the divergences, the scores of the test rows, and the times of samples."""
    key = jax.random.key(config.seed + 1)
    models = {"teacher": course.teacher, "student": course.student}
    options = {"key": key, "num_samples": sizes.num_samples, "chunk": 2048}
    kl = {
        name: convert(afflow.inference.kl_per_token(course.teacher, student, **options))
        for name, student in [("start", course.started), ("student", course.student)]
    }
    scores = {name: score(model, data.test) for name, model in models.items()}
    runs = {name: partial(model.sample, key, 1000) for name, model in models.items()}
    for run in runs.values():
        jax.block_until_ready(run())
    times = interleave(runs, 15, 20.0)
    return {
        "kl_per_dimension": kl,
        "test": {name: summarize(values) for name, values in scores.items()},
        "difference": summarize(scores["teacher"] - scores["student"]),
        "sampling_1000": {name: summary(values) for name, values in times.items()},
        **course.stages.report(),
    }


def score(flow: afflow.Flow, x: np.ndarray, batch_size: int = 4096) -> np.ndarray:
    """Return the log-density of every row, computed in batches."""
    cuts = range(0, len(x), batch_size)
    return np.concatenate([flow.log_prob(x[cut : cut + batch_size]) for cut in cuts], dtype=float)


def draw(results: dict[str, Any], title: str, path: Path) -> None:
    """Draw the divergence on held-out noise after every part of distillation."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    values = results["histories"]["student"]["validation"]
    axis.semilogy(np.arange(1, len(values) + 1), values, "o-")
    axis.axhline(results["kl_per_dimension"]["start"]["value"], color="0.6", label="start")
    axis.axhline(0.1, color="black", linestyle=":", label="0.1 nats")
    axis.set(title=title, xlabel="part of distillation", ylabel="KL per dimension (nats)")
    axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def distil_table(config: Any) -> dict[str, Any]:
    """Run the task; return its results and draw its picture."""
    sizes = TINY if config.small else SIZES[config.data]
    data = DENSITIES[config.data](config.data_dir)
    results = measure(train(data, sizes, config), data, sizes, config)
    config.out.mkdir(parents=True, exist_ok=True)
    draw(results, config.data, config.out / f"{config.label}.png")
    for name, kl in results["kl_per_dimension"].items():
        print(f"{name}: KL {kl['value']:.4f} +- {kl['standard_error']:.4f} nats per dimension")
    for name, test in results["test"].items():
        median = results["sampling_1000"][name]["median_ms"]
        print(f"{name}: test {test['nats']:.3f} nats, 1000 samples in {median:.1f} ms")
    return results
