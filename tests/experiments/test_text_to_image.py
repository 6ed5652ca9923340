"""Images from captions: measured attributes, captions, the critic, and the smallest experiment."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import text_to_image  # noqa: E402
from datasets.captions import LENGTH, WORDS, Captions, captioned_digits, encode, write  # noqa: E402
from measuring.strokes import measure_slant, measure_thickness  # noqa: E402
from recipes.captioned_digits import rank, summarize  # noqa: E402
from recipes.critic import Critic  # noqa: E402
from recipes.kept_models import KeptModels  # noqa: E402
from recipes.painter import Painter, build_transformer, build_vae, caption_and_codes  # noqa: E402

import afflow  # noqa: E402


def draw_stroke(width, angle, side=28):
    """Return the image of one smooth stroke of a width in pixels and an angle in degrees."""
    i, j = np.mgrid[:side, :side] - (side - 1) / 2
    along = np.abs(i) < 10
    across = np.abs(j + np.tan(np.radians(angle)) * i) * np.cos(np.radians(angle))
    return np.clip(width / 2 + 0.5 - across, 0, 1) * along * 255


@pytest.mark.parametrize("width", [2, 3, 5])
def test_the_thickness_is_the_width_of_a_stroke(width):
    tall = np.tile(draw_stroke(width, 0)[14], (28, 1))[None]  # without ends, from edge to edge
    found = measure_thickness(np.pad(tall, ((0, 0), (200, 200), (0, 0)), mode="edge"))
    np.testing.assert_allclose(found, width, rtol=0.02)
    np.testing.assert_allclose(measure_thickness(tall / 255), measure_thickness(tall), rtol=1e-9)
    assert measure_thickness(np.zeros((1, 28, 28))) == 0


@pytest.mark.parametrize("angle", [-30, 0, 20])
def test_the_slant_is_the_angle_of_a_stroke(angle):
    image = draw_stroke(3, angle)
    np.testing.assert_allclose(measure_slant(image[None]), angle, atol=1)
    moved = np.roll(image, (2, -3), (0, 1))
    np.testing.assert_allclose(measure_slant(moved[None]), measure_slant(image[None]), atol=1e-9)
    assert measure_slant(np.zeros((1, 28, 28))) == 0


def test_captions_say_the_thirds_of_the_attributes():
    images = np.stack([draw_stroke(w, a) for w in (2, 3, 4) for a in (-20, 0, 20)])
    captions = Captions.of(images)
    attributes = captions.describe(images, np.arange(9))
    np.testing.assert_array_equal(attributes[:, 1], np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(attributes[:, 2], np.tile([0, 1, 2], 3))
    assert write(attributes[6]) == "a thick six tilted left"
    assert write(attributes[4]) == "a plain four upright"
    words = encode([write(attributes[6]), write(attributes[4])])
    assert [WORDS[word] for word in words[0]] == ["a", "thick", "six", "tilted", "left"]
    assert [WORDS[word] for word in words[1]] == ["a", "plain", "four", "upright", ""]
    with pytest.raises(ValueError, match="got 'a blue six'"):
        encode(["a blue six"])


def test_words_weigh_an_eighth():
    vae = build_vae(3, (2, 2), 1.0, 0)
    model = build_transformer(vae, 4, 1, nnx.Rngs(0))
    model.conditioner.b[...] = jnp.where(jnp.arange(len(WORDS) + 3) == 2, 4.0, 0)
    tokens = np.r_[np.arange(LENGTH), np.full(49, len(WORDS))][None]
    terms = -model.log_conditionals(tokens)
    found = caption_and_codes(model, jax.random.key(0), tokens)
    expected = terms[:, :LENGTH].mean(1) / 8 + 7 * terms[:, LENGTH:].mean(1) / 8
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    drawn, is_whole = Painter(vae, model).draw(jax.random.key(0), np.array([[7, 2, 0]]), 2, 1.0)
    assert drawn.shape == (1, 2, 28, 28)
    assert not is_whole.any()  # some tokens are word 2


def test_the_critic_tells_right_pairs_from_wrong_ones():
    """Each term is by enumeration; a row with an equal caption is not a wrong pair."""
    critic = Critic((4, 4), 3, 2, width=5, channels=(2,), rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4))
    words = np.array([[0, 1], [2, 1], [0, 1]])
    u, v = critic.embed_images(images), critic.embed_captions(jnp.asarray(words))
    np.testing.assert_allclose(jnp.square(u).sum(1), 1, atol=1e-4)
    a = np.exp(np.exp(critic.log_factor[...]) * np.asarray(u @ v.T))
    first = np.log(a[0, 0] / (a[0, 0] + a[0, 1])) + np.log(a[0, 0] / (a[0, 0] + a[1, 0]))
    second = np.log(a[1, 1] / a[1].sum()) + np.log(a[1, 1] / a[:, 1].sum())
    found = critic.log_prob(images, jnp.asarray(words))
    np.testing.assert_allclose(found[:2], [first / 2, second / 2], rtol=1e-9)
    np.testing.assert_allclose(
        critic.score(images, jnp.asarray(words)), jnp.diagonal(u @ v.T), rtol=1e-9
    )


def test_images_are_ranked_by_their_score():
    critic = Critic((4, 4), len(WORDS), LENGTH, width=5, channels=(2,), rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 4))
    attributes = np.array([[7, 2, 0], [1, 0, 1]])
    order = rank(critic, images, attributes)
    for row, one, facts in zip(order, images, attributes, strict=True):
        words = jnp.asarray(np.repeat(encode([write(facts)]), 6, 0))
        assert (np.diff(critic.score(one, words)[row]) <= 0).all()


def test_the_error_of_a_share_is_over_captions():
    right = np.zeros((4, 2, 4), bool)
    right[:2, :, 0] = True
    right[:, 0, 3] = True
    found = summarize(right)
    assert found["digit"] == {"share": 0.5, "standard_error": pytest.approx(np.sqrt(1 / 12))}
    assert found["all"] == {"share": 0.5, "standard_error": 0}


def test_a_stage_that_has_ended_is_not_trained_again(tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (64, 2))
    stages, options = KeptModels(tmp_path, 1.0, {"width": 3}), {"key": jax.random.key(0)}
    options |= {"max_epochs": 1, "progress": False}
    made = []

    def make():
        made.append(1)
        return afflow.fvsbn(2, rngs=nnx.Rngs(0))

    first = stages.train("small", make, x, **options)
    again = stages.train("small", make, x, **options)
    assert len(made) == 1
    np.testing.assert_array_equal(first.log_prob(x), again.log_prob(x))
    assert len(stages.read_records()["small"]["validation"]) == 1
    with pytest.raises(ValueError, match="another width"):
        KeptModels(tmp_path, 1.0, {"width": 4}).train("small", make, x, **options)


def write_digits(folder, num_train=60_000, num_test=10_000):
    """Write strokes in place of digits in the format of MNIST; a hundred different ones."""
    rng = np.random.default_rng(0)
    widths, angles = rng.uniform(2, 5, 100), rng.uniform(-30, 30, 100)
    strokes = np.array([draw_stroke(*pair) for pair in zip(widths, angles, strict=True)], "u1")
    for part, size in (("train", num_train), ("t10k", num_test)):
        contents = {
            f"{part}-images-idx3-ubyte": ([2051, size, 28, 28], strokes[np.arange(size) % 100]),
            f"{part}-labels-idx1-ubyte": ([2049, size], np.arange(size) % 10),
        }
        (folder / "mnist").mkdir(exist_ok=True)
        for name, (header, values) in contents.items():
            content = np.array(header, ">i4").tobytes() + values.astype("u1").tobytes()
            (folder / "mnist" / name).write_bytes(content)


def test_the_smallest_experiment_runs(tmp_path, monkeypatch):
    write_digits(tmp_path)
    monkeypatch.setattr(text_to_image, "keep_programs", lambda: None)
    config = text_to_image.Config(
        num_codes=4,
        channels=(4, 4),
        temperatures=(1.0,),
        vae_epochs=1,
        width=8,
        num_layers=1,
        transformer_epochs=1,
        critic_epochs=1,
        critic_batch_size=20,
        classifier_epochs=1,
        batch_size=20,
        repeats=2,
        num_draws=3,
        max_images=60,
        data_dir=tmp_path,
        out=tmp_path / "out",
        runs=tmp_path / "runs",
    )
    text_to_image.main(config)
    path = tmp_path / "out" / "text_to_image.json"
    first = json.loads(path.read_text())["results"]
    assert (tmp_path / "out" / "draws.png").exists()
    assert set(first["trainings"]) == {"vae", "transformer", "critic", "classifier"}
    assert len(first["trainings"]["vae"]["validation"]) == 1
    assert first["draws"]["captions"] == 2 * first["draws"]["different_captions"]
    assert 0 <= first["draws"]["one_draw"]["digit"]["share"] <= 1
    monkeypatch.setattr(afflow, "fit", None)  # a second run trains nothing
    data, stages = captioned_digits(tmp_path, 60), text_to_image.plan(config)
    text_to_image.train_painter(stages, config, data)
    text_to_image.train_critic(stages, config, data)
    text_to_image.train_classifier(stages, config, data)
