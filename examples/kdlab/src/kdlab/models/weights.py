r"""Reads and writes weights as PyTorch, safetensors and Orbax checkpoints.

Layers are matched by name, with one small table per family. Matching by order would
need no table, but safetensors files and JSON sort their keys, and exporting needs names
anyway. All shapes are checked; nothing is matched silently.

Kernels go from OIHW to HWIO, matrices are transposed, and BatchNorm's ``weight``,
``running_mean`` and ``running_var`` become ``scale``, ``mean`` and ``var``.

For example, to convert a teacher of mdistiller or RepDistiller to Orbax::

    model = weights.load("resnet32x4", "resnet32x4_vanilla/ckpt_epoch_240.pth")
    weights.save_orbax("teachers/resnet32x4", model)
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from flax import nnx

from kdlab import models
from kdlab.basics.reading import reading
from kdlab.devices.checkpoint import silence_orbax
from kdlab.models import Model
from kdlab.models._torch_keys import known_name, torch_key
from kdlab.models.published import describe_other_training
from kdlab.models.state_dicts import Shapes, check_fit, is_beside, read_torch

_log = logging.getLogger(__name__)

_WEIGHTS = (nnx.Param, nnx.BatchStat)
_TO_TORCH = {1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (3, 2, 0, 1)}
_FROM_TORCH = {1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (2, 3, 1, 0)}


def load(
    name: str,
    path: str | Path,
    *,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    **options: Any,
) -> Model:
    """Makes a model with the weights of a PyTorch or safetensors file.

    Args:
        name: A key of :data:`~kdlab.models.MODELS`.
        path: A file that :func:`read_torch` reads.
        num_classes: Number of classes; by default that of the model's data set.
        image_shape: ``(height, width, channels)``; by default that of its data set.
        **options: Other arguments of :func:`~kdlab.models.create`.

    Returns:
        The model in training mode.

    Raises:
        ValueError: If the file does not hold exactly the weights of this model.
    """

    def make() -> Model:
        return models.create(
            name,
            num_classes=num_classes,
            image_shape=image_shape,
            rngs=nnx.Rngs(0),
            **options,
        )

    # Abstract, since initial values would be discarded.
    model = nnx.eval_shape(make)
    state = from_torch(name, model, _read(name, Path(path)))
    graphdef, _, rest = nnx.split(model, _WEIGHTS, ...)
    if rest:  # the random state of stochastic depth
        rest = jax.jit(lambda: nnx.split(make(), _WEIGHTS, ...)[2])()
    return nnx.merge(graphdef, state, rest)


def from_torch(name: str, model: Model, tensors: Mapping[str, np.ndarray]) -> nnx.State:
    """Converts a PyTorch state dict to the state of a model.

    Args:
        name: The model's key in :data:`~kdlab.models.MODELS`.
        model: The model that determines shapes and dtypes; may be abstract.
        tensors: The state dict, as arrays. Counters of batches and projectors are
            ignored; names of DeiT III's own files are known beside timm's.

    Returns:
        Parameters and BatchNorm statistics, for ``nnx.update`` or ``nnx.merge``.

    Raises:
        ValueError: If tensors are missing, left over or of wrong shapes; the message
            names the first ones and counts the others.
    """
    pairs = list(_pairs(name, nnx.state(model, _WEIGHTS)))
    wanted = torch_shapes(name, model)
    tensors = {
        known_name(key, wanted, tensors): value
        for key, value in tensors.items()
        if not is_beside(key)
    }
    there = {key: np.shape(value) for key, value in tensors.items()}
    where = {key: f"{'.'.join(map(str, path))} of {name!r}" for path, key, _ in pairs}
    check_fit(wanted, there, where, name)
    flat = []
    for path, key, variable in pairs:
        value = np.asarray(tensors[key])
        value = value.transpose(_FROM_TORCH[value.ndim])
        flat.append((path, variable.replace(jnp.asarray(value, variable.dtype))))
    return nnx.from_flat_state(flat)


def torch_shapes(name: str, model: Model) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a model's PyTorch state dict.

    Args:
        name: The model's key in :data:`~kdlab.models.MODELS`.
        model: The model; may be abstract.
    """
    state = nnx.state(model, _WEIGHTS)
    return {
        key: tuple(variable.shape[axis] for axis in _TO_TORCH[variable.ndim])
        for _, key, variable in _pairs(name, state)
    }


def to_torch(name: str, model: Model) -> dict[str, np.ndarray]:
    """Converts a model to a PyTorch state dict, the inverse of :func:`from_torch`.

    Args:
        name: The model's key in :data:`~kdlab.models.MODELS`.
        model: The model.

    Returns:
        The state dict as arrays, without BatchNorm's count of batches, which PyTorch
        does not need.

    Raises:
        ValueError: If no PyTorch checkpoints of this model are known.

    Examples:
        >>> import jax, numpy as np
        >>> from flax import nnx
        >>> from kdlab import models
        >>> from kdlab.models import weights
        >>> model = nnx.eval_shape(lambda: models.create("resnet8", rngs=nnx.Rngs(0)))
        >>> graphdef, shapes = nnx.split(model)
        >>> zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
        >>> tensors = weights.to_torch("resnet8", nnx.merge(graphdef, zeros))
        >>> tensors["layer2.0.downsample.0.weight"].shape
        (32, 16, 1, 1)
    """
    state = nnx.state(model, _WEIGHTS)
    return {
        # Contiguous, since safetensors ignores strides.
        key: np.ascontiguousarray(
            np.asarray(variable[...]).transpose(_TO_TORCH[variable.ndim])
        )
        for _, key, variable in _pairs(name, state)
    }


def write_safetensors(path: str | Path, name: str, model: Model) -> None:
    """Writes a model as a PyTorch state dict in a safetensors file.

    Args:
        path: The file.
        name: The model's key in :data:`~kdlab.models.MODELS`.
        model: The model.
    """
    safetensors.numpy.save_file(to_torch(name, model), path)


def save_orbax(path: str | Path, model: Model) -> None:
    """Writes parameters and BatchNorm statistics as an Orbax checkpoint.

    Args:
        path: A new directory.
        model: The model.
    """
    state = nnx.state(model, _WEIGHTS)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), nnx.to_pure_dict(state))


def load_orbax(path: str | Path, model: Model) -> None:
    """Reads a checkpoint of :func:`save_orbax` into a model of the same kind.

    Args:
        path: The directory.
        model: The model; its parameters and statistics are overwritten.

    Raises:
        ValueError: If the directory cannot be read, or does not hold exactly the
            weights of this model, which is then unchanged.
    """
    state = nnx.state(model, _WEIGHTS)
    target, path = nnx.to_pure_dict(state), Path(path)
    silence_orbax()
    with ocp.StandardCheckpointer() as checkpointer:
        with reading(path):
            if not (path / "_METADATA").exists():
                raise ValueError("it is not an Orbax checkpoint: _METADATA is missing")
            content = checkpointer.metadata(path.absolute()).item_metadata
            there = _shapes(content.tree)
        wanted = _shapes(target)
        check_fit(wanted, there, {key: "the model" for key in wanted}, "the model")
        with reading(path):
            values = checkpointer.restore(path.absolute(), target=target)
    nnx.replace_by_pure_dict(state, values)
    nnx.update(model, state)


def fill(name: str, model: Model, path: Path) -> None:
    """Reads weights in any of the three formats into a model.

    Args:
        name: The model's key in :data:`~kdlab.models.MODELS`.
        model: The model; its parameters and statistics are overwritten.
        path: An Orbax folder, or a file that :func:`read_torch` reads.

    Raises:
        ValueError: If it cannot be read, or does not hold exactly the weights of this
            model, which is then unchanged.
    """
    if path.is_dir():
        load_orbax(path, model)
    else:
        nnx.update(model, from_torch(name, model, _read(name, path)))


def _read(name: str, path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict, with a warning if it is of another training."""
    tensors, other = read_torch(path), describe_other_training(name, path)
    if other is not None:
        _log.warning("%s.", other)
    return tensors


def _shapes(tree: Any) -> Shapes:
    flat = jax.tree_util.tree_leaves_with_path(tree)
    names = (".".join(str(getattr(k, "key", k)) for k in path) for path, _ in flat)
    return dict(zip(names, (tuple(leaf.shape) for _, leaf in flat), strict=True))


def _pairs(
    name: str, state: nnx.State
) -> Iterator[tuple[tuple[Any, ...], str, nnx.Variable]]:
    """Yields each variable with its path in the model and its key in PyTorch."""
    names = models.find(name).torch_names
    if names is None:
        raise ValueError(f"no PyTorch checkpoints of {name!r} are known")
    for path, variable in nnx.to_flat_state(state):
        yield path, torch_key(tuple(map(str, path)), names), variable
