"""Every loss on features with the sizes of the pairs of the reference tables.

Heights are those of megvii-research/mdistiller a08d46f, channels an eighth of its own.
Its OFD and KD-SVD fail on several of these pairs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses

# (height, channels) of the stages after the stem, and the width of the pooled vector.
NETWORKS = {
    "resnet": ([(32, 16), (16, 32), (8, 64)], 64),
    "resnet_x4": ([(32, 64), (16, 128), (8, 256)], 256),
    "resnet50": ([(32, 256), (16, 512), (8, 1024), (4, 2048)], 2048),
    "wrn_1": ([(32, 16), (16, 32), (8, 64)], 64),
    "wrn_2": ([(32, 32), (16, 64), (8, 128)], 128),
    "vgg": ([(16, 128), (8, 256), (4, 512), (4, 512)], 512),
    "mobilenetv2": ([(16, 12), (8, 16), (4, 48), (2, 160)], 1280),
    "shufflev1": ([(16, 240), (8, 480), (4, 960)], 960),
    "shufflev2": ([(16, 116), (8, 232), (4, 464)], 1024),
    "resnet18_tiny": ([(64, 64), (32, 128), (16, 256), (8, 512)], 512),
    "mobilenetv2_tiny": ([(33, 24), (17, 32), (9, 64), (9, 1280)], 1280),
}

# ResNet-56 to -20 and -110 to -32 have equal sizes, as have WRN and ResNet students.
FAST = [("vgg", "mobilenetv2"), ("wrn_2", "shufflev1")]
SLOW = [
    ("resnet", "resnet"),
    ("resnet_x4", "resnet_x4"),
    ("wrn_2", "wrn_2"),
    ("wrn_2", "wrn_1"),
    ("vgg", "vgg"),
    ("resnet50", "mobilenetv2"),
    ("resnet_x4", "shufflev1"),
    ("resnet_x4", "shufflev2"),
    ("resnet18_tiny", "mobilenetv2_tiny"),
]


def features(name, seed):
    """Activations, some of them dead, and the pooled vector."""
    rng = np.random.default_rng(seed)
    stages, width = NETWORKS[name]
    maps = [
        np.maximum(rng.normal(size=(4, size, size, max(channels // 8, 2))), 0)
        for size, channels in stages
    ]
    pooled = np.maximum(rng.normal(size=(4, width // 8)), 0)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (maps, pooled))


def widened(ours, theirs):
    """A fixed linear map to the teacher's channels, in place of a trained layer."""
    width = theirs.shape[-1]
    weights = jnp.cos(jnp.arange(ours.shape[-1] * width).astype(jnp.float32))
    return ours @ weights.reshape(-1, width) / ours.shape[-1]


def on_maps(loss):
    return lambda s, t: loss(s[0], t[0])


def on_widened_maps(loss):
    def call(s, t):
        return loss([widened(x, y) for x, y in zip(s[0], t[0], strict=True)], t[0])

    return call


def per_channel(value, maps):
    return [jnp.full(x.shape[-1], value, jnp.float32) for x in maps]


def crd(s, t):
    state = losses.crd_init(jax.random.key(0), jnp.arange(20) % 5, dim=t[1].shape[1])
    index, key = jnp.array([0, 7, 14, 3]), jax.random.key(1)
    embeddings = widened(s[1], t[1]), t[1]
    return losses.crd(*embeddings, index, state, key, num_negatives=8)[0]


def nd(s, t):
    means = jnp.eye(100, t[1].shape[1])
    return losses.nd(widened(s[1], t[1]), t[1], jnp.array([0, 7, 14, 3]), means)


LOSSES = {
    "at": on_maps(losses.at),
    "nst": on_maps(losses.nst),
    "kdsvd": on_maps(losses.kdsvd),
    "fitnet": lambda s, t: losses.fitnet(widened(s[0][1], t[0][1]), t[0][1]),
    "hcl": on_widened_maps(losses.hcl),
    "ofd": on_widened_maps(lambda s, t: losses.ofd(s, t, per_channel(-0.5, t))),
    "vid": on_widened_maps(lambda s, t: losses.vid(s, per_channel(5.0, t), t)),
    "sp": lambda s, t: losses.sp(s[0][-1], t[0][-1]),
    "rkd": lambda s, t: losses.rkd(s[1], t[1]),
    "pkt": lambda s, t: losses.pkt(s[1], t[1]),
    "vkd": lambda s, t: losses.vkd(widened(s[1], t[1]), t[1]),
    "nd": nd,
    "crd": crd,
}


@jax.jit
def differentiate_all(s, t):
    return {name: jax.value_and_grad(loss)(s, t) for name, loss in LOSSES.items()}


@pytest.mark.parametrize(
    ("teacher", "student"),
    [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)],
)
def test_pair(teacher, student):
    results = differentiate_all(features(student, 0), features(teacher, 1))
    for name, (value, grads) in results.items():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]
        assert np.isfinite(value), name
        assert all(np.isfinite(leaf).all() for leaf in leaves), name
        assert any(leaf.any() for leaf in leaves), name
