"""``kdlab claims``: what the papers claim, tested in minutes."""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdlab.basics import display
from kdlab.experiment.progress import progress_bars
from kdlab.minima.measure import Grid
from kdlab.papers.claims import dot, dto, kim, trials
from kdlab.papers.claims.evidence import Claim
from kdlab.settings.config import Config
from kdlab.settings.fields import expand_home

HEAD = ("paper", "claim", "labels", "measured", "verdict")
NOTE = (
    "Differences between runs of the same seed: mean ± half of the 95 % confidence "
    "interval over {seeds} seeds (ratios: the interval in brackets). Confirmed: the "
    "interval of every finding lies on the claim's side; not confirmed: one lies on "
    "the other; inconclusive: else. What stands beside has no say; "
    "`control` is `gain_matched_sgd`, the weights of DOT without its memory."
)


@dataclasses.dataclass(frozen=True)
class ClaimsConfig:
    """Test the claims of DOT, DTO-KD and Kim et al. on real digits.

    Trains students by some twenty arms with several seeds, on clean labels and on noisy
    ones, looks at their minima, prints the table of claims and writes it to
    RUNS/NAME/claims.md. A second start goes on where the first was interrupted.
    """

    name: str = "claims"
    """Everything is written to RUNS/NAME-clean, RUNS/NAME-noisy and RUNS/NAME."""
    runs: Path = Path("runs")
    """Folder of all runs, and of the cached teachers."""
    dataset: str = "mnist5k"
    """Data set."""
    labels: int = 400
    """Number of labelled images the student sees."""
    augment: str = "shift"
    """Augmentation."""
    teacher: str = "cnn_teacher"
    """Network of the teacher."""
    teacher_epochs: int = 6
    """Epochs of the teacher over all training images."""
    student: str = "cnn_student"
    """Network of the student."""
    seeds: int = 5
    """Seeds 0, 1, ...; at least two, or there is no spread."""
    epochs: int = 20
    """Epochs of the student."""
    learning_rate: float = 0.02
    """Peak learning rate, the same for all arms."""

    def __post_init__(self) -> None:
        """Refuses what has no answer."""
        expand_home(self)
        if self.seeds < 2:
            raise ValueError(
                f"--seeds must be at least 2 for a spread, got {self.seeds}."
            )

    def base(self) -> Config:
        """The settings that all arms share."""
        names = [field.name for field in dataclasses.fields(ClaimsConfig)]
        fields = {name: getattr(self, name) for name in names}
        return Config(**fields, methods=("kd",), timing_rounds=0)


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
    folder = config.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "claims.md").write_text(markdown(found, config.seeds))
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
