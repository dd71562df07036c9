"""Trains the students of a study and scores them."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from kdlab.basics.reading import read_json
from kdlab.basics.writing import write_json
from kdlab.study.networks import Networks
from kdlab.study.task import Task
from kdlab.study.teacher import teacher_logits
from kdlab.study.training import Trainer, compute_metrics
from kdlab.study.trials.locks import exclusive
from kdlab.study.trials.space import Setting, canonicalize, key


def describe_task(task: Task, networks: Networks | None = None) -> dict[str, Any]:
    """Returns what affects the result of a training besides its setting, as JSON."""
    sizes = {} if networks is None else networks._asdict()
    digest = hashlib.sha256()
    for part in (task.train, task.validation, task.test):
        digest.update(np.ascontiguousarray(part.inputs).tobytes())
        digest.update(np.ascontiguousarray(part.labels).tobytes())
    return {
        "task": task.name,
        "data": digest.hexdigest()[:16],
        "teacher_training": dataclasses.asdict(task.teacher_training),
        "student_training": dataclasses.asdict(task.student_training),
        "metric": next(iter(task.metrics)),
        **{name: str(value) for name, value in sizes.items() if value},
    }


class Lab:
    """A task with its teacher, and one compiled training per balancer.

    Args:
        task: The task.
        folder: Folder of the test results.
        seeds: Number of seeds per training.
        progress: Called with the teacher's completed epochs and their total.
        teacher: Folder of the teacher, which other students may share; None: in
            `folder`.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        seeds: int,
        progress: Callable[[int, int], None],
        teacher: Path | None = None,
    ):
        self._task, self._folder, self._seeds = task, folder, seeds
        self._teacher = teacher_logits(task, teacher or folder / "teacher", progress)
        if task.train.human is not None:
            self._teacher["human"] = jnp.log(jnp.asarray(task.train.human))
        self._trainers: dict[str, Trainer] = {}

    def train(self, setting: Setting) -> dict[str, Any]:
        """Trains students with a setting and scores them on the validation part.

        Returns:
            ``score``, the mean of the first metric; ``by_seed``, its value for each
            seed; the other metrics and the cross-entropy likewise.
        """
        task = self._task
        students = self._students(setting, 0)
        scores, values = compute_metrics(
            students(task.validation.inputs), task.validation, task.metrics
        )
        (_, first), *others = scores.items()
        extra = {f"{name}_by_seed": list(row) for name, row in others}
        result = {"score": float(np.mean(first)), "by_seed": first}
        return result | extra | {"loss_by_seed": values}

    def test(self, setting: Setting) -> list[float]:
        """Returns the first metric on the test part, by seed; see :meth:`test_all`."""
        return next(iter(self.test_all(setting).values()))

    def test_all(self, setting: Setting) -> dict[str, list[float]]:
        """Tests students with other seeds; cached by setting.

        Returns:
            The values of each metric by seed.
        """
        path = self._folder / "test.json"
        with exclusive(path.with_suffix(".lock")):
            known = read_json(path) if path.exists() else {}
            name = json.dumps(key(setting))
            if name not in known:
                students = self._students(canonicalize(setting), self._seeds)
                known[name], _ = compute_metrics(
                    students(self._task.test.inputs),
                    self._task.test,
                    self._task.metrics,
                )
                write_json(path, known)
            return known[name]

    def _students(
        self, setting: Setting, first_seed: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        task, balancer = self._task, setting["balancer"]
        name = setting.get("teacher", "t_ll")
        if name not in self._teacher:
            raise ValueError(
                f"--teacher {name} needs a task with opinions of people, such as "
                f"movies; {task.name} has none."
            )
        if balancer not in self._trainers:
            self._trainers[balancer] = Trainer(
                task,
                task.student,
                task.student_training,
                task.lesson,
                balancer=balancer,
            )
        trainer = self._trainers[balancer]
        seeds = range(first_seed, first_seed + self._seeds)
        teacher = self._teacher[name]
        *_, params = trainer.epochs(setting, teacher, list(seeds))
        return lambda inputs: trainer.logits(params, inputs)
