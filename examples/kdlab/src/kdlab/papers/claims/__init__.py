"""``kdlab claims``: what the papers claim, tested in minutes."""

import dataclasses
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.experiment.make import checked
from kdlab.experiment.progress import progress_bars
from kdlab.minima.measure import Grid
from kdlab.papers.claims import dot, dto, kim, trials
from kdlab.papers.claims.evidence import Claim
from kdlab.settings.config import Config
from kdlab.settings.parts import Data, Networks, Training, Untimed

HEAD = ("paper", "claim", "labels", "measured", "verdict")
NOTE = (
    "Differences between runs of the same seed: mean ± half of the 95 % confidence "
    "interval over {seeds} seeds (ratios: the interval in brackets). Confirmed: the "
    "interval of every finding lies on the claim's side; not confirmed: one lies on "
    "the other; inconclusive: else. What stands beside does not affect the verdict; "
    "`control` is `gain_matched_sgd`, the weights of DOT without its memory."
)


@dataclasses.dataclass(frozen=True)
class WithoutNoise(Data):
    """The images; which labels are wrong is a part of each claim."""

    noise: Annotated[float, tyro.conf.Suppress] = 0.0


@dataclasses.dataclass(frozen=True)
class ClaimsConfig:
    """Test the claims of DOT, DTO-KD and Kim et al. on real digits.

    Trains students by some twenty arms with several seeds, on clean labels and on noisy
    ones, looks at their minima, prints the table of claims and writes it to
    RUNS/NAME/claims.md. A second start goes on where the first was interrupted.
    """

    name: str = "claims"
    """Everything is written to RUNS/NAME-clean, RUNS/NAME-noisy and RUNS/NAME."""
    seeds: int = 5
    """Seeds 0, 1, ...; at least two, or there is no spread."""
    data: WithoutNoise = dataclasses.field(default_factory=WithoutNoise)
    networks: Networks = dataclasses.field(default_factory=Networks)
    training: Training = dataclasses.field(default_factory=Training)
    execution: Untimed = dataclasses.field(default_factory=Untimed)

    def __post_init__(self) -> None:
        """Refuses what has no answer."""
        if self.seeds < 2:
            raise ValueError(
                f"--seeds must be at least 2 for a spread, got {self.seeds}."
            )
        training = self.training
        if training.optimizer != "sgd" or training.nesterov or training.clip:
            raise ValueError(
                "the claims are about SGD with momentum: leave --optimizer, --nesterov "
                "and --clip as they are."
            )
        self.base()

    def base(self) -> Config:
        """The settings that all arms share."""
        config = Config(
            name=self.name,
            methods=("kd",),
            seeds=self.seeds,
            data=self.data,
            networks=self.networks,
            training=self.training,
            execution=self.execution,
        )
        return checked(config)


def run(config: ClaimsConfig, console: Console) -> list[Claim]:
    """Trains what is missing, prints and writes the table of claims.

    Args:
        config: The settings.
        console: Where progress and table are shown.

    Returns:
        The claims with what was found.
    """
    done = train(config, console)
    found = judge_all(done)
    folder = config.execution.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "claims.md", markdown(found, config.seeds))
    console.print(render(found, config.seeds))
    display.written(console, folder / "claims.md")
    return found


def train(config: ClaimsConfig, console: Console) -> dict[str, trials.Trial]:
    """Runs what is missing of all settings; returns them by name."""
    with progress_bars(console) as progress:
        return trials.run(config.base(), trials.SETTINGS, progress, Grid())


def judge_all(done: dict[str, trials.Trial]) -> list[Claim]:
    """All claims, by paper and setting."""
    settings = ("clean", "noisy")
    out = [claim for name in settings for claim in dot.claims(name, done[name])]
    for name in settings:
        out += dto.claims(name, done[name], done[f"{name}-short"])
    for name in settings:
        out += kim.claims(name, done[name])
    out.append(kim.vertices({name: done[name] for name in settings}))
    # The same claim on both settings side by side, in the order of the papers.
    order = list(dict.fromkeys((claim.paper, claim.statement) for claim in out))
    return sorted(out, key=lambda claim: order.index((claim.paper, claim.statement)))


def cells(claim: Claim) -> tuple[str, ...]:
    """A row of the table."""
    measured = "; ".join(finding.text for finding in claim.findings)
    if claim.beside:
        measured += f". Beside: {'; '.join(claim.beside)}"
    return claim.paper, claim.statement, claim.setting, measured, claim.verdict


def markdown(found: list[Claim], seeds: int) -> str:
    """The table for a document."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for claim in found:
        *row, verdict = cells(claim)
        lines.append("| " + " | ".join([*row, f"**{verdict}**"]) + " |")
    return "\n".join([*lines, "", NOTE.format(seeds=seeds), ""])


def render(found: list[Claim], seeds: int) -> Table:
    """The table for a terminal."""
    view = Table(caption=NOTE.format(seeds=seeds), show_lines=True)
    for name in HEAD:
        view.add_column(name, overflow="fold")
    for claim in found:
        view.add_row(*cells(claim))
    return view
