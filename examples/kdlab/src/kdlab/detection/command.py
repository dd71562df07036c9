"""``kdlab detect`` and ``kdlab make-scenes``."""

import shutil
from pathlib import Path

from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.data.detection.scenes import SceneConfig, write_scenes
from kdlab.detection import figures, table
from kdlab.detection.config import DetectConfig, shrink
from kdlab.detection.experiment import TEACHER, Experiment
from kdlab.detection.pictures import draw_grid
from kdlab.detection.task import Task, open_task
from kdlab.detection.timing import time_steps
from kdlab.experiment.progress import progress_bars
from kdlab.runs import files


def make_scenes(config: SceneConfig, console: Console) -> None:
    """Writes scenes of digits in the format of COCO, with a progress bar.

    Raises:
        ValueError: See :func:`kdlab.data.detection.scenes.write_scenes`.
        FileNotFoundError: If the source of the digits is not there.
    """
    with progress_bars(console) as progress:
        bar = progress.add_task("scenes", total=config.train + config.val)
        write_scenes(config, lambda done: progress.update(bar, completed=done))
    display.print_path(console, config.folder)


def run(config: DetectConfig, console: Console) -> None:
    """Trains what is missing; prints the table and writes it, curves and pictures.

    Raises:
        ValueError: If the folder holds an experiment with other settings.
        FileNotFoundError: If COCO is not there; the message says what to do.
    """
    if config.smoke:
        config = shrink(config)
        shutil.rmtree(config.directory, ignore_errors=True)  # or it would be resumed
    with progress_bars(console) as progress:
        task = open_task(config, progress)
        experiment = Experiment(task, progress)
        if config.time_steps:
            times = time_steps(experiment, progress)
            rows = [(name, f"{time:.2f}") for name, time in times.items()]
            display.print_table(console, ("method", "step time"), rows)
            return
        experiment.claim_directory()
        experiment.run()
        paths = draw_pictures(experiment, task)
    report(config, console)
    for path in paths:
        display.print_path(console, path, "Picture")


def report(config: DetectConfig, console: Console) -> None:
    """Prints the tables of the finished trainings, and writes them and the curves."""
    rows = table.make_rows(config)
    display.print_table(console, table.HEAD, rows)
    console.print(
        "On the images to evaluate on (%), after the last step: mean ± standard "
        "deviation over seeds."
    )
    text = table.to_markdown(table.HEAD, rows)
    if gradients := table.make_gradient_rows(config):
        display.print_table(console, table.GRADIENT_HEAD, gradients)
        console.print(table.GRADIENT_CAPTION)
        text += "\n" + table.to_markdown(table.GRADIENT_HEAD, gradients)
    path = config.directory / files.TABLE
    write_text(path, text)
    display.print_path(console, path)
    folder = config.directory / files.FIGURES
    folder.mkdir(exist_ok=True)
    for name, draw in (
        ("precision", figures.draw_precision),
        ("gradients", figures.draw_gradients),
        ("weights", figures.draw_weights),
    ):
        draw(config, folder / f"{name}.png")
        display.print_path(console, folder / f"{name}.png", "Figure")


def draw_pictures(experiment: Experiment, task: Task) -> list[Path]:
    """Draws the predictions of the teacher and of the first student of each method."""
    folder = experiment.config.directory / files.FIGURES
    folder.mkdir(exist_ok=True)
    paths = []
    for method in (TEACHER, *experiment.config.methods):
        if files.has_result(experiment.folder(method, 0)):
            paths.append(folder / f"boxes_{method}.png")
            draw_grid(task.val, experiment.predictions(method, 0), paths[-1])
    return paths
