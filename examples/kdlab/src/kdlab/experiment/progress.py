"""Progress bars: speed, time left, losses, weights, conflict."""

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kdlab.runs.logs import Record, Report
from kdlab.train.fit import Run


class _Speed(ProgressColumn):
    """Images per second of tasks that count steps of ``images`` each."""

    def render(self, task: Task) -> Text:
        """Returns the speed, or an empty text if it is unknown."""
        images, speed = task.fields.get("images"), task.finished_speed or task.speed
        return Text(f"{images * speed:,.0f} img/s" if images and speed else "")


class Bars(Progress):
    """Progress bars with a line below them for each task with a ``note``."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bars and the notes."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields.get("note"):
                yield Text(f"  {task.fields['note']}")


def progress_bars(console: Console) -> Progress:
    """Makes progress bars with speed and remaining time."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def show(
    fit: Callable[[Callable[[Report], None]], Iterator[Record]],
    progress: Progress,
    *,
    title: str,
    epochs: int,
    steps: int,
    images: int,
) -> None:
    """Runs a training with a progress bar that counts steps.

    Args:
        fit: Starts the training; takes a function to call with each report.
        progress: Progress display to add the bar to.
        title: Title of the bar.
        epochs: Number of epochs.
        steps: Number of steps per epoch.
        images: Number of images per step.
    """
    bar = progress.add_task(title, total=epochs * steps, images=images)
    begun, tested, conflicts = False, "", list[float]()

    def update(done: int, note: str) -> None:
        nonlocal begun
        if not begun:
            # Steps before a resume must not count towards the speed.
            progress.reset(bar, completed=done)
        begun = True
        progress.update(bar, completed=done, note=note)

    def report(now: Report) -> None:
        where = f"epoch {now.epoch + 1}/{epochs}, step {now.step}/{steps}"
        conflict = ""
        if conflicts:
            conflict = f", conflict {sum(conflicts) / len(conflicts):.0%}"
        update(now.done, f"{where}: {describe(now.metrics)}{conflict}{tested}")

    for record in fit(report):
        tested = f", test {record['test/accuracy']:.1%}"
        # Over all steps if the method sees the gradients, else the last step only.
        for key in ("train/gradient/conflict/distill", "gradient/conflict/distill"):
            if key in record:
                conflicts.append(record[key])
                break
        epoch = int(record["epoch"])
        update(epoch * steps, f"epoch {epoch}/{epochs}{tested}")
    progress.remove_task(bar)


def show_run(
    fit: Callable[[Callable[[Report], None]], Iterator[Record]],
    run: Run,
    title: str,
    progress: Progress,
) -> None:
    """Runs a training with a progress bar; see :func:`show`."""
    show(
        fit,
        progress,
        title=title,
        epochs=run.epochs,
        steps=run.steps,
        images=run.batch_size,
    )


def describe(metrics: Record) -> str:
    """Formats the losses and weights of a step.

    Examples:
        >>> describe({"loss/task": 2.3026, "loss/distill": 0.5, "weight/task": 0.1})
        'task 2.303, distill 0.5, weights 0.1'
    """
    losses = [
        f"{key.removeprefix('loss/')} {value:.4g}"
        for key, value in metrics.items()
        if key.startswith("loss/")
    ]
    weights = [f"{v:.2g}" for key, v in metrics.items() if key.startswith("weight/")]
    if weights:
        losses.append(f"weights {' : '.join(weights)}")
    return ", ".join(losses)
