"""Wrong shapes are named, by every loss, while the function is traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from kdopt.losses._shapes import as_array, check_temperature, check_weights
from tests.losses._table import CASES

B, C = 4, 6
LABELS = jnp.arange(B)
WEIGHTS = jnp.ones(B)
ROWS = {"logits": (B, C), "vectors": (B, C)}
MAPS = ((B, 5, 5, 3), (B, 3, 3, 3))
HARD = {"cross_entropy", "dkd", "deepkd", "tpkd", "nd", "class_means"}
NO_TEACHER = {"cross_entropy", "span_cross_entropy", "class_means"}
ANY_CLASSES = {"universal_logit"}
ONE_CLASS = {"binary_cross_entropy", "binary_kd", "soft_mse"}
LABELS_OF_THE_TEACHER = {"soft_cross_entropy", "binary_cross_entropy"}
GRIDS = {"hcl", "kdsvd"}
"""Losses that need to know which positions are neighbours."""


def example(kind):
    if kind in ROWS:
        return jnp.ones(ROWS[kind])
    return tuple(jnp.ones(shape) for shape in MAPS)


def row_mistakes(case):
    """Shapes of student and teacher, and the argument that is to blame."""
    one, both = (B, C), "student|logits|features|labels"
    teacher = "labels" if case.name in LABELS_OF_THE_TEACHER else "teacher"
    yield "one example", (C,), (C,), both
    if case.name != "soft_cross_entropy":
        yield "scalar", (), (), both
    yield "empty batch", (0, C), (0, C), both
    if case.name != "sp" and case.kind != "logits":
        yield "sequence", (B, 3, C), (B, 3, C), both
        yield "image", (B, 3, 3, C), (B, 3, 3, C), both
    if case.kind == "logits" and case.name not in ONE_CLASS:
        yield "one class", (B, 1), (B, 1), both
    if case.name in NO_TEACHER:
        return
    if case.kind == "logits":
        yield "a sequence and one position", (B, 3, C), one, teacher
        yield "fewer tokens", (B, 3, C), (B, 2, C), teacher
    yield "one teacher for all", one, (1, C), teacher
    yield "fewer examples", one, (B - 1, C), teacher
    yield "teacher without batch", one, (C,), teacher
    if (case.kind == "logits" or case.same_width) and case.name not in ANY_CLASSES:
        yield "one teacher class", one, (B, 1), teacher
        yield "more teacher classes", one, (B, C + 2), teacher


def map_mistakes(case):
    """The same of a tuple of maps."""
    blame, teacher = "student_map|means|student_features", "teacher"
    first, last = MAPS
    if case.name != "sp_maps":
        yield "volumes", [(B, 2, 3, 3, 3)] * 2, [(B, 2, 3, 3, 3)] * 2, blame
        yield "vectors", [(B, 3)] * 2, [(B, 3)] * 2, blame
        yield "tokens for a map", MAPS, [(B, 9, 3)] * 2, teacher
    if case.name in GRIDS:
        yield "tokens", [(B, 9, 3)] * 2, [(B, 9, 3)] * 2, "grid"
    elif case.name != "sp_maps":
        yield "more tokens", [(B, 9, 3)] * 2, [(B, 10, 3)] * 2, "tokens"
    yield "empty batch", [(0, *x[1:]) for x in MAPS], MAPS, blame
    yield "one teacher for all", MAPS, [(1, *x[1:]) for x in MAPS], teacher
    if case.name not in ("fitnet", "sp_maps"):
        yield "one map", first, MAPS, "list or tuple"
        yield "one teacher map", MAPS, first, "list or tuple"
        yield "fewer stages", MAPS, MAPS[:1], "the same number of stages"
        yield "no stages", [], [], "the same number of stages"
        yield (
            "batches",
            (first, (B + 1, *last[1:])),
            (first, (B + 1, *last[1:])),
            "stage",
        )
    if case.same_width:
        wrong = [(*x[:-1], 4) for x in MAPS]
        yield "channels", MAPS, wrong, "the same number of channels"


def mistakes(case):
    return (map_mistakes if case.kind == "maps" else row_mistakes)(case)


def structs(shapes):
    if shapes != [] and all(isinstance(n, int) for n in shapes):
        return jax.ShapeDtypeStruct(tuple(shapes), jnp.float32)
    return tuple(structs(shape) for shape in shapes)


def traced(case, s, t, y=LABELS, w=None):
    return jax.eval_shape(case.call, s, t, y, w)


# Row by row in the table; embeddings and places have tests of their own below, stored
# logits and heads theirs in test_top_k and test_linear.
ELSEWHERE = {"crd", "stored_top_k", "linear_losses"}
TABLE = [case for case in CASES if case.name not in ELSEWHERE]
every = pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)


@every
def test_right_shapes_pass(case):
    s = example(case.kind)
    assert traced(case, s, s, w=WEIGHTS).shape == ()


@every
def test_wrong_shapes_are_named(case):
    seen = 0
    for name, s, t, blame in mistakes(case):
        with pytest.raises(ValueError, match=blame) as caught:
            traced(case, structs(s), structs(t))
        assert "got" in str(caught.value), (name, caught.value)
        seen += 1
    assert seen >= 2


@every
@pytest.mark.parametrize(
    "shape", [(B, 1), (C,), (), (B, C), (1,)], ids=lambda shape: str(list(shape))
)
def test_wrong_weights_are_named(case, shape):
    s = example(case.kind)
    with pytest.raises(
        ValueError, match=r"sample_weights must have shape \[b\] = \[4\]"
    ):
        traced(case, s, s, w=jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize("name", sorted(HARD))
def test_wrong_labels_are_named(name):
    [case] = [case for case in TABLE if case.name == name]
    s, wide = example(case.kind), jnp.zeros((B, C + 5))
    integers = [(B, 1), (B, C), (B + 1,), ()]
    labels = [*(jnp.zeros(shape, int) for shape in integers), jnp.zeros(B), wide]
    for wrong in labels:
        with pytest.raises(ValueError, match=r"labels must .* got .*\[.*\]; "):
            traced(case, s, s, wrong)


TEMPERATURES = {
    "kd": ("temperature",),
    "kd_standardized": ("temperature",),
    "binary_kd": ("temperature",),
    "dist": ("temperature",),
    "batch_correlation": ("temperature",),
    "class_correlation": ("temperature",),
    "soft_distance": ("tau_student", "tau_teacher"),
}


@pytest.mark.parametrize("name", TEMPERATURES)
def test_temperatures_are_positive_numbers(name):
    loss, s = getattr(losses, name), example("logits")
    for argument in TEMPERATURES[name]:
        for value in (0, -1.0, np.nan, np.float32(0), np.zeros((B, 1))):
            with pytest.raises(ValueError, match=f"{argument} must be positive, got"):
                loss(s, s, **{argument: value})
        for shape in [(B,), (1, C), (B, C), (2, 1)]:
            with pytest.raises(ValueError, match=f"{argument} must be one number"):
                loss(s, s, **{argument: jnp.ones(shape)})
    # A traced one cannot be looked at.
    jax.eval_shape(lambda tau: loss(s, s, **{argument: tau}), jnp.zeros(()))


@pytest.mark.parametrize("loss", [losses.dkd, losses.deepkd])
def test_temperatures_with_labels(loss):
    s = example("logits")
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        loss(s, s, LABELS, temperature=0)


@pytest.mark.parametrize("values", [(2.0, 0.0), ()])
def test_every_temperature_of_several(values):
    s = example("logits")
    with pytest.raises(ValueError, match="temperature"):
        losses.kd_multi(s, s, temperatures=values)
    with pytest.raises(ValueError, match="temperature"):
        losses.mlkd([s], [s], temperatures=values)


def test_a_list_where_one_array_is_meant():
    maps = example("maps")
    for call in (losses.fitnet, losses.sp, losses.kd):
        with pytest.raises(ValueError, match="one array, got a tuple of 2 arrays"):
            call(maps, maps)


@pytest.mark.parametrize("value", ["text", None, 1j, np.array(["a"]), object()])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match="labels must be"):
        as_array("labels", value)


def test_weights_and_temperatures_keep_what_is_right():
    weights = check_weights(np.array([1, 0, -3]), (3,), jnp.dtype("float32"))
    np.testing.assert_array_equal(weights, [1, 0, 0])
    assert check_weights(None, (3,), weights.dtype) is None
    rows, taus = jnp.ones((3, 2)), jnp.array([[2.0], [jnp.nan], [0.0]])
    assert check_temperature(4, rows, None).dtype == jnp.float32
    np.testing.assert_array_equal(
        check_temperature(taus, rows, weights), [[2.0], [1.0], [1.0]]
    )


def test_embeddings_and_places():
    state = losses.crd_init(jax.random.key(0), [0, 1, 1, 0, 2], dim=C)
    x, key = jnp.ones((B, C)), jax.random.key(1)

    def crd(s=x, t=x, i=LABELS, **options):
        fn = functools.partial(losses.crd, num_negatives=2, **options)
        return jax.eval_shape(lambda state: fn(s, t, i, state, key)[0], state)

    assert crd(i=LABELS.tolist()).shape == ()
    for wrong, message in [
        ({"s": x[0]}, r"student_embeddings must have shape \[b, d\], got \[6\]"),
        ({"t": x[:1]}, "teacher_embeddings must have the same number of examples"),
        ({"t": x[:, :2]}, "teacher_embeddings must have equal widths"),
        ({"i": LABELS[:, None]}, r"indices must have shape \[n\], got \[4, 1\]"),
        ({"i": LABELS[:2]}, "indices must have the same number of examples"),
        ({"i": WEIGHTS}, "indices must be integers, got float32"),
        ({"sample_weights": x}, "sample_weights must have shape"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            crd(**wrong)
    for labels in ([0.5, 1.0], [[0], [1]]):
        with pytest.raises(ValueError, match="labels must"):
            losses.crd_init(key, labels)


def test_numbers_of_channels():
    maps = example("maps")
    for call in (losses.ofd, lambda s, t, x: losses.vid(s, x, t)):
        for numbers in ([jnp.ones(3)], [jnp.ones(3), jnp.ones(4)], jnp.ones((2, 3))):
            with pytest.raises(ValueError, match=r"margins|scales"):
                call(maps, maps, numbers)


def test_widths_of_class_means():
    x = example("vectors")
    with pytest.raises(ValueError, match="class_means must have equal widths, got 6"):
        losses.nd(x, x, LABELS, jnp.ones((10, C + 1)))
    with pytest.raises(ValueError, match=r"class_means must have shape \[c, d\]"):
        losses.nd(x, x, LABELS, jnp.ones(C))
