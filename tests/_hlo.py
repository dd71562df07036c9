"""What compiled programs send over the network, and what they keep in memory."""

import re

import jax
import numpy as np

_BYTES = {"pred": 1, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}
_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<name>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute)(-start)?\("
)
_FUSION = re.compile(r"= (?P<shapes>.*?) fusion\((?P<operands>.*?)\)")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")


def collectives(compiled: jax.stages.Compiled) -> list[tuple[str, int]]:
    """Returns names and result bytes of the collectives, one pair per instruction."""
    found = []
    for line in compiled.as_text().splitlines():
        match = _COLLECTIVE.search(line)
        if match:
            shapes = _SHAPE.findall(match["shapes"])
            size = sum(
                _BYTES[dtype] * int(np.prod([int(n) for n in dims.split(",") if n]))
                for dtype, dims in shapes
            )
            found.append((match["name"], size))
    return found


def fusions(compiled: jax.stages.Compiled) -> list[tuple[int, int]]:
    """Counts the results and operands of the fused kernels, one pair for each."""
    text = compiled.as_text()
    entry = text[text.rindex("\nENTRY") :]
    return [
        (len(_SHAPE.findall(match["shapes"])), match["operands"].count("%"))
        for match in _FUSION.finditer(entry)
    ]


def total_bytes(compiled: jax.stages.Compiled) -> int:
    return sum(size for _, size in collectives(compiled))


def tree_bytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
