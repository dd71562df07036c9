"""Every loss once, as a function of one kind of input, for the tests of all."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdopt import losses
from kdopt.losses._reduce import batch_mean
from kdopt.losses._sharding import gathered


class Case(NamedTuple):
    """A loss as ``call(student, teacher, labels, weights)``.

    Attributes:
        name: Name of the test.
        kind: "logits" [b, c], "vectors" [b, d], or "maps", a tuple of [b, h, w, c].
        call: The loss.
        same_width: Whether channels must agree.
        relations: Whether examples are compared with one another; the other losses on
            logits are sums over them, and take a ``denominator``.
    """

    name: str
    kind: str
    call: Callable[..., Any]
    same_width: bool = False
    relations: bool = False


def _plain(loss, **options):
    return lambda s, t, y, w, **more: loss(s, t, sample_weights=w, **options, **more)


def _labelled(loss, **options):
    return lambda s, t, y, w, **more: loss(s, t, y, sample_weights=w, **options, **more)


def _cross_entropy(s, t, y, w, **more):
    return losses.cross_entropy(s, y, sample_weights=w, **more)


def _soft_cross_entropy(s, t, y, w, **more):
    labels = jax.nn.softmax(jax.lax.stop_gradient(jnp.asarray(t, jnp.float32)))
    return losses.cross_entropy(s, labels, sample_weights=w, **more)


def _binary_cross_entropy(s, t, y, w, **more):
    labels = jax.nn.sigmoid(jax.lax.stop_gradient(jnp.asarray(t, jnp.float32)))
    return losses.binary_cross_entropy(s, labels, sample_weights=w, **more)


def _mlkd(s, t, y, w):
    return losses.mlkd((s, s / 2), (t, t / 2), sample_weights=w)


def _deepkd(s, t, y, w, **more):
    return sum(losses.deepkd(s, t, y, top_k=2, sample_weights=w, **more)[1:])


def _ctkd(s, t, y, w, **more):
    tau = losses.ctkd_temperature(jnp.zeros(()), 0.5)
    return losses.kd(s, t, temperature=tau, sample_weights=w, **more)


def _top_k(**options):
    def of_dense(s, t, y, w, **more):
        return losses.top_k_kl(s, t, k=2, sample_weights=w, **options, **more)

    return of_dense


def _stored_top_k(s, t, y, w, **more):
    t = jnp.asarray(t, jnp.float32)
    stored, total = jax.lax.stop_gradient(
        (gathered(t, axis=-1)[..., :2], jax.nn.logsumexp(t, axis=-1))
    )
    return losses.top_k_kl(
        s,
        stored,
        indices=jnp.broadcast_to(jnp.arange(2), stored.shape),
        log_normalizer=total,
        sample_weights=w,
        **more,
    )


def _span_kd(s, t, y, w, **more):
    pair = (jnp.stack([x, x], axis=-1) for x in map(jnp.asarray, (s, t)))
    return losses.span_kd(*pair, sample_weights=w, **more)


def _span_cross_entropy(s, t, y, w, **more):
    logits, labels = jnp.asarray(s), jnp.asarray(y)
    return losses.span_cross_entropy(
        jnp.stack([logits, logits], axis=-1),
        jnp.stack([labels, labels], axis=-1),
        sample_weights=w,
        **more,
    )


def _linear(s, t, y, w, **more):
    def losses_of_chunk(student, teacher, labels, **rows):
        task = losses.cross_entropy(student, labels, **rows)
        return task, losses.kd(student, teacher, **rows)

    (s, t), head = map(jnp.asarray, (s, t)), jnp.eye(jnp.shape(s)[-1])
    head = head.astype(s.dtype)
    values = losses.linear_losses(
        losses_of_chunk,
        (s, head),
        y,
        teacher=(t, head),
        sample_weights=w,
        chunk_size=4,
        **more,
    )
    return jnp.sum(values)


def _nd(s, t, y, w):
    width = jnp.shape(s)[-1] if jnp.ndim(s) else 1
    means = jnp.sin(jnp.arange(10 * width).reshape(10, -1).astype(jnp.float32))
    return losses.nd(s, t, y, means, sample_weights=w)


def _class_means(s, t, y, w):
    means = losses.class_means(s, y, num_classes=4, sample_weights=w)
    return jnp.sum(means * jnp.sin(jnp.arange(means.size)).reshape(means.shape))


def _crd(s, t, y, w):
    state = losses.crd_init(jax.random.key(0), jnp.arange(20) % 10, dim=s.shape[1])
    state = state._replace(log_z=jnp.ones(2))

    # Row by row, so that a row's negatives do not depend on its place in the batch.
    def row(*args):
        s, t, y, w = (x[None] for x in args)
        t, key = jax.lax.stop_gradient(t), jax.random.key(1)
        return losses.crd(s, t, y, state, key, num_negatives=4, sample_weights=w)[0]

    return batch_mean(jax.vmap(row)(s, t, y, w), jnp.maximum(w, 0))


def _ofd(s, t, y, w):
    margins = [jnp.full(x.shape[-1], -0.5, jnp.float32) for x in t]
    return losses.ofd(s, t, margins, sample_weights=w)


def _vid(s, t, y, w):
    scales = [jnp.ones(x.shape[-1], jnp.float32) for x in t]
    return losses.vid(s, scales, t, sample_weights=w)


def _hint(s, t, y, w):
    return losses.fitnet(s[0], t[0], sample_weights=w)


def _sp_maps(s, t, y, w):
    return losses.sp(s[-1], t[-1], sample_weights=w)


CASES = [
    Case("cross_entropy", "logits", _cross_entropy),
    Case("soft_cross_entropy", "logits", _soft_cross_entropy),
    Case("binary_cross_entropy", "logits", _binary_cross_entropy),
    Case("binary_kd", "logits", _plain(losses.binary_kd)),
    Case("kd", "logits", _plain(losses.kd)),
    Case("soft_ce", "logits", _plain(losses.soft_distance)),
    Case("soft_kl", "logits", _plain(losses.soft_distance, kind="kl", tau_teacher=2.0)),
    Case("soft_mse", "logits", _plain(losses.soft_distance, kind="mse")),
    Case("dkd", "logits", _labelled(losses.dkd)),
    Case("kd_standardized", "logits", _plain(losses.kd_standardized)),
    Case("dist", "logits", _plain(losses.dist), relations=True),
    Case("kd_multi", "logits", _plain(losses.kd_multi)),
    Case(
        "batch_correlation", "logits", _plain(losses.batch_correlation), relations=True
    ),
    Case(
        "class_correlation", "logits", _plain(losses.class_correlation), relations=True
    ),
    Case("mlkd", "logits", _mlkd, relations=True),
    Case("ctkd", "logits", _ctkd),
    Case("deepkd", "logits", _deepkd),
    Case("tpkd", "logits", _labelled(losses.tpkd)),
    Case("reverse_kl", "logits", _plain(losses.reverse_kl)),
    Case("jensen_shannon", "logits", _plain(losses.jensen_shannon)),
    Case("skew_kl", "logits", _plain(losses.skew_kl)),
    Case("reverse_skew_kl", "logits", _plain(losses.skew_kl, reverse=True)),
    Case("total_variation", "logits", _plain(losses.total_variation)),
    Case("universal_logit", "logits", _plain(losses.universal_logit)),
    Case("top_k_ghost", "logits", _top_k()),
    Case("top_k_reverse", "logits", _top_k(reverse=True)),
    Case("top_k_renormalize", "logits", _top_k(tail="renormalize")),
    Case("top_k_generalized", "logits", _top_k(tail="generalized")),
    Case("stored_top_k", "logits", _stored_top_k),
    Case("span_kd", "logits", _span_kd),
    Case("span_cross_entropy", "logits", _span_cross_entropy),
    Case("linear_losses", "logits", _linear),
    Case("class_means", "vectors", _class_means),
    Case("nd", "vectors", _nd, same_width=True),
    Case("vkd", "vectors", _plain(losses.vkd), same_width=True),
    Case("rkd", "vectors", _plain(losses.rkd)),
    Case("pkt", "vectors", _plain(losses.pkt)),
    Case("sp", "vectors", _plain(losses.sp)),
    Case("crd", "vectors", _crd, same_width=True),
    Case("fitnet", "maps", _hint, same_width=True),
    Case("at", "maps", _plain(losses.at)),
    Case("nst", "maps", _plain(losses.nst)),
    Case("ofd", "maps", _ofd, same_width=True),
    Case("vid", "maps", _vid, same_width=True),
    Case("kdsvd", "maps", _plain(losses.kdsvd)),
    Case("hcl", "maps", _plain(losses.hcl), same_width=True),
    Case("sp_maps", "maps", _sp_maps),
]
