"""Values of the reference codes, in double and in single precision.

megvii-research/mdistiller a08d46f and WangYZ1608/Knowledge-Distillation-via-ND fc6f3f9
(DIST, ND), run in float64 on the waves of `_inputs`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from kdopt.losses._crd import _contrast
from tests._turns import in_turn
from tests.losses._inputs import (
    LABELS,
    logits,
    maps,
    paired_maps,
    vectors,
    wave,
    wave_map,
)

Y = LABELS.astype(np.int32)

GOLDEN = {
    "cross_entropy": (
        lambda t: losses.cross_entropy(logits(t)[0], jnp.asarray(Y)),
        1.8467082861593,
    ),
    "kd_1": (lambda t: losses.kd(*logits(t), temperature=1.0), 1.6563937038029),
    "kd_4": (lambda t: losses.kd(*logits(t)), 3.0530058100839),
    "dkd": (lambda t: losses.dkd(*logits(t), jnp.asarray(Y)), 25.1923433166649),
    "dist_1": (lambda t: losses.dist(*logits(t)), 1.8051282353602),
    "dist_4": (lambda t: losses.dist(*logits(t), temperature=4.0), 31.2028468061806),
    "nd": (
        lambda t: losses.nd(
            vectors(t)[0],
            wave((4, 6), 0.6, 0.8, 1.2, t),
            jnp.asarray(Y),
            wave((10, 6), 0.45, 0.15, 1, t),
        ),
        0.7446431867909,
    ),
    "at": (lambda t: losses.at([maps(t)[0]], [maps(t)[1]]), 0.0200619153669),
    "at_pooled": (
        lambda t: losses.at([wave_map((4, 3, 8, 8), 0.37, 0.2, 1, t)], [maps(t)[1]]),
        0.0039509171174,
    ),
    "nst": (lambda t: losses.nst([maps(t)[0]], [maps(t)[1]]), 0.8625648521864),
    "sp": (lambda t: losses.sp(*maps(t)), 0.1223844200606),
    "pkt": (lambda t: losses.pkt(*vectors(t)), 0.1421985502950),
    "rkd": (lambda t: losses.rkd(*vectors(t)), 12.0944151061130),
    "rkd_distance": (lambda t: losses.rkd_distance(*vectors(t)), 0.1856419573802),
    "rkd_angle": (lambda t: losses.rkd_angle(*vectors(t)), 0.1490673234322),
    "hcl_8": (
        lambda t: losses.hcl(*([x] for x in paired_maps(t))),
        0.9563163899360,
    ),
    "hcl_4": (
        lambda t: losses.hcl(*([x[:, :4, :4]] for x in paired_maps(t))),
        1.0202721489307,
    ),
    "hcl_1": (
        lambda t: losses.hcl(*([x[:, :1, :1]] for x in paired_maps(t))),
        1.5504053541526,
    ),
    "vid": (
        # The inverse softplus of the reference's first variance, 5.
        lambda t: losses.vid(
            [paired_maps(t)[0]],
            [jnp.asarray(np.full(5, np.log(np.expm1(5 - 1e-5)), t))],
            [paired_maps(t)[1]],
        ),
        0.9683631941055,
    ),
    "ofd": (
        lambda t: losses.ofd(
            *([x] for x in paired_maps(t)),
            [wave((5,), 1.1, 0, 0.5, t) - 0.6],
        ),
        378.7925103168326,
    ),
    "crd": (
        lambda t: jnp.mean(
            _contrast(jnp.log(jnp.abs(wave((4, 9), 0.31, 0.2, 0.5, t))), 50_000, 1e-7)
        ),
        59.9643317971036,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_double_precision(name, x64):
    loss, expected = GOLDEN[name]
    value = jax.jit(loss, static_argnums=0)(np.float64)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("name", in_turn(GOLDEN, 0))
def test_single_precision(name):
    loss, expected = GOLDEN[name]
    value = jax.jit(loss, static_argnums=0)(np.float32)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-4)
