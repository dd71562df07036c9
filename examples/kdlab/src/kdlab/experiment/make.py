"""Checks the names in the settings against the known ones, and loads the data set."""

from typing import Any

from kdlab.basics.importing import import_function, is_reference
from kdlab.data import AUGMENTATIONS, Dataset, is_streamed, load
from kdlab.losses.table import LOSSES, loss_weights
from kdlab.models import MODELS
from kdlab.settings.checks import check_known
from kdlab.settings.config import Config, configure
from kdlab.settings.parts import Data
from kdlab.train.methods import METHODS


def make_config(config: Config | None = None, **settings: Any) -> Config:
    """Makes fully validated settings.

    Args:
        config: Settings to start from; None: the defaults.
        **settings: New values by name.

    Raises:
        ValueError: If a value is invalid; the message lists the valid ones.

    Examples:
        >>> make_config(loss="dist", seeds=1).distillation.loss
        'dist'
    """
    return check_names(configure(config, **settings))


def check_names(config: Config) -> Config:
    """Returns the settings if every name in them is known.

    Raises:
        ValueError: At the first unknown name; the message lists the known ones.
    """
    check_known("augment", config.data.augment, AUGMENTATIONS)
    for option in ("teacher", "student"):
        name = getattr(config.networks, option)
        if name is not None and is_reference(name):
            import_function(name)
        elif name is not None:
            check_known(option, name, MODELS)
    check_known("loss", config.distillation.loss, LOSSES)
    loss_weights(config.distillation)
    for method in config.methods:
        check_known("methods", method, METHODS)
    data = config.data
    if is_streamed(data.dataset) and (data.labels is not None or data.noise):
        raise ValueError(
            "a streamed --dataset is used whole and unchanged: give "
            "--labels None --noise 0."
        )
    return config


def load_dataset(data: Data) -> Dataset:
    """Loads the data set of the settings, with the image size of the settings.

    Raises:
        FileNotFoundError: If files are missing; the message says how to get them.
        ValueError: If there is no data set of that name, or it does not fit in memory.
    """
    return load(data.dataset, data_dir=data.data_dir, image_size=data.image_size)
