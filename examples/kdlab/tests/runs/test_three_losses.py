"""Tables and figures show every loss of a run, however many there are."""

import numpy as np
import pytest
from rich.console import Console

from _made_up import METHODS, experiment, history
from kdlab.minima.restore import read_config
from kdlab.report import command
from kdlab.report.command import ReportConfig
from kdlab.runs import plot, table
from kdlab.runs.compare import CompareConfig
from kdlab.runs.compare import run as compare

LOSSES = "distill", "kl"
HISTORIES = {m: history(i, losses=LOSSES) for i, m in enumerate(METHODS)}

pytestmark = pytest.mark.usefixtures("standard")


def table_of(folder):
    """Writes the table of the experiment itself."""
    return table.write(read_config(folder))


def test_figures_have_a_panel_for_each_loss():
    assert len(plot.draw_losses(HISTORIES).axes) == 3
    assert len(plot.draw_gradients(HISTORIES).axes) == 4
    assert len(plot.draw_weights(HISTORIES).axes) == 2


def test_shares_of_the_weights_sum_to_one():
    shares = [plot.share_of(HISTORIES["kd"], name) for name in ("task", *LOSSES)]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1)
    drawn = plot.draw_weights(HISTORIES).axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, shares[2].mean(0))
    assert plot.share_of({}, "kl") is None


def test_tables_have_a_column_for_each_loss(tmp_path):
    folder = experiment(tmp_path / "three", losses=LOSSES)
    compare(CompareConfig((folder,)), Console(quiet=True))
    heads = [path.read_text() for path in (folder / "comparison.md", table_of(folder))]
    for head in heads:
        assert "| task loss | distill loss | kl loss |" in head


def test_report_has_charts_of_each_loss(tmp_path):
    folder = experiment(tmp_path / "three", losses=LOSSES)
    config = ReportConfig((folder,), out=tmp_path / "page.html", minima=False)
    text = command.run(config, Console(quiet=True)).read_text()
    for name in ("Distillation loss", "Loss kl"):
        for chart in ("training", "weight", "cosine with the task", "norm"):
            assert f"{name}, {chart}" in text or f"{name}: {chart}" in text
    assert "<th>kl loss</th>" in text.replace(' scope="col"', "")
