"""Translates paths in a model to keys of PyTorch state dicts, by a table of names."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kdlab.models._torch_names import ALIASES, Names

# Names of our leaves in PyTorch.
_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_key(path: tuple[str, ...], names: Names) -> str:
    """Returns the key of a variable in a PyTorch state dict.

    Args:
        path: Path of the variable in the model.
        names: Names of the layers.

    Raises:
        ValueError: If the table has no line for the layer.

    Examples:
        >>> from kdlab.models._torch_names import DEIT, RESNET
        >>> torch_key(("stages", "0", "2", "units", "1", "norm", "mean"), RESNET)
        'layer1.2.bn2.running_mean'
        >>> torch_key(("trunk", "blocks", "3", "attn", "qkv", "kernel"), DEIT)
        'blocks.3.attn.qkv.weight'
        >>> torch_key(("cls_token",), DEIT)
        'cls_token'
    """
    *layer, leaf = path
    if leaf in _LEAVES:
        return f"{_translate('.'.join(layer), names)}.{_LEAVES[leaf]}"
    return _translate(".".join(path), names)  # a token, which is no part of a layer


def known_name(key: str, wanted: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """Returns the name of this package's tables for the name of a tensor in a file.

    Args:
        key: The name in the file.
        wanted: All names that the model needs.
        tensors: All names in the file.

    Returns:
        The name itself, or that of which it is an alias.
    """
    if key not in wanted:
        for pattern, name in ALIASES:
            renamed = re.sub(pattern, name, key)
            if renamed in wanted and renamed not in tensors:
                return renamed
    return key


def _translate(layer: str, names: Names) -> str:
    for line, target in _lines(names):
        pattern = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(line))
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^.]+)", pattern)
        match = re.fullmatch(pattern, layer)
        if match:
            return _fill(target, match.groupdict())
    raise ValueError(f"layer {layer} has no line in the table of PyTorch names")


def _lines(names: Names) -> Iterator[tuple[str, str]]:
    for line, target in names.items():
        if isinstance(target, str):
            yield line, target
        else:
            yield f"{line}.conv", target[0]
            yield f"{line}.norm", target[1]


def _fill(target: str, found: dict[str, str]) -> str:
    """Fills ``{part}``, ``{i}``, ``{i+1}``, ``{3*i}`` and ``{3*i+1}``."""

    def value(term: re.Match[str]) -> str:
        factor, name, offset = term.groups()
        if not found[name].isdecimal():
            return found[name]
        return str(int(factor or 1) * int(found[name]) + int(offset or 0))

    return re.sub(r"{(?:(\d+)\*)?(\w+)(?:\+(\d+))?}", value, target)
