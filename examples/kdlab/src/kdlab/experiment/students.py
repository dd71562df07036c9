"""Makes the students of an experiment: their networks, data, plans and states."""

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
from kdlab.experiment.cached_logits import cache_logits, can_cache
from kdlab.experiment.networks import check_features, make_model, make_teacher
from kdlab.losses.base import KdLoss, Pupil, Setting, reached_params
from kdlab.losses.table import LOSSES, loss_weights
from kdlab.models.network import CachedLogits, Network
from kdlab.runs import files
from kdlab.settings.config import Config
from kdlab.train.evaluate import compute_class_means
from kdlab.train.fit import Run
from kdlab.train.methods import METHODS, Plan, make_numbers
from kdlab.train.problem import Problem
from kdlab.train.reach import Reach, trace_reach
from kdlab.train.schedules import make_schedule
from kdlab.train.state import TrainState
from kdlab.train.step import Step, make_state, make_step


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network and the data set it was trained on.

    Attributes:
        network: The network; None if the students learn from labels alone.
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
        """Builds what all students share.

        Args:
            config: The settings.
            teacher: Their teacher and its data set.
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
            teacher=_cast(config, teacher),
            steps=self._steps(),
        )
        self.problem.layout.check_batch(
            config.training.batch_size, config.training.accumulate
        )

    def plan(self, method: str) -> Plan:
        """Returns the plan of a method with its learning-rate schedule."""
        training, distillation = self.config.training, self.config.distillation
        schedule = make_schedule(training, self._steps() // training.epochs)
        known = make_numbers(
            training,
            weights=loss_weights(distillation),
            delta=distillation.delta,
            reach=functools.partial(reached_params, self._loss),
        )
        if self._loss.own_heads and self._teacher.network is not None:
            known = known._replace(reach=self._reach.each, trunk=self._reach.all)
        return METHODS[method](known, schedule)

    @functools.cached_property
    def _reach(self) -> Reach:
        pupil = jax.eval_shape(lambda: self._pupil(0))
        size, classes = self.config.training.batch_size, self._dataset.num_classes
        images = jax.ShapeDtypeStruct((size, *self._dataset.image_shape), jnp.float32)
        return trace_reach(self.problem, pupil, self._teacher.network, images, classes)

    def data(self, seed: int) -> Split | Stream:
        """Returns the training images of a seed with their noisy labels."""
        return splits.training_split(self.config.data, self._dataset, seed)

    def _cached_logits(self, seed: int) -> CachedLogits | None:
        config, teacher = self.config, self.problem.teacher
        few = splits.select_images(config.data, self._dataset, seed)
        if teacher is None or not can_cache(config) or isinstance(few, Streamed):
            return None
        return cache_logits(teacher, few, self.problem.layout, config)

    def state(self, plan: Plan, seed: int) -> TrainState:
        """Returns the state before the first step."""
        layout, ema = self.problem.layout, self.config.training.ema is not None
        return make_state(self._pupil(seed), plan, seed, layout, ema=ema)

    def step(self, plan: Plan) -> Step:
        """Returns the compiled training step of a method."""
        config = self.config
        return make_step(
            self.problem,
            plan,
            accumulate=config.training.accumulate,
            ema=config.training.ema,
            skip_nonfinite=config.training.on_nonfinite == "skip",
        )

    def run(self, method: str, seed: int, *, diagnose: bool = True) -> Run:
        """Returns the training of a method and a seed."""
        config = self.config
        return Run(
            directory=files.seed_folder(config.directory, method, seed),
            train=self.data(seed),
            test=splits.test_split(config.data, self._dataset),
            epochs=config.training.epochs,
            batch_size=config.training.batch_size,
            checkpoint_seconds=config.execution.checkpoint_seconds,
            diagnose=diagnose,
            tensorboard=config.execution.tensorboard,
            wandb=config.execution.wandb,
            skip_nonfinite=config.training.on_nonfinite == "skip",
            repeats=config.augmentation.repeats,
            cached_logits=self._cached_logits(seed),
        )

    def _steps(self) -> int:
        labels, training = self.config.data.labels, self.config.training
        size = self._dataset.num_train if labels is None else labels
        return training.epochs * num_batches(size, training.batch_size)

    @functools.cached_property
    def _class_means(self) -> jax.Array:
        """The teacher's mean penultimate features of each class, ``[c, d]``."""
        config, data, teacher = self.config, self._dataset, self._teacher.network
        assert teacher is not None  # losses that use class means need one
        with jax.ensure_compile_time_eval():  # arrays, even while a pupil is traced
            return compute_class_means(
                teacher,
                splits.full_training_split(config.data, data),
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
            drop_path=config.networks.drop_path,
            remat=config.networks.remat,
            scan=config.networks.scan,
        )
        teacher = self._teacher.network
        if teacher is None and not self._loss.teacher_free:
            return Network.of(Pupil(network))
        setting = Setting(config.distillation, config.training.epochs)
        if self._loss.has_layers:
            shape = config.training.batch_size, *self._dataset.image_shape
            images = jax.ShapeDtypeStruct(shape, jnp.float32)
            setting = setting._replace(
                student=jax.eval_shape(Network.of(network).outputs, images),
                teacher=teacher and jax.eval_shape(teacher.outputs, images),
                labels=splits.read_all_labels(
                    self.data(seed), config.data, config.execution.runs
                ),
                class_means=lambda: self._class_means,
            )
        adapter = self._loss(setting, rngs)
        return Network.of(Pupil(network, adapter))


def _cast(config: Config, teacher: Teacher) -> Network | None:
    """Returns the teacher, trained in float32, with the dtype of the computation."""
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
    """Makes the losses of a pupil on a data set."""
    return Problem(
        pupil.graphdef,
        teacher,
        loss,
        steps=steps,
        mean=dataset.mean,
        std=dataset.std,
        augment=splits.device_augmentation(config.data),
        mixing=splits.make_mixing(config.augmentation),
        num_classes=dataset.num_classes,
        layout=make_layout(
            config.execution.devices, shard_params=config.execution.shard_params
        ),
    )


def find_unfinished(config: Config) -> dict[str, list[int]]:
    """Returns the seeds without a result, by method."""
    return {
        method: [
            seed
            for seed in range(config.seeds)
            if not files.has_result(files.seed_folder(config.directory, method, seed))
        ]
        for method in config.methods
    }
