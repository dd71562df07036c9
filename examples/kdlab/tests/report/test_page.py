"""The page of made-up runs: what is on it, and how a browser renders it."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from _made_up import METHODS, experiment
from kdlab.report import command
from kdlab.report.command import ReportConfig
from kdlab.report.svg import Line, draw_chart, nice_ticks
from kdlab.runs import files

pytestmark = pytest.mark.usefixtures("standard")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PHONE = 390


def report(*places, out=None):
    console = Console(record=True, width=200)
    config = ReportConfig(places, out=out, minima=False)
    return command.run(config, console), console.export_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Makes the page of six runs in two experiments."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        experiment(folder / name)
    return report(folder, out=folder / "report.html")[0]


def test_everything_is_told(page):
    text = page.read_text()
    for name in ("first", "second"):
        for method in METHODS:
            assert f"<td>{name}/{method}</td>" in text
        assert f"<pre>kdlab distill --name {name}\n" in text
    assert "The teacher reaches 97.50 %." in text
    for anchor in ("results", "curves", "balance", "minima", "cost", "reproduce"):
        assert f'id="{anchor}"' in text
    assert text.count('<figure class="chart"') >= 12


def test_page_needs_nothing_else(page):
    """It has no links except to the page's own images."""

    class Links(HTMLParser):
        found: list = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.found += [v for k, v in attrs if k in ("src", "href")]

    links = Links()
    links.feed(page.read_text())
    assert links.found
    assert all(link.startswith("data:") for link in links.found)
    assert page.stat().st_size < 1.5e6


def test_images_are_pictures(page):
    found = re.findall(r"data:image/png;base64,([^\"]+)", page.read_text())
    assert len(found) >= 4
    for data in found:
        assert base64.b64decode(data)[:4] == b"\x89PNG"


def test_names_of_runs_cannot_break_the_page(tmp_path):
    folder = experiment(tmp_path / "a<b>&c", methods=("<script>",))
    text = report(folder)[0].read_text()
    assert "<script>" not in text.replace('<script>"use strict";', "")
    assert "&lt;script&gt;" in text


def test_broken_and_missing_runs_are_left_out_with_a_reason(tmp_path):
    folder = experiment(tmp_path / "runs")
    (folder / "kd" / "seed0" / "result.json").write_text("{")
    (folder / "dot" / "seed1" / "measures.npz").write_bytes(b"PK")
    path, shown = report(folder, tmp_path / "absent")
    assert "absent: does not exist" in shown and "result.json cannot be read" in shown
    assert "cannot be read" in path.read_text()


def test_no_run_is_an_error_that_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="METHOD/seedN/result"):
        report(tmp_path)


def test_diverged_runs_are_in_the_table_without_curves(tmp_path):
    folder = experiment(tmp_path / "runs", methods=("kd", "dot"))
    for seed in range(2):
        files.write_result(files.seed_folder(folder, "dot", seed), {"diverged": 2})
    text = report(folder)[0].read_text()
    assert "diverged (2 of 2)" in text


def line(y, x=None):
    y = np.asarray(y, float)
    return Line(
        "kd", 0, np.arange(len(y)) + 1.0 if x is None else x, y, np.zeros_like(y)
    )


def points(drawn):
    path = re.search(r'data-line="1" d="([^"]*)"', drawn)[1]
    return np.array([p.split() for p in re.split("[ML]", path)[1:]], float)


def test_line_of_a_chart_is_where_its_numbers_are():
    drawn = draw_chart("t", [line([1.0, 3.0, 2.0])])
    ends = {k: float(re.search(f'data-{k}="([^"]*)"', drawn)[1]) for k in ("y0", "y1")}
    heights = ends["y1"] - points(drawn)[:, 1] / 1000 * (ends["y1"] - ends["y0"])
    np.testing.assert_allclose(heights, [1, 3, 2], atol=2e-3)
    np.testing.assert_allclose(points(drawn)[:, 0], [0, 500, 1000])


def test_chart_leaves_gaps_and_may_be_empty():
    assert draw_chart("t", [line([np.nan, np.inf])]) == ""
    drawn = draw_chart("t", [line([1.0, np.nan, 2.0, 3.0])])
    path = re.search(r'data-line="1" d="([^"]*)"', drawn)[1]
    assert re.sub("[^ML]", "", path) == "MML"
    assert len(points(draw_chart("t", [line([1.0, 0.0, 10.0])], log=True))) == 2


def test_run_of_one_epoch_is_a_dot():
    drawn = draw_chart("t", [line([2.0]), line([3.0])])
    assert drawn.count('data-dot="1" data-line="1"') == 2
    np.testing.assert_array_equal(points(drawn)[0], points(drawn)[1])


@pytest.mark.parametrize("span", [(0, 1), (-3e-9, 2e-9), (5, 5.001), (0, 12345)])
def test_ticks_are_round_and_inside(span):
    ticks = nice_ticks(*span)
    assert 3 <= len(ticks) <= 11
    rounding = 1e-12 * max(map(abs, span))
    assert span[0] - rounding <= ticks[0] and ticks[-1] <= span[1] + rounding


LOOK = """<!doctype html><body><iframe id="f" width="%d" height="900"></iframe>
<pre id="seen"></pre><script>
const frame = document.getElementById("f");
frame.onload = () => {
  const page = frame.contentDocument, seen = {};
  const all = (chosen) => [...page.querySelectorAll(chosen)];
  seen.ready = page.documentElement.dataset.ready;
  seen.width = page.documentElement.scrollWidth;
  seen.inner = page.documentElement.clientWidth;
  const charts = all(".chart > svg");
  seen.flat = charts.filter((x) => x.getBoundingClientRect().height < 50).length;
  seen.charts = charts.length;
  seen.blind = all("img").filter((x) => x.naturalWidth < 100).length;
  const plane = page.querySelector(".plane"), ticks = page.querySelector(".ticks");
  const before = ticks.textContent;
  page.querySelector(".tools button").click();
  seen.zoomed = plane.getAttribute("viewBox");
  seen.ticked = ticks.textContent !== before;
  all(".tools button")[2].click();
  seen.whole = plane.getAttribute("viewBox");
  page.querySelector(".chip").click();
  seen.hidden = all("path.hidden").length;
  document.getElementById("seen").textContent = JSON.stringify(seen);
};
frame.src = "report.html";
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium")
def test_in_a_browser_as_wide_as_a_phone(page):
    look = page.with_name("look.html")
    look.write_text(LOOK % PHONE)
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            f"--user-data-dir={page.parent / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            look.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ":CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)[1])
    assert seen["ready"] == "1"
    assert seen["width"] <= seen["inner"] <= PHONE
    assert seen["charts"] >= 12 and seen["flat"] == 0 and seen["blind"] == 0
    assert seen["ticked"]
    for view, box in (("zoomed", [250, 250, 500, 500]), ("whole", [0, 0, 1000, 1000])):
        np.testing.assert_allclose(np.fromstring(seen[view], sep=" "), box, atol=1e-3)
    assert seen["hidden"] > 5
