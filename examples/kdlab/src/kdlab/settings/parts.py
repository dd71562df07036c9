"""The parts of an experiment's settings; functions take only the part they need."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kdlab.settings.checks import check_range, check_types, flag

# `kd` with other distances, and with a separate temperature for the student.
SOFT = ("soft_ce", "soft_kl", "soft_mse")
TEACHER_FREE = ("uskd",)
"""Losses for which the student needs no teacher."""
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
    the path of a folder or of an .npz file, MODULE:FUNCTION for your own function, or a
    name in the TFDS catalogue. imagenet2012 and stream:NAME are streamed from disk."""
    image_size: int | None = None
    """Side to which all images are resized; None: their own size, or 224 when
    streamed."""
    labels: int | None = 400
    """Number of labelled images that the student sees, balanced over classes; None:
    all."""
    noise: float = 0.4
    """Fraction of the student's labels that is replaced at random."""
    augment: str = "shift"
    """Augmentation: none, shift, crop_flip, rotation_flip, resized_crop_flip, or the
    latter followed by rand_augment or three_augment."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How streamed images are resized."""
    data_dir: Path | None = None
    """Folder of downloaded data sets."""
    workers: int = 0
    """Processes that decode a streamed data set ahead of training; 0: threads of this
    process."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of range."""
        prepare(self)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The teacher and the student."""

    teacher: str | None = "cnn_teacher"
    """Network of the teacher: a name that `kdlab models` lists, or MODULE:FUNCTION for
    your own. None: there is no teacher; the student of `labels_only` is written to
    RUNS/NAME/weights, ready to be used as one."""
    teacher_epochs: int = 6
    """Epochs of training the teacher on all training images."""
    teacher_weights: Path | None = None
    """Trained weights of the teacher, instead of training it: an Orbax folder, a
    safetensors file or a torch.save file."""
    student: str = "cnn_student"
    """Network of the student, named like that of the teacher."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the computation in the networks; parameters stay float32."""
    batch_norm_group: int | None = None
    """Images that share BatchNorm statistics, for example 64, as on one device of the
    reference implementations; None: the whole batch over all devices."""
    max_blocks: int | None = None
    """Maximum number of blocks in each stage of teacher and student, for a quick trial;
    None: no limit."""
    drop_path: float = 0.0
    """Transformers: rate of stochastic depth of the student's last block."""
    remat: bool = False
    """Transformers: compute the student's blocks again in each backward pass, which
    saves memory."""
    scan: bool = False
    """Transformers: run the student's blocks in a loop, which compiles one block
    instead of all; each loss then counts as one that reaches all of them."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of range."""
        prepare(self)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The distillation loss and its weight."""

    loss: str = "kd"
    """Distillation loss: a name of `kdopt.losses`, `soft_ce`, `soft_kl` or `soft_mse`
    (`soft_distance`: two temperatures), `ctkd` (learned temperature),
    `reviewkd` (`hcl` of fused maps) or `reviewkd_pp` (the same, and `nd`)."""
    alpha: float | None = None
    """Weight of a single distillation loss in `kd`, `dot` and `dynamic_lambda`; the
    task gets 1 - alpha. None: the weights that come with the loss, for `kd` 0.9."""
    loss_weights: tuple[float, ...] | None = None
    """Weights of the task and of each distillation loss, if they do not add up to 1."""
    loss_beta: float | None = None
    """Weight of the non-target classes in `dkd` (None: 8) or of the fused maps in
    `reviewkd_pp` (None: 1.2)."""
    loss_warmup: float | None = None
    """Epochs over which the weight of `dkd` and `reviewkd` rises linearly; 0: none;
    None: a twelfth of the training."""
    temperature: float = 4.0
    """Temperature of teacher and student in `kd`, `dkd` and the `soft_` losses; other
    losses have their own."""
    student_temperature: float | None = None
    """Separate temperature of the student in the `soft_` losses."""
    delta: float = 0.075
    """DOT: the momentum of the distillation loss is momentum + delta, that of the task
    momentum - delta."""

    def __post_init__(self) -> None:
        """Refuses wrong types, numbers out of range and contradictions."""
        prepare(self)
        if self.alpha is not None and self.loss_weights is not None:
            raise ValueError(
                "--alpha and --loss-weights both set the weights of the losses; set "
                "one of them to None."
            )
        for field, losses in _TAKERS.items():
            if getattr(self, field) is not None and self.loss not in losses:
                raise ValueError(
                    f"{flag(field)} applies to --loss {' or '.join(losses)}, not "
                    f"{self.loss!r}; give {flag(field)} None."
                )


@dataclasses.dataclass(frozen=True)
class Training:
    """How the student is trained."""

    epochs: int = 20
    """Epochs of training the student."""
    batch_size: int = 50
    """Images per step, over all devices."""
    accumulate: int = 1
    """Number of micro-batches per step, to save memory; the gradients of each loss are
    averaged over them."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser of the student; the methods combine the gradients before it."""
    learning_rate: float = 0.02
    """Peak learning rate."""
    schedule: Literal["cosine", "steps", "deit"] = "cosine"
    """Learning-rate schedule: a cosine; steps; or DeiT's cosine, whose rate is that of
    the previous epoch for all steps of an epoch."""
    last_rate: float = 0.0
    """Cosine and DeiT: the rate at the end."""
    decay_epochs: tuple[int, ...] = ()
    """Steps: epochs after which the rate drops; 150 means from the 151st epoch on."""
    decay_rate: float = 0.1
    """Steps: factor by which it is multiplied each time."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up to the peak rate."""
    warmup_rate: float = 0.0
    """The rate at which the warm-up begins."""
    momentum: float = 0.9
    """Momentum of SGD or b1 of AdamW; DOT's two momenta lie around it."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: float = 5e-4
    """SGD: L2 penalty, added to the gradient; AdamW: decoupled weight decay."""
    decayed: Literal["all", "deit", "timm"] = "all"
    """AdamW: which parameters decay. deit: neither vectors such as biases, nor class
    token and position embedding, nor orthogonal projectors; timm: nor the distillation
    token."""
    clip: float | None = None
    """Maximum global norm of the combined gradient, before weight decay; not with
    `dot`, which combines momenta instead."""
    ema: float | None = None
    """Decay of the averaged parameters, which are then the ones evaluated; None: no
    averaging."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do when a loss is not finite: stop with a report, or skip the step."""

    def __post_init__(self) -> None:
        """Refuses wrong types, numbers out of range and contradictions."""
        prepare(self)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"--accumulate {self.accumulate} does not divide --batch-size "
                f"{self.batch_size}; choose a divisor of it."
            )
        self._check_schedule()

    def _check_schedule(self) -> None:
        decays = self.decay_epochs
        if self.schedule != "steps" and decays:
            raise ValueError("--decay-epochs applies to --schedule steps only.")
        if self.decayed != "all" and self.optimizer != "adamw":
            raise ValueError("--decayed applies to --optimizer adamw only.")
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
                f"--decay-epochs {' '.join(map(str, decays))} must increase, start "
                f"after the warm-up and end before --epochs {self.epochs}."
            )


@dataclasses.dataclass(frozen=True)
class Execution:
    """Where and on what the training runs; does not affect the results."""

    runs: Path = Path("runs")
    """Folder of all runs and of the cached teachers."""
    devices: int | None = None
    """Number of devices that share a batch; None: all."""
    shard_params: bool = False
    """Shard parameters and optimiser state over the devices as well as the batch."""
    cache_teacher: bool = True
    """Without augmentation and with a loss on logits, run the teacher once on each
    image and keep its logits in RUNS/teachers/outputs."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; at the end of an epoch a tenth of them is enough."""
    coordinator: str | None = None
    """HOST:PORT of process 0 of several; `auto` detects the cluster; None: the
    environment variable JAX_COORDINATOR_ADDRESS, or else a single process."""
    num_processes: int | None = None
    """Number of processes; None: JAX_NUM_PROCESSES."""
    process_id: int | None = None
    """Index of this process, from 0; None: JAX_PROCESS_ID."""
    tensorboard: bool = False
    """Also write TensorBoard event files."""
    wandb: bool = False
    """Also log to Weights & Biases."""
    timing_rounds: int = 60
    """Steps of each method in the interleaved timing at the end; 0: no timing."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of range."""
        prepare(self)


@dataclasses.dataclass(frozen=True)
class Untimed(Execution):
    """Where and on what several trainings run; steps are not timed."""

    timing_rounds: Annotated[int, tyro.conf.Suppress] = 0


def prepare(part: Any) -> None:
    """Expands ``~`` in the paths of a part of the settings and validates its values.

    Args:
        part: A frozen dataclass, from its ``__post_init__``.

    Raises:
        ValueError: At the first invalid value; the message names its option.
    """
    expand_home(part)
    check_types(part)
    check_range(part)


def expand_home(config: Any) -> None:
    """Expands ``~`` in all paths of a frozen dataclass, as shells do not always.

    Args:
        config: A dataclass, from its ``__post_init__``.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Path):
            object.__setattr__(config, field.name, value.expanduser())
        elif isinstance(value, tuple) and all(isinstance(x, Path) for x in value):
            paths = tuple(path.expanduser() for path in value)
            object.__setattr__(config, field.name, paths)
