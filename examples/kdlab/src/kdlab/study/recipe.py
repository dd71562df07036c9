"""The best setting of a study as a recipe of the plain command."""

from pathlib import Path
from typing import Any

from kdlab.basics.writing import write_json
from kdlab.study.objective import METHOD_OF
from kdlab.study.space import RECOMMENDED, Setting, canonical
from kdlab.study.task import Task


def fields(task: Task, setting: Setting) -> dict[str, Any]:
    """The settings of the plain command that train as a trial of the study does.

    The teacher is the study's own checkpoint. The students differ from those of the
    study in the draw of their labels alone: here from all training images, there from
    those that are not kept for validation.

    Args:
        task: A task that the plain command knows.
        setting: The setting.
    """
    known = RECOMMENDED | canonical(setting)
    return {
        **(task.recipe or {}),
        "name": f"study-{task.name}",
        "methods": [METHOD_OF[known["balancer"]]],
        "loss": f"soft_{known['distance']}",
        "alpha": known["alpha"],
        "temperature": known["tau_teacher"],
        "student_temperature": known["tau_student"],
        "teacher_weights": f"teacher/{known['teacher']}",  # from the folder of the file
    }


def write(task: Task, setting: Setting, folder: Path) -> Path:
    """Writes ``recipe.json`` where the plain command knows the task, else the setting.

    Returns:
        The path; ``setting.json`` for a task that only a study knows.
    """
    if task.recipe is None:
        path, record = folder / "setting.json", dict(setting)
    else:
        path, record = folder / "recipe.json", fields(task, setting)
    write_json(path, record)
    return path
