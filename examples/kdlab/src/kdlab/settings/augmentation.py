"""How images and labels are varied, besides the augmentation of single images."""

import dataclasses

from kdlab.settings.parts import prepare


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Erased and mixed images, smoothed labels, repeated images."""

    mixup: float = 0.0
    """Alpha of mixup, for example 0.8; 0: none. The teacher sees the mixed images."""
    cutmix: float = 0.0
    """Alpha of CutMix, for example 1; 0: none."""
    mix_switch: float = 0.5
    """Probability of CutMix instead of mixup, with both."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed."""
    smoothing: float = 0.0
    """Share of a label that is spread over all classes."""
    erasing: float = 0.0
    """Probability that a box of an image is replaced by noise."""
    repeats: int = 1
    """Times that an image is drawn in an epoch, each time augmented anew; the epoch
    keeps its length, so 3 leaves out two thirds of the images."""

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of range."""
        prepare(self)
