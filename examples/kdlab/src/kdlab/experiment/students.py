"""Makes the students of an experiment: network, data, plan and state of each."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.data import Dataset, Streamed, num_batches
from kdlab.data.feed import Stream
from kdlab.data.split import Split
from kdlab.devices.mesh import make_layout
from kdlab.experiment import splits
from kdlab.experiment.networks import check_features, make_model, make_teacher
from kdlab.experiment.remembered import is_valid, remember
from kdlab.losses.base import KdLoss, Pupil, Setting, reach
from kdlab.losses.table import LOSSES, loss_weights
from kdlab.models.network import Network, Remembered
from kdlab.runs import files
from kdlab.settings.config import Config
from kdlab.train.evaluate import class_means
from kdlab.train.fit import Run
from kdlab.train.methods import METHODS, Plan, learning_rate, numbers
from kdlab.train.problem import Problem
from kdlab.train.state import TrainState
from kdlab.train.step import Step, initial_state, make_step


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network and the data set it was trained on.

    Attributes:
        network: The network; None where the students learn from the labels alone.
        dataset: The data set.
    """

    network: Network | None
    dataset: Dataset | Streamed


class Students:
    """The students of an experiment.

    Attributes:
        config: The settings.
        problem: The losses, the same for all of them.
    """

    config: Config
    problem: Problem

    def __init__(self, config: Config, teacher: Teacher):
        """Binds what they share.

        Args:
            config: The settings.
            teacher: Whom they learn from, on a part of the same data set.
        """
        self.config = config
        self._loss = LOSSES[config.distillation.loss]
        self._teacher, self._dataset = teacher, teacher.dataset
        check_features(config, teacher.network, teacher.dataset)
        self.problem = make_problem(
            config,
            self._dataset,
            jax.eval_shape(lambda: self._pupil(0)),
            self._loss,
            teacher=_computing_in(config, teacher),
            steps=self._steps(),
        )
        self.problem.layout.check_batch(
            config.training.batch_size, config.training.accumulate
        )

    def plan(self, method: str) -> Plan:
        """The method with its learning-rate schedule."""
        training, distillation = self.config.training, self.config.distillation
        schedule = learning_rate(training, self._steps() // training.epochs)
        known = numbers(
            training,
            weights=loss_weights(distillation),
            delta=distillation.delta,
            reach=functools.partial(reach, self._loss),
        )
        return METHODS[method](known, schedule)

    def data(self, seed: int) -> Split | Stream:
        """The images that the student sees and their noisy labels, by the seed."""
        return splits.training(self.config.data, self._dataset, seed)

    def _remembered(self, seed: int) -> Remembered | None:
        config, teacher = self.config, self.problem.teacher
        few = splits.part(config.data, self._dataset, seed)
        if teacher is None or not is_valid(config) or isinstance(few, Streamed):
            return None
        return remember(teacher, few, self.problem.layout, config)

    def state(self, plan: Plan, seed: int) -> TrainState:
        """The state before the first step."""
        layout, ema = self.problem.layout, self.config.training.ema is not None
        return initial_state(self._pupil(seed), plan, seed, layout, ema=ema)

    def step(self, plan: Plan) -> Step:
        """The compiled step of a method."""
        config = self.config
        return make_step(
            self.problem,
            plan,
            accumulate=config.training.accumulate,
            ema=config.training.ema,
            skip_nonfinite=config.training.on_nonfinite == "skip",
        )

    def run(self, method: str, seed: int, *, diagnose: bool = True) -> Run:
        """One training."""
        config = self.config
        return Run(
            directory=files.seed_folder(config.directory, method, seed),
            train=self.data(seed),
            test=splits.testing(config.data, self._dataset),
            epochs=config.training.epochs,
            batch_size=config.training.batch_size,
            checkpoint_seconds=config.execution.checkpoint_seconds,
            diagnose=diagnose,
            tensorboard=config.execution.tensorboard,
            wandb=config.execution.wandb,
            skip_nonfinite=config.training.on_nonfinite == "skip",
            remembered=self._remembered(seed),
        )

    def _steps(self) -> int:
        labels, training = self.config.data.labels, self.config.training
        size = self._dataset.num_train if labels is None else labels
        return training.epochs * num_batches(size, training.batch_size)

    @functools.cached_property
    def _class_means(self) -> jax.Array:
        """The teacher's mean penultimate vectors of all training images, ``[c, d]``."""
        config, data, teacher = self.config, self._dataset, self._teacher.network
        assert teacher is not None  # without one there is no such loss
        with jax.ensure_compile_time_eval():  # arrays, even where a pupil is traced
            return class_means(
                teacher,
                splits.whole_training(config.data, data),
                make_layout(config.execution.devices),
                (data.mean, data.std),
                data.num_classes,
            )

    def _pupil(self, seed: int) -> Network:
        config = self.config
        rngs = nnx.Rngs(seed)
        network = make_model(
            config.networks.student,
            self._dataset,
            rngs,
            dtype=config.networks.dtype,
            batch_norm_group=config.networks.batch_norm_group,
            max_blocks=config.networks.max_blocks,
        )
        teacher = self._teacher.network
        if teacher is None:
            return Network.of(Pupil(network))
        setting = Setting(config.distillation, config.training.epochs)
        if self._loss.has_layers:
            shape = config.training.batch_size, *self._dataset.image_shape
            images = jax.ShapeDtypeStruct(shape, jnp.float32)
            setting = setting._replace(
                student=jax.eval_shape(Network.of(network).outputs, images),
                teacher=jax.eval_shape(teacher.outputs, images),
                labels=splits.all_labels(
                    self.data(seed), config.data, config.execution.runs
                ),
                class_means=lambda: self._class_means,
            )
        adapter = self._loss(setting, rngs)
        return Network.of(Pupil(network, adapter))


def _computing_in(config: Config, teacher: Teacher) -> Network | None:
    """The teacher in the type of the computation; it was trained in float32."""
    if config.networks.dtype == "float32" or teacher.network is None:
        return teacher.network
    model = nnx.eval_shape(
        lambda: make_teacher(config, teacher.dataset, dtype=config.networks.dtype)
    )
    return teacher.network._replace(graphdef=Network.of(model).graphdef)


def make_problem(
    config: Config,
    dataset: Dataset | Streamed,
    pupil: Network,
    loss: type[KdLoss],
    *,
    teacher: Network | None,
    steps: int,
) -> Problem:
    """The losses of a pupil on a data set."""
    return Problem(
        pupil.graphdef,
        teacher,
        loss,
        steps=steps,
        mean=dataset.mean,
        std=dataset.std,
        augment=splits.device_augmentation(config.data),
        layout=make_layout(
            config.execution.devices, shard_params=config.execution.shard_params
        ),
    )


def unfinished(config: Config) -> dict[str, list[int]]:
    """By method, the seeds without a result."""
    return {
        method: [
            seed
            for seed in range(config.seeds)
            if not files.has_result(files.seed_folder(config.directory, method, seed))
        ]
        for method in config.methods
    }
