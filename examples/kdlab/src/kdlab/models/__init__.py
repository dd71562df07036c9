"""Teachers and students in Flax NNX under their names in the papers.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from kdlab import models
>>> model = models.create(
...     "cnn_student", num_classes=10, image_shape=(28, 28, 1), rngs=nnx.Rngs(0)
... )
>>> outputs = model(jnp.zeros((2, 28, 28, 1)))
>>> outputs.logits.shape, [feature.shape[1:] for feature in outputs.features]
((2, 10), [(28, 28, 8), (14, 14, 16)])
"""

from kdlab.models._outputs import Model, Outputs
from kdlab.models._summary import Summary, summary
from kdlab.models._zoo import MODELS, ModelSpec, create, find

__all__ = [
    "MODELS",
    "Model",
    "ModelSpec",
    "Outputs",
    "Summary",
    "create",
    "find",
    "summary",
]
