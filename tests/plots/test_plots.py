"""Figures of calibration, of training and of layers: panels, labels and drawn values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib.figure import Figure
from registry import randomize
from render import find_overlaps, render

import afflow
from afflow import plots, sbi
from afflow.training import Epoch, History

RANKS = sbi.Ranks(np.random.default_rng(0).integers(0, 100, size=(200, 2)), 99)
LEVELS = np.linspace(0, 1, 5)


def make_coverage(values):
    return sbi.Coverage(LEVELS, np.asarray(values), LEVELS - 0.1, LEVELS + 0.1, RANKS)


def find_labels(figure):
    return [(panel.get_xlabel(), panel.get_ylabel()) for panel in figure.axes]


def test_rank_histograms_show_counts_over_bands():
    figure = render(plots.rank_histograms(RANKS, names=["mass", "spin"], level=0.9))
    found = sbi.bin_ranks(RANKS, level=0.9)
    assert [panel.get_title() for panel in figure.axes] == ["mass", "spin"]
    x = "rank among 99 samples"
    assert find_labels(figure) == [(x, "observations"), (x, "")]
    for number, panel in enumerate(figure.axes):
        band, expected, *bars = [patch.get_data() for patch in panel.patches]
        assert (band.values == found.upper).all()
        assert (band.baseline == found.lower).all()
        assert (expected.values == found.expected).all()
        assert all((bar.values == found.counts[:, number]).all() for bar in bars)
        assert all((bar.edges == found.edges - 0.5).all() for bar in bars)
        assert panel.get_ylim()[1] > max(found.counts.max(), found.upper.max())
    assert find_overlaps(figure) == []


def test_many_histograms_wrap():
    ranks = sbi.Ranks(np.tile(RANKS.values[:, :1], 6), 99)
    figure = render(plots.rank_histograms(ranks))
    assert len(figure.axes) == 6
    assert figure.axes[3].get_position().y1 < figure.axes[0].get_position().y0
    assert find_overlaps(figure) == []


def test_coverage_curves_show_values_over_a_band():
    exact, narrow = make_coverage(LEVELS), make_coverage(LEVELS**2)
    figure = render(plots.coverage_curve({"exact": exact, "narrow": narrow}))
    (panel,) = figure.axes
    assert find_labels(figure) == [("level of the region", "share of parameters within")]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["exact", "narrow"]
    diagonal, *curves = panel.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    for line, coverage in zip(curves, (exact, narrow), strict=True):
        assert (line.get_xdata() == coverage.levels).all()
        assert (line.get_ydata() == coverage.values).all()
    assert curves[0].get_linestyle() != curves[1].get_linestyle()
    corners = panel.collections[0].get_paths()[0].vertices
    for ends in (exact.lower, exact.upper):
        assert {*zip(LEVELS, ends, strict=True)} <= {tuple(point) for point in corners}
    assert panel.get_xlim() == panel.get_ylim() == (0, 1)
    assert find_overlaps(figure) == []
    assert render(plots.coverage_curve(exact)).axes[0].get_legend() is None


def test_training_curves_mark_the_best_epoch():
    history = History([3.0, 2.0, 1.5, 1.4], [2.5, 1.9, 2.0, 2.1], 1)
    figure = render(plots.training_curves(history))
    (panel,) = figure.axes
    assert find_labels(figure) == [("epoch", "loss (nats)")]
    train, validation, best, rule = panel.lines
    assert list(train.get_ydata()) == history.train
    assert list(validation.get_ydata()) == history.validation
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([1], [1.9])
    assert list(rule.get_xdata()) == [1, 1]
    ticks = [tick for tick in panel.get_xticks() if 0 <= tick <= 3]
    assert ticks == [0, 1, 2, 3]
    assert find_overlaps(figure) == []


def test_training_curve_without_held_out_data():
    (panel,) = render(plots.training_curves(History([3.0, 2.0], [], 1))).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "training",
        "best epoch: 1",
    ]
    assert list(panel.lines[1].get_ydata()) == [2.0]


def make_flow(**options):
    """Return a flow with a `Repeat`, an `Inverse` and random weights."""
    made = afflow.MADE(2, 2, (5,), **options, rngs=nnx.Rngs(0))
    layer = afflow.MaskedAutoregressive(made, afflow.Affine())
    layers = [afflow.Inverse(layer), afflow.Reverse(2), afflow.bijectors.ActNorm(2)]
    return randomize(afflow.Flow(afflow.Normal(2), afflow.Chain(layers)), 0.5)


def find_lines(panel):
    return np.stack([line.get_xydata() for line in panel.lines])


@pytest.mark.parametrize("context", [None, jnp.array([0.3, -1.0])])
def test_pushed_grid_shows_the_image_after_each_layer(context):
    flow = make_flow(context_dim=0 if context is None else 2)
    figure = render(plots.pushed_grid(flow, context=context, edge=2.0, num_lines=3))
    titles = ["noise", "1: inverse MaskedAutoregressive", "2: Permutation", "3: ActNorm"]
    assert [panel.get_title() for panel in figure.axes] == titles
    points = find_lines(figure.axes[0])
    assert abs(points).max() == 2
    assert sorted(points[0, [0, -1]].tolist()) == [[-2, -2], [-2, 2]]
    assert (np.ptp(points, axis=1) == 0).sum() == 6  # each line keeps one coordinate
    for number, panel in enumerate(figure.axes[1:], 1):
        part = afflow.Chain(flow.bijector.bijectors[:number])
        images = jax.vmap(jax.vmap(lambda x, part=part: part.forward(x, context)))(points)
        assert find_lines(panel) == pytest.approx(np.asarray(images), abs=1e-6)
    assert find_overlaps(figure) == []


def test_pushed_grid_leaves_the_flow_and_shows_copies_of_a_layer():
    repeat = afflow.Repeat(lambda rngs: afflow.LU(2), 3, rngs=nnx.Rngs(0))
    flow = afflow.Flow(afflow.Normal(2), repeat)
    before = jax.tree.leaves(flow)
    assert len(plots.pushed_grid(flow).axes) == 4
    assert all(a is b for a, b in zip(before, jax.tree.leaves(flow), strict=True))


def test_recorder_keeps_samples_of_chosen_epochs():
    x = jax.random.normal(jax.random.key(0), (64, 2)) + 3
    recorder = plots.SampleRecorder([0, 2, 9], 40, key=jax.random.key(1))
    models = {}
    callbacks = [recorder, lambda epoch: models.update({epoch.number: epoch.model})]
    afflow.fit(
        make_flow(),
        x,
        key=jax.random.key(2),
        max_epochs=3,
        batch_size=16,
        progress=False,
        callbacks=callbacks,
    )
    assert [*recorder.samples] == [0, 2]
    for number, samples in recorder.samples.items():
        assert samples == pytest.approx(models[number].sample(jax.random.key(1), 40))
    figure = render(plots.samples_over_epochs(recorder, data=x, names=("mass", "spin")))
    assert [panel.get_title() for panel in figure.axes] == ["epoch 0", "epoch 2", "data"]
    assert find_labels(figure) == [("mass", "spin"), ("mass", ""), ("mass", "")]
    shown = [np.asarray(panel.collections[0].get_offsets()) for panel in figure.axes]
    assert shown[1] == pytest.approx(recorder.samples[2])
    assert shown[2] == pytest.approx(np.asarray(x[:40]))
    assert len({panel.get_xlim() for panel in figure.axes}) == 1
    assert find_overlaps(figure) == []


def test_samples_of_more_coordinates_and_epochs():
    rng = np.random.default_rng(0)
    samples = {n: rng.normal(size=(50, 3)) * [1, 9, 1e6] for n in (10, 2, 5, 7, 1, 0)}
    figure = render(plots.samples_over_epochs(samples, coordinates=(2, 1)))
    assert [panel.get_title() for panel in figure.axes] == [f"epoch {n}" for n in sorted(samples)]
    assert find_labels(figure)[0] == ("$x_{2}$", "$x_{1}$")
    shown = np.asarray(figure.axes[5].collections[0].get_offsets())
    assert shown == pytest.approx(samples[10][:, [2, 1]])
    assert find_overlaps(figure) == []


def test_recorder_of_a_conditional_model():
    context = jnp.array([0.3, -1.0])
    flow = make_flow(context_dim=2)
    recorder = plots.SampleRecorder([4], 7, key=jax.random.key(0), context=context)
    recorder(Epoch(flow, History([0.0] * 5, [], 0), 1.0))
    expected = flow.sample(jax.random.key(0), 7, context)
    assert recorder.samples[4] == pytest.approx(np.asarray(expected))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.rank_histograms(RANKS.values), "Expected a Ranks as ranks"),
        (lambda: plots.rank_histograms(RANKS, names=["a"]), "Expected 2 names"),
        (lambda: plots.rank_histograms(RANKS, axes=Figure().subplots()), "Expected 2 axes"),
        (lambda: plots.coverage_curve(RANKS), "Expected a Coverage as coverage"),
        (lambda: plots.coverage_curve({}), "Expected 1 to 4 coverages, got 0"),
        (lambda: plots.training_curves([1.0]), "Expected a History as history"),
        (lambda: plots.training_curves(History([], [], 0)), "at least one epoch"),
        (lambda: plots.pushed_grid(afflow.Normal(2)), "Expected a Flow as flow"),
        (
            lambda: plots.pushed_grid(afflow.Flow(afflow.Normal(3), afflow.Reverse(3))),
            r"event shape \(2,\), got \(3,\)",
        ),
        (lambda: plots.pushed_grid(make_flow(context_dim=2)), "got no context"),
        (lambda: plots.pushed_grid(make_flow(), num_lines=1), "num_lines >= 2"),
        (lambda: plots.samples_over_epochs({}), "at least one epoch, got none"),
        (lambda: plots.samples_over_epochs([np.eye(2)]), "Expected a SampleRecorder or Mapping"),
        (
            lambda: plots.samples_over_epochs({0: np.eye(2)}, data=np.eye(3)),
            r"data.shape \(N, 2\)",
        ),
        (lambda: plots.SampleRecorder([-1], 3, key=jax.random.key(0)), "epoch >= 0"),
    ],
)
def test_wrong_arguments(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize("coordinates", [(0, 2), (-1, 0), (0,)])
def test_samples_over_epochs_have_the_coordinates(coordinates):
    samples = {0: np.zeros((9, 2))}
    with pytest.raises(ValueError, match="Expected two coordinates from 0 to 1"):
        afflow.plots.samples_over_epochs(samples, coordinates=coordinates)
