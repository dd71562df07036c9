"""The state of a training."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    """Everything that a step changes and a checkpoint holds.

    Attributes:
        params: Parameters of the pupil.
        rest: Its non-trainable state: BatchNorm statistics, dropout keys, memories.
        opt_state: State of the plan's transform.
        balancer: State of the balancer at the logits; ``()`` without one.
        ema: Averaged parameters; ``()`` without averaging.
        step: Number of completed steps, int32.
        seed: Seed of the augmentations, int32.
    """

    params: Any
    rest: Any
    opt_state: Any
    balancer: Any
    ema: Any
    step: jax.Array
    seed: jax.Array

    @property
    def evaluated(self) -> Any:
        """Parameters to evaluate: the averaged ones if there are any."""
        return self.ema if jax.tree.leaves(self.ema) else self.params
