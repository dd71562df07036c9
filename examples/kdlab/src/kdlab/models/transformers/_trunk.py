"""The blocks of a transformer in turn, with stochastic depth."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models.transformers._layers import Block


class StochasticDepth(nnx.Module):
    """Drops branches at random in training, independently for each image.

    The branches that are kept are divided by the probability of keeping them. One draw
    serves all blocks, so that rematerialised blocks need no random state.

    Args:
        rates: Probability of dropping each of the two branches of every block.
        rngs: Random streams; draws come from that for ``dropout``.

    Raises:
        ValueError: If a rate is not in [0, 1).

    References:
        Huang et al., `Deep Networks with Stochastic Depth
        <https://arxiv.org/abs/1603.09382>`_, ECCV 2016.
    """

    def __init__(self, rates: Sequence[float], rngs: nnx.Rngs):
        if not all(0 <= rate < 1 for rate in rates):
            raise ValueError(
                f"drop_path is {max(rates, key=abs)}; expected at least 0 and less "
                "than 1"
            )
        self.rates = tuple(rates)
        self.deterministic = False
        # Without a rate there is no random state that training would have to carry.
        self.rngs = rngs.dropout.fork() if any(rates) else None

    def __call__(self, batch: int) -> jax.Array | None:
        """Returns factors of all branches, ``[depth, 2, b]``; None if they are 1."""
        if self.rngs is None or self.deterministic:
            return None
        keep = 1 - jnp.asarray(self.rates, jnp.float32)[:, None, None]
        kept = jax.random.bernoulli(self.rngs(), keep, (len(self.rates), 2, batch))
        return jnp.where(kept, 1 / keep, 0.0)


def linear_rates(rate: float, depth: int) -> list[float]:
    """Returns rates from 0 for the first block to ``rate`` for the last one.

    Examples:
        >>> linear_rates(0.5, 3)
        [0.0, 0.25, 0.5]
    """
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


class Trunk(nnx.Module):
    """Blocks in turn, with stochastic depth.

    Args:
        blocks: Maps of tokens ``[b, n, d]`` to tokens.
        rates: Rate of stochastic depth of each block.
        remat: Whether backward passes compute the blocks again instead of keeping
            what they computed, which saves memory.
        scan: Whether the blocks, which must be alike, are the turns of one loop. The
            program has then one block to compile, and every output depends on the
            parameters of all blocks as far as :func:`kdopt.reachable` can tell.
        rngs: Random streams.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        rates: Sequence[float],
        *,
        remat: bool,
        scan: bool = False,
        rngs: nnx.Rngs,
    ):
        self.blocks = nnx.List(blocks)
        self.drop_path = StochasticDepth(rates, rngs)
        self.remat, self.scan = remat, scan

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns the tokens ``[b, n, d]`` before the first and after each block."""
        kept = self.drop_path(len(x))
        if self.scan:
            return [x, *self._scan(x, kept)]
        run: Callable[..., jax.Array] = nnx.remat(_run) if self.remat else _run
        ends = [x]
        for i, block in enumerate(self.blocks):
            ends.append(run(block, ends[-1], None if kept is None else kept[i]))
        return ends

    def _scan(self, x: jax.Array, kept: jax.Array | None) -> jax.Array:
        """Returns the tokens after each block, ``[depth, b, n, d]``."""
        graphdefs, states = zip(*map(nnx.split, self.blocks), strict=True)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

        def turn(x: jax.Array, xs: Any) -> tuple[jax.Array, jax.Array]:
            state, kept = xs
            x = _run(nnx.merge(graphdefs[0], state), x, kept)
            return x, x

        turn = jax.checkpoint(turn) if self.remat else turn
        return jax.lax.scan(turn, x, (stacked, kept))[1]


def _run(block: Block, x: jax.Array, kept: jax.Array | None) -> jax.Array:
    return block(x, kept)
