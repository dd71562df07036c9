"""Figures draw what they are given."""

import io

import numpy as np
import pytest

from _made_up import METHODS, history, measures
from kdlab.report import figures

pytestmark = pytest.mark.usefixtures("standard")

HISTORIES = {method: history(i) for i, method in enumerate(METHODS)}
MEASURES = {method: measures(i) for i, method in enumerate(METHODS)}
MANY = {str(i): measures(i) for i in range(5)}  # more than a row of panels
ENDS = {m: (h["train/loss/task"][:, -1], h["train/loss/distill"][:, -1])
        for m, h in HISTORIES.items()}  # fmt: skip

DRAWN = {
    "curves": lambda: figures.draw_curves(MEASURES),
    "contours": lambda: figures.draw_contours(MEASURES),
    "surfaces": lambda: figures.draw_surfaces(MEASURES, "distill"),
    "surfaces, two rows": lambda: figures.draw_surfaces(MANY),
    "sharpness": lambda: figures.draw_sharpness({m: [f] for m, f in MEASURES.items()}),
    "correlations": lambda: figures.draw_correlations(MEASURES),
    "buffers": lambda: figures.draw_buffers(HISTORIES),
    "conflict": lambda: figures.draw_conflict(HISTORIES),
    "alpha": lambda: figures.draw_alpha(ENDS),
    "parabolas": figures.draw_parabolas,
    "lambda": lambda: figures.draw_lambda(HISTORIES["kd"], "kd"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figure_can_be_saved(name):
    file = io.BytesIO()
    DRAWN[name]().savefig(file, dpi=50)
    assert file.tell() > 5_000  # an empty canvas is smaller


def test_curves_are_those_of_the_measures():
    panel = figures.draw_curves(MEASURES).axes[1]
    assert [line.get_label() for line in panel.lines] == list(METHODS)
    np.testing.assert_array_equal(
        panel.lines[1].get_ydata(), MEASURES["dot"]["curve/distill"]
    )


def test_parabola_of_a_run_is_that_of_its_gradients():
    """At lambda 0 and 1 it is the squared norm of one gradient."""
    run = HISTORIES["kd"]
    drawn = figures.draw_lambda(run, "kd", epochs=1).axes[0].lines[0].get_ydata()
    task, distill = (run[f"gradient/norm/{n}"][0, 0] ** 2 for n in ("task", "distill"))
    np.testing.assert_allclose(drawn[0] / drawn[-1], task / distill, rtol=1e-6)


def test_difference_of_logits_has_no_diagonal():
    off = figures.logit_difference(MEASURES["kd"])
    assert not np.diagonal(off).any()
    m = MEASURES["kd"]
    assert off[0, 1] == abs(m["logits/student"][0, 1] - m["logits/teacher"][0, 1])
