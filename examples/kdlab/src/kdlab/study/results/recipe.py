"""Writes the best setting of a study as a recipe for ``kdlab distill``."""

from pathlib import Path
from typing import Any

from kdlab.basics.writing import write_json
from kdlab.study.objective import METHOD_OF
from kdlab.study.task import Task
from kdlab.study.trials.space import RECOMMENDED, Setting, canonicalize


def make_settings(task: Task, setting: Setting) -> dict[str, Any]:
    """Returns the settings with which ``kdlab distill`` repeats a trial of the study.

    The teacher is the study's own checkpoint. The students differ from those of the
    study only in the draw of their labels: here from all training images, in the study
    from those not held out for validation.

    Args:
        task: A task that ``kdlab distill`` knows.
        setting: The setting.
    """
    known = RECOMMENDED | canonicalize(setting)
    return {
        **(task.recipe or {}),
        "name": f"study-{task.name}",
        "methods": [METHOD_OF[known["balancer"]]],
        "loss": f"soft_{known['distance']}",
        "alpha": known["alpha"],
        "temperature": known["tau_teacher"],
        "student_temperature": known["tau_student"],
        "teacher_weights": f"teacher/{known['teacher']}",  # relative to the file
    }


def write(task: Task, setting: Setting, folder: Path) -> Path:
    """Writes the setting: as ``recipe.json`` if ``kdlab distill`` knows the task.

    Returns:
        The path: ``recipe.json``, or ``setting.json`` for a task of studies only.
    """
    if task.recipe is None:
        path, record = folder / "setting.json", dict(setting)
    else:
        path, record = folder / "recipe.json", make_settings(task, setting)
    write_json(path, record)
    return path
