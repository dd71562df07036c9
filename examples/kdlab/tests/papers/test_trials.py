"""Trials of the claims see the data that the settings describe."""

from rich.console import Console

from _students import SETTINGS
from kdlab.experiment.make import make_config
from kdlab.experiment.progress import progress_bars
from kdlab.minima.measure import Grid
from kdlab.minima.restore import reopen
from kdlab.papers.claims import trials


def test_images_have_the_size_of_the_settings(standard, tmp_path):
    config = make_config(
        **SETTINGS, runs=tmp_path, image_size=4, teacher_epochs=1, seeds=1
    )
    setting = trials.Setting(0.0, 1.0, {}, ())
    with progress_bars(Console(quiet=True)) as progress:
        trial = trials.run(config, {"clean": setting}, progress, Grid())["clean"]
        folder = trial.experiment.config.directory
        again = reopen(folder, progress)
    assert trial.experiment.dataset.train_images.shape[1:] == (4, 4, 1)
    assert again.dataset.train_images.shape[1:] == (4, 4, 1)
