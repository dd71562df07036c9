"""Mixed images and targets: boxes, the same ratio in both, and what is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdlab.data.augmentation.mixing import (
    Mixing,
    cutmix,
    cutmix_box,
    kept_area,
    mix,
    mixup,
    targets,
)

pytestmark = pytest.mark.usefixtures("standard")

IMAGES = jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 6, 8, 2))
LABELS = jnp.array([3, 1, 0, 2])


@pytest.mark.parametrize(
    ("even", "box", "kept"),
    [
        (False, (0, 104, 107, 224), 0.7574936224),
        (True, (0, 103, 107, 224), 0.7598254145),
    ],
)
def test_boxes_of_both_versions_of_timm(even, box, kept):
    found = cutmix_box(224, 224, 0.3, 10, 200, even=even)
    assert tuple(map(int, found)) == box
    np.testing.assert_allclose(kept_area(found, 224, 224), kept, rtol=1e-7)


def test_partners_are_mirrored():
    np.testing.assert_allclose(
        mixup(IMAGES, 0.25)[:, 0, 0, 0], [0.75 * 3, 0.25 + 0.75 * 2, 1.25, 0.75]
    )
    pasted = cutmix(IMAGES, cutmix_box(6, 8, 0.75, 3, 4))
    assert pasted[0, 3, 4, 0] == 3 and pasted[0, 0, 0, 0] == 0


mixed = jax.jit(mix, static_argnums=(3, 4))


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.8), Mixing(cutmix=1.0)])
def test_targets_have_the_ratio_of_the_images(mixing):
    """Of image 0 the pixels are 0 or 3, so their mean tells its partner's share."""
    kept = []
    for seed in range(20):
        images, goals = mixed(jax.random.key(seed), IMAGES, LABELS, mixing, 4)
        share = float(jnp.mean(images[0])) / 3
        np.testing.assert_allclose(goals[0], [0, 0, share, 1 - share], atol=1e-5)
        if mixing.cutmix:
            assert set(np.unique(images[0])) <= {0.0, 3.0}
        kept.append(1 - share)
    assert np.ptp(kept) > 0.3


def test_switch_and_probability():
    both = Mixing(mixup=0.8, cutmix=1.0, probability=0.5, switch=0.5)
    kinds = set()
    for seed in range(30):
        images, goals = mixed(jax.random.key(seed), IMAGES, LABELS, both, 4)
        values = set(np.unique(images[0]).tolist())
        pure = values <= {0.0, 3.0}
        kinds.add("none" if float(goals[0, 3]) == 1 else "cut" if pure else "mean")
    assert kinds == {"none", "cut", "mean"}


def test_smoothing_alone_leaves_the_images():
    images, goals = mix(jax.random.key(0), IMAGES, LABELS, Mixing(smoothing=0.1), 4)
    assert images is IMAGES
    np.testing.assert_allclose(goals, targets(LABELS, 4, 1.0, 0.1))
    np.testing.assert_allclose(goals[0], [0.025, 0.025, 0.025, 0.925])
    assert mix(jax.random.key(0), IMAGES, LABELS, Mixing(), 4)[1] is LABELS
