"""Which published training the weights of a file come from, as far as it can be told.

Several trainings of one network have the same tensors, so that a file of the wrong one
loads without an error. Only its name, the names of its folders, and the ``config.json``
that timm puts beside its weights tell them apart: a renamed file keeps its secret.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple


class Training(NamedTuple):
    """A published training of a network.

    Attributes:
        architecture: timm's name of the network.
        tag: timm's name of the training.
        files: Names of other files of this network, without extension, and the tags of
            their trainings.
        meaning: What the training is, for messages.
    """

    architecture: str
    tag: str
    files: dict[str, str]
    meaning: str


TRAININGS = {
    "regnety_160": Training(
        "regnety_160",
        "deit_in1k",
        {"regnety_160-a5fe301d": "deit_in1k"},
        "the teacher of DeiT, 82.6 % on ImageNet",
    ),
    "deit3_b": Training(
        "deit3_base_patch16_224",
        "fb_in1k",
        {
            "deit_3_base_224_1k": "fb_in1k",
            "deit_3_base_224_21k": "fb_in22k_ft_in1k",
        },
        "trained on ImageNet-1k alone, 83.8 %",
    ),
}
"""The trainings that papers use as teachers, of networks that have several."""

_EXTENSIONS = (".safetensors", ".pth", ".pt", ".bin", ".tar")


def describe_other_training(name: str, path: Path) -> str | None:
    """Returns a message if a file is known to be of another training than papers use.

    Args:
        name: The model's key in :data:`~kdlab.models.MODELS`.
        path: The file of its weights.

    Returns:
        The message; None if it is the right training, or if that cannot be told.

    Examples:
        >>> path = Path("timm/regnety_160.sw_in12k_ft_in1k/model.safetensors")
        >>> print(describe_other_training("regnety_160", path)[-77:])
        training than regnety_160.deit_in1k (the teacher of DeiT, 82.6 % on ImageNet)
    """
    training = TRAININGS.get(name)
    if training is None:
        return None
    tag = find_tag(training, path)
    if tag in (None, training.tag):
        return None
    network = training.architecture
    return (
        f"{path} holds {network}.{tag}, which is another training than "
        f"{network}.{training.tag} ({training.meaning})"
    )


def find_tag(training: Training, path: Path) -> str | None:
    """Returns the tag of the training that a file is of; None if it cannot be told."""
    parts = [_without_extension(part) for part in reversed(path.absolute().parts)]
    if parts[0] in training.files:
        return training.files[parts[0]]
    named = re.compile(rf"(?:^|[^\w.]|--){re.escape(training.architecture)}\.(\w+)$")
    tags = [match[1] for part in parts if (match := named.search(part))]
    return tags[0] if tags else _read_tag(training, path.parent / "config.json")


def _read_tag(training: Training, path: Path) -> str | None:
    try:
        content = json.loads(path.read_text())
        if content["architecture"] == training.architecture:
            return str(content["pretrained_cfg"]["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is another program's
    return None


def _without_extension(part: str) -> str:
    while part.endswith(_EXTENSIONS):
        part = Path(part).stem
    return part
