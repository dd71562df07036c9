"""Inside Tunix's trainer: the example, and its own losses where weights are fixed."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import kdopt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trainers = pytest.importorskip("tunix.distillation.distillation_trainer")
    from tunix.distillation.strategies import LogitStrategy

    from examples import tunix_trainer as example

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("standard"),
]

TUNIX = trainers.DistillationTrainer
PARTS = example.forward, example.forward, example.labels_of


class Fixed(example.BalancedStrategy):
    """Weights of 0.3 and 0.7 by the way of the balanced scalar."""

    balancer = kdopt.from_weights(lambda gram: jnp.array([0.3, 0.7], gram.dtype))


def whole(count):
    """Batches without padding, as Tunix averages over all positions."""
    for batch in example.batches(count):
        yield trainers.TrainingInput(
            input_tokens=batch.input_tokens, input_mask=jnp.ones((4, 8))
        )


def leaves(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def assert_same(one, two):
    for ours, theirs in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_losses_are_those_of_tunix_where_weights_are_fixed():
    ours, theirs = [], []
    students = [
        example.train(TUNIX, strategy, optax.adam(1e-2), whole(5), log=log)
        for strategy, log in (
            (Fixed(*PARTS, alpha=0.7), ours),
            (LogitStrategy(*PARTS, alpha=0.7), theirs),
        )
    ]
    assert_same(*students)
    assert len(ours) == len(theirs) == 5
    for row, expected in zip(ours, theirs, strict=True):
        for key in ("distill/hard_loss", "distill/soft_loss"):
            np.testing.assert_allclose(row[key], expected[key], rtol=1e-5)
        np.testing.assert_allclose(row["distill/weight"], 0.7, rtol=1e-6)


def test_two_micro_batches_are_one_batch_by_their_tokens():
    """Of different numbers of tokens, which Tunix's mean of means does not count."""
    parts = list(example.batches(2))
    counts = [float(part.input_mask.sum()) for part in parts]
    assert counts[0] != counts[1]
    both = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    def trained(data, accumulation, denominator):
        strategy = Fixed(*PARTS)
        strategy.denominator = denominator
        return example.train(
            TUNIX, strategy, optax.sgd(0.1), data, accumulation=accumulation
        )

    once = trained([both], None, "mean")
    assert_same(once, trained(parts, 2, sum(counts) / 2))
    different = trained(parts, 2, "mean")
    gaps = [
        np.abs(a - b).max()
        for a, b in zip(*map(leaves, (once, different)), strict=True)
    ]
    assert max(gaps) > 1e-4


@pytest.mark.parametrize("accumulation", [None, 2])
def test_the_balanced_scalar_trains(accumulation):
    log = []
    train = functools.partial(
        example.train, TUNIX, example.BalancedStrategy(*PARTS), optax.adam(1e-2)
    )
    train(example.batches(40), accumulation=accumulation, log=log)
    assert log[-1]["distill/hard_loss"] < log[0]["distill/hard_loss"] - 0.1
    assert all(-1 <= row["distill/cosine"] <= 1 for row in log)


def test_the_balanced_gradients_train():
    """The balancer as the first part of Tunix's optimiser, also with accumulation."""
    once = optax.chain(kdopt.dto_kd(rescale="convex"), optax.adam(1e-2))
    for tx, steps in ((once, 20), (kdopt.accumulate(once, 2), 40)):
        log = []
        example.train(
            example.BalancedTrainer,
            example.BalancedStrategy(*PARTS),
            tx,
            example.batches(steps),
            log=log,
        )
        assert log[-1]["distill/hard_loss"] < log[0]["distill/hard_loss"] - 0.1


def test_the_example_runs(capsys):
    example.main()
    assert capsys.readouterr().out.count("cross-entropy") == 2
