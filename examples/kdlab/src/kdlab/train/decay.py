"""Which parameters AdamW decays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

NOT_DECAYED = "cls_token", "pos_embed", "free"
"""Names of the parameters that DeiT does not decay, besides vectors; ``free`` is that
of an orthogonal projector."""


def decays(names: tuple[str, ...], params: Any) -> Any:
    """Marks the parameters that are neither vectors nor have one of these names."""

    def decayed(path: tuple, x: jax.Array) -> bool:
        name = jax.tree_util.keystr(path)
        return x.ndim > 1 and not any(f"['{word}']" in name for word in names)

    return jax.tree_util.tree_map_with_path(decayed, params)


DECAYED: dict[str, Callable[[Any], Any] | None] = {
    "all": None,
    "deit": partial(decays, NOT_DECAYED),
    "timm": partial(decays, (*NOT_DECAYED, "dist_token")),
}
"""Masks of the decayed parameters, by the setting ``decayed``."""
