"""``kdlab regret``: what a method costs a user who does not know the right weight."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from kdlab.basics import display
from kdlab.basics.hint import did_you_mean
from kdlab.experiment.progress import progress_bars
from kdlab.regret import page
from kdlab.regret.analysis import Table
from kdlab.regret.arms import ARMS
from kdlab.regret.runner import train_missing
from kdlab.regret.situation import SITUATIONS, Situation
from kdlab.regret.store import Store
from kdlab.regret.timing import time_steps
from kdlab.regret.training import Laboratory
from kdlab.settings.parts import expand_home


@dataclasses.dataclass(frozen=True)
class RegretConfig:
    """Compare methods with a searched weight over many situations.

    Trains students by fixed weights and by every method in situations that differ in
    label noise, teacher, number of labels and distillation loss, and prints how many
    points of accuracy each method loses against the weight that a search over nine
    trainings finds. The same command resumes.
    """

    seeds: int = 5
    """Number of seeds."""
    first_seed: int = 0
    """First seed; give other seeds a file of their own (--results)."""
    methods: tuple[str, ...] = ()
    """Methods to train, as named in the table; none: all. Fixed weights are needed."""
    situations: tuple[str, ...] = ()
    """Names of situations; none: all whose data is at hand."""
    results: Path = Path("runs/regret/results.jsonl")
    """File with the scores; one line per situation and method."""
    data_dir: Path | None = None
    """Folder that holds Fashion-MNIST; without it those situations are left out."""
    page: Path | None = None
    """Markdown page to write the tables to; the picture goes to images/ beside it."""

    time_steps: bool = False
    """Only print the time of a step of each method, relative to a fixed weight."""

    def __post_init__(self):
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")
        _check_names("situations", self.situations, SITUATIONS)
        _check_names("methods", self.methods, ARMS)
        expand_home(self)

    def chosen(self) -> list[Situation]:
        """Returns the situations to run."""
        if self.situations:
            return [SITUATIONS[name] for name in self.situations]
        return [
            situation
            for situation in SITUATIONS.values()
            if situation.task != "fashion" or self.data_dir is not None
        ]


def run(config: RegretConfig, console: Console) -> None:
    """Trains what is missing, prints the table and writes page and picture.

    Raises:
        FileNotFoundError: If a data set is not there; the message says what to do.
    """
    if config.time_steps:
        _print_times(config, console)
        return
    store = Store(config.results)
    chosen = config.chosen()
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    methods = config.methods or tuple(ARMS)
    train_missing(store, chosen, methods, seeds, config.data_dir, console)
    found = store.read()
    names = {situation.name for situation in chosen}
    table = Table(
        {key: value for key, value in found.items() if key[0] in names}, methods
    )
    display.print_table(console, page.HEAD, page.make_rows(table), text=(0, 5))
    picture = config.results.with_name("regret.png")
    if config.page is not None:
        page.write_page(config.page, table)
        display.print_path(console, config.page)
        picture = config.page.parent / "images" / "regret.png"
        picture.parent.mkdir(exist_ok=True)
    page.draw(table, picture)
    display.print_path(console, picture, "Figure")


def _check_names(option: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"--{option} {name!r} is unknown; {did_you_mean(name, known)}choose "
                f"among {', '.join(known)}."
            )


def _print_times(config: RegretConfig, console: Console) -> None:
    laboratory = Laboratory(config.results.parent / "teachers", config.data_dir)
    with progress_bars(console) as progress:
        times = time_steps(laboratory, progress)
    rows = [(name, f"{time:.2f}") for name, time in times.items()]
    display.print_table(console, ("method", "step time"), rows)
