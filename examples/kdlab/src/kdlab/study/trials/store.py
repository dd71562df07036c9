"""Stores trials in an Optuna study that processes share and that survives a kill.

By default the study is in SQLite, where ``optuna-dashboard`` can show it.
"""

import fcntl
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from kdlab.basics.reading import reading
from kdlab.study.trials.locks import exclusive
from kdlab.study.trials.search import BudgetSpent
from kdlab.study.trials.space import (
    BALANCERS,
    DISTANCES,
    TEACHERS,
    Setting,
    canonicalize,
    deduplicate,
    key,
)

# Wide ranges, so that other grids can be tried in the same study.
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "alpha": FloatDistribution(0.0, 1.0),
    "distance": CategoricalDistribution(DISTANCES),
    "tau_teacher": FloatDistribution(1e-3, 1e3, log=True),
    "tau_student": FloatDistribution(1e-3, 1e3, log=True),
    "teacher": CategoricalDistribution(TEACHERS),
    "balancer": CategoricalDistribution(BALANCERS),
}
POLL_SECONDS = 0.2

Train = Callable[[Setting], dict[str, Any]]
"""Maps a canonical setting to its result: JSON values, including ``score``."""


class Store:
    """The trials of a study: looks scores up, waits for them, or trains.

    Several processes may share a store. Each locks its own file as long as it lives;
    trials of dead processes are trained again.
    """

    def __init__(self, folder: Path, name: str, url: str | None = None):
        """Opens or creates the study.

        Args:
            folder: Folder of the database and the locks.
            name: Name of the study.
            url: SQLAlchemy URL of another database; None: a file in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._locks = folder / "locks"
        self._locks.mkdir(exist_ok=True)
        self._worker = uuid.uuid4().hex
        self._alive = (self._locks / self._worker).open("w")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        database = folder / "study.db" if url is None else "--storage"
        try:
            # Otherwise two processes would both create the tables.
            with (
                exclusive(self._locks / "claim"),
                reading(database, "Move it away to start a new study."),
            ):
                self.study = optuna.create_study(
                    study_name=name,
                    storage=url or f"sqlite:///{(folder / 'study.db').resolve()}",
                    direction="maximize",
                    load_if_exists=True,
                )
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        """Releases the trials of this process."""
        self._alive.close()
        (self._locks / self._worker).unlink(missing_ok=True)

    def results(self) -> dict[tuple, dict[str, Any]]:
        """Returns the results of finished trainings by key."""
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return {key_of(trial): trial.user_attrs for trial in done}

    def scores(
        self,
        settings: Sequence[Setting],
        train: Train,
        *,
        may_start: Callable[[], bool] = lambda: True,
    ) -> list[float]:
        """Returns scores; trains settings that are neither finished nor in progress.

        Args:
            settings: The settings.
            train: Trains one setting.
            may_start: Called before each training; whether it may start.

        Raises:
            BudgetSpent: If a training may not be started.
        """
        waiting = deduplicate(settings)
        found: dict[tuple, float] = {}
        while waiting:
            results = self.results()
            found |= {
                key(s): results[key(s)]["score"] for s in waiting if key(s) in results
            }
            waiting = [setting for setting in waiting if key(setting) not in found]
            started = False
            for setting in waiting:
                if not may_start():
                    raise BudgetSpent(found)
                trial = self._claim(setting)
                if trial is not None:
                    found[key(setting)] = self._train(trial, setting, train)
                    started = True
            if waiting and not started:
                time.sleep(POLL_SECONDS)
        return [found[key(setting)] for setting in settings]

    def _train(self, trial: Trial, setting: Setting, train: Train) -> float:
        began = time.monotonic()
        try:
            result = train(canonicalize(setting))
        except BaseException:
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        for name, value in result.items():
            trial.set_user_attr(name, value)
        trial.set_user_attr("seconds", time.monotonic() - began)
        self.study.tell(trial, result["score"])
        return result["score"]

    def _claim(self, setting: Setting) -> Trial | None:
        """Claims a setting for this process, unless it is finished or in progress."""
        wanted = canonicalize(setting)
        with exclusive(self._locks / "claim"):
            for trial in self.study.get_trials(deepcopy=False):
                if trial.state == TrialState.RUNNING and self._died(trial):
                    self.study.tell(trial.number, state=TrialState.FAIL)
                elif trial.state in (TrialState.COMPLETE, TrialState.RUNNING) and (
                    key_of(trial) == key(setting)
                ):
                    return None
            self.study.enqueue_trial(wanted, user_attrs={"worker": self._worker})
            while True:
                trial = self.study.ask({knob: DISTRIBUTIONS[knob] for knob in wanted})
                if trial.params == wanted:
                    return trial
                # Enqueued by a process that was killed right afterwards.
                self.study.tell(trial, state=TrialState.FAIL)

    def _died(self, trial: FrozenTrial) -> bool:
        path = self._locks / trial.user_attrs.get("worker", "")
        if not path.is_file():
            return True
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        path.unlink(missing_ok=True)
        return True


def key_of(trial: FrozenTrial) -> tuple:
    """Returns the key of the training of a trial."""
    return tuple(sorted(trial.params.items()))
