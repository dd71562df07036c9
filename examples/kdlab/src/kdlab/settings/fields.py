"""Groups of settings that every experiment has: how it optimises and how it runs."""

import dataclasses
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Optimization:
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
    delta: float = 0.075
    """DOT: the distillation momentum is momentum + delta, the task's is - delta."""
    weight_decay: float = 5e-4
    """SGD: L2 penalty, added to the gradient; AdamW: decoupled decay."""
    clip: float | None = None
    """Greatest global norm of the combined gradient, before weight decay; not with
    `dot`, which combines the momenta instead."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the training runs."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation in the networks; parameters stay float32."""
    ema: float | None = None
    """Decay of averaged parameters, which then are the ones evaluated."""
    batch_norm_group: int | None = None
    """Images that share BatchNorm statistics, for example 64 as on one device of the
    references; None: the whole batch of all devices."""
    max_blocks: int | None = None
    """Greatest number of blocks in a stage of teacher and student, for a quick trial;
    None: as many as they have."""
    devices: int | None = None
    """Devices among which a batch is divided; None: all of them."""
    shard_params: bool = False
    """Divide parameters and optimiser state among the devices as well as the batch."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do when a loss is not finite: stop with a report, or skip the step."""
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
    runs: Path = Path("runs")
    """Folder of all runs, and of the cached teachers."""
    workers: int = 0
    """Processes that decode a streamed data set ahead; 0: threads of this one."""
    cache_teacher: bool = True
    """Without augmentation, ask the teacher of a loss on logits once about each image
    and keep what it says, in RUNS/teachers/outputs."""
    data_dir: Path | None = None
    """Where downloaded data sets lie."""


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


_DECISIVE = ("dtype", "ema", "batch_norm_group", "max_blocks", "on_nonfinite")


def without_effect() -> frozenset[str]:
    """Names of the settings that leave the results as they are, up to rounding."""
    return frozenset(
        field.name
        for field in dataclasses.fields(Execution)
        if field.name not in _DECISIVE
    )
