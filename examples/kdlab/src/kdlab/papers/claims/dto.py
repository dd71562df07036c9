"""Claims of DTO-KD: balanced decrease, fewer conflicts, faster convergence."""

from collections.abc import Iterator

import numpy as np

from kdlab.papers.claims.evidence import Claim, judge, judge_ratio
from kdlab.papers.claims.trials import SHORTER, Trial

PAPER = "DTO-KD"
DTO, KD = "dto_kd", "kd"


def judge_claims(setting: str, trial: Trial, shorter: Trial) -> Iterator[Claim]:
    """Judges all claims of the paper under one setting.

    Args:
        setting: Name of the setting.
        trial: Trial of full length.
        shorter: Trial of DTO-KD with fewer epochs.
    """
    parts = [
        trial.mean(DTO, f"train/gradient/relative_decrease/{name}")
        for name in ("task", "distill")
    ]
    yield Claim(
        PAPER,
        "both losses decrease in the same proportion",
        setting,
        [
            judge_ratio(
                "imbalance against KD", _imbalance(trial, DTO), _imbalance(trial, KD)
            )
        ],
        [
            "predicted for one step: task "
            f"{np.mean(parts[0]):.3f}, distill {np.mean(parts[1]):.3f}",
            f"over the training, ln(first / last epoch): {_decreases(trial, DTO)}; "
            f"KD: {_decreases(trial, KD)}",
        ],
    )
    key = "train/gradient/conflict/distill"
    fewer = 100 * (trial.mean(KD, key) - trial.mean(DTO, key))
    cosine = "train/gradient/cosine/distill"
    yield Claim(
        PAPER,
        "fewer steps have conflicting gradients than with KD",
        setting,
        [judge("conflicts, KD - DTO-KD", fewer, unit=" %", digits=1)],
        [
            f"mean cosine: KD {trial.mean(KD, cosine).mean():+.2f}, "
            f"DTO-KD {trial.mean(DTO, cosine).mean():+.2f}"
        ],
    )
    accuracy = "test/accuracy"
    ahead = 100 * (trial.mean(DTO, accuracy) - trial.mean(KD, accuracy))
    there = 100 * (shorter.last(DTO, accuracy) - trial.last(KD, accuracy))
    yield Claim(
        PAPER,
        f"converges faster: ends as high as KD after {SHORTER:.0%} of its epochs",
        setting,
        [
            judge(f"last epoch at {SHORTER:.0%} - KD at 100 %", there, unit=" %"),
            judge("mean over epochs - KD", ahead, unit=" %"),
        ],
        [],
    )


def _logarithms(trial: Trial, arm: str) -> np.ndarray:
    """Returns ln(first / last epoch) of each loss and seed."""
    losses = [trial.over_epochs(arm, f"train/loss/{n}") for n in ("task", "distill")]
    return np.array([np.log(loss[:, 0] / loss[:, -1]) for loss in losses])


def _imbalance(trial: Trial, arm: str) -> np.ndarray:
    task, distill = _logarithms(trial, arm)
    return np.abs(task - distill)


def _decreases(trial: Trial, arm: str) -> str:
    task, distill = np.nanmean(_logarithms(trial, arm), axis=1)
    return f"task {task:.2f}, distill {distill:.2f}"
