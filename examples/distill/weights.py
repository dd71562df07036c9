r"""Weights from and to PyTorch checkpoints, safetensors files and Orbax checkpoints.

Layers correspond by name, by one small table a family. An order of layers would need
no table, but safetensors files and JSON sort their keys and so lose it, and the way
back needs names anyway. Everything is checked by shape, nothing is matched silently.

Kernels go from OIHW to HWIO, matrices are transposed, and BatchNorm's ``weight``,
``running_mean`` and ``running_var`` become ``scale``, ``mean`` and ``var``.

A teacher of mdistiller or RepDistiller, say, becomes an Orbax checkpoint by::

    model = weights.load("resnet32x4", "resnet32x4_vanilla/ckpt_epoch_240.pth")
    weights.save_orbax("teachers/resnet32x4", model)
"""

import argparse
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from flax import nnx

from examples.distill import models
from examples.distill.models import Model

# Of convolutions and matrices, of biases, of BatchNorm.
_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
# Keys under which training scripts nest the weights.
_NESTS = ("model", "state_dict")


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
        name: A key of :data:`~examples.distill.models.MODELS`.
        path: A file that :func:`read_torch` reads.
        num_classes: Number of classes; by default that of the model's own data set.
        image_shape: ``(height, width, channels)``; the same.
        **options: What else :func:`~examples.distill.models.create` takes.

    Returns:
        The model, in training mode as any new one.

    Raises:
        ValueError: If the file does not hold exactly the weights of this model.
    """
    # Abstract, as initial values would only be thrown away.
    model = nnx.eval_shape(
        lambda: models.create(
            name,
            num_classes=num_classes,
            image_shape=image_shape,
            rngs=nnx.Rngs(0),
            **options,
        )
    )
    state = from_torch(name, model, read_torch(path))
    return nnx.merge(nnx.graphdef(model), state)


def from_torch(name: str, model: Model, tensors: Mapping[str, np.ndarray]) -> nnx.State:
    """Turns a PyTorch state dict into the state of a model.

    Args:
        name: The model's key in :data:`~examples.distill.models.MODELS`.
        model: The model, whose shapes and types the state takes; may be abstract.
        tensors: The state dict, as arrays.

    Returns:
        Parameters and BatchNorm statistics, for ``nnx.update`` or ``nnx.merge``.

    Raises:
        ValueError: At the first tensor that is missing, left over or of another
            shape than the model's.
    """
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    flat = []
    unused = dict.fromkeys(
        key for key in tensors if not key.endswith("num_batches_tracked")
    )
    for path, key, variable in _pairs(name, state):
        where = ".".join(map(str, path))
        if key not in tensors:
            rest = f"; the first without a use is {next(iter(unused))!r}" * bool(unused)
            raise ValueError(
                f"no tensor {key!r} for {where} of {name!r} among "
                f"{len(tensors)}{rest}; is it the checkpoint of another model?"
            )
        value = np.asarray(tensors[key])
        expected = tuple(variable.shape[axis] for axis in _TO_TORCH[variable.ndim])
        if value.shape != expected:
            raise ValueError(
                f"tensor {key!r} has shape {value.shape}, but {where} of {name!r} "
                f"needs {expected}; check num_classes, image_shape and the name"
            )
        value = value.transpose(_FROM_TORCH[value.ndim])
        flat.append((path, variable.replace(jnp.asarray(value, variable.dtype))))
        del unused[key]
    if unused:
        raise ValueError(
            f"tensor {next(iter(unused))!r} and {len(unused) - 1} others have no "
            f"place in {name!r}; is it the checkpoint of another model?"
        )
    return nnx.from_flat_state(flat)


def to_torch(name: str, model: Model) -> dict[str, np.ndarray]:
    """Turns a model into a PyTorch state dict, the inverse of :func:`from_torch`.

    Args:
        name: The model's key in :data:`~examples.distill.models.MODELS`.
        model: The model.

    Returns:
        The state dict as arrays. BatchNorm's count of batches, which PyTorch does
        not need, is not there.

    Raises:
        ValueError: If no PyTorch checkpoints of this model are known.

    Examples:
        >>> import jax, numpy as np
        >>> from flax import nnx
        >>> from examples.distill import models, weights
        >>> model = nnx.eval_shape(lambda: models.create("resnet8", rngs=nnx.Rngs(0)))
        >>> graphdef, shapes = nnx.split(model)
        >>> zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
        >>> tensors = weights.to_torch("resnet8", nnx.merge(graphdef, zeros))
        >>> tensors["layer2.0.downsample.0.weight"].shape
        (32, 16, 1, 1)
    """
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    return {
        # Contiguous, as safetensors writes the bytes whatever the strides are.
        key: np.ascontiguousarray(
            np.asarray(variable[...]).transpose(_TO_TORCH[variable.ndim])
        )
        for _, key, variable in _pairs(name, state)
    }


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict from a ``.safetensors`` file or any file of ``torch.save``.

    Weights nested under ``"model"`` or ``"state_dict"`` are found, and the prefix
    ``module.`` of ``DataParallel`` is dropped. Only safetensors files are read
    without PyTorch.

    Args:
        path: The file.

    Returns:
        The tensors as arrays.

    Raises:
        ImportError: If the file needs PyTorch, which is not installed.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _without_prefix(safetensors.numpy.load_file(path))
    if importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"{path} needs PyTorch to be read: install it (pip install torch), or "
            "convert the file to .safetensors where it is installed"
        )
    torch = importlib.import_module("torch")
    # The training scripts keep their options beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    for nest in _NESTS:
        tensors = tensors.get(nest, tensors)
    return _without_prefix({key: value.numpy() for key, value in tensors.items()})


def write_safetensors(path: str | Path, name: str, model: Model) -> None:
    """Writes a model as a PyTorch state dict in a safetensors file.

    Args:
        path: The file.
        name: The model's key in :data:`~examples.distill.models.MODELS`.
        model: The model.
    """
    safetensors.numpy.save_file(to_torch(name, model), path)


def save_orbax(path: str | Path, model: Model) -> None:
    """Writes parameters and BatchNorm statistics as an Orbax checkpoint.

    Args:
        path: A directory that does not exist yet.
        model: The model.
    """
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), nnx.to_pure_dict(state))


def load_orbax(path: str | Path, model: Model) -> None:
    """Reads what :func:`save_orbax` wrote into a model of the same kind.

    Args:
        path: The directory.
        model: The model; its parameters and statistics are overwritten.
    """
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    with ocp.StandardCheckpointer() as checkpointer:
        values = checkpointer.restore(
            Path(path).absolute(), target=nnx.to_pure_dict(state)
        )
    nnx.replace_by_pure_dict(state, values)
    nnx.update(model, state)


def _pairs(
    name: str, state: nnx.State
) -> Iterator[tuple[tuple[Any, ...], str, nnx.Variable]]:
    """Yields each variable with its path here and its key in PyTorch."""
    names = models.find(name).torch_names
    if names is None:
        raise ValueError(f"no PyTorch checkpoints of {name!r} are known")
    lines = []
    for line, target in names.items():
        if isinstance(target, str):
            lines.append((line, target))
        else:
            lines += [(f"{line}.conv", target[0]), (f"{line}.norm", target[1])]
    for path, variable in nnx.to_flat_state(state):
        *layer, leaf = path
        key = _translate(".".join(map(str, layer)), lines)
        yield path, f"{key}.{_LEAVES[str(leaf)]}", variable


def _translate(layer: str, lines: list[tuple[str, str]]) -> str:
    for line, target in lines:
        pattern = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(line))
        match = re.fullmatch(pattern, layer)
        if match:
            return _fill(target, match.groupdict())
    raise ValueError(f"layer {layer} has no line in the table of PyTorch names")


def _fill(target: str, indices: dict[str, str]) -> str:
    """Fills ``{i}``, ``{i+1}``, ``{3*i}`` and ``{3*i+1}``."""

    def value(term: re.Match[str]) -> str:
        factor, index, offset = term.groups()
        return str(int(factor or 1) * int(indices[index]) + int(offset or 0))

    return re.sub(r"{(?:(\d+)\*)?(\w)(?:\+(\d+))?}", value, target)


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix("module."): value for key, value in tensors.items()}
