"""Settings of a distillation experiment: one flat record, every field explained."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from examples.distill.data import AUGMENTATIONS
from examples.distill.kd_losses import LOSSES, KdLoss
from examples.distill.methods import METHODS
from examples.distill.models import MODELS


@dataclasses.dataclass(frozen=True)
class Config:
    """Distil a student by several methods and compare them.

    The defaults are the demo: 5,000 real digits; the teacher sees the labels of all
    training images, the student 400 of them with 40 % drawn again at random, so that
    labels and teacher truly conflict. About three minutes on two cores.

    Other settings: ``--noise 0`` (clean labels), ``--labels 1000``, ``--dataset
    fashion_mnist``. Other commands: ``python -m examples.distill models`` lists the
    networks, ``losses`` compares distillation losses, ``python -m
    examples.distill.data`` prepares data sets.
    """

    name: str = "demo"
    """Everything is written to RUNS/NAME; a second start resumes it."""
    runs: Path = Path("runs")
    """Folder of all runs, and of the cached teachers."""

    dataset: str = "mnist5k"
    """Data set: mnist5k, digits, fashion_mnist, mnist, cifar10, cifar100, synthetic,
    folder:PATH, or a name of the TFDS catalogue."""
    data_dir: Path | None = None
    """Where downloaded data sets lie."""
    labels: int | None = 400
    """Number of labelled images the student sees, balanced over classes; None: all."""
    noise: float = 0.4
    """Fraction of the student's labels that is drawn again at random."""
    augment: str = "shift"
    """Augmentation: none, shift, crop_flip, rotation_flip or resized_crop_flip."""

    teacher: str = "cnn_teacher"
    """Network of the teacher; see the command `models`."""
    student: str = "cnn_student"
    """Network of the student."""
    teacher_epochs: int = 6
    """Epochs of the teacher over all training images."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Methods to compare, in this order."""
    loss: str = "kd"
    """Distillation loss: a name of `kdopt.losses`, `ctkd` (learned temperature),
    `reviewkd` (`hcl` of fused maps) or `reviewkd_pp` (the same, and `nd`)."""
    seeds: int = 3
    """Seeds 0, 1, ...: each draws labels, noise, initial weights and batches anew."""

    epochs: int = 20
    """Epochs of the student."""
    batch_size: int = 50
    """Images in a step."""
    learning_rate: float = 0.02
    """Peak learning rate of SGD; it falls to 0 along a cosine."""
    momentum: float = 0.9
    """Momentum of SGD, and the centre of DOT's two momenta."""
    delta: float = 0.075
    """DOT: the distillation momentum is momentum + delta, the task's is - delta."""
    weight_decay: float = 5e-4
    """L2 penalty, added to the gradient."""
    alpha: float | None = None
    """Weight of the distillation loss in `kd`, `dot` and `dynamic_lambda`, beside 1 -
    alpha for the task; None takes those of the loss, for `kd` 0.9."""
    temperature: float = 4.0
    """Temperature of teacher and student in `kd` and `dkd`; others have their own."""

    checkpoint_seconds: float = 60.0
    """Long runs are saved at the first epoch end after this many seconds."""
    timing_rounds: int = 60
    """Steps of each method in the interleaved timing at the end; 0 skips it."""

    def __post_init__(self) -> None:
        """Refuses wrong values with the list of right ones."""
        for field, table in (
            ("augment", AUGMENTATIONS),
            ("teacher", MODELS),
            ("student", MODELS),
            ("loss", LOSSES),
        ):
            _known(field, getattr(self, field), table)
        for method in self.methods:
            _known("methods", method, METHODS)
        for field in ("seeds", "epochs", "teacher_epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"--{field.replace('_', '-')} must be at least 1, got "
                    f"{getattr(self, field)}."
                )
        for field in ("noise", "alpha"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"--{field} must lie in [0, 1], got {value}.")
        for field in ("learning_rate", "temperature"):
            if not getattr(self, field) > 0:
                raise ValueError(
                    f"--{field.replace('_', '-')} must be positive, got "
                    f"{getattr(self, field)}."
                )

    @property
    def kd_loss(self) -> KdLoss:
        """The distillation loss."""
        return LOSSES[self.loss]

    @property
    def weights(self) -> tuple[float, float]:
        """Fixed weights of the task and of the distillation loss."""
        if self.alpha is None:
            return self.kd_loss.weights
        return 1 - self.alpha, self.alpha

    @property
    def directory(self) -> Path:
        """Where everything of this experiment is written."""
        return self.runs / self.name

    def settings(self) -> dict:
        """What decides the results, as JSON values."""
        omitted = ("runs", "data_dir", "methods", "seeds", "timing_rounds")
        record = dataclasses.asdict(self)
        return {
            key: value
            for key, value in record.items()
            if key not in (*omitted, "checkpoint_seconds")
        }

    def claim_directory(self) -> None:
        """Creates the directory, or checks that it was made with the same settings.

        Raises:
            ValueError: If it was not; nothing is changed then.
        """
        path = self.directory / "config.json"
        settings = self.settings()
        if path.exists():
            earlier = json.loads(path.read_text())
            changed = [
                f"{key} was {earlier.get(key)!r}, is {value!r}"
                for key, value in settings.items()
                if earlier.get(key) != value
            ]
            if changed:
                raise ValueError(
                    f"{self.directory} holds runs with other settings "
                    f"({'; '.join(changed)}): choose another --name."
                )
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class LossesConfig(Config):
    """Compare distillation losses under several methods.

    Every loss is run with every method and seed, in RUNS/NAME/LOSS, and one table is
    printed and written. The other settings are those of the plain command.
    """

    name: str = "losses"
    """Everything is written to RUNS/NAME; a second start resumes it."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """Distillation losses to compare, in this order."""
    methods: tuple[str, ...] = ("kd", "dot", "dto_kd", "dto_kd_shared")
    """Methods to compare: `kd` is the loss with fixed weights."""
    epochs: int = 20
    """Epochs of the student."""
    learning_rate: float = 0.01
    """Peak learning rate of SGD; half of the demo's, as the weights of many recipes sum
    to two and more."""
    loss: Annotated[str, tyro.conf.Suppress] = "kd"
    timing_rounds: Annotated[int, tyro.conf.Suppress] = 0

    def __post_init__(self) -> None:
        """Refuses wrong values with the list of right ones."""
        super().__post_init__()
        for loss in self.losses:
            _known("losses", loss, LOSSES)

    def single(self, name: str, loss: str, methods: tuple[str, ...]) -> Config:
        """The experiment of one loss, under another name."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Config)}
        return Config(**(fields | {"name": name, "loss": loss, "methods": methods}))


def _known(field: str, value: str, table: dict) -> None:
    if value not in table:
        raise ValueError(f"--{field} {value!r} is unknown; choose {', '.join(table)}.")
