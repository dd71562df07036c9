"""Checks that the device computes what the host computes in double precision."""

from collections.abc import Iterator

from benchmarks.accelerator import correct_gram, correct_losses, correct_methods
from benchmarks.accelerator._clock import Budget, Results, Row


def measure(tiny: bool, budget: Budget, done: Results) -> Iterator[Row]:
    """Yields one row for each check, with error, bound and whether it passed."""
    del done
    yield from correct_gram.measure(tiny)
    yield from correct_losses.measure(tiny, budget)
    yield from correct_methods.measure(tiny, budget)


def failures(rows: list[Row]) -> list[Row]:
    """Returns the failed checks; skipped ones do not count."""
    return [row for row in rows if not row["ok"] and not row.get("skipped")]


def show(rows: list[Row]) -> str:
    """Formats counts and the largest error over bound by kind, and every failure."""
    lines = ["correctness: passed / checked (largest share of the bound), skipped"]
    for kind in dict.fromkeys(row["check"] for row in rows):
        own = [row for row in rows if row["check"] == kind]
        run = [row for row in own if not row.get("skipped")]
        worst = max((row["error"] / row["bound"] for row in run), default=0.0)
        passed = sum(row["ok"] for row in run)
        lines.append(
            f"  {kind}: {passed} / {len(run)} ({worst:.2g}), {len(own) - len(run)}"
        )
    for row in failures(rows)[:20]:
        lines.append(
            f"  FAILED {row['check']}, {row['name']}: error {row['error']:.2g}, bound "
            f"{row['bound']:.2g} {row.get('note', '')}"
        )
    return "\n".join(lines)
