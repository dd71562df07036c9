"""A teacher and its students: what is missing is trained, in turns over the methods."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.progress import Progress

import kdopt
from kdlab.basics.reading import UserError
from kdlab.basics.writing import write_json
from kdlab.detection.losses.distances import init_projectors
from kdlab.detection.methods import FIXED, Problem, make_measure, make_method
from kdlab.detection.networks import TokenCache, make_detector
from kdlab.detection.optimizer import make_optimizer, make_schedule
from kdlab.detection.task import Task
from kdlab.detection.training import (
    Program,
    Run,
    compile_method,
    compile_predict,
    predict_all,
    teacher_tokens,
    train,
)
from kdlab.devices.checkpoint import Saver
from kdlab.devices.mesh import make_layout
from kdlab.runs import files
from kdlab.settings.checks import describe_changes

TEACHER = "teacher"
TEACHER_SEED = 1000  # other initial values than those of any student


class Experiment:
    """Networks, programs and folders of an experiment, each made once.

    Args:
        task: The images.
        progress: Progress display.
    """

    def __init__(self, task: Task, progress: Progress):
        self.task, self.progress = task, progress
        self.config = task.config
        self.layout = make_layout(self.config.devices)
        self._programs: dict[str, tuple[Program, Callable[[int], Any]]] = {}
        self._shared: dict[tuple[bool, str | None], tuple[Any, Any]] = {}
        self._predict: dict[bool, Any] = {}
        self._tokens: Callable[[Any], Any] | None = None

    def claim_directory(self) -> None:
        """Writes the settings, or compares them with those of an earlier start.

        Raises:
            ValueError: If they differ.
        """
        path, now = self.config.directory / files.CONFIG, self.config.settings()
        path.parent.mkdir(parents=True, exist_ok=True)
        earlier = files.read_settings(self.config.directory)
        if earlier and earlier != now:
            raise UserError(
                f"{path.parent} holds an experiment with other settings: "
                f"{describe_changes(earlier, now)}. Choose another --name."
            )
        write_json(path, now)

    def folder(self, method: str, seed: int) -> Path:
        """Returns the folder of a training."""
        return files.seed_folder(self.config.directory, method, seed)

    def run(self) -> None:
        """Trains what is missing: the teacher, then all methods seed by seed."""
        config = self.config
        needs_teacher = any(method != "labels_only" for method in config.methods)
        if needs_teacher and config.teacher_weights is None:
            self.train(TEACHER, 0)
        for seed in range(config.seeds):
            for method in config.methods:
                self.train(method, seed)

    def predictions(self, method: str, seed: int) -> list[dict[str, Any]]:
        """Detects with a trained detector; see ``predict.detect``."""
        program, initial = self.program(method)
        state = program.init(initial(seed))
        with Saver(self.folder(method, seed) / files.CHECKPOINTS) as saver:
            state, _ = saver.restore(self.layout.place(state))
        bar = self.progress.add_task(f"{method}: predictions", total=len(self.task.val))

        def note(done: int) -> None:
            self.progress.update(bar, completed=done)

        found = predict_all(self.task, program, state.params, self.layout, note)
        self.progress.remove_task(bar)
        return found

    def train(self, method: str, seed: int) -> None:
        """Trains a detector unless that is done."""
        folder, config = self.folder(method, seed), self.config
        if files.has_result(folder):
            return
        teaches = method == TEACHER
        source = self.task.part(None if teaches else config.train_images)
        alone = teaches or method == "labels_only"
        run = Run(
            folder,
            source,
            config.teacher_steps if teaches else config.steps,
            seed,
            None if alone else self.teacher(),
        )
        program, initial = self.program(method)
        title = TEACHER if teaches else f"{method}, seed {seed}"
        bar = self.progress.add_task(title, total=run.steps, images=config.batch_size)
        begun = False

        def show(done: int, text: str) -> None:
            nonlocal begun
            if not begun:  # steps before a resume do not count towards the speed
                self.progress.reset(bar, completed=done)
            begun = True
            self.progress.update(bar, completed=done, note=text)

        train(run, self.task, program, initial(seed), self.layout, show)
        self.progress.remove_task(bar)

    def teacher(self) -> Callable[[Any], Any]:
        """Returns the tokens of the teacher as a function of batches."""
        if self._tokens is None:
            config, task = self.config, self.task
            detector, params = self._network(TEACHER_SEED, teaches=True)
            if config.teacher_weights is None:
                program, initial = self.program(TEACHER)
                state = self.layout.place(program.init(initial(0)))
                with Saver(self.folder(TEACHER, 0) / files.CHECKPOINTS) as saver:
                    state, _ = saver.restore(state)
                params = state.params["network"]
            tokens = teacher_tokens(detector, params, self.layout)
            if config.cache_teacher and not config.augment:
                source = task.part(config.train_images)
                tokens = TokenCache(tokens, task.once(source))
            self._tokens = tokens
        return self._tokens

    def _network(self, seed: int, *, teaches: bool) -> tuple[Any, Any]:
        config = self.config
        return make_detector(
            config.teacher if teaches else config.student,
            self.task.num_classes,
            seed,
            weights=config.teacher_weights if teaches else config.student_weights,
            dtype=config.dtype,
            remat=config.remat,
        )

    def program(self, method: str) -> tuple[Program, Callable[[int], Any]]:
        """Returns the compiled functions of a method, and the initial parameters."""
        if method not in self._programs:
            self._programs[method] = self._compile(method)
        return self._programs[method]

    def _compile(self, method: str) -> tuple[Program, Callable[[int], Any]]:
        config, teaches = self.config, method == TEACHER
        alone = teaches or method == "labels_only"
        distance = None if alone else method if method in FIXED else config.distance
        problem, initial = self.problem(distance, teaches=teaches)
        # Methods of the same losses share what does not depend on the method.
        key = teaches, distance
        if key not in self._shared:
            reach = () if alone else self.reach(problem, initial)
            measure = None if alone else jax.jit(make_measure(problem, reach))
            self._shared[key] = reach, measure
        if teaches not in self._predict:
            self._predict[teaches] = compile_predict(problem.student)
        reach, measure = self._shared[key]
        made = make_method(
            method, problem, self._optimizer(teaches), reach, weight=config.weight
        )
        return compile_method(made, measure, self._predict[teaches]), initial

    def problem(
        self, distance: str | None, *, teaches: bool
    ) -> tuple[Problem, Callable[[int], Any]]:
        """Returns losses and the initial parameters of each seed."""
        detector, _ = self._network(0, teaches=teaches)
        base = None
        if distance == "vkd":
            key = jax.random.key(0, impl="threefry2x32")
            base = init_projectors(key, detector.config.width)[1]

        def initial(seed: int) -> dict[str, Any]:
            start = seed + TEACHER_SEED if teaches else seed
            params = {"network": self._network(start, teaches=teaches)[1]}
            return params if base is None else params | {"projectors": 0 * base}

        group = self.config.standardize_images
        return Problem(detector, distance, base, group), initial

    def _optimizer(self, teaches: bool) -> Any:
        config = self.config
        images = len(self.task.part(None if teaches else config.train_images))
        by_epoch = config.schedule == "epoch_cosine"
        schedule = make_schedule(
            config.learning_rate,
            config.min_rate,
            config.teacher_steps if teaches else config.steps,
            warmup=config.warmup_steps,
            epoch=max(images // config.batch_size, 1) if by_epoch else None,
        )
        return make_optimizer(
            schedule, weight_decay=config.weight_decay, clip=config.clip
        )

    def reach(self, problem: Problem, initial: Callable[[int], Any]) -> Any:
        """Returns which parameters each loss reaches, without running anything."""
        batch = next(self.task.once(self.task.part(self.config.train_images)))
        params = initial(0)
        tokens = None if problem.distance is None else self.teacher()(batch)
        key = jax.random.key(0)
        return kdopt.reachable(problem.losses)(params, batch, tokens, key)
