"""Defend a classifier against adversarial images by a model of images (PixelDefend).

    python experiments/pixels.py --model pixelcnn_pp --data mnist --save runs/mnist.zip
    python experiments/pixel_defend.py --model runs/mnist.zip --data-dir FOLDER

A small convolutional classifier is attacked by FGSM and BIM. The images are purified: each pixel
moves to its most probable level within a radius. The adaptive defence purifies an image only if its
p-value is at most a threshold, which validation images choose. Song et al. 2018, arXiv:1710.10766.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from datasets.images import classes, images
from measuring.report import keep_programs, save
from recipes.attacks import (
    Classifier,
    attack_in_steps,
    attack_once,
    classify,
    fit_classifier,
)
from recipes.defence_pictures import draw_images, draw_p_values
from recipes.defences import Outcome, choose_threshold, summarize
from tqdm import tqdm

import afflow

ROOT = Path(__file__).parent
ATTACKS = {"FGSM": attack_once, "BIM": attack_in_steps}
BATCH = 100  # images that are scored or purified at once


@dataclass(frozen=True)
class Config:
    """The model of images, the classifier, the attacks and the defence."""

    model: Path
    """A model of images in `afflow.save`'s format, as `pixels.py --save` writes it."""
    data: Literal["mnist", "fashion"] = "mnist"
    epsilon: float = 0.3
    """The largest change of a pixel by an attack, for levels in [0, 1]."""
    radius: int | None = None
    """The largest change by the defence in levels of 0 to 255; by default that of the attack."""
    num_test: int = 1000
    num_validation: int = 500
    """Images that choose the threshold of the adaptive defence."""
    num_reference: int = 2000
    """Training images among which an image has its rank."""
    epochs: int = 3
    """Epochs of the classifier."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "pixel_defend"

    @property
    def attack_radius(self) -> int:
        """The largest change of a pixel by an attack, in levels."""
        return int(self.epsilon * 255)

    @property
    def defence_radius(self) -> int:
        """The largest change of a pixel by the defence, in levels."""
        return self.attack_radius if self.radius is None else self.radius


def thin(rows: np.ndarray, size: int) -> np.ndarray:
    """Return at most `size` rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(size, len(rows))).astype(int)]


def in_batches(f: Callable, rows: np.ndarray, label: str) -> np.ndarray:
    """Return `f` of all rows, a batch at a time."""
    parts = tqdm(range(0, len(rows), BATCH), label)
    return np.concatenate([np.asarray(f(rows[i : i + BATCH])) for i in parts])


def attack(
    classifier: Classifier, levels: np.ndarray, labels: np.ndarray, radius: int
) -> dict[str, np.ndarray]:
    """Return the images and their attacked versions, by name."""
    attacked = {name: f(classifier, levels, labels, radius) for name, f in ATTACKS.items()}
    return {"clean": levels} | attacked


def defend(
    model: Any,
    classifier: Classifier,
    reference: np.ndarray,
    sets: dict[str, np.ndarray],
    labels: np.ndarray,
    radius: int,
) -> dict[str, Outcome]:
    """Purify, score and classify the images of each set."""

    def find_p_values(levels, name):
        log_prob = in_batches(model.log_prob, levels, f"{name}, score")
        return np.asarray(afflow.inference.find_p_value(log_prob, reference))

    def find_hits(levels):
        return classify(classifier, levels) == labels

    outcomes = {}
    for name, levels in sets.items():
        purified = in_batches(
            lambda x: afflow.inference.purify(model, x, radius), levels, f"{name}, purify"
        )
        outcomes[name] = Outcome(
            images=levels,
            purified=purified,
            p_values=find_p_values(levels, name),
            purified_p_values=find_p_values(purified, name),
            hits=find_hits(levels),
            purified_hits=find_hits(purified),
            black_and_white_hits=find_hits(np.where(levels > 127, 255, 0)),
        )
    return outcomes


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    x = images(config.data, config.data_dir)
    y = classes(config.data, config.data_dir)
    classifier = fit_classifier(x.train, y.train, epochs=config.epochs, seed=config.seed)
    model = afflow.load(config.model)
    scored = thin(x.train, config.num_reference)
    reference = in_batches(model.log_prob, scored, "reference, score")
    outcomes = {}
    for part, size in (("validation", config.num_validation), ("test", config.num_test)):
        levels, labels = (thin(getattr(rows, part), size) for rows in (x, y))
        sets = attack(classifier, levels, labels, config.attack_radius)
        outcomes[part] = defend(model, classifier, reference, sets, labels, config.defence_radius)
    threshold = choose_threshold(outcomes["validation"])
    test = {name: summarize(each, threshold) for name, each in outcomes["test"].items()}
    results = {
        "test": test,
        "threshold": threshold,
        "attack_radius": config.attack_radius,
        "defence_radius": config.defence_radius,
        "reference_nats": -reference.mean(dtype=float),
    }
    save(config.out / f"{config.data}.json", config, results)
    draw_p_values(config.out / f"{config.data}_p_values.png", outcomes["test"])
    draw_images(config.out / f"{config.data}_images.png", outcomes["test"])
    for name, each in test.items():
        accuracies = {key: value["accuracy"] for key, value in each.items() if "accuracy" in value}
        print(name, *(f"{key} {value:.3f}" for key, value in accuracies.items()))


if __name__ == "__main__":
    main(tyro.cli(Config))
