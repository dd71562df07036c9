"""``kdlab report RUN [RUN...]``: writes one page about finished runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.experiment.progress import progress_bars
from kdlab.minima import restore
from kdlab.minima.measure import Grid
from kdlab.report import page
from kdlab.report.sources import Source, read
from kdlab.runs import files
from kdlab.settings.parts import expand_home
from kdlab.train.methods import METHODS


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Write one self-contained HTML page about finished runs.

    It holds tables, zoomable curves, weights and gradients, minima, times, settings and
    the commands to reproduce everything. It needs no network and no other file.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of experiments, methods or seeds, with METHOD/seedN/result.json below."""
    out: Path | None = None
    """The page; by default report.html in the first of RUNS."""
    minima: bool = True
    """Measure the minimum of the first seed of each method, unless that was done
    before, if its checkpoint and data exist; this takes some seconds each."""
    data_dir: Path | None = None
    """Folder of downloaded data sets, for measuring minima."""

    def __post_init__(self) -> None:
        """Expands ``~``."""
        expand_home(self)


def run(config: ReportConfig, console: Console) -> Path:
    """Measures missing minima and writes the page.

    Args:
        config: The settings.
        console: Terminal for progress.

    Returns:
        Path of the page.

    Raises:
        ValueError: If no run is finished.
    """
    sources, skipped = read(config.runs)
    if not sources:
        raise ValueError(
            f"no finished run in {', '.join(map(str, config.runs)) or 'RUNS'}: give "
            f"folders with {files.LAYOUT} below them."
        )
    if config.minima:
        with progress_bars(console) as progress:
            reasons = _measure(sources, progress, config.data_dir)
        sources, skipped = read(config.runs)
        skipped += reasons
    for place, reason in skipped:
        what = f"{place}: {reason}"
        display.print_line(console, what, label="skipped", style="yellow")
    path = config.out or config.runs[0] / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page.render(sources, skipped))
    size = path.stat().st_size / 1e6
    display.print_line(console, f"{path} ({size:.1f} MB)", label="Written:")
    return path


def _measure(
    sources: Sequence[Source], progress: Progress, data_dir: Path | None
) -> list[tuple[str, str]]:
    """Measures missing minima; returns those that failed, with reasons."""
    failed = []
    for source in sources:
        todo = [g.method for g in source.groups if not g.measures]
        todo = [method for method in todo if method in METHODS]
        if not todo:
            continue
        try:
            experiment = restore.reopen(source.folder, progress, data_dir)
            for method in progress.track(todo, description="minima"):
                plan = experiment.students.plan(method)
                restore.load_or_measure(experiment, plan, method, 0, Grid())
        # A report without minima is better than none, whatever the error.
        except Exception as error:
            failed.append((f"minima of {source.name}", f"{error}"))
    return failed
