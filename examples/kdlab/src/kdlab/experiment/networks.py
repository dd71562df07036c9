"""The networks of an experiment, for the images and classes of its data set."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab import models
from kdlab.basics.importing import is_reference
from kdlab.basics.reading import UserError
from kdlab.data import Dataset, Streamed
from kdlab.losses.table import LOSSES
from kdlab.models import Outputs
from kdlab.models.network import Network
from kdlab.settings.config import Config


def make_model(
    name: str,
    dataset: Dataset | Streamed,
    rngs: nnx.Rngs,
    *,
    dtype: str = "float32",
    batch_norm_group: int | None = None,
    max_blocks: int | None = None,
    drop_path: float = 0.0,
    remat: bool = False,
    scan: bool = False,
) -> models.Model:
    """Makes a network for the images and classes of a data set."""
    # Only transformers have these.
    options: dict[str, Any] = {"drop_path": drop_path, "remat": remat, "scan": scan}
    return models.create(
        name,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        rngs=rngs,
        # None means float32 as well, but promotes wider inputs.
        dtype=None if dtype == "float32" else jnp.dtype(dtype),
        batch_norm_group=batch_norm_group,
        max_blocks=max_blocks,
        **{name: value for name, value in options.items() if value},
    )


def make_teacher(
    config: Config, dataset: Dataset | Streamed, *, dtype: str = "float32"
) -> models.Model:
    """Makes the teacher with initial values, to be replaced by trained ones."""
    blocks = config.networks.max_blocks
    return make_model(
        str(config.networks.teacher),
        dataset,
        nnx.Rngs(0),
        dtype=dtype,
        max_blocks=blocks,
    )


def check_features(
    config: Config, teacher: Network | None, dataset: Dataset | Streamed
) -> None:
    """Refuses networks that return only logits if the loss compares features.

    Args:
        config: The settings.
        teacher: The network of the teacher.
        dataset: The data set of the networks.

    Raises:
        ValueError: Names the network and the losses that work with it.
    """
    names = str(config.networks.teacher), config.networks.student
    loss = config.distillation.loss
    own = any(is_reference(name) for name in names)
    if teacher is None or LOSSES[loss].on_logits or not own:
        return

    def run(images: jax.Array) -> Outputs:
        return make_model(names[1], dataset, nnx.Rngs(0))(images)

    images = jax.ShapeDtypeStruct((2, *dataset.image_shape), jnp.float32)
    for name, outputs_of in zip(names, (teacher.outputs, run), strict=True):
        if jax.eval_shape(outputs_of, images).pooled is None:
            known = ", ".join(name for name, one in LOSSES.items() if one.on_logits)
            raise UserError(
                f"--loss {loss} compares features, but {name} returns only logits: "
                "return kdlab.models.Outputs from it, or choose a loss on logits "
                f"({known})."
            )
