"""Settings of a distillation experiment: one flat record, every field explained."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from kdlab.basics.reading import UserError, read_json
from kdlab.data import AUGMENTATIONS, is_streamed
from kdlab.losses.table import LOSSES, KdLoss
from kdlab.models import MODELS
from kdlab.settings.checks import (
    SOFT,
    check_combinations,
    check_known,
    check_numbers,
    check_types,
    differences,
    flag,
)
from kdlab.settings.fields import Execution, Optimization, expand_home, without_effect
from kdlab.train.methods import METHODS


@dataclasses.dataclass(frozen=True)
class Config(Execution, Optimization):
    """All settings of an experiment; the defaults are those of the demo."""

    name: str = "demo"
    """Everything is written to RUNS/NAME; a second start resumes it."""
    dataset: str = "mnist5k"
    """Data set: mnist5k, digits, fashion_mnist, mnist, cifar10, cifar100, synthetic,
    folder:PATH, or a name of the TFDS catalogue. imagenet2012 is streamed from the
    disk, and so is stream:NAME."""
    image_size: int | None = None
    """Side to bring the images of folders and of the catalogue to; None: as they are,
    or 224 when streamed."""
    labels: int | None = 400
    """Number of labelled images the student sees, balanced over classes; None: all."""
    noise: float = 0.4
    """Fraction of the student's labels that is drawn again at random."""
    augment: str = "shift"
    """Augmentation: none, shift, crop_flip, rotation_flip or resized_crop_flip."""

    teacher: str | None = "cnn_teacher"
    """Network of the teacher; see the command `models`. None: there is no teacher, and
    the student of `labels_only` is written to RUNS/NAME/weights, to be one."""
    teacher_epochs: int = 6
    """Epochs of the teacher over all training images."""
    teacher_weights: Path | None = None
    """Trained weights of the teacher instead of training it: an Orbax folder, a
    safetensors file or a file of torch.save."""
    student: str = "cnn_student"
    """Network of the student."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Methods to compare, in this order."""
    seeds: int = 3
    """Seeds 0, 1, ...: each draws labels, noise, initial weights and batches anew."""
    loss: str = "kd"
    """Distillation loss: a name of `kdopt.losses`, `soft_ce`, `soft_kl` or `soft_mse`
    (`soft_distance`: two temperatures), `ctkd` (learned temperature),
    `reviewkd` (`hcl` of fused maps) or `reviewkd_pp` (the same, and `nd`)."""
    alpha: float | None = None
    """Weight of the distillation loss in `kd`, `dot` and `dynamic_lambda`, beside 1 -
    alpha for the task; None takes those of the loss, for `kd` 0.9."""
    loss_weights: tuple[float, float] | None = None
    """Both weights, task and distillation, where they do not add up to 1."""
    loss_beta: float | None = None
    """Weight of the other classes in `dkd`, None: 8; of the fused maps in
    `reviewkd_pp`, None: 1.2."""
    loss_warmup: float | None = None
    """Epochs over which `dkd` and `reviewkd` come in linearly, 0: none; None: a twelfth
    of the training."""
    temperature: float = 4.0
    """Temperature of teacher and student in `kd`, `dkd` and the `soft_` losses; others
    have their own."""
    student_temperature: float | None = None
    """Another temperature of the student in the `soft_` losses."""

    def __post_init__(self) -> None:
        """Refuses wrong values with the list of right ones."""
        expand_home(self)
        check_types(self)
        for field, table in (
            ("augment", AUGMENTATIONS),
            ("teacher", MODELS),
            ("student", MODELS),
            ("loss", LOSSES),
        ):
            if getattr(self, field) is not None:
                check_known(field, getattr(self, field), table)
        for method in self.methods:
            check_known("methods", method, METHODS)
        check_numbers(self)
        check_combinations(self)

    @property
    def kd_loss(self) -> KdLoss:
        """The distillation loss, with the settings that it takes from here."""
        loss, options = LOSSES[self.loss], {}
        if self.loss_beta is not None:
            options["beta"] = self.loss_beta
        if self.loss_warmup is not None:
            options["warm_up"] = self.loss_warmup / self.epochs
        if self.student_temperature is not None:
            options["tau_student"] = self.student_temperature
        if not options:
            return loss
        return dataclasses.replace(loss, apply=partial(loss.apply, **options))

    @property
    def streamed(self) -> bool:
        """Whether images are decoded as they are needed."""
        return is_streamed(self.dataset)

    @property
    def weights(self) -> tuple[float, float]:
        """Fixed weights of the task and of the distillation loss."""
        if self.alpha is not None:
            return 1 - self.alpha, self.alpha
        return self.loss_weights or LOSSES[self.loss].weights

    @property
    def directory(self) -> Path:
        """Where everything of this experiment is written."""
        return self.runs / self.name

    def settings(self) -> dict:
        """What decides the results, as JSON values."""
        omitted = without_effect() | {"methods", "seeds"}
        record = dataclasses.asdict(self)
        kept = {key: record[key] for key in record if key not in omitted}
        return json.loads(json.dumps(kept, default=str))

    def claim_directory(self) -> None:
        """Creates the directory, or checks that it was made with the same settings.

        Raises:
            ValueError: If it was not; nothing is changed then.
        """
        path = self.directory / "config.json"
        settings = self.settings()
        if path.exists():
            # A setting that came later had its default value then.
            earlier = _defaults() | read_json(path)
            changed = differences(_by_flag(earlier), _by_flag(settings))
            if changed:
                raise ValueError(
                    f"{self.directory} holds runs with other settings "
                    f"({changed}): choose another --name."
                )
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings, indent=2) + "\n")

    @contextlib.contextmanager
    def claimed(self, data: str) -> Iterator[None]:
        """Claims the directory, and gives it up if nothing came of a first start.

        Else a wrong path would have to be put right under another name.

        Args:
            data: Fingerprint of the data set.

        Raises:
            ValueError: If the directory was made with other settings or data.
        """
        names = "config.json", "inputs.json", "teacher.json"
        files = [self.directory / name for name in names]
        first = not files[0].exists()
        self.claim_directory()
        self.claim_inputs(data=data)
        try:
            yield
        except BaseException:
            if first and not any(self.directory.glob("*/seed*")):
                for file in files:
                    file.unlink(missing_ok=True)
            raise

    def claim_inputs(self, **hashes: str) -> None:
        """Notes what the runs are made from, or checks that it has not changed.

        Args:
            **hashes: Of the ``data`` and of the weights of the ``teacher``.

        Raises:
            ValueError: If the directory holds runs from others; nothing is changed.
        """
        path = self.directory / "inputs.json"
        earlier = read_json(path) if path.exists() else {}
        for name, value in hashes.items():
            if earlier.get(name, value) != value:
                what = {"data": f"--dataset {self.dataset}"}.get(
                    name, f"--teacher-weights {self.teacher_weights}"
                )
                raise UserError(
                    f"{self.directory} holds runs from another state of {what}: its "
                    "contents have changed since. Choose another --name; or remove "
                    f"{path}, if only the times of its files are others."
                )
        path.write_text(json.dumps(earlier | hashes, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class LossesConfig(Config):
    """Compare distillation losses under several methods.

    Every loss is run with every method and seed, in RUNS/NAME/LOSS, and one table is
    printed and written. The other settings are those of the plain command.
    """

    name: str = "losses"
    """Everything is written to RUNS/NAME; a second start resumes it."""
    losses: tuple[str, ...] = tuple(loss for loss in LOSSES if loss not in SOFT)
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
            check_known("losses", loss, LOSSES)

    def single(self, name: str, loss: str, methods: tuple[str, ...]) -> Config:
        """The experiment of one loss, under another name."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Config)}
        return Config(**(fields | {"name": name, "loss": loss, "methods": methods}))


def _by_flag(settings: dict) -> dict:
    return {flag(name): value for name, value in settings.items()}


def _defaults() -> dict:
    return Config().settings()
