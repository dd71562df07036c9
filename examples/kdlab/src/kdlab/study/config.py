"""Settings of a study."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

from kdlab.basics.reading import read_json
from kdlab.basics.writing import write_json
from kdlab.settings.checks import describe_changes
from kdlab.settings.parts import expand_home
from kdlab.study.networks import Networks, parse_size
from kdlab.study.trials import space
from kdlab.study.trials.space import BALANCERS, SPACE, Space

# Replaces the slash and colon of names such as glue/sst2 in names of folders.
_SEPARATOR = "-"


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Find out which distillation settings matter on a task.

    The objective is (1 - alpha) CE(label) + alpha L2(teacher / tau_teacher, student /
    tau_student). A greedy search starts from the recommended setting (low-loss teacher,
    cross-entropy, tau_student 1) and changes one knob at a time. It is compared with a
    full grid, random and TPE search, and other balancers are compared with the fixed
    alpha at equal budget. Settings are chosen on the validation part; the test part is
    used once, at the end. The same command resumes an interrupted study, and several
    copies of it may run at once.
    """

    task: tuple[str, ...] = ("languages",)
    """Tasks: languages, verses, verse_pairs, mnist5k; movies, glosses and turkish from
    archives in DATA_DIR; or sets of texts that TFDS prepared there, such as glue/sst2,
    conll2003 and squad/v1.1."""
    student: tuple[str, ...] = ()
    """Sizes of the encoders to distil into, as DEPTHxWIDTH: 1x64 2x64. Each is a study
    of its own; several tasks or sizes are compared in one table."""
    teacher_size: str | None = None
    """Size of the teacher of text tasks; None: 2x128."""
    teacher_weights: Path | None = None
    """Folder with config.json, model.safetensors and tokenizer.json of a BERT, RoBERTa
    or DistilBERT from which the teacher starts; None: it starts at random."""
    search: Literal["greedy", "grid", "random", "tpe", "all"] = "all"
    """Search over settings with a fixed alpha; all: greedy and grid, then random and
    TPE with as many trials as greedy."""
    trials: int | None = None
    """Maximum number of trainings of a search, including earlier ones; None: no limit,
    but 30 for random and tpe."""
    minutes: float | None = None
    """Start no training after this many minutes; the same command resumes."""
    seeds: int = 3
    """Number of seeds of each training; the test uses as many other seeds."""
    balancers: tuple[str, ...] = BALANCERS
    """Balancers to compare with `fixed` at equal budget: dynamic_lambda (the fixed
    alpha, moved if a loss would rise), min_norm (both losses fall equally), dto_kd,
    dot."""

    alpha: tuple[float, ...] = SPACE["alpha"]
    """Weights of the distillation loss to try; 0: labels only, 1: teacher only."""
    distance: tuple[str, ...] = SPACE["distance"]
    """Distances: ce, kl (differs from ce for dto_kd only), mse."""
    tau_teacher: tuple[float, ...] = SPACE["tau_teacher"]
    """Temperatures of the teacher."""
    tau_student: tuple[str, ...] = tuple(map(str, SPACE["tau_student"]))
    """Temperatures of the student; tied: same as the teacher's."""
    teacher: tuple[str, ...] = SPACE["teacher"]
    """Checkpoints of the teacher: highest score (t_hs), lowest loss (t_ll); human: the
    opinion of people in place of a teacher, which movies has."""

    margin: float = 0.5
    """Points of accuracy by which the recommended setting may miss the best one."""
    runs: Path = Path("runs")
    """Everything is written to RUNS/study/TASK, or RUNS/study/TASK/STUDENT."""
    data_dir: Path | None = None
    """Folder of archives, and root of the sets prepared by TFDS."""
    storage: str | None = None
    """SQLAlchemy URL of the database of the trials; None: SQLite in the folder."""

    def __post_init__(self) -> None:
        """Refuses invalid values, listing the valid ones."""
        expand_home(self)
        space.check(self.space("fixed") | {"balancer": self.balancers})
        if not self.task:
            raise ValueError("--task needs at least one task.")
        for size in (*self.student, *filter(None, [self.teacher_size])):
            parse_size(size)
        for field in ("trials", "seeds"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"--{field} must be at least 1, got {value}.")
        for field in ("minutes", "margin"):
            value = getattr(self, field)
            if value is not None and not value >= 0:
                raise ValueError(f"--{field} must not be negative, got {value}.")

    def folder(self, task: str) -> Path:
        """Returns the folder of a task, with its teacher."""
        return self.runs / "study" / re.sub(r"[/:]", _SEPARATOR, task)

    def pairs(self) -> list[tuple[str, str | None]]:
        """Returns all pairs of a task and the size of a student; None: its own."""
        return [(t, size) for t in self.task for size in self.student or (None,)]

    def networks(self, student: str | None) -> Networks | None:
        """Returns the networks of a text task; None if no option names any."""
        given: dict[str, Any] = {
            "student": student,
            "teacher": self.teacher_size,
            "teacher_weights": self.teacher_weights,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return Networks(**given) if given else None

    def space(self, balancer: str) -> Space:
        """Returns the values to try with a balancer, in the greedy search's order."""
        distance = self.distance
        if balancer == "dto_kd" and "ce" in distance and "kl" not in distance:
            distance = (*distance, "kl")
        return {
            "teacher": self.teacher,
            "distance": distance,
            "tau_teacher": tuple(map(float, self.tau_teacher)),
            "tau_student": tuple(map(_temperature, self.tau_student)),
            "alpha": tuple(map(float, self.alpha)),
            "balancer": (balancer,),
        }

    def claim(self, directory: Path, made_of: dict[str, Any]) -> None:
        """Creates a directory, or checks that its trials are of the same kind.

        Args:
            directory: The directory.
            made_of: Whatever affects the result of a training besides its setting.

        Raises:
            ValueError: If they are not; nothing is changed.
        """
        path = directory / "study.json"
        made_of = json.loads(json.dumps(made_of | {"seeds": self.seeds}))
        if path.exists():
            earlier = read_json(path)
            changed = describe_changes(earlier, made_of)
            if changed:
                raise ValueError(
                    f"{directory} holds other trials ({changed}): "
                    "choose another --runs, or remove it."
                )
        else:
            directory.mkdir(parents=True, exist_ok=True)
            write_json(path, made_of)


def _temperature(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
