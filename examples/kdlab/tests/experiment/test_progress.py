"""What the bars show."""

from rich.console import Console

from kdlab.experiment.progress import progress_bars, show
from kdlab.runs.logs import Report


def trained(first_epoch=0, epochs=3, steps=20, seconds=0.5):
    """Runs a training of half a second per step; yields what is shown."""
    clock = [100.0]
    bars = progress_bars(Console(quiet=True))
    bars.get_time = lambda: clock[0]
    shown = []

    def screen():
        console = Console(width=120)
        with console.capture() as capture:
            for part in bars.get_renderables():
                console.print(part)
        shown.append(capture.get())

    def fit(report):
        for epoch in range(first_epoch, epochs):
            for step in range(1, steps + 1):
                clock[0] += seconds
                metrics = {"loss/task": 1.5, "loss/distill": 0.25}
                metrics |= {"weight/task": 0.1, "weight/distill": 0.9}
                report(Report(epoch, step, steps, metrics))
                screen()
            conflict = {"gradient/conflict/distill": float(epoch == 0)}
            yield {"epoch": epoch + 1, "test/accuracy": 0.5, **conflict}
            screen()

    show(fit, bars, title="kd, seed 0", epochs=epochs, steps=steps, images=64)
    assert not bars.tasks
    return shown


def test_a_bar_shows_where_it_is_how_fast_and_what_the_losses_are():
    shown = trained()
    first, last = shown[10], shown[-2]
    assert "kd, seed 0" in first
    assert "epoch 1/3, step 11/20" in first
    assert "task 1.5, distill 0.25, weights 0.1 : 0.9" in first
    assert "conflict" not in first
    assert "epoch 3/3, step 20/20" in last
    assert "conflict 50%" in last  # of two epochs
    assert "test 50.0%" in last
    assert "128 img/s" in last  # 64 images in half a second
    assert "60/60" in shown[-1]


def test_a_resumed_run_is_as_fast_as_any_other():
    shown = trained(first_epoch=2)
    assert "41/60" in shown[0]
    assert "128 img/s" in shown[5]
    assert "0:00:07" in shown[5]  # 14 steps are left
