"""Reads and writes the checkpoints of ViDT, and bodies from those of Swin.

The layers have nearly the names of the checkpoints; what differs is in ``_RENAMED``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.models.state_dicts import check_fit, read_torch
from kdlab.models.vidt.config import VidtConfig
from kdlab.models.vidt.model import Vidt

_RENAMED = (
    (r"^neck\.(layers\..*)", r"transformer.decoder.\1"),
    (r"^neck\.(reference_points.*)", r"transformer.\1"),
    (r"^neck\.", ""),
    (r"(_proj(\.\d)?)\.linear\.", r"\1.0."),
    (r"(_proj(\.\d)?)\.norm\.", r"\1.1."),
    (r"\.(kernel|scale)$", ".weight"),
    (r"in_proj\.(weight|bias)$", r"in_proj_\1"),
)
"""Patterns of paths in the model, and what they are in the checkpoint, in order."""
_PROJECTION = re.compile(r"^(input_proj\.\d|tgt_proj|query_pos_proj)\.0\.weight$")
_UNTRAINED = re.compile(
    r"^backbone\.(layers\.3\.downsample\.|det_|layers\.\d\.blocks\.\d+\.det_)"
)
"""What a body that was trained as a classifier lacks."""
_IGNORED = re.compile(
    r"relative_position_index$|attn_mask$|^transformer\.decoder\.bbox_embed\."
)
"""Buffers, and the second name of the box heads."""
_CLASSIFIER = re.compile(r"^(norm|head)\.")


def load(path: str | Path, model: Vidt) -> None:
    """Reads a checkpoint of ViDT, or a classifier's Swin body, into a model.

    A body leaves everything as it is that a classifier lacks: the detection tokens and
    their positions, the merging after the last stage, projections, neck and heads.

    Args:
        path: A file that :func:`~kdlab.models.state_dicts.read_torch` reads.
        model: The model; its parameters are overwritten.

    Raises:
        ValueError: If the file cannot be read, or does not hold exactly the tensors of
            this model or of its body. The model is then unchanged.
    """
    tensors = read_torch(path)
    of_vidt = any(key.startswith("backbone.") for key in tensors)
    convert = from_torch if of_vidt else body_from_torch
    nnx.update(model, convert(model, tensors))


def from_torch(model: Vidt, tensors: Mapping[str, np.ndarray]) -> nnx.State:
    """Converts a checkpoint of ViDT to the state of a model.

    Args:
        model: The model that determines shapes and dtypes; may be abstract.
        tensors: The checkpoint, as arrays by name. Buffers, second names, and the
            parameters that no forward pass uses may be there or not.

    Returns:
        All parameters, for ``nnx.update`` or ``nnx.merge``.

    Raises:
        ValueError: If tensors are missing, left over or of wrong shapes; the message
            names the first ones and counts the others.
    """
    unused = unused_shapes(model.config)
    tensors = {key: x for key, x in tensors.items() if key not in unused}
    return _convert(tensors, _parameters(model), "ViDT")


def body_from_torch(model: Vidt, tensors: Mapping[str, np.ndarray]) -> nnx.State:
    """Converts a Swin classifier to the state of the body of a model.

    Args:
        model: The model that determines shapes and dtypes; may be abstract.
        tensors: The checkpoint, as arrays by name. Its classifier is not used.

    Returns:
        The parameters of the body that a classifier has, for ``nnx.update``.

    Raises:
        ValueError: See :func:`from_torch`.
    """
    tensors = {
        f"backbone.{key}": x for key, x in tensors.items() if not _CLASSIFIER.match(key)
    }
    wanted = {
        key: place
        for key, place in _parameters(model).items()
        if key.startswith("backbone.") and not _UNTRAINED.match(key)
    }
    return _convert(tensors, wanted, "the body of ViDT")


def to_torch(model: Vidt) -> dict[str, np.ndarray]:
    """Converts a model to a checkpoint of ViDT, the inverse of :func:`from_torch`.

    Args:
        model: The model.

    Returns:
        All parameters of the checkpoint as arrays by name. Those that no forward pass
        uses are zeros. Buffers and second names are left out.
    """
    used = {
        key: np.ascontiguousarray(_to_torch(key, path[-1], np.asarray(variable[...])))
        for key, (path, variable) in _parameters(model).items()
    }
    unused = unused_shapes(model.config).items()
    return used | {key: np.zeros(shape, np.float32) for key, shape in unused}


def shapes(model: Vidt) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all parameters of a published checkpoint by name.

    Args:
        model: The model; may be abstract.
    """
    return _shapes(_parameters(model)) | unused_shapes(model.config)


def unused_shapes(config: VidtConfig) -> dict[str, tuple[int, ...]]:
    """Returns the parameters of published checkpoints that no forward pass uses.

    Models have no such parameters, so they are smaller than published by these.

    Args:
        config: The architecture.

    Returns:
        Shapes by name.

    Examples:
        >>> import math
        >>> from kdlab.models.vidt import CONFIGS
        >>> sum(map(math.prod, unused_shapes(CONFIGS["vidt_nano"]).values()))
        198880
    """
    widths = config.stage_widths
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.level_embed": (4, config.width),
    }
    for stage, width in enumerate(widths):
        merged = config.width if stage == 3 else 2 * width
        before = f"backbone.layers.{stage}.downsample"
        shapes[f"{before}.expansion.weight"] = merged, width
        norms = [f"{before}.norm2"] + [f"backbone.norm{stage}"] * (stage > 0)
        for norm in norms:
            shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return shapes


Place = tuple[tuple[Any, ...], nnx.Variable]


def _parameters(model: Vidt) -> dict[str, Place]:
    """Returns the path and the variable of each parameter by its published name."""
    places = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        key = ".".join(map(str, path))
        for pattern, new in _RENAMED:
            key = re.sub(pattern, new, key)
        places[key] = path, variable
    return places


def _shapes(places: dict[str, Place]) -> dict[str, tuple[int, ...]]:
    return {
        key: _to_torch(key, path[-1], np.empty(variable.shape, bool)).shape
        for key, (path, variable) in places.items()
    }


def _convert(
    tensors: Mapping[str, np.ndarray], wanted: dict[str, Place], name: str
) -> nnx.State:
    there = {key: np.shape(x) for key, x in tensors.items() if not _IGNORED.search(key)}
    where = {key: ".".join(map(str, path)) for key, (path, _) in wanted.items()}
    check_fit(_shapes(wanted), there, where, name)
    flat = []
    for key, (path, variable) in wanted.items():
        value = _from_torch(key, path[-1], np.asarray(tensors[key]))
        flat.append((path, variable.replace(jnp.asarray(value, variable.dtype))))
    return nnx.from_flat_state(flat)


def _to_torch(key: str, leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf != "kernel":
        return value
    value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    return value[:, :, None, None] if _PROJECTION.match(key) else value


def _from_torch(key: str, leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf != "kernel":
        return value
    if _PROJECTION.match(key):
        value = value[:, :, 0, 0]
    return value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
