"""Claims of DOT: effects on accuracy, losses, momentum buffers and minima."""

from collections.abc import Iterator

import numpy as np

from kdlab.minima.measure import Measures
from kdlab.papers.claims.evidence import Claim, Finding, judge, judge_ratio
from kdlab.papers.claims.trials import DELTAS, Trial, arm_name

PAPER = "DOT"
DOT, AGAINST, KD, CONTROL = (
    arm_name(DELTAS[-1]),
    arm_name(DELTAS[0]),
    "kd",
    "gain_matched",
)
NEAR = 0.5  # half of the landscape, in filter norms


def judge_claims(setting: str, trial: Trial) -> Iterator[Claim]:
    """Judges all claims of the paper under one setting; Delta is 0.075 by default."""
    yield _deltas(setting, trial)
    yield Claim(
        PAPER,
        "both training losses end lower than with KD",
        setting,
        [_loss(trial, name, DOT, KD) for name in ("task", "distill")],
        [
            f"control {_loss(trial, name, CONTROL, KD).text}"
            for name in ("task", "distill")
        ],
    )
    key = "train/buffer/alignment/distill"
    rise = trial.mean(DOT, key) - trial.mean(KD, key)
    same = trial.mean(CONTROL, key) - trial.mean(KD, key)
    yield Claim(
        PAPER,
        "the cosine between distillation buffer and update rises",
        setting,
        [judge("cosine", rise, digits=3)],
        [f"control {judge('cosine', same, digits=3).text}"],
    )
    yield Claim(
        PAPER,
        "KD ends in flatter minima than labels alone",
        setting,
        _flatter(trial, KD, "labels_only"),
        [],
    )
    yield Claim(
        PAPER,
        "DOT ends in flatter minima than KD",
        setting,
        _flatter(trial, DOT, KD),
        [f"control {one.text}" for one in _flatter(trial, CONTROL, KD)],
    )


def _deltas(setting: str, trial: Trial) -> Claim:
    last = {arm: 100 * trial.last(arm, "test/accuracy") for arm in trial.histories}
    falls = [0.0, *sorted((d for d in DELTAS if d < 0), reverse=True)]
    arms = [KD, *(arm_name(delta) for delta in falls[1:])]
    known = [(d, last[arm]) for d, arm in zip(falls, arms, strict=True) if arm in last]
    findings = [
        judge(
            f"accuracy of Delta {DELTAS[-1]:g} - KD", last[DOT] - last[KD], unit=" %"
        ),
        judge(f"KD - Delta {DELTAS[0]:g}", last[KD] - last[AGAINST], unit=" %"),
    ]
    if len(known) > 2:
        deltas, values = zip(*known, strict=True)
        slopes = np.polyfit(np.array(deltas), np.array(values), 1)[0]
        findings.append(
            judge("slope over Delta <= 0", slopes / 100, unit=" % for 0.01", digits=3)
        )
    means = ", ".join(
        f"{delta:+g}: {last[arm].mean():.2f}"
        for delta, arm in sorted(
            [(0.0, KD), *((d, arm_name(d)) for d in DELTAS)],
        )
        if arm in last
    )
    control = judge("control - KD", last[CONTROL] - last[KD], unit=" %")
    return Claim(
        PAPER,
        "Delta > 0 helps; Delta < 0 hurts, increasingly with its size",
        setting,
        findings,
        [control.text, f"means {means}"],
    )


def _loss(trial: Trial, name: str, low: str, high: str) -> Finding:
    key = f"train/loss/{name}"
    return judge_ratio(f"{name} loss", trial.result(low, key), trial.result(high, key))


def _flatter(trial: Trial, low: str, high: str) -> list[Finding]:
    """Compares flatness by the rise of the task loss and by the Hessian."""
    # The rise may be negative: KD need not end in a minimum of this loss.
    gentler = _rise(trial, high) - _rise(trial, low)
    return [
        judge("rise of the task loss lower by", gentler, digits=3),
        judge_ratio(
            "largest eigenvalue", _sharpness(trial, low), _sharpness(trial, high)
        ),
    ]


def _rise(trial: Trial, arm: str) -> np.ndarray:
    return np.array([_mean_rise(found) for found in trial.measures[arm]])


def _mean_rise(found: Measures) -> float:
    """Returns how much higher the task loss is near the minimum than at it."""
    if not found:
        return np.nan
    near, curve = np.abs(found["axis"]) <= NEAR, found["curve/task"]
    return float(curve[near].mean() - curve[len(curve) // 2])


def _sharpness(trial: Trial, arm: str) -> np.ndarray:
    return np.array(
        [
            found["eigenvalues/task"][0] if found else np.nan
            for found in trial.measures[arm]
        ]
    )
