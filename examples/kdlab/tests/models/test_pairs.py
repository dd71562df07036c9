"""Every loss on the teacher and student pairs of the reference tables.

The networks are those of the zoo, at the sizes of CIFAR-100 and Tiny-ImageNet. The
reference code's OFD fails for MobileNetV2 and ShuffleNetV1, its KD-SVD for every pair
whose maps differ in width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_models import MODELS, OTHER_DATA

from _models import filled
from kdlab.data import AUGMENTATIONS
from kdlab.losses.base import Batch, Pupil, Setting
from kdlab.losses.table import LOSSES
from kdlab.models import Model, Outputs
from kdlab.models.network import Network
from kdlab.settings.parts import Distillation
from kdlab.train.problem import Problem
from tests import _compiler

pytestmark = pytest.mark.usefixtures("standard")

CIFAR = [
    ("resnet56", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("vgg13", "vgg8"),
    ("vgg13", "mobilenet_v2"),
    ("resnet50", "mobilenet_v2"),
    ("resnet32x4", "shufflenet_v1"),
    ("resnet32x4", "shufflenet_v2"),
    ("wrn_40_2", "shufflenet_v1"),
]
TINY = [("resnet18", "mobilenet_v2_tiny"), ("resnet18", "shufflenet_v2")]
PAIRS = [(*pair, 100, 32) for pair in CIFAR]
# Of the same widths, and of other architectures.
FEW = [PAIRS[i] for i in (5, 8)]
SLOW = [pytest.param(*pair, 200, 64, marks=pytest.mark.slow) for pair in TINY]
EXAMPLES = 4
# The programs run only a few times: unoptimised code is enough.
jit = functools.partial(jax.jit, compiler_options=_compiler.FASTEST)


class Recorded(Model):
    """A network that returns another one's outputs, as if all were parameters.

    Args:
        outputs: Arrays, or their shapes.
    """

    def __init__(self, outputs: Outputs):
        self.outputs = nnx.Param(outputs)

    def __call__(self, x: jax.Array) -> Outputs:
        """Returns them."""
        del x
        return self.outputs.get_value()


def published(name, num_classes, size):
    """Shapes of the outputs, from the table that the zoo is tested against."""
    _, _, maps, width = (OTHER_DATA if size == 64 else {}).get(name, MODELS[name])
    sizes = [map(int, word.split("x")) for word in maps.split()]
    features = tuple(
        jax.ShapeDtypeStruct((EXAMPLES, height, height, channels), jnp.float32)
        for channels, height in sizes
    )
    logits, pooled = (
        jax.ShapeDtypeStruct((EXAMPLES, n), jnp.float32) for n in (num_classes, width)
    )
    return Outputs(logits, features, features, pooled)


def pupil_of(loss, student, teacher):
    """Builds a network of the student's outputs, and the layers the loss trains."""
    # A direction for each class, for the losses that compare with class means.
    means = jnp.sin(jnp.arange(100.0 * teacher.pooled.shape[-1])).reshape(100, -1)
    shapes = jax.eval_shape(lambda: (student, teacher))
    setting = Setting(Distillation(), 20, *shapes, jnp.arange(16) % 4, lambda: means)
    return Pupil(Recorded(student), loss(setting, nnx.Rngs(0)))


def differentiate(loss, pupil, teacher):
    """Computes the distillation loss of the real training head, and its gradients."""
    problem = Problem(
        pupil.graphdef,
        None,
        loss,
        steps=1,
        mean=(0.0,),
        std=(1.0,),
        augment=AUGMENTATIONS["none"],
    )
    batch = Batch(
        images=jnp.zeros(()),
        labels=jnp.array([0, 7, 14, 3]),
        weights=jnp.ones(EXAMPLES),
        indices=jnp.arange(EXAMPLES),
        key=jax.random.key(1),
        progress=jnp.array(0.5),
        teacher=teacher,
        rest=pupil.rest,
    )

    def distill(params):
        return problem.losses_fn(params, batch)[0][1]

    value, grads = jax.value_and_grad(distill)(pupil.params)
    return value, grads["network"]["outputs"].get_value(), grads


OF_TRANSFORMERS = "masked_kd", "manifold"
"""Losses on patches, which no convolutional network has."""


def losses_of(student, teacher):
    """Names of the losses that convolutional networks of these outputs can have."""
    narrower = student.pooled.shape[-1] <= teacher.pooled.shape[-1]
    names = [name for name in LOSSES if name not in OF_TRANSFORMERS]
    return [name for name in names if narrower or name != "vkd_released"]


@functools.cache
def trace_all(student, teacher):
    """Traces every loss on outputs of these shapes, without arithmetic."""
    for name in losses_of(student, teacher):
        make = functools.partial(pupil_of, LOSSES[name], student, teacher)
        pupil = Network.of(nnx.eval_shape(make))
        value, slopes, _ = jax.eval_shape(compiled(name), pupil, teacher)
        assert (value.shape, value.dtype) == ((), jnp.float32), name
        assert jax.tree.map(np.shape, slopes) == jax.tree.map(np.shape, student), name


@functools.cache
def compiled(name):
    return jit(functools.partial(differentiate, LOSSES[name]))


@pytest.mark.parametrize(
    ("teacher", "student", "num_classes", "size"),
    FEW
    + [pytest.param(*x, marks=pytest.mark.slow) for x in PAIRS if x not in FEW]
    + SLOW,
)
def test_every_loss_traces(teacher, student, num_classes, size):
    trace_all(*(published(name, num_classes, size) for name in (student, teacher)))


def real(name, num_classes, size, seed):
    shape = size, size, 3
    model = filled(name, seed, num_classes=num_classes, image_shape=shape)
    return Network.of(model)


@jit
def run(network, images):
    """In training mode: random weights need their own statistics."""
    return nnx.merge(*network, copy=True)(images)


@jit
def pull_back(network, images, slopes):
    """Computes gradients of the parameters from those of the outputs."""

    def outputs(params):
        return nnx.merge(network.graphdef, params, network.rest, copy=True)(images)

    return jax.vjp(outputs, network.params)[1](slopes)[0]


@functools.partial(jit, static_argnums=0)
def make_pupil(name, student, teacher):
    return Network.of(pupil_of(LOSSES[name], student, teacher))


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student", "num_classes", "size"), PAIRS + SLOW)
def test_every_loss_trains_the_student(teacher, student, num_classes, size):
    """Values, and gradients of all parameters, are finite and nonzero."""
    shape = EXAMPLES, size, size, 3
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    network = real(student, num_classes, size, 1)
    ours = run(network, images)
    theirs = run(real(teacher, num_classes, size, 2), images)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(
        np.shape, published(student, num_classes, size)
    )
    for name in losses_of(ours, theirs):
        pupil = make_pupil(name, ours, theirs)
        value, slopes, grads = compiled(name)(pupil, theirs)
        at_network = pull_back(network, images, slopes)
        for leaf in jax.tree.leaves((value, grads, at_network)):
            assert np.isfinite(leaf).all(), name
        assert value != 0, name
        assert any(np.any(leaf) for leaf in jax.tree.leaves(at_network)), name
