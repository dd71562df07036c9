"""Figures of runs of a single epoch or evaluation are not empty."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from _made_up import history
from kdlab.runs import plot


def test_run_of_one_epoch_is_a_point_with_a_bar():
    histories = {"kd": history(0, epochs=1), "dot": history(1, seeds=1, epochs=1)}
    for axes in plot.draw_losses(histories).axes:
        (found, bar), (alone, no_bar) = ((c.lines[0], c) for c in axes.containers)
        assert len(found.get_xdata()) == len(alone.get_xdata()) == 1
        assert found.get_marker() == "o"
        assert bar.has_yerr and not no_bar.has_yerr


@pytest.mark.parametrize("marker", ["", "o"])
def test_style_of_a_line_does_not_hide_a_point(marker):
    axes = Figure().subplots()
    plot.draw_band(axes, np.ones(1), np.ones((2, 1)), "C0", "kd", marker=marker, ms=3)
    assert axes.containers[0].lines[0].get_marker() == "o"
