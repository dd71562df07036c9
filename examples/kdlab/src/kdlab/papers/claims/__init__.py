"""``kdlab claims``: tests the claims of the papers in minutes."""

import dataclasses
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.experiment.make import check_names
from kdlab.experiment.progress import progress_bars
from kdlab.minima.measure import Grid
from kdlab.papers.claims import dot, dto, kim, trials
from kdlab.papers.claims.evidence import Claim
from kdlab.settings.config import Config
from kdlab.settings.parts import Data, Networks, Training, Untimed

HEAD = ("paper", "claim", "labels", "measured", "verdict")
NOTE = (
    "Differences between runs of the same seed: mean ± half of the 95 % confidence "
    "interval over {seeds} seeds (ratios: interval in brackets). Confirmed: every "
    "interval lies on the side of the claim; not confirmed: one lies on the other "
    "side; inconclusive: otherwise. What was also measured does not affect the "
    "verdict; `control` is `gain_matched_sgd`, the weights of DOT without its memory."
)


@dataclasses.dataclass(frozen=True)
class WithoutNoise(Data):
    """The data set, without label noise, which is part of each claim."""

    noise: Annotated[float, tyro.conf.Suppress] = 0.0


@dataclasses.dataclass(frozen=True)
class ClaimsConfig:
    """Test the claims of DOT, DTO-KD and Kim et al. on real digits.

    Trains students with some twenty arms and several seeds, on clean and on noisy
    labels, measures their minima, prints the table of claims and writes it to
    RUNS/NAME/claims.md. The same command resumes an interrupted test.
    """

    name: str = "claims"
    """Everything is written to RUNS/NAME-clean, RUNS/NAME-noisy and RUNS/NAME."""
    seeds: int = 5
    """Number of seeds (0, 1, ...); at least two, for confidence intervals."""
    data: WithoutNoise = dataclasses.field(default_factory=WithoutNoise)
    networks: Networks = dataclasses.field(default_factory=Networks)
    training: Training = dataclasses.field(default_factory=Training)
    execution: Untimed = dataclasses.field(default_factory=Untimed)

    def __post_init__(self) -> None:
        """Refuses settings under which the claims cannot be tested."""
        if self.seeds < 2:
            raise ValueError(
                f"--seeds must be at least 2 for an interval, got {self.seeds}."
            )
        training = self.training
        if training.optimizer != "sgd" or training.nesterov or training.clip:
            raise ValueError(
                "the claims are about SGD with momentum: keep the defaults of "
                "--optimizer, --nesterov and --clip."
            )
        self.base()

    def base(self) -> Config:
        """Returns the settings that all arms share."""
        config = Config(
            name=self.name,
            methods=("kd",),
            seeds=self.seeds,
            data=self.data,
            networks=self.networks,
            training=self.training,
            execution=self.execution,
        )
        return check_names(config)


def run(config: ClaimsConfig, console: Console) -> list[Claim]:
    """Trains missing students, then prints and writes the table of claims.

    Args:
        config: The settings.
        console: Terminal for progress and the table.

    Returns:
        The claims with their findings.
    """
    done = train(config, console)
    found = judge_all(done)
    folder = config.execution.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "claims.md", to_markdown(found, config.seeds))
    console.print(render(found, config.seeds))
    display.print_path(console, folder / "claims.md")
    return found


def train(config: ClaimsConfig, console: Console) -> dict[str, trials.Trial]:
    """Trains and measures missing students; returns the trials by setting."""
    with progress_bars(console) as progress:
        return trials.run(config.base(), trials.SETTINGS, progress, Grid())


def judge_all(done: dict[str, trials.Trial]) -> list[Claim]:
    """Judges all claims, ordered by paper."""
    settings = ("clean", "noisy")
    out = [claim for name in settings for claim in dot.judge_claims(name, done[name])]
    for name in settings:
        out += dto.judge_claims(name, done[name], done[f"{name}-short"])
    for name in settings:
        out += kim.judge_claims(name, done[name])
    out.append(kim.judge_vertices({name: done[name] for name in settings}))
    # The same claim under both settings in adjacent rows, in the order of the papers.
    order = list(dict.fromkeys((claim.paper, claim.statement) for claim in out))
    return sorted(out, key=lambda claim: order.index((claim.paper, claim.statement)))


def make_row(claim: Claim) -> tuple[str, ...]:
    """Returns the cells of a row of the table."""
    measured = "; ".join(finding.text for finding in claim.findings)
    if claim.context:
        measured += f". Also measured: {'; '.join(claim.context)}"
    return claim.paper, claim.statement, claim.setting, measured, claim.verdict


def to_markdown(found: list[Claim], seeds: int) -> str:
    """Formats the table as Markdown."""
    rows = [(*row, f"**{verdict}**") for *row, verdict in map(make_row, found)]
    lines = display.format_markdown(HEAD, rows, left=range(len(HEAD)))
    return "\n".join([*lines, "", NOTE.format(seeds=seeds), ""])


def render(found: list[Claim], seeds: int) -> Table:
    """Formats the table for a terminal."""
    view = Table(caption=NOTE.format(seeds=seeds), show_lines=True)
    for name in HEAD:
        view.add_column(name, overflow="fold")
    for claim in found:
        view.add_row(*make_row(claim))
    return view
