"""Models with values from NumPy: compiling their own initialisers takes seconds."""

import numpy as np
from flax import nnx

from kdlab import models


def filled(name, seed=0, **options):
    """Makes a model with He-normal kernels and nontrivial biases and statistics."""
    model = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **options))
    generator = np.random.default_rng(seed)
    graphdef, state = nnx.split(model)

    def values(path, leaf):
        if path[-1] == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            value = generator.normal(size=leaf.shape, scale=np.sqrt(2 / fan_in))
        elif path[-1] in ("scale", "var"):
            value = generator.uniform(0.5, 1.5, size=leaf.shape)
        else:
            value = generator.uniform(-0.2, 0.2, size=leaf.shape)
        return leaf.replace(value.astype(leaf.dtype))

    flat = [(path, values(path, leaf)) for path, leaf in nnx.to_flat_state(state)]
    return nnx.merge(graphdef, nnx.from_flat_state(flat))
