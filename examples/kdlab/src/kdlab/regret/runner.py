"""Trains whatever a table still lacks."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from kdlab.experiment.progress import progress_bars
from kdlab.regret.arms import ARMS
from kdlab.regret.situation import Situation
from kdlab.regret.store import Store
from kdlab.regret.training import Laboratory


def train_missing(
    store: Store,
    situations: Sequence[Situation],
    arms: Collection[str],
    seeds: Sequence[int],
    data_dir: Path | None,
    console: Console,
) -> None:
    """Trains the students that the store has no scores of.

    Args:
        store: Scores so far; those of each situation and arm are added when its seeds
            are done.
        situations: The situations.
        arms: Names of the arms.
        seeds: The seeds, in the order of the scores.
        data_dir: Folder that holds Fashion-MNIST.
        console: Where progress is shown.
    """
    known = store.read()
    laboratory = Laboratory(store.path.parent / "teachers", data_dir)
    with progress_bars(console) as progress:
        bar = progress.add_task("", total=len(situations) * len(arms) * len(seeds))
        for situation in situations:
            for name in arms:
                progress.update(bar, description=f"{situation.name}: {name}")
                scores = list(known.get((situation.name, name), []))
                progress.advance(bar, min(len(scores), len(seeds)))
                if len(scores) >= len(seeds):
                    continue
                for seed in seeds[len(scores) :]:
                    scores.append(laboratory.train(situation, ARMS[name], seed))
                    progress.advance(bar)
                store.append(situation.name, name, scores)
