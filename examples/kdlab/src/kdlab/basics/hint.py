"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean" with the closest known name, or an empty string.

    Examples:
        >>> from kdlab.basics.hint import did_you_mean
        >>> did_you_mean("alhpa", ["alpha", "delta"]) + "There are alpha and delta."
        "did you mean 'alpha'? There are alpha and delta."
        >>> did_you_mean("x", ["alpha", "delta"])
        ''
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""
