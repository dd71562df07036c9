"""The parts of an experiment's settings; a function is given the part that it needs."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kdlab.settings.checks import check_range, check_types, flag

# `kd` with other distances, and with a temperature of the student's own.
SOFT = ("soft_ce", "soft_kl", "soft_mse")
_TAKERS = {
    "student_temperature": SOFT,
    "loss_beta": ("dkd", "reviewkd_pp"),
    "loss_warmup": ("dkd", "reviewkd", "reviewkd_pp"),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """The images and labels that the student learns from."""

    dataset: str = "mnist5k"
    """Data set: mnist5k, digits, fashion_mnist, mnist, cifar10, cifar100, synthetic,
    the path of a folder or of an .npz file, MODULE:FUNCTION for a function of your own,
    or a name of the TFDS catalogue. imagenet2012 is streamed from the disk, and so is
    stream:NAME."""
    image_size: int | None = None
    """Side to bring the images of folders and of the catalogue to; None: as they are,
    or 224 when streamed."""
    labels: int | None = 400
    """Number of labelled images the student sees, balanced over classes; None: all."""
    noise: float = 0.4
    """Fraction of the student's labels that is drawn again at random."""
    augment: str = "shift"
    """Augmentation: none, shift, crop_flip, rotation_flip or resized_crop_flip."""
    data_dir: Path | None = None
    """Where downloaded data sets lie."""
    workers: int = 0
    """Processes that decode a streamed data set ahead; 0: threads of this one."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of their range."""
        prepare(self)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The teacher and the student."""

    teacher: str | None = "cnn_teacher"
    """Network of the teacher: a name that `kdlab models` lists, or MODULE:FUNCTION for
    one of your own. None: there is no teacher, and the student of `labels_only` is
    written to RUNS/NAME/weights, to be one."""
    teacher_epochs: int = 6
    """Epochs of the teacher over all training images."""
    teacher_weights: Path | None = None
    """Trained weights of the teacher instead of training it: an Orbax folder, a
    safetensors file or a file of torch.save."""
    student: str = "cnn_student"
    """Network of the student; names as for the teacher."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation in the networks; parameters stay float32."""
    batch_norm_group: int | None = None
    """Images that share BatchNorm statistics, for example 64 as on one device of the
    references; None: the whole batch of all devices."""
    max_blocks: int | None = None
    """Greatest number of blocks in a stage of teacher and student, for a quick trial;
    None: as many as they have."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of their range."""
        prepare(self)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The distillation loss and its weight."""

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
    delta: float = 0.075
    """DOT: the distillation momentum is momentum + delta, the task's is - delta."""

    def __post_init__(self) -> None:
        """Refuses wrong types, numbers out of their range and contradictions."""
        prepare(self)
        if self.alpha is not None and self.loss_weights is not None:
            raise ValueError(
                "--alpha and --loss-weights both set the weights of the losses; leave "
                "one out (None)."
            )
        for field, losses in _TAKERS.items():
            if getattr(self, field) is not None and self.loss not in losses:
                raise ValueError(
                    f"{flag(field)} belongs to --loss {' or '.join(losses)}, not "
                    f"{self.loss!r}; give {flag(field)} None."
                )


@dataclasses.dataclass(frozen=True)
class Training:
    """How the parameters of the student move."""

    epochs: int = 20
    """Epochs of the student."""
    batch_size: int = 50
    """Images in a step, over all devices."""
    accumulate: int = 1
    """Parts into which a step divides its batch, to need less memory; the gradients of
    each loss are averaged over them."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser of the student; the methods balance before it."""
    learning_rate: float = 0.02
    """Peak learning rate."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """Course of the learning rate: along a cosine to 0, or down in steps."""
    decay_epochs: tuple[int, ...] = ()
    """Steps: epochs after which the rate falls; 150 means from the 151st epoch on."""
    decay_rate: float = 0.1
    """Steps: factor by which it falls each time."""
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises linearly from 0 to its peak, before the rest."""
    momentum: float = 0.9
    """Momentum of SGD and first decay of AdamW, and the centre of DOT's two."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: float = 5e-4
    """SGD: L2 penalty, added to the gradient; AdamW: decoupled decay."""
    clip: float | None = None
    """Greatest global norm of the combined gradient, before weight decay; not with
    `dot`, which combines the momenta instead."""
    ema: float | None = None
    """Decay of averaged parameters, which then are the ones evaluated."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do when a loss is not finite: stop with a report, or skip the step."""

    def __post_init__(self) -> None:
        """Refuses wrong types, numbers out of their range and contradictions."""
        prepare(self)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"--accumulate {self.accumulate} does not divide --batch-size "
                f"{self.batch_size}; choose a divisor of it."
            )
        self._check_schedule()

    def _check_schedule(self) -> None:
        decays = self.decay_epochs
        if self.schedule == "cosine" and decays:
            raise ValueError("--decay-epochs belongs to --schedule steps.")
        if self.schedule == "steps" and not decays:
            raise ValueError(
                "--schedule steps needs --decay-epochs, such as 150 180 210."
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"--warmup-epochs {self.warmup_epochs} must end before --epochs "
                f"{self.epochs}."
            )
        bounds = (self.warmup_epochs, *decays, self.epochs)
        if decays and not all(a < b for a, b in pairwise(bounds)):
            raise ValueError(
                f"--decay-epochs {' '.join(map(str, decays))} must rise, after the "
                f"warm-up and below --epochs {self.epochs}; give those of the shorter "
                "training."
            )


@dataclasses.dataclass(frozen=True)
class Execution:
    """Where and on what the training runs; the results do not depend on it."""

    runs: Path = Path("runs")
    """Folder of all runs, and of the cached teachers."""
    devices: int | None = None
    """Devices among which a batch is divided; None: all of them."""
    shard_params: bool = False
    """Divide parameters and optimiser state among the devices as well as the batch."""
    cache_teacher: bool = True
    """Without augmentation, ask the teacher of a loss on logits once about each image
    and keep what it says, in RUNS/teachers/outputs."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; an epoch's end is saved after a tenth of them."""
    coordinator: str | None = None
    """HOST:PORT of process 0 of several; `auto` asks the cluster; None: the environment
    variable JAX_COORDINATOR_ADDRESS, or this process is alone."""
    num_processes: int | None = None
    """How many processes there are; None: JAX_NUM_PROCESSES."""
    process_id: int | None = None
    """Number of this process, from 0; None: JAX_PROCESS_ID."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""
    wandb: bool = False
    """Log to Weights & Biases too."""
    timing_rounds: int = 60
    """Steps of each method in the interleaved timing at the end; 0 skips it."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of their range."""
        prepare(self)


@dataclasses.dataclass(frozen=True)
class Untimed(Execution):
    """Where and on what several trainings run; no steps are timed."""

    timing_rounds: Annotated[int, tyro.conf.Suppress] = 0


def prepare(part: Any) -> None:
    """Expands ``~`` in the paths of a part of the settings and checks its values.

    Args:
        part: A frozen dataclass, in its ``__post_init__``.

    Raises:
        ValueError: At the first wrong value; the message names its option.
    """
    expand_home(part)
    check_types(part)
    check_range(part)


def expand_home(config: Any) -> None:
    """Replaces ``~`` in all paths of a frozen dataclass, as the shell does not always.

    Args:
        config: A dataclass, in its ``__post_init__``.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Path):
            object.__setattr__(config, field.name, value.expanduser())
        elif isinstance(value, tuple) and all(isinstance(x, Path) for x in value):
            paths = tuple(path.expanduser() for path in value)
            object.__setattr__(config, field.name, paths)
