"""Scores on disk: JSON lines, of which the last of a situation and an arm counts."""

import dataclasses
import hashlib
import json
from pathlib import Path

from kdlab.basics.reading import reading
from kdlab.regret.arms import ARMS
from kdlab.regret.situation import SITUATIONS
from kdlab.regret.training import Score

Scores = dict[tuple[str, str], list[Score]]
"""By names of situation and arm: one score per seed, beginning with seed 0."""


@dataclasses.dataclass
class Store:
    """The scores in a file.

    Attributes:
        path: The file; it need not exist.
    """

    path: Path

    def read(self) -> Scores:
        """Reads the scores; those of other definitions are left out.

        A last line that was cut by a kill is left out too.

        Raises:
            ValueError: If another line is damaged.
        """
        scores: Scores = {}
        if not self.path.exists():
            return scores
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        for line in lines:
            if line is lines[-1] and not line.endswith("\n"):
                break
            with reading(self.path, "Remove the damaged line: it is made again."):
                record = json.loads(line)
                names = record["situation"], record["arm"]
                columns = [record[field] for field in Score._fields]
            if record["of"] == fingerprint(*names):
                scores[names] = [Score(*row) for row in zip(*columns, strict=True)]
        return scores

    def append(self, situation: str, arm: str, scores: list[Score]) -> None:
        """Appends the scores of all seeds."""
        columns = zip(*(map(_rounded, score) for score in scores), strict=True)
        record = {"situation": situation, "arm": arm, "of": fingerprint(situation, arm)}
        record |= dict(zip(Score._fields, map(list, columns), strict=True))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # what a kill has cut
            file.write(f"{json.dumps(record)}\n".encode())


def _rounded(value: float) -> float:
    return round(value, 4)


def fingerprint(situation: str, arm: str) -> str:
    """Identifies the definitions of a situation and an arm; empty for unknown names."""
    if situation not in SITUATIONS or arm not in ARMS:
        return ""
    trained = ARMS[arm]._replace(cost=1.0)  # it does not change a student
    definitions = repr((SITUATIONS[situation], trained))
    return hashlib.sha256(definitions.encode()).hexdigest()[:8]
