"""Trains the teacher of a task and keeps two of its checkpoints."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.basics.reading import UserError, reading
from kdlab.basics.writing import write_json
from kdlab.models import weights
from kdlab.study.task import Task, make_full_lesson
from kdlab.study.training import Trainer, compute_metrics
from kdlab.study.trials.locks import exclusive

_log = logging.getLogger(__name__)
ALONE = {"alpha": 0.0, "balancer": "fixed"}


def select(history: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Selects the checkpoints of a teacher to distil from.

    An overfitting network keeps gaining accuracy while its probabilities get worse, so
    the two differ.

    Args:
        history: Validation ``score`` and ``loss`` after each epoch.

    Returns:
        Positions of ``t_hs``, the highest score, and ``t_ll``, the lowest loss; in case
        of a tie the first one.

    Examples:
        >>> select([{"score": 0.8, "loss": 0.5}, {"score": 0.9, "loss": 0.7}])
        {'t_hs': 1, 't_ll': 0}
    """
    scores = [record["score"] for record in history]
    values = [record["loss"] for record in history]
    return {"t_hs": int(np.argmax(scores)), "t_ll": int(np.argmin(values))}


def teacher_logits(
    task: Task, folder: Path, progress: Callable[[int, int], None]
) -> dict[str, jax.Array]:
    """Returns the logits of both checkpoints on the training inputs.

    The teacher is trained once, with seed 0 on all true labels: the folder keeps the
    weights of both checkpoints (Orbax), the history and the logits.

    Args:
        task: The task.
        folder: Folder of the teacher, created at the end of its training.
        progress: Called with the completed epochs and their total.

    Returns:
        ``[n, ..., c]`` by ``t_hs`` and ``t_ll``.
    """
    kept = folder / "logits.npz"
    with exclusive(folder.with_suffix(".lock")):
        if kept.exists():
            try:
                return _read(kept)
            except UserError as error:
                _log.warning("%s", error)
        _train(task, folder, progress)
        return _read(kept)


def _read(path: Path) -> dict[str, jax.Array]:
    with (
        reading(path, "The teacher is trained again."),
        path.open("rb") as file,
        np.load(file) as content,
    ):
        return {name: jnp.asarray(content[name]) for name in ("t_hs", "t_ll")}


def _train(task: Task, folder: Path, progress: Callable[[int, int], None]) -> None:
    lesson = make_full_lesson(task.train)
    trainer = Trainer(
        task, task.teacher, task.teacher_training, lesson, start=task.teacher_start
    )
    network = nnx.eval_shape(lambda: task.teacher(nnx.Rngs(0)))
    first = jnp.asarray(task.train.inputs[:1])
    shape = nnx.eval_shape(lambda: task.teacher(nnx.Rngs(0))(first).logits).shape
    nothing = jnp.zeros((len(task.train.labels), *shape[1:]))
    history: list[dict[str, float]] = []
    checkpoints: dict[str, Any] = {}
    for params in trainer.epochs(ALONE, nothing, [0]):
        scores, (loss,) = compute_metrics(
            trainer.logits(params, task.validation.inputs),
            task.validation,
            task.metrics,
        )
        score = next(iter(scores.values()))[0]
        history.append({"epoch": len(history) + 1, "score": score, "loss": loss})
        for name, position in select(history).items():
            if position == len(history) - 1:
                checkpoints[name] = params
        progress(len(history), task.teacher_training.epochs)
    if folder.exists():  # left by a process that was killed while writing
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    logits = {}
    for name, params in checkpoints.items():
        logits[name] = trainer.logits(params, task.train.inputs)[0]
        nnx.update(network, jax.tree.map(lambda x: x[0], params))
        weights.save_orbax(folder / name, network)
    chosen = {name: history[i] for name, i in select(history).items()}
    record = {"history": history, "chosen": chosen}
    write_json(folder / "history.json", record)
    # Last: this file marks a complete teacher.
    np.savez(folder / "logits.tmp.npz", **logits)
    (folder / "logits.tmp.npz").replace(folder / "logits.npz")
