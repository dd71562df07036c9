"""Settings of a study."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

from kdlab.basics.reading import read_json
from kdlab.basics.writing import write_json
from kdlab.settings.checks import differences
from kdlab.settings.parts import expand_home
from kdlab.study import space
from kdlab.study.space import BALANCERS, SPACE, Space

# A name that cannot be a folder of its own: a set with configs, glue/sst2.
_SEPARATOR = "-"


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Find out which distillation settings matter on a task.

    The objective is (1 - alpha) CE(label) + alpha L2(teacher / tau_teacher, student /
    tau_student). A greedy search starts from the recommended setting (low-loss teacher,
    cross-entropy, tau_student 1), one knob at a time; a full grid, random and TPE
    search compare with it, and other balancers with the fixed alpha at equal budget.
    Settings are chosen on the validation part; the test part is looked at once, at the
    end. An interrupted study goes on with the same command, and the command may be
    started several times at once.
    """

    task: str = "languages"
    """languages, verses, mnist5k, or a set of labelled texts that TFDS prepared in the
    data dir, such as glue/sst2."""
    search: Literal["greedy", "grid", "random", "tpe", "all"] = "all"
    """Search of the settings of a fixed alpha; all: greedy, grid, then random and TPE
    at the price of greedy."""
    trials: int | None = None
    """Most trainings of a search, earlier ones among them; None: as many as it takes,
    for random and tpe 30."""
    minutes: float | None = None
    """Start no training after this many minutes; the same command goes on."""
    seeds: int = 3
    """Seeds of each training; the test uses as many others."""
    balancers: tuple[str, ...] = BALANCERS
    """Compared with `fixed` at equal budget: dynamic_lambda (the fixed alpha, moved
    where a loss would rise), min_norm (both losses fall equally), dto_kd, dot."""

    alpha: tuple[float, ...] = SPACE["alpha"]
    """Weights of the distillation loss to try; 0: labels alone, 1: teacher alone."""
    distance: tuple[str, ...] = SPACE["distance"]
    """Distances: ce, kl (matters to dto_kd alone), mse."""
    tau_teacher: tuple[float, ...] = SPACE["tau_teacher"]
    """Temperatures of the teacher."""
    tau_student: tuple[str, ...] = tuple(map(str, SPACE["tau_student"]))
    """Temperatures of the student; tied: that of the teacher."""
    teacher: tuple[str, ...] = SPACE["teacher"]
    """Checkpoints of the teacher: highest score (t_hs), lowest loss (t_ll)."""

    margin: float = 0.5
    """Points of accuracy by which the recommended setting may miss the best."""
    runs: Path = Path("runs")
    """Everything is written to RUNS/study/TASK."""
    data_dir: Path | None = None
    """Root of the sets that TFDS prepared."""
    storage: str | None = None
    """Database of the trials, as SQLAlchemy writes it; None: SQLite in the folder."""

    def __post_init__(self) -> None:
        """Refuses wrong values with the right ones."""
        expand_home(self)
        space.check(self.space("fixed") | {"balancer": self.balancers})
        for field in ("trials", "seeds"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"--{field} must be at least 1, got {value}.")
        for field in ("minutes", "margin"):
            value = getattr(self, field)
            if value is not None and not value >= 0:
                raise ValueError(f"--{field} must not be negative, got {value}.")

    @property
    def directory(self) -> Path:
        """Where everything of this study is written."""
        return self.runs / "study" / self.task.replace("/", _SEPARATOR)

    def space(self, balancer: str) -> Space:
        """The values to try under a balancer, in the order of the greedy search."""
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

    def claim_directory(self, made_of: dict) -> None:
        """Creates the directory, or checks that its trials are of the same kind.

        Args:
            made_of: What decides the result of a training besides its setting.

        Raises:
            ValueError: If they are not; nothing is changed then.
        """
        path = self.directory / "study.json"
        made_of = json.loads(json.dumps(made_of | {"seeds": self.seeds}))
        if path.exists():
            earlier = read_json(path)
            changed = differences(earlier, made_of)
            if changed:
                raise ValueError(
                    f"{self.directory} holds other trials ({changed}): "
                    "choose another --runs, or remove it."
                )
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_json(path, made_of)


def _temperature(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
