"""The published sizes of ViDT, and two small ones."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class VidtConfig:
    """The architecture of a ViDT.

    Attributes:
        embed: Width of the first stage of the body; each stage doubles it.
        depths: Number of blocks in each of the four stages.
        heads: Number of attention heads in each stage.
        drop_path: Rate at which the last block of the body is dropped; it grows
            linearly from 0 at the first block.
        window: Side of the attention windows, in patches.
        width: Width ``d`` of the neck, a multiple of 32.
        neck_heads: Number of attention heads in the neck.
        neck_layers: Number of decoder layers in the neck.
        points: Sampled points for each head and scale.
        ffn: Hidden width of the neck's feed-forward networks.
        dropout: Dropout rate of the neck.
        num_tokens: Number of detection tokens ``n``.
        num_classes: Number of class logits ``c``; 91 for COCO, whose ids are labels.
    """

    embed: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    drop_path: float = 0.0
    window: int = 7
    width: int = 256
    neck_heads: int = 8
    neck_layers: int = 6
    points: int = 4
    ffn: int = 1024
    dropout: float = 0.1
    num_tokens: int = 100
    num_classes: int = 91

    def __post_init__(self):
        if self.width % 32 or self.width % self.neck_heads:
            raise ValueError(
                f"width is {self.width}; expected a multiple of 32, the number of "
                f"groups of GroupNorm, and of neck_heads, {self.neck_heads}"
            )
        for stage, (width, heads) in enumerate(
            zip(self.stage_widths, self.heads, strict=True)
        ):
            if width % heads:
                raise ValueError(
                    f"stage {stage} has width {width}, which its {heads} heads do not "
                    "divide; change embed or heads"
                )

    @property
    def stage_widths(self) -> tuple[int, int, int, int]:
        """Widths of the four stages of the body."""
        return self.embed, 2 * self.embed, 4 * self.embed, 8 * self.embed

    @property
    def num_levels(self) -> int:
        """Number of predictions: one before the neck, one after each layer."""
        return self.neck_layers + 1


CONFIGS: dict[str, VidtConfig] = {
    "vidt_nano": VidtConfig(48, (2, 2, 6, 2), (3, 6, 12, 24)),
    "vidt_tiny": VidtConfig(96, (2, 2, 6, 2), (3, 6, 12, 24), drop_path=0.2),
    "vidt_small": VidtConfig(96, (2, 2, 18, 2), (3, 6, 12, 24), drop_path=0.3),
    "vidt_base": VidtConfig(128, (2, 2, 18, 2), (4, 8, 16, 32), drop_path=0.3),
    # For canvases of about 100 pixels, on a CPU.
    "vidt_toy": VidtConfig(
        24,
        (1, 1, 2, 1),
        (1, 2, 4, 8),
        window=4,
        width=64,
        neck_heads=4,
        neck_layers=2,
        ffn=128,
        dropout=0.0,
        num_tokens=20,
        num_classes=10,
    ),
}
"""ViDT by name; ``dataclasses.replace`` changes a size."""
