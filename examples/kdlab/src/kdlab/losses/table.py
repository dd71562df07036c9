"""Every distillation loss of the library, and what it needs to train a student."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses import adapters
from kdlab.models import Model, Outputs
from kdlab.settings.parts import Distillation
from kdopt import losses

# The recipes of the literature train for 240 epochs, 20 of which warm the loss up.
WARM_UP, CURRICULUM = 20 / 240, 10 / 240
LEAST_VARIANCE = 1e-5

Batch = dict[str, Any]
"""One batch on the device: ``images``, ``labels``, sample ``weights``, ``indices`` in
the training set, ``rest`` of the pupil, ``key``, ``progress`` of the training from 0 to
1, ``temperature`` and, with a teacher, its :class:`Outputs` as ``teacher``."""


class Pupil(nnx.Module):
    """A network and the layers that are trained beside it for the distillation loss.

    Args:
        network: The student, all that is kept.
        adapter: Layers and memories of the loss; None if it has none.
    """

    def __init__(self, network: Model, adapter: nnx.Module | None = None):
        self.network = network
        self.adapter = adapter


class Fixed(nnx.Variable):
    """What belongs to a loss and is not trained: a memory, class means."""


class Setting(NamedTuple):
    """What an adapter is built from.

    Attributes:
        student: Shapes of the student's outputs.
        teacher: Shapes of the teacher's outputs.
        labels: Of the student's training set, ``[n]``.
        class_means: Makes the teacher's mean penultimate vectors, ``[c, d]``.
    """

    student: Outputs
    teacher: Outputs
    labels: Any
    class_means: Callable[[], jax.Array]


Apply = Callable[[Any, jax.Array, Any, Outputs, Batch], jax.Array]
"""From adapter, student logits, what is compared, teacher and batch to the loss."""

Compare = Callable[[Any, Outputs, Outputs, Batch], Any]
"""From adapter, student, teacher and batch to what is compared."""


@dataclasses.dataclass(frozen=True)
class KdLoss:
    """A distillation loss with the settings of its recipe.

    Attributes:
        apply: The loss itself.
        compare: What it looks at besides the logits; moves statistics and memories.
        adapter: Makes the layers that are trained beside the student.
        weights: Of the task and of the scaled distillation loss.
        scale: Brings the loss to the size of the task's: its weight in the recipe,
            where that of the task is 1.
        on_logits: Whether it looks at the logits, and so reaches the classifier.
        any_batch: Whether it means the same for batches of another size.
    """

    apply: Apply
    compare: Compare | None = None
    adapter: Callable[[Setting, nnx.Rngs], nnx.Module] | None = None
    _: dataclasses.KW_ONLY
    weights: tuple[float, float] = (1.0, 1.0)
    scale: float = 1.0
    on_logits: bool = False
    any_batch: bool = True

    def reach(self, params: Any) -> tuple[Any, Any]:
        """Which parameters of a pupil the task and the distillation loss reach."""

        def paths(word: str) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, _: f"['{word}']" in jax.tree_util.keystr(path), params
            )

        task = jax.tree.map(lambda own: not own, paths("adapter"))
        distill = jax.tree.map(
            lambda own: self.on_logits or not own, paths("classifier")
        )
        return task, distill


# What is compared.


def _stages(ours: Sequence, theirs: Sequence) -> tuple[Sequence, Sequence]:
    """The deepest stages that both have, without the stem if more than two are left."""
    count = min(len(ours), len(theirs))
    count -= count > 2
    return ours[-count:], theirs[-count:]


def _maps(_: Any, student: Outputs, teacher: Outputs, batch: Batch) -> Sequence:
    del batch
    return _stages(student.features, teacher.features)[0]


def _adapted_maps(adapter: Any, student: Outputs, teacher: Outputs, _: Batch) -> Any:
    return adapter(_stages(student.features, teacher.features)[0])


def _connected(adapter: Any, student: Outputs, teacher: Outputs, _: Batch) -> Any:
    return adapter(_stages(student.preactivations, teacher.preactivations)[0])


def _hint(outputs: Outputs) -> Any:
    return outputs.features[min(2, len(outputs.features) - 1)]


def _review(student: Outputs, teacher: Outputs) -> tuple[list, list]:
    """Stages and, as a map of one pixel, the pooled vector."""
    ours, theirs = _stages(student.features, teacher.preactivations)
    vectors = (x.pooled[:, None, None, :] for x in (student, teacher))
    return [*ours, next(vectors)], [*theirs, next(vectors)]


# Adapters.


def _on_stages(kind: Callable) -> Callable[[Setting, nnx.Rngs], nnx.Module]:
    def make(setting: Setting, rngs: nnx.Rngs) -> nnx.Module:
        student, teacher = setting.student, setting.teacher
        return kind(*_stages(student.features, teacher.features), rngs=rngs)

    return make


def _on_pooled(kind: Callable) -> Callable[[Setting, nnx.Rngs], nnx.Module]:
    def make(setting: Setting, rngs: nnx.Rngs) -> nnx.Module:
        return kind(setting.student.pooled, setting.teacher.pooled, rngs=rngs)

    return make


def _hint_regressor(setting: Setting, rngs: nnx.Rngs) -> nnx.Module:
    hints = _hint(setting.student), _hint(setting.teacher)
    return adapters.HintRegressor(*hints, rngs=rngs)


def _review_fusion(setting: Setting, rngs: nnx.Rngs) -> nnx.Module:
    shapes = jax.eval_shape(_review, setting.student, setting.teacher)
    # The pooled vector, 784 wide in a small CNN, must not set the width of all maps.
    width = min(512, setting.student.features[-1].shape[-1])
    return adapters.ReviewFusion(*shapes, width=width, rngs=rngs)


def _direction(setting: Setting, rngs: nnx.Rngs) -> nnx.Dict:
    projector = _on_pooled(adapters.WidthProjector)(setting, rngs)
    # A copy: the first step of a run uses its buffers up.
    means = Fixed(jnp.array(setting.class_means()))
    return nnx.Dict(projector=projector, means=means)


def _review_and_direction(setting: Setting, rngs: nnx.Rngs) -> nnx.Dict:
    fusion = _review_fusion(setting, rngs)
    return nnx.Dict(fusion=fusion, direction=_direction(setting, rngs))


def _contrast(setting: Setting, rngs: nnx.Rngs) -> nnx.Dict:
    embeddings = _on_pooled(adapters.CrdEmbeddings)(setting, rngs)
    memory = Fixed(losses.crd_init(rngs.memory(), jnp.array(setting.labels)))
    return nnx.Dict(embeddings=embeddings, memory=memory)


def _temperature(_: Setting, rngs: nnx.Rngs) -> nnx.Dict:
    del rngs
    return nnx.Dict(temperature=nnx.Param(jnp.zeros(())))


# Losses.


def _of_logits(loss: Callable, **options: Any) -> Apply:
    def apply(_: Any, logits: jax.Array, __: Any, teacher: Outputs, batch: Batch):
        weights = batch["weights"]
        return loss(logits, teacher.logits, sample_weights=weights, **options)

    return apply


def _kd(_: Any, logits: jax.Array, __: Any, teacher: Outputs, batch: Batch):
    return losses.kd(
        logits,
        teacher.logits,
        temperature=batch["temperature"],
        sample_weights=batch["weights"],
    )


def _soft(kind: Literal["ce", "kl", "mse"]) -> Apply:
    def apply(
        _: Any,
        logits: jax.Array,
        __: Any,
        teacher: Outputs,
        batch: Batch,
        *,
        tau_student: float | None = None,
    ):
        tau_teacher = batch["temperature"]
        return losses.soft_distance(
            logits,
            teacher.logits,
            kind=kind,
            tau_student=tau_teacher if tau_student is None else tau_student,
            tau_teacher=tau_teacher,
            sample_weights=batch["weights"],
        )

    return apply


def _dkd(
    _: Any,
    logits: jax.Array,
    __: Any,
    teacher: Outputs,
    batch: Batch,
    *,
    beta: float = 8.0,
    warm_up: float = WARM_UP,
):
    loss = losses.dkd(
        logits,
        teacher.logits,
        batch["labels"],
        beta=beta,
        temperature=batch["temperature"],
        sample_weights=batch["weights"],
    )
    return _warmed_up(loss, batch, warm_up)


def _mlkd(_: Any, logits: jax.Array, __: Any, teacher: Outputs, batch: Batch):
    return losses.mlkd((logits,), (teacher.logits,), sample_weights=batch["weights"])


def _ctkd(_: Any, logits: jax.Array, parameter: Any, teacher: Outputs, batch: Batch):
    strength = losses.ctkd_reversal(batch["progress"], num_epochs=CURRICULUM)
    return losses.kd(
        logits,
        teacher.logits,
        temperature=losses.ctkd_temperature(parameter, strength),
        sample_weights=batch["weights"],
    )


def _tpkd(_: Any, logits: jax.Array, __: Any, teacher: Outputs, batch: Batch):
    return losses.tpkd(
        logits, teacher.logits, batch["labels"], sample_weights=batch["weights"]
    )


def _of_maps(loss: Callable) -> Apply:
    def apply(_: Any, __: jax.Array, maps: Any, teacher: Outputs, batch: Batch):
        theirs = teacher.features[-len(maps) :]
        return loss(maps, theirs, sample_weights=batch["weights"])

    return apply


def _of_pooled(loss: Callable) -> Apply:
    def apply(_: Any, __: jax.Array, pooled: Any, teacher: Outputs, batch: Batch):
        return loss(pooled, teacher.pooled, sample_weights=batch["weights"])

    return apply


def _fitnet(_: Any, __: jax.Array, hint: Any, teacher: Outputs, batch: Batch):
    return losses.fitnet(hint, _hint(teacher), sample_weights=batch["weights"])


def _sp(_: Any, __: jax.Array, last: Any, teacher: Outputs, batch: Batch):
    return losses.sp(last, teacher.features[-1], sample_weights=batch["weights"])


def _ofd(_: Any, __: jax.Array, maps: Any, teacher: Outputs, batch: Batch):
    theirs = teacher.preactivations[-len(maps) :]
    weights = batch["weights"]
    margins = [_margin(x, weights) for x in theirs]
    return losses.ofd(maps, theirs, margins, sample_weights=weights)


def _margin(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Margin from the batch, for teachers with and without normalisation."""
    means = jnp.average(x.mean((1, 2)), axis=0, weights=weights)
    squares = jnp.average(jnp.square(x - means).mean((1, 2)), axis=0, weights=weights)
    return losses.ofd_margin(jnp.sqrt(squares), means)


def _vid(_: Any, __: jax.Array, predicted: Any, teacher: Outputs, batch: Batch):
    means, scales = predicted
    theirs = teacher.features[-len(means) :]
    loss = losses.vid(
        means, scales, theirs, eps=LEAST_VARIANCE, sample_weights=batch["weights"]
    )
    # A log-likelihood has any sign; counted from its least value it is a loss for
    # methods that compare relative decreases.
    return loss - len(means) * jnp.log(LEAST_VARIANCE) / 2


def _reviewkd(
    _: Any,
    __: jax.Array,
    fused: Any,
    teacher: Outputs,
    batch: Batch,
    *,
    warm_up: float = WARM_UP,
):
    theirs = _review(teacher, teacher)[1][-len(fused) :]
    loss = losses.hcl(fused, theirs, sample_weights=batch["weights"])
    return _warmed_up(loss, batch, warm_up)


def _nd(adapter: Any, _: jax.Array, vector: Any, teacher: Outputs, batch: Batch):
    return losses.nd(
        vector,
        teacher.pooled,
        batch["labels"],
        adapter["means"][...],
        sample_weights=batch["weights"],
    )


def _reviewkd_pp(
    adapter: Any,
    logits: jax.Array,
    compared: Any,
    teacher: Outputs,
    batch: Batch,
    *,
    beta: float = 1.2,
    warm_up: float = WARM_UP,
):
    fused, vector = compared
    review = _reviewkd(None, logits, fused, teacher, batch, warm_up=warm_up)
    direction = _nd(adapter["direction"], logits, vector, teacher, batch)
    return beta * review + direction


def _crd(adapter: Any, _: jax.Array, embeddings: Any, __: Outputs, batch: Batch):
    return _contrasted(adapter, embeddings, batch)[0]


def _remember(adapter: Any, student: Outputs, teacher: Outputs, batch: Batch) -> Any:
    """Embeds both; the memory moves on, the loss reads the old one from the batch."""
    embeddings = adapter["embeddings"](student.pooled, teacher.pooled)
    adapter["memory"].set_value(_contrasted(adapter, embeddings, batch)[1])
    return embeddings


def _contrasted(adapter: Any, embeddings: Any, batch: Batch) -> Any:
    memory = adapter["memory"].get_value()
    student, teacher = embeddings
    return losses.crd(
        student,
        teacher,
        batch["indices"],
        memory,
        batch["key"],
        num_negatives=min(16384, len(memory.labels)),
        sample_weights=batch["weights"],
    )


def _warmed_up(loss: jax.Array, batch: Batch, share: float) -> jax.Array:
    """Lets the loss come in linearly over a share of the training."""
    return loss * jnp.minimum(batch["progress"] / share, 1) if share else loss


LOSSES: dict[str, KdLoss] = {
    "kd": KdLoss(_kd, weights=(0.1, 0.9), on_logits=True),
    "soft_ce": KdLoss(_soft("ce"), weights=(0.1, 0.9), on_logits=True),
    "soft_kl": KdLoss(_soft("kl"), weights=(0.1, 0.9), on_logits=True),
    "soft_mse": KdLoss(_soft("mse"), weights=(0.1, 0.9), on_logits=True),
    "kd_standardized": KdLoss(
        _of_logits(losses.kd_standardized), weights=(0.1, 9.0), on_logits=True
    ),
    "dkd": KdLoss(_dkd, on_logits=True),
    "dist": KdLoss(_of_logits(losses.dist), on_logits=True),
    "mlkd": KdLoss(_mlkd, on_logits=True, any_batch=False),
    "ctkd": KdLoss(
        _ctkd,
        lambda adapter, *_: adapter["temperature"][...],
        _temperature,
        weights=(0.1, 0.9),
        on_logits=True,
    ),
    "tpkd": KdLoss(_tpkd, weights=(0.0, 1.0), on_logits=True),
    "fitnet": KdLoss(
        _fitnet,
        lambda adapter, student, *_: adapter(_hint(student)),
        _hint_regressor,
        scale=100,
    ),
    "at": KdLoss(_of_maps(losses.at), _maps, scale=1000),
    "nst": KdLoss(_of_maps(losses.nst), _maps, scale=50),
    "ofd": KdLoss(_ofd, _connected, _on_stages(adapters.OfdConnectors), scale=1e-3),
    "vid": KdLoss(_vid, _adapted_maps, _on_stages(adapters.VidRegressor)),
    "kdsvd": KdLoss(_of_maps(losses.kdsvd), _maps),
    "reviewkd": KdLoss(
        _reviewkd,
        lambda adapter, student, teacher, _: adapter(_review(student, teacher)[0]),
        _review_fusion,
    ),
    "nd": KdLoss(
        _nd,
        lambda adapter, student, *_: adapter["projector"](student.pooled),
        _direction,
    ),
    "reviewkd_pp": KdLoss(
        _reviewkd_pp,
        lambda adapter, student, teacher, _: (
            adapter["fusion"](_review(student, teacher)[0]),
            adapter["direction"]["projector"](student.pooled),
        ),
        _review_and_direction,
    ),
    "vkd": KdLoss(
        _of_pooled(losses.vkd),
        lambda adapter, student, *_: adapter(student.pooled),
        _on_pooled(adapters.OrthogonalProjector),
    ),
    "rkd": KdLoss(
        _of_pooled(losses.rkd), lambda _, student, *__: student.pooled, any_batch=False
    ),
    "pkt": KdLoss(
        _of_pooled(losses.pkt),
        lambda _, student, *__: student.pooled,
        scale=30000,
        any_batch=False,
    ),
    "sp": KdLoss(
        _sp,
        lambda _, student, *__: student.features[-1],
        scale=3000,
        any_batch=False,
    ),
    "crd": KdLoss(_crd, _remember, _contrast, scale=0.8, any_batch=False),
}
"""By name. Sources of weights: megvii-research/mdistiller a08d46f (``cfg.py``), and for
``kd_standardized``, ``dist``, ``mlkd``, ``ctkd``, ``tpkd``, ``vkd``, ``nd`` and
``reviewkd_pp`` their papers."""


def make_loss(distillation: Distillation, epochs: int) -> KdLoss:
    """The distillation loss of an experiment, with its options set.

    Args:
        distillation: The settings.
        epochs: Length of the training, of which a warm-up is a share.
    """
    loss, options = LOSSES[distillation.loss], {}
    if distillation.loss_beta is not None:
        options["beta"] = distillation.loss_beta
    if distillation.loss_warmup is not None:
        options["warm_up"] = distillation.loss_warmup / epochs
    if distillation.student_temperature is not None:
        options["tau_student"] = distillation.student_temperature
    if not options:
        return loss
    return dataclasses.replace(loss, apply=partial(loss.apply, **options))


def loss_weights(distillation: Distillation) -> tuple[float, float]:
    """Fixed weights of the task and of the distillation loss."""
    if distillation.alpha is not None:
        return 1 - distillation.alpha, distillation.alpha
    return distillation.loss_weights or LOSSES[distillation.loss].weights
