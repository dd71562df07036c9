"""The recipe, and the settings that the tables have in common."""

import dataclasses

from kdlab.papers.recipes import _cost
from kdlab.settings.config import Config, configure


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A published number and the experiment that should reproduce it.

    Attributes:
        config: The settings; their name is the name of the recipe.
        published: Test accuracy (top-1) in percent; None if no paper reports it.
        source: Paper and table of the number.
        teacher: Name of the recipe that trains the teacher; None without a teacher.
        note: What the sources leave open or disagree on, and what was chosen.
        keeps_batch: Whether a smaller ``--batch-size`` is that of the micro-batches of
            a step, whose gradients are averaged, instead of that of the step.
    """

    config: Config
    published: float | None
    source: str
    teacher: str | None = None
    note: str = ""
    keeps_batch: bool = False

    @property
    def name(self) -> str:
        """Name for ``--recipe``."""
        return self.config.name

    @property
    def command(self) -> str:
        """Command that runs the recipe."""
        return f"kdlab distill --recipe {self.name}"

    @property
    def wall_time(self) -> float:
        """Estimated hours of one seed on an A100; see `_cost`."""
        return _cost.estimate_hours(self.config)


CIFAR100 = configure(
    dataset="cifar100",
    labels=None,
    noise=0.0,
    augment="crop_flip",
    epochs=240,
    batch_size=64,
    learning_rate=0.05,
    schedule="steps",
    decay_epochs=(150, 180, 210),
    weight_decay=5e-4,
    seeds=3,
    timing_rounds=0,
    checkpoint_seconds=600.0,
)
"""CRD's protocol, which DOT, DKD and others follow: Tian et al., 2020."""

TINY_IMAGENET = configure(
    CIFAR100,
    dataset="tiny_imagenet",
    augment="rotation_flip",
    epochs=200,
    batch_size=256,
    batch_norm_group=64,
    learning_rate=0.2,
    decay_epochs=(60, 120, 160),
)
"""DOT's protocol: four devices with 64 images each, and BatchNorm per device."""

IMAGENET = configure(
    CIFAR100,
    dataset="imagenet2012",
    augment="resized_crop_flip",
    epochs=100,
    batch_size=512,
    batch_norm_group=64,
    learning_rate=0.2,
    decay_epochs=(30, 60, 90),
    weight_decay=1e-4,
    seeds=1,
)
"""DOT's protocol: eight devices with 64 images each, and BatchNorm per device."""

FOLDERS = {
    "cifar100": "cifar100",
    "tiny_imagenet": "tiny_imagenet",
    "imagenet2012": "imagenet",
}
"""First part of the names of recipes by data set."""

SLOW = ("mobilenet_v2", "shufflenet_v1", "shufflenet_v2")
"""Students that CRD's protocol trains with a rate of 0.01 on CIFAR-100."""


def keep_batch(recipe: Recipe, config: Config) -> Config:
    """Divides the published batch into micro-batches of the size that was asked for.

    Args:
        recipe: The recipe.
        config: Its settings, with the user's changes.

    Raises:
        ValueError: If the sizes do not divide each other.
    """
    whole, asked = recipe.config.training.batch_size, config.training.batch_size
    if not recipe.keeps_batch or asked >= whole or config.training.accumulate > 1:
        return config
    if whole % asked:
        raise ValueError(
            f"--batch-size {asked} does not divide the batch of {recipe.name}, {whole} "
            "images, of which it is a part here: choose a divisor. To train with "
            f"smaller steps, give --batch-size {whole} and change the settings of a "
            "copy of the recipe."
        )
    return configure(config, batch_size=whole, accumulate=whole // asked)


def make_table(*recipes: Recipe) -> dict[str, Recipe]:
    """Makes a table of recipes by name."""
    named = {recipe.name: recipe for recipe in recipes}
    if len(named) < len(recipes):
        raise ValueError("two recipes of a table have the same name")
    return named
