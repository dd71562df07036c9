"""Trains the student of a situation by an arm, once per seed."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import kdopt
from kdlab import data
from kdlab.data import batches
from kdlab.data.dataset import stratified_order
from kdlab.regret import tasks
from kdlab.regret.arms import PROGRAMS, Arm
from kdlab.regret.objective import Batch, Knobs
from kdlab.regret.situation import Situation
from kdlab.regret.steps import EVALUATION_STEPS, Program, Student
from kdlab.regret.teachers import Teacher, get_teacher
from kdlab.study.task import Task

VALIDATION = 100  # examples with true labels that each seed may look at
REFERENCE = 50  # of them in each reference batch


class Score(NamedTuple):
    """What a trained student is worth.

    Attributes:
        accuracy: Accuracy on the test part, in percent.
        validation: Accuracy on the validation set, in percent.
        validation_loss: Cross-entropy there.
    """

    accuracy: float
    validation: float
    validation_loss: float


class Examples(NamedTuple):
    """What one seed of a situation learns from.

    Attributes:
        rows: Positions of the training examples.
        labels: Labels by position; those of ``rows`` may be wrong.
        validation: The validation set, with true labels.
    """

    rows: np.ndarray
    labels: np.ndarray
    validation: Batch


class Laboratory:
    """Tasks, teachers and compiled steps, each made once.

    Args:
        folder: Folder of the teachers' outputs.
        data_dir: Folder that holds Fashion-MNIST.
    """

    def __init__(self, folder: Path, data_dir: Path | None):
        self._folder, self._data_dir = folder, data_dir
        self._tasks: dict[str, Task] = {}
        self._teachers: dict[tuple[str, str], Teacher] = {}
        self._programs: dict[tuple, tuple[Student, Program]] = {}
        self._apply: dict[str, Any] = {}

    def task(self, name: str) -> Task:
        """Returns a task."""
        if name not in self._tasks:
            self._tasks[name] = tasks.load(name, self._data_dir)
        return self._tasks[name]

    def teacher(self, situation: Situation) -> Teacher:
        """Returns the outputs of the teacher of a situation."""
        key = situation.task, situation.teacher
        if key not in self._teachers:
            task = self.task(situation.task)
            self._teachers[key] = get_teacher(task, situation.teacher, self._folder)
        return self._teachers[key]

    def train(self, situation: Situation, arm: Arm, seed: int) -> Score:
        """Trains a student and scores it."""
        task, teacher = self.task(situation.task), self.teacher(situation)
        examples = draw(task, situation, seed)
        student, program = self.program(situation, arm)
        order = [
            batch.indices
            for epoch in range(situation.epochs)
            for batch in batches(
                len(examples.rows),
                min(task.student_training.batch_size, len(examples.rows)),
                seed=seed,
                epoch=epoch,
                drop_last=True,
            )
        ]
        rows, labels, validation = examples
        knobs = make_knobs(task, situation, arm, len(order), teacher, examples)
        params = self.initial(situation.task, seed)
        state = program.init(knobs, params)
        rng = np.random.default_rng(seed)
        for count, indices in enumerate(order):
            chosen = rows[indices]
            batch = Batch(
                task.train.inputs[chosen],
                labels[chosen],
                teacher.logits[chosen],
                teacher.features[chosen],
            )
            drawn = rng.permutation(VALIDATION)[:REFERENCE]
            reference = Batch(validation.inputs[drawn], validation.labels[drawn])
            step = program.pick_step(count)
            params, state = step(knobs, params, state, batch, reference)
            if program.evaluate and count % EVALUATION_STEPS == EVALUATION_STEPS - 1:
                state = program.evaluate(params, state, validation)
        return self._score(situation.task, student, params, validation)

    def program(self, situation: Situation, arm: Arm) -> tuple[Student, Program]:
        """Returns the student and the compiled training of an arm."""
        key = situation.task, situation.loss, arm.program
        if key not in self._programs:
            student = Student(self.task(situation.task), situation.loss)
            self._programs[key] = student, PROGRAMS[arm.program](student)
        return self._programs[key]

    def initial(self, task: str, seed: int) -> Any:
        """Returns the parameters that a seed starts from."""
        key = jax.random.key(seed, impl="threefry2x32")
        return nnx.split(self.task(task).student(nnx.Rngs(key)))[1]

    def _score(
        self, name: str, student: Student, params: Any, validation: Batch
    ) -> Score:
        if name not in self._apply:
            self._apply[name] = jax.jit(lambda p, x: student.run(p, x).logits)
        test = self.task(name).test
        logits = np.asarray(self._apply[name](params, test.inputs))
        seen = self._apply[name](params, validation.inputs)
        hits = np.argmax(seen, axis=-1) == validation.labels
        return Score(
            100 * float(np.mean(np.argmax(logits, axis=-1) == test.labels)),
            100 * float(np.mean(hits)),
            float(kdopt.losses.cross_entropy(seen, validation.labels)),
        )


def draw(task: Task, situation: Situation, seed: int) -> Examples:
    """Draws the training labels and the validation set of a seed."""
    labels = task.train.labels.copy()
    rows = stratified_order(labels, seed)[: situation.labels]
    if situation.noise:
        labels[rows] = data.corrupt_labels(
            labels[rows], situation.noise, task.num_classes, seed
        )
    pool = np.random.default_rng((seed, 1)).permutation(len(task.validation.labels))
    chosen = pool[:VALIDATION]
    held = Batch(task.validation.inputs[chosen], task.validation.labels[chosen])
    return Examples(rows, labels, held)


def make_knobs(
    task: Task,
    situation: Situation,
    arm: Arm,
    steps: int,
    teacher: Teacher,
    examples: Examples,
) -> Knobs:
    """Makes the numbers of a training."""
    rows = examples.rows
    limit = kdopt.losses.cross_entropy(teacher.logits[rows], examples.labels[rows])
    numbers = (
        arm.weight,
        arm.rate * task.student_training.learning_rate,
        steps,
        situation.temperature,
        situation.scale,
        limit,
    )
    return Knobs(*(np.float32(number) for number in numbers))
