"""Ticks, names and panels that all figures share."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from afflow.plots.panels import Compact, check_names, check_rows, take_panels


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([-2, 0, 2], ["−2", "0", "2"]),
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([0.25, 0.5, 0.75], ["0.25", "0.50", "0.75"]),
        ([0.1 * k for k in range(1, 4)], ["0.1", "0.2", "0.3"]),
        ([1000.1, 1000.2], ["1000.1", "1000.2"]),
        ([-5e5, 0, 5e5], ["−5e5", "0", "5e5"]),
        ([0, 2.5e-4, 5e-4], ["0.0", "2.5e−4", "5.0e−4"]),
        ([0], ["0"]),
        ([7e9], ["7e9"]),
    ],
)
def test_labels_of_ticks(ticks, labels):
    assert Compact().format_ticks(ticks) == labels


def test_labels_tell_ticks_apart():
    for scale in 10.0 ** np.arange(-8, 9):
        for origin in (0.0, 1.0, 1e4):
            ticks = scale * (origin + np.arange(4))
            labels = Compact().format_ticks(ticks)
            assert len(set(labels)) == 4
            values = [float(label.replace("−", "-")) for label in labels]
            assert values == pytest.approx(list(ticks), rel=1e-6)


def test_panels_wrap_and_given_axes_are_used():
    figure, panels = take_panels(None, 5, size=(2, 1), columns=3)
    assert len(panels) == 5
    assert tuple(figure.get_size_inches()) == (6, 2)
    for num, shape in {1: (1, 1), 3: (3, 1), 5: (3, 2), 8: (4, 2), 9: (3, 3)}.items():
        assert tuple(take_panels(None, num, size=(1, 1))[0].get_size_inches()) == shape
    mine = Figure().subplots(1, 2)
    figure, panels = take_panels(mine, 2, size=(2, 1))
    assert figure is mine[0].figure
    assert panels == list(mine)
    for wrong in (mine, [mine[0], 3, 4]):
        with pytest.raises(ValueError, match="Expected 3 axes"):
            take_panels(wrong, 3, size=(2, 1))


def test_names():
    assert check_names(None, 2) == ["$x_{0}$", "$x_{1}$"]
    assert check_names(["a name of many words", r"$\theta with words and more$"], 2) == [
        "a name of many\nwords",
        r"$\theta with words and more$",
    ]
    for wrong in ("ab", ["a"]):
        with pytest.raises(ValueError, match="Expected 2 names"):
            check_names(wrong, 2)


def test_rows():
    assert check_rows("x", [[1, 2], [3, 4]]).dtype == float
    for wrong in (np.zeros(3), np.zeros((1, 2)), np.zeros((4, 3))):
        with pytest.raises(ValueError, match=r"x.shape \(N, 2\), N > 1"):
            check_rows("x", wrong, 2)
    with pytest.raises(ValueError, match="Expected finite x"):
        check_rows("x", [[1, np.nan], [0, 1]])


def test_without_matplotlib_the_package_imports_and_a_plot_names_its_extra():
    code = "\n".join(
        [
            "import sys",
            "sys.modules['matplotlib'] = None",
            "import afflow",
            "try:",
            "    afflow.plots.corner",
            "except ImportError as error:",
            "    print(error)",
        ]
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "Expected matplotlib, which corner needs: pip install 'afflow[plots]'.\n"
