"""From paired seeds to a verdict: confidence intervals, and nothing else."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIRMED, REFUTED, OPEN = "confirmed", "not confirmed", "inconclusive"


class Finding(NamedTuple):
    """One measured difference.

    Attributes:
        text: What was measured, with its spread.
        verdict: Whether the interval lies on the side of the claim, on the other, or on
            both.
    """

    text: str
    verdict: str


class Claim(NamedTuple):
    """A statement of a paper and what was found.

    Attributes:
        paper: Whose.
        statement: What it says.
        setting: On which task it was tested.
        findings: Those that decide; all must hold.
        beside: Also measured; does not affect the verdict.
    """

    paper: str
    statement: str
    setting: str
    findings: list[Finding]
    beside: list[str]

    @property
    def verdict(self) -> str:
        """Confirmed if all findings are, refuted if one is, else open."""
        verdicts = {finding.verdict for finding in self.findings}
        if REFUTED in verdicts:
            return REFUTED
        return CONFIRMED if verdicts == {CONFIRMED} else OPEN


def interval(values: np.ndarray) -> tuple[float, float]:
    r"""Mean and half-width of its 95 % confidence interval.

    .. math:: \bar d \pm t_{n-1,\, 0.975} \, s / \sqrt n

    Args:
        values: Differences between two arms, one for each seed; NaN for a seed that
            diverged under one of them, which is left out.

    Returns:
        Both numbers; without two seeds the interval is infinite.

    Examples:
        >>> print("{:.2f} {:.2f}".format(*interval(np.array([1.0, 2.0, 3.0]))))
        2.00 2.48
    """
    values = values[np.isfinite(values)]
    count = len(values)
    if count < 2:
        return float("nan"), float("inf")
    error = values.std(ddof=1) / np.sqrt(count)
    return float(values.mean()), float(stats.t.ppf(0.975, count - 1) * error)


def judge(name: str, values: np.ndarray, *, unit: str = "", digits: int = 2) -> Finding:
    """Asks whether differences are positive.

    Args:
        name: What the difference is.
        values: One for each seed; positive where the claim holds.
        unit: Written behind the number.
        digits: Behind the point.

    Returns:
        The finding; not confirmed only if the interval lies below zero.

    Examples:
        >>> judge("a - b", np.array([1.0, 2.0, 3.0])).verdict
        'inconclusive'
        >>> judge("a - b", np.array([1.9, 2.0, 2.1])).verdict
        'confirmed'
    """
    mean, half = interval(values)
    verdict = OPEN
    if abs(mean) > half:
        verdict = CONFIRMED if mean > 0 else REFUTED
    return Finding(f"{name} {mean:+.{digits}f} ± {half:.{digits}f}{unit}", verdict)


def less(name: str, low: np.ndarray, high: np.ndarray) -> Finding:
    """Asks whether positive numbers are lower, by their ratio.

    Args:
        name: What is compared.
        low: Those that should be lower, one for each seed.
        high: The others, of the same seeds.

    Returns:
        The finding, with the change in percent and its interval.

    Examples:
        >>> less("loss", np.array([1.0, 1.1]), np.array([2.0, 2.2])).text
        'loss -50 % (-50 to -50)'
    """
    mean, half = interval(np.log(low) - np.log(high))
    ends = [100 * np.expm1(x) for x in (mean, mean - half, mean + half)]
    verdict = OPEN
    if abs(mean) > half:
        verdict = CONFIRMED if mean < 0 else REFUTED
    text = "{} {:+.0f} % ({:+.0f} to {:+.0f})".format(name, *ends)
    return Finding(text, verdict)
