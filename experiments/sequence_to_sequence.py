"""Models from sequence to sequence: reverse a word, add two numbers.

    python experiments/sequence_to_sequence.py --task add

An encoder reads the question, and a transformer decoder attends to it. The answers are known, so
the score is the share of test questions whose whole answer is right, by the greedy answer and by
beam search. No test question is in the training set.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import nnx
from measuring.report import keep_programs, save

import afflow

ROOT = Path(__file__).parent
TASKS = {"reverse": "abcdefghij", "add": "0123456789+"}


@dataclass(frozen=True)
class Config:
    """The task, the network and its training."""

    task: Literal["reverse", "add"] = "add"
    size: int = 3
    """Digits of each number, or half of the letters of a word."""
    num_questions: int = 40_000
    """Questions to train on; a tenth of them for validation."""
    num_tests: int = 2_000
    width: int = 64
    num_layers: int = 2
    dropout: float = 0.0
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    beams: int = 4
    seed: int = 0
    out: Path = ROOT / "results" / "sequence_to_sequence"
    runs: Path = ROOT.parent / "runs"


def make_questions(config: Config) -> list[tuple[str, str]]:
    """Return different questions with their answers, in random order."""
    rng, found = np.random.default_rng(config.seed), {}
    size, letters = config.size, list(TASKS["reverse"])
    while len(found) < config.num_questions + config.num_tests:
        if config.task == "reverse":
            word = "".join(rng.choice(letters, 2 * size))
            found[word] = word[::-1]
        else:
            a, b = rng.integers(10**size, size=2)
            found[f"{a:0{size}}+{b:0{size}}"] = f"{a + b:0{size + 1}}"
    return list(found.items())


def build(config: Config, question: int, answer: int, num_symbols: int):
    """Return the model of the answers, given the questions."""
    rngs, sizes = nnx.Rngs(config.seed), {"num_layers": config.num_layers, "num_heads": 4}
    network = afflow.conditioners.Transformer(
        answer,
        num_symbols,
        width=config.width,
        features=num_symbols,
        encoder=afflow.nets.Encoder(
            question, num_symbols, config.width, symbols=True, **sizes, rngs=rngs
        ),
        dropout=config.dropout,
        **sizes,
        rngs=rngs,
    )
    return afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(num_symbols))


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    alphabet = afflow.codecs.Alphabet(TASKS[config.task])
    num_symbols, pairs = alphabet.num_values, make_questions(config)
    questions, answers = (
        np.stack([alphabet.encode(part) for part in side]) for side in zip(*pairs, strict=True)
    )
    contexts = questions.astype(np.float32)
    train, test = slice(config.num_questions), slice(config.num_questions, None)
    model = build(config, questions.shape[1], answers.shape[1], num_symbols)
    model, history = afflow.fit(
        model,
        answers[train],
        context=contexts[train],
        key=jax.random.key(config.seed),
        ema=None,
        max_epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        checkpoint=afflow.Checkpoint(
            config.runs / f"sequence_to_sequence_{config.task}", steps=100
        ),
        label=config.task,
    )
    given, right = jnp.asarray(contexts[test]), answers[test]
    greedy = np.asarray(model.greedy(given))
    beams, log_probs = model.beam_search(context=given, width=config.beams)
    found = {"greedy": greedy, "beam": np.asarray(beams)[:, 0]}
    exact = {name: float((each == right).all(1).mean()) for name, each in found.items()}
    results = {
        "exact_match": exact,
        "standard_error": {k: float(np.sqrt(p * (1 - p) / len(right))) for k, p in exact.items()},
        "nats_per_answer": -float(model.log_prob(jnp.asarray(right), given).mean()),
        "train": history.train,
        "validation": history.validation,
        "examples": [
            {
                "question": alphabet.decode(questions[test][i]),
                "answer": alphabet.decode(right[i]),
                "greedy": alphabet.decode(greedy[i]),
                "beams": [alphabet.decode(row) for row in np.asarray(beams)[i]],
                "log_probs": np.asarray(log_probs)[i].tolist(),
            }
            for i in range(5)
        ],
    }
    save(config.out / f"{config.task}.json", config, results)
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for part in ("train", "validation"):
        axis.semilogy(results[part], label=part)
    axis.set(xlabel="epoch", ylabel="nats per answer", title=config.task)
    axis.legend()
    figure.savefig(config.out / f"{config.task}.png", dpi=120)
    print(results["examples"][0])
    print("exact answers: " + ", ".join(f"{name} {share:.4f}" for name, share in exact.items()))


if __name__ == "__main__":
    main(tyro.cli(Config))
