"""``kdlab figures``: draws the figures of the papers from scratch."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from kdlab.basics import display
from kdlab.papers import claims
from kdlab.papers.claims import ClaimsConfig
from kdlab.papers.claims.trials import ALPHAS, DELTAS, MEASURED, Trial, arm_name
from kdlab.report import figures
from kdlab.runs import plot

DOT = arm_name(DELTAS[-1])
MOMENTA = ("labels_only", "kd", DOT, "gain_matched")
WEIGHTS = ("kd", *(f"kd-task{alpha:g}" for alpha in ALPHAS), DOT)


@dataclasses.dataclass(frozen=True)
class FiguresConfig(ClaimsConfig):
    """Draw the figures of DOT, DTO-KD and Kim et al. from students trained locally.

    The students are those of `claims`; missing ones are trained first. No network is
    needed.
    """

    out: Path = Path("runs/figures")
    """Folder of the figures."""


def run(config: FiguresConfig, console: Console) -> list[Path]:
    """Trains missing students and draws the figures.

    Args:
        config: The settings.
        console: Terminal for progress.

    Returns:
        Paths of the figures.
    """
    done = claims.train(config, console)
    config.out.mkdir(parents=True, exist_ok=True)
    paths = []
    with plot.use_style():
        for name, figure in _figures(done["clean"], done["noisy"]):
            paths.append(config.out / f"{name}.png")
            figure.savefig(paths[-1], dpi=110)
            display.print_path(console, paths[-1], "Figure")
    return paths


def _figures(clean: Trial, noisy: Trial) -> Iterator[tuple[str, Figure]]:
    histories = partial(_chosen, clean.histories)
    minima = {arm: [m for m in found if m] for arm, found in clean.measures.items()}
    measures = _first(minima, MEASURED)
    yield "accuracy", plot.draw_accuracy(histories((*MOMENTA, "dto_kd")))
    yield "landscape-curves", figures.draw_curves(measures)
    yield "landscape-contours", figures.draw_contours(measures)
    yield "landscape-surfaces", figures.draw_surfaces(measures)
    yield "sharpness", figures.draw_sharpness(minima)
    yield "losses", plot.draw_losses(histories(MOMENTA))
    yield "buffers", figures.draw_buffers(histories(("kd", DOT, "gain_matched")))
    yield (
        "alpha",
        figures.draw_alpha(
            {
                arm: (
                    clean.result(arm, "train/loss/task"),
                    clean.result(arm, "train/loss/distill"),
                )
                for arm in WEIGHTS
            }
        ),
    )
    yield "logits", figures.draw_correlations(measures)
    pair = _chosen(noisy.histories, ("kd", "dto_kd"))
    yield "weights", plot.draw_weights(pair)
    yield "conflict", figures.draw_conflict(pair)
    yield "parabolas", figures.draw_parabolas()
    yield "lambda", figures.draw_lambda(noisy.histories["dto_kd"], "dto_kd")


def _chosen(found: dict[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    """Selects arms, except those whose seeds all diverged, which have no history."""
    return {arm: found[arm] for arm in arms if found.get(arm)}


def _first(minima: dict[str, list], arms: Sequence[str]) -> dict[str, Any]:
    """Selects the first seed of each arm, unless it diverged."""
    return {arm: minima[arm][0] for arm in arms if minima[arm] and minima[arm][0]}
