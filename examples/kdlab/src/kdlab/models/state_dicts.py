"""Reads PyTorch state dicts, whichever way training scripts wrapped them."""

import argparse
import importlib
import importlib.util
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from kdlab.basics.reading import reading

# Names under which training scripts nest the weights; the first one found is used.
_NESTS = (
    *("model", "state_dict", "model_state_dict", "student", "net", "network"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict"),
)
_BESIDE = ("teacher",)  # other parts of a distiller
_ANEW = (
    "Download or copy it again, or write it again by torch.save(model.state_dict(), "
    "FILE)."
)

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name."""


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict from a ``.safetensors`` file or any ``torch.save`` file.

    Weights nested under ``"model"``, ``"state_dict"``, ``"student"``, ``"ema"`` and the
    like are found at any depth, even if these are prefixes of all names. The prefixes
    of ``DataParallel`` (``module.``) and ``torch.compile`` (``_orig_mod.``) are
    dropped. Files other than safetensors need PyTorch.

    Args:
        path: The file.

    Returns:
        The tensors as arrays.

    Raises:
        ImportError: If the file needs PyTorch and it is not installed.
        ValueError: If the file is damaged, or holds no tensors.
    """
    path = Path(path)
    with reading(path, _ANEW):
        if path.suffix == ".safetensors":
            return _unwrap(safetensors.numpy.load_file(path))
        if importlib.util.find_spec("torch") is None:
            raise ImportError(
                f"reading {path} needs PyTorch: install it (pip install torch), or "
                "convert the file to .safetensors on a machine that has it"
            )
        torch = importlib.import_module("torch")
        # Training scripts store their options next to the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise ValueError(
                    "it holds Python objects other than tensors, or is damaged"
                ) from error
        tensors = {
            key: _array(value)
            for key, value in _dig(content).items()
            if hasattr(value, "detach")
        }
        if not tensors:
            raise ValueError("it holds no named tensors")
        return _unwrap(tensors)


def _dig(content: Any) -> Mapping[str, Any]:
    """Returns the innermost nested dictionary."""
    if not isinstance(content, Mapping):
        raise ValueError(
            f"it holds a {type(content).__name__}, expected a dictionary of tensors"
        )
    for nest in _NESTS:
        if isinstance(content.get(nest), Mapping):
            return _dig(content[nest])
    return content


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _unwrap(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drops the prefixes that wrappers add to the names of tensors.

    Examples:
        >>> _unwrap({"module.student._orig_mod.fc.bias": 1, "module.teacher.x": 2})
        {'fc.bias': 1}
    """
    while True:
        compiled = [re.sub(r"(?<![^.])_orig_mod\.", "", name) for name in tensors]
        names = [re.sub(r"^(module\.)+", "", name) for name in compiled]
        if len(set(names)) < len(names):
            raise ValueError("it holds several tensors of the same name")
        tensors = dict(zip(names, tensors.values(), strict=True))
        parts = {name.split(".")[0] for name in names} - {"n_averaged"}
        nest = next((nest for nest in _NESTS if nest in parts), None)
        if nest is None or not parts <= {*_NESTS, *_BESIDE}:
            return tensors
        inside = f"{nest}."
        tensors = {
            name.removeprefix(inside): value
            for name, value in tensors.items()
            if name.startswith(inside)
        }


def is_beside(key: str) -> bool:
    """Returns whether a tensor is no part of a network that is written with it.

    Such are counters of batches or of averaged models, and the projector that feature
    distillation trains beside a student.
    """
    counter = key.endswith("num_batches_tracked") or key == "n_averaged"
    return counter or key.startswith("projector.")


def check_fit(wanted: Shapes, there: Shapes, where: dict[str, str], name: str) -> None:
    """Refuses tensors that do not match a model exactly.

    Args:
        wanted: Shapes of the model's tensors by name.
        there: Shapes of the file's tensors by name.
        where: Location of each tensor in the model, for the message.
        name: Name of the model.
    """
    missing = [key for key in wanted if key not in there]
    unused = [key for key in there if key not in wanted]
    wrong = [key for key in wanted if key in there and there[key] != wanted[key]]
    faults = []
    if missing:
        first, others = missing[0], _few(missing[1:], ", nor")
        faults.append(f"no tensor {first!r} for {where[first]}{others}")
    if unused:
        names = f": {', '.join(unused[1:4])}" * (len(unused) > 1)
        faults.append(
            f"tensor {unused[0]!r} and {len(unused) - 1} others have no place in "
            f"{name!r}{names}"
        )
    if faults:
        faults.append(
            f"{len(there)} tensors, expected {len(wanted)}; is it the checkpoint of "
            "another model?"
        )
    elif wrong:
        first, others = wrong[0], _few(wrong[1:], ", and so have")
        faults.append(
            f"tensor {first!r} has shape {there[first]}, but {where[first]} needs "
            f"{wanted[first]}; check num_classes, image_shape and the name{others}"
        )
    if faults:
        raise ValueError("; ".join(faults))


def _few(names: list[str], before: str) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
    return f"{before} {len(names)} others ({shown})"
