"""Images of digits from captions, in two stages, ranked by a critic.

    python experiments/text_to_image.py --data-dir FOLDER

A discrete variational autoencoder turns an image into a grid of codes. A transformer models the
words of a caption followed by the codes. Several images are drawn for each caption. A critic of
images and captions ranks them. A classifier, which takes no part in the drawing, reads the digits.
Thickness and slant are measured as in the captions of the data.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tyro
from datasets.captions import LENGTH, WORDS, CaptionedDigits, captioned_digits
from flax import nnx
from measuring.report import keep_programs, save
from recipes.captioned_digits import (
    Judge,
    draw_figure,
    judge,
    measure_test_images,
    rank,
    summarize,
    summarize_by_digit,
)
from recipes.classifier import Classifier
from recipes.critic import Critic
from recipes.kept_models import KeptModels
from recipes.painter import (
    Painter,
    build_transformer,
    build_vae,
    caption_and_codes,
    make_tokens,
)

ROOT = Path(__file__).parent
MEASURED = "repeats", "num_draws", "sampling_temperature", "data_dir", "out", "runs"
"""The settings that train nothing."""


@dataclass(frozen=True)
class Config:
    """The networks, their trainings, and the drawing."""

    num_codes: int = 128
    channels: tuple[int, ...] = (32, 64)
    """Channels after each halving of an image, in all networks of images."""
    temperatures: tuple[float, ...] = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
    """Temperatures of the relaxed codes, one after the other."""
    kl_weight: float = 0.1
    """Of 0.1 and 1, the weight with the smaller error of validation images, after a short trial."""
    vae_epochs: int = 5
    """Epochs at each temperature."""
    width: int = 128
    num_layers: int = 4
    transformer_epochs: int = 12
    critic_epochs: int = 8
    critic_batch_size: int = 256
    classifier_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    minutes: float = 40.0
    """The time limit of each training, in minutes of one CPU core."""
    repeats: int = 4
    """How often each caption is drawn for."""
    num_draws: int = 16
    """Images that the critic ranks."""
    sampling_temperature: float = 1.0
    max_images: int | None = None
    """Use at most this many images of each part, for a quick trial."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "text_to_image"
    runs: Path = ROOT.parent / "runs" / "text_to_image"


def plan(config: Config) -> KeptModels:
    """Return the trainings, with the settings on which they depend."""
    values = {name: value for name, value in asdict(config).items() if name not in MEASURED}
    return KeptModels(config.runs, config.minutes, values)


def train_painter(stages: KeptModels, config: Config, data: CaptionedDigits) -> Painter:
    """Return the trained models of the two stages."""
    x, held_out = data.images.train, data.images.validation
    options = {"key": jax.random.key(config.seed), "learning_rate": config.learning_rate}
    options |= {"batch_size": config.batch_size}
    vae = stages.train(
        "vae",
        lambda: build_vae(config.num_codes, config.channels, config.kl_weight, config.seed),
        x,
        [lambda model, tau=tau: model.with_temperature(tau) for tau in config.temperatures],
        validation=held_out,
        max_epochs=config.vae_epochs,
        **options,
    )
    sizes = config.width, config.num_layers
    transformer = stages.train(
        "transformer",
        lambda: build_transformer(vae, *sizes, nnx.Rngs(config.seed)),
        make_tokens(vae, x, data.words.train),
        validation=make_tokens(vae, held_out, data.words.validation),
        objective=caption_and_codes,
        max_epochs=config.transformer_epochs,
        **options,
    )
    return Painter(vae, transformer)


def train_critic(stages: KeptModels, config: Config, data: CaptionedDigits) -> Critic:
    """Return the trained critic of images and captions."""
    sizes = data.images.train.shape[1:], len(WORDS), LENGTH
    return stages.train(
        "critic",
        lambda: Critic(*sizes, channels=config.channels, rngs=nnx.Rngs(config.seed)),
        data.images.train,
        context=data.words.train,
        validation=(data.images.validation, data.words.validation),
        max_epochs=config.critic_epochs,
        batch_size=config.critic_batch_size,
        key=jax.random.key(config.seed),
        learning_rate=config.learning_rate,
    )


def train_classifier(stages: KeptModels, config: Config, data: CaptionedDigits) -> Classifier:
    """Return the trained classifier of digits. Its rows are digits, given their images."""
    shape = data.images.train.shape[1:]
    return stages.train(
        "classifier",
        lambda: Classifier(shape, channels=config.channels, rngs=nnx.Rngs(config.seed + 1)),
        data.attributes.train[:, :1],
        context=data.images.train,
        validation=(data.attributes.validation[:, :1], data.images.validation),
        max_epochs=config.classifier_epochs,
        batch_size=config.batch_size,
        key=jax.random.key(config.seed + 1),
        learning_rate=config.learning_rate,
    )


def measure_draws(
    config: Config, data: CaptionedDigits, painter: Painter, critic: Critic, obeys: Judge
):
    """Return how many drawn images obey their captions, one by one and ranked; draw the figure."""
    different = np.unique(data.attributes.test, axis=0)
    sizes = config.num_draws, config.sampling_temperature
    keys = jax.random.split(jax.random.key(config.seed), config.repeats)
    parts = [painter.draw(key, different, *sizes) for key in keys]
    drawn, is_whole = (np.concatenate(part) for part in zip(*parts, strict=True))
    wanted = np.tile(different, (config.repeats, 1))
    order = rank(critic, drawn, wanted)
    ranked = np.take_along_axis(drawn, order[..., None, None], axis=1)
    right = obeys(ranked, wanted[:, None])
    chosen = np.linspace(0, len(different) - 1, 10).round().astype(int)
    draw_figure(config.out / "draws.png", wanted[chosen], ranked[chosen], right[chosen])
    return {
        "captions": len(wanted),
        "different_captions": len(different),
        "one_draw": summarize(right),
        "best_draw": summarize(right[:, :1]),
        "one_draw_by_digit": summarize_by_digit(right, wanted),
        "best_draw_by_digit": summarize_by_digit(right[:, :1], wanted),
        "draws_of_codes_only": is_whole.mean(),
    }


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    data, stages = captioned_digits(config.data_dir, config.max_images), plan(config)
    painter = train_painter(stages, config, data)
    critic = train_critic(stages, config, data)
    classifier = train_classifier(stages, config, data)
    config.out.mkdir(parents=True, exist_ok=True)
    obeys = partial(judge, data.captions, classifier)
    results = {
        "draws": measure_draws(config, data, painter, critic, obeys),
        "test_images": measure_test_images(data, painter, classifier, obeys),
        "thresholds": asdict(data.captions),
        "trainings": stages.read_records(),
    }
    save(config.out / "text_to_image.json", config, results)
    for name in ("one_draw", "best_draw"):
        print(
            name, {kind: round(value["share"], 4) for kind, value in results["draws"][name].items()}
        )


if __name__ == "__main__":
    main(tyro.cli(Config))
