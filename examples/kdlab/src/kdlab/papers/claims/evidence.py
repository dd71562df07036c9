"""Derives verdicts from paired seeds by confidence intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIRMED, REFUTED, OPEN = "confirmed", "not confirmed", "inconclusive"


class Finding(NamedTuple):
    """One measured difference.

    Attributes:
        text: The measured difference with its interval.
        verdict: Whether the interval lies on the side of the claim, on the other side,
            or on both.
    """

    text: str
    verdict: str


class Claim(NamedTuple):
    """A statement of a paper with the findings on it.

    Attributes:
        paper: The paper.
        statement: What it claims.
        setting: Setting in which it was tested.
        findings: Findings that decide the verdict; all must hold.
        context: Also measured; does not affect the verdict.
    """

    paper: str
    statement: str
    setting: str
    findings: list[Finding]
    context: list[str]

    @property
    def verdict(self) -> str:
        """Confirmed if all findings are, not confirmed if one is not, else open."""
        verdicts = {finding.verdict for finding in self.findings}
        if REFUTED in verdicts:
            return REFUTED
        return CONFIRMED if verdicts == {CONFIRMED} else OPEN


def confidence_interval(values: np.ndarray) -> tuple[float, float]:
    r"""Computes the mean and the half-width of its 95 % confidence interval.

    .. math:: \bar d \pm t_{n-1,\, 0.975} \, s / \sqrt n

    Args:
        values: Differences between two arms, one per seed; NaN for seeds that diverged
            in either arm, which are ignored.

    Returns:
        Both numbers; with fewer than two seeds the interval is infinite.

    Examples:
        >>> mean, half = confidence_interval(np.array([1.0, 2.0, 3.0]))
        >>> print(f"{mean:.2f} {half:.2f}")
        2.00 2.48
    """
    values = values[np.isfinite(values)]
    count = len(values)
    if count < 2:
        return float("nan"), float("inf")
    error = values.std(ddof=1) / np.sqrt(count)
    return float(values.mean()), float(stats.t.ppf(0.975, count - 1) * error)


def judge(name: str, values: np.ndarray, *, unit: str = "", digits: int = 2) -> Finding:
    """Tests whether differences are positive.

    Args:
        name: Name of the difference.
        values: One per seed; positive if the claim holds.
        unit: Printed after the number.
        digits: Number of decimal places.

    Returns:
        The finding; not confirmed only if the interval lies below zero.

    Examples:
        >>> judge("a - b", np.array([1.0, 2.0, 3.0])).verdict
        'inconclusive'
        >>> judge("a - b", np.array([1.9, 2.0, 2.1])).verdict
        'confirmed'
    """
    mean, half = confidence_interval(values)
    verdict = OPEN
    if abs(mean) > half:
        verdict = CONFIRMED if mean > 0 else REFUTED
    return Finding(f"{name} {mean:+.{digits}f} ± {half:.{digits}f}{unit}", verdict)


def judge_ratio(name: str, low: np.ndarray, high: np.ndarray) -> Finding:
    """Tests by their ratio whether positive numbers are lower than others.

    Args:
        name: Name of the quantity.
        low: Numbers that should be lower, one per seed.
        high: Numbers to compare with, of the same seeds.

    Returns:
        The finding, with the change in percent and its interval.

    Examples:
        >>> judge_ratio("loss", np.array([1.0, 1.1]), np.array([2.0, 2.2])).text
        'loss -50 % (-50 to -50)'
    """
    mean, half = confidence_interval(np.log(low) - np.log(high))
    ends = [100 * np.expm1(x) for x in (mean, mean - half, mean + half)]
    verdict = OPEN
    if abs(mean) > half:
        verdict = CONFIRMED if mean < 0 else REFUTED
    text = "{} {:+.0f} % ({:+.0f} to {:+.0f})".format(name, *ends)
    return Finding(text, verdict)
