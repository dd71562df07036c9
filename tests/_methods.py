"""The one table of methods. A new method is one row; every common test follows.

Each row says how to build the method for K losses, for which K, what ``update`` needs,
which theorems of ``_asserts`` it claims and its weights on a published example.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt
from tests import _samplers

Arguments = Callable[[int], Mapping[str, Any]]


def no_arguments(k: int) -> dict:
    return {}


def num_losses(**kwargs: Any) -> Arguments:
    return lambda k: {"num_losses": k, **kwargs}


def num_losses_and_key(k: int) -> dict:
    """For the methods that draw an order, of three losses or more."""
    return {"num_losses": k, **({"key": KEY} if k > 2 else {})}


def two(**kwargs: Any) -> Arguments:
    return lambda k: kwargs


class Method(NamedTuple):
    """A row.

    Attributes:
        name: Name of the row, unique.
        factory: Makes the transform from keyword arguments.
        kwargs: The keyword arguments, given K.
        ks: Numbers of losses to test.
        needs_values: Whether ``update`` must be given ``values``.
        needs_params: Whether ``update`` must be given ``params``.
        scalarizer: Whether its input is one gradient tree instead of K.
        weighted: Whether its state is a ``WeightsState``, with the NaN policy of that.
        plumbing: Whether dtypes, transformations and wrappers are tested: not for a row
            that is another with other numbers, whose theorems differ.
        hides: What one gradient may hold, ``"nan"`` or ``"inf"``, without a trace in
            the update.
        claims: Names of theorems in ``_asserts.CLAIMS``.
        golden: Weights on ``GOLDEN_GRADS`` and ``GOLDEN_VALUES``, to 1e-10.
        static_args: Arguments that ``optax.inject_hyperparams`` must leave alone.
        strict: Whether it runs under strict promotion; what uses Optax inside does not.
        extras: Other keyword arguments of ``update``, given K.
        zero: Why the update is not that of the other losses alone where a gradient is
            zero; by default it is, up to a positive factor.
    """

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    kwargs: Arguments = no_arguments
    ks: tuple[int, ...] = (2,)
    needs_values: bool = False
    needs_params: bool = False
    scalarizer: bool = False
    weighted: bool = True
    plumbing: bool = True
    hides: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    golden: tuple[float, ...] | None = None
    static_args: tuple[str, ...] = ("num_losses",)
    strict: bool = True
    extras: Arguments = no_arguments
    zero: str = ""
    rests: bool = False

    @property
    def few(self) -> int:
        """K of the tests that need but one: the least of several losses."""
        return min(k for k in self.ks if k > 1)

    def make(self, k: int) -> optax.GradientTransformationExtraArgs:
        return self.factory(**self.kwargs(k))

    def inject(self, k: int) -> optax.GradientTransformationExtraArgs:
        wrapped = optax.inject_hyperparams(self.factory, static_args=self.static_args)
        return wrapped(**self.kwargs(k))

    def feed(self, grads: tuple) -> Any:
        """What the transform takes of K gradients: all, or one tree."""
        return grads[0] if self.scalarizer else grads


GOLDEN_GRADS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
"""The example of SimplexLab/TorchJD 862baed, tests/unit/aggregation/test_values.py."""

GOLDEN_VALUES = np.array([1.0, 2.0])

KEY = jax.random.key(0)

CONVEX = ("combination", "on_simplex", "scale_invariant_weights")
SYMMETRIC = ("combination", "scale_invariant_weights", "permutation_equivariant")
DESCENT = ("non_conflicting", "zero_if_stationary", "zero_gradient_is_left_out")
# The norms of the example are sqrt(18) and sqrt(38), the product is -22.
NORMS = 18**0.5, 38**0.5
COSINE = -22 / (18 * 38) ** 0.5
BISECTOR = NORMS[1] / (NORMS[0] + NORMS[1])


def _lambda_row(policy: str, *claims: str, golden: float, **kwargs: Any) -> Method:
    return Method(
        f"dynamic_lambda_{policy}",
        kdopt.dynamic_lambda,
        two(policy=policy, **kwargs),
        needs_values=policy == "target_relative",
        claims=("combination", "on_simplex", *claims),
        golden=(1 - golden, golden),
        static_args=("policy",),
    )


def _scalarizer_row(name: str, *, strict: bool = True, **kwargs: Any) -> Method:
    return Method(
        name,
        getattr(kdopt, name),
        num_losses(**kwargs),
        ks=(1, 2, 3),
        needs_values=True,
        scalarizer=True,
        static_args=("num_losses", *(arg for arg in kwargs if arg == "window")),
        strict=strict,
    )


TASK_LEADS = "the first loss leads: the others bound its step"


def _reference_row(rule: str, *claims: str) -> Method:
    return Method(
        f"reference_aligned_{rule}",
        kdopt.reference_aligned,
        num_losses(rule=rule),
        ks=(3, 4),
        static_args=("num_losses", "rule"),
        claims=("combination", "scale_invariant_weights", *claims),
        zero="the last gradient is the reference, whose place a zero takes",
    )


STREAM = {
    "weighted": False,
    "claims": ("finite", "linear_under_scaling"),
    "static_args": (),
}

METHODS = (
    Method(
        "linear",
        kdopt.linear,
        lambda k: {"weights": [0.1 + 0.4 * i for i in range(k)]},
        ks=(1, 2, 3, 4),
        weighted=False,
        static_args=(),
        claims=("combination", "linear_under_scaling", "scale_invariant_weights"),
        golden=(0.1, 0.5),
        zero="each loss has its own number, whatever the others do",
    ),
    Method(
        "dot",
        kdopt.dot,
        weighted=False,
        claims=("finite", "linear_under_scaling"),
        static_args=(),
    ),
    Method(
        "streams",
        kdopt.streams,
        lambda k: {"momenta": [0.2 * i for i in range(k)], "dampening": 0.1},
        ks=(1, 2, 3, 4),
        weighted=False,
        zero="each loss has its own momentum, whatever the others do",
        claims=("finite", "linear_under_scaling"),
        static_args=(),
    ),
    Method(
        "min_norm",
        kdopt.min_norm,
        num_losses(),
        ks=(1, 2, 3, 4),
        claims=(
            *CONVEX,
            *DESCENT,
            "permutation_equivariant",
            "min_norm_kkt",
            "equal_decrease",
        ),
        golden=(0.6, 0.4),
    ),
    Method(
        "dto_kd",
        kdopt.dto_kd,
        num_losses(),
        ks=(2, 3, 4),
        needs_values=True,
        claims=(
            "combination",
            "scale_invariant_weights",
            *DESCENT,
            "permutation_equivariant",
            "loss_scale_invariant",
            "equal_relative_decrease",
        ),
        # log-Gram (18, -11; -11, 9.5): pi = (20.5, 29) / 49.5, divided by the values
        golden=(41 / 99, 29 / 99),
    ),
    Method(
        "dto_kd_convex",
        kdopt.dto_kd,
        num_losses(rescale="convex"),
        ks=(2, 3, 4),
        needs_values=True,
        claims=(
            *CONVEX,
            *DESCENT,
            "permutation_equivariant",
            "equal_relative_decrease",
        ),
        golden=(41 / 70, 29 / 70),
    ),
    Method(
        "dto_kd_theorem",
        kdopt.dto_kd,
        num_losses(simplex=False),
        ks=(2, 3, 4),
        needs_values=True,
        claims=(
            "combination",
            "permutation_equivariant",
            "loss_scale_invariant",
            "equal_relative_decrease",
        ),
        golden=(41 / 99, 29 / 99),
    ),
    _lambda_row("fixed", "scale_invariant_weights", golden=0.9),
    _lambda_row(
        "gradual",
        *DESCENT,
        "scale_invariant_weights",
        "permutation_equivariant",
        "min_norm_kkt",
        "equal_decrease",
        golden=0.4,
        lambda_=0.5,
    ),
    _lambda_row("fast", "scale_invariant_weights", golden=1.0),
    # 100 x^2 - 80 x + 18 = 6, the root nearest to 0.9
    _lambda_row("target", golden=0.6, target=6.0),
    # 100 x^2 - 80 x + 18 = 4 (1 + x), the root nearest to 0.9
    _lambda_row("target_relative", golden=0.6107878402833892, target=4.0),
    _lambda_row(
        "norm_balance",
        "non_conflicting",
        "zero_gradient_is_left_out",
        "scale_invariant_weights",
        "permutation_equivariant",
        "bisector",
        golden=1 - BISECTOR,
        lambda_=0.5,
    ),
    _lambda_row(
        "safe", "non_conflicting", "scale_invariant_weights", golden=18 / (18 + 22)
    ),
    _lambda_row(
        "cosine", "non_conflicting", "scale_invariant_weights", golden=18 / (18 + 22)
    ),
    Method(
        "min_norm_by_norm",
        kdopt.min_norm,
        num_losses(normalize="norm"),
        ks=(2, 3),
        static_args=("num_losses", "normalize"),
        plumbing=False,
        claims=("combination", "non_conflicting", "permutation_equivariant"),
    ),
    Method(
        "min_norm_by_root_of_norm",
        kdopt.min_norm,
        num_losses(normalize=0.5),
        ks=(2, 3),
        plumbing=False,
        claims=("combination", "non_conflicting", "permutation_equivariant"),
    ),
    Method(
        "conflict_free_geometric",
        kdopt.conflict_free,
        num_losses(length="geometric"),
        ks=(2, 3),
        plumbing=False,
        static_args=("num_losses", "length"),
        claims=SYMMETRIC,
        # of a cosine of (1 + cos) / sqrt(2 (1 + cos)) with both
        golden=tuple(
            (NORMS[0] * NORMS[1]) ** 0.5 / (2 + 2 * COSINE) ** 0.5 / n for n in NORMS
        ),
    ),
    Method(
        "pcgrad",
        kdopt.pcgrad,
        num_losses_and_key,
        ks=(1, 2, 3),
        static_args=("num_losses", "key"),
        claims=("combination", "scale_invariant_weights"),
        golden=(1 + 22 / 18, 1 + 22 / 38),
    ),
    Method(
        "gradvac",
        kdopt.gradvac,
        num_losses_and_key,
        ks=(1, 2, 3),
        static_args=("num_losses", "key"),
        claims=("combination", "scale_invariant_weights"),
        golden=(1 + 22 / 18, 1 + 22 / 38),
    ),
    Method(
        "cagrad",
        kdopt.cagrad,
        num_losses(),
        ks=(1, 2, 4),
        claims=SYMMETRIC,
        # the mean (1, 1, 1) and the first gradient at half the length of the mean
        golden=(0.5 + 0.5 * 3**0.5 / NORMS[0], 0.5),
    ),
    Method(
        "cagrad_wide",
        kdopt.cagrad,
        num_losses(c=1.0),
        ks=(2, 3),
        plumbing=False,
        claims=(*SYMMETRIC, "non_conflicting"),
    ),
    Method(
        "imtl_g",
        kdopt.imtl_g,
        num_losses(),
        ks=(1, 2, 4),
        claims=SYMMETRIC,
        golden=(BISECTOR, 1 - BISECTOR),
    ),
    Method(
        "nash_mtl",
        kdopt.nash_mtl,
        num_losses(),
        ks=(1, 2, 4),
        claims=(
            "combination",
            "permutation_equivariant",
            "non_conflicting",
            "loss_scale_invariant",
        ),
        # 1 / (n_i sqrt(1 + cos)), of length sqrt(2), shortened to 1
        golden=tuple((2 * (1 + COSINE)) ** -0.5 / n for n in NORMS),
    ),
    Method(
        "fairgrad",
        kdopt.fairgrad,
        num_losses(),
        ks=(1, 2, 4),
        # with alpha = 1 as Nash-MTL without a bound
        claims=(
            "combination",
            "permutation_equivariant",
            "non_conflicting",
            "loss_scale_invariant",
        ),
        golden=tuple((1 + COSINE) ** -0.5 / n for n in NORMS),
    ),
    Method(
        "aligned_mtl",
        kdopt.aligned_mtl,
        num_losses(),
        ks=(1, 2, 4),
        static_args=("num_losses", "scale"),
        claims=SYMMETRIC,
    ),
    Method(
        "upgrad",
        kdopt.upgrad,
        num_losses(),
        ks=(1, 2, 3, 4),
        claims=(
            *SYMMETRIC,
            "linear_under_scaling",
            "non_conflicting",
            "zero_if_strongly_stationary",
            "moves_if_weakly_stationary",
        ),
        golden=((1 + 22 / 18) / 2, (1 + 22 / 38) / 2),
    ),
    Method(
        "upgrad_ridge",
        kdopt.upgrad,
        num_losses(reg_eps=1e-4),
        ks=(2, 3),
        plumbing=False,
        claims=SYMMETRIC,
    ),
    Method(
        "dual_proj",
        kdopt.dual_proj,
        num_losses(),
        ks=(1, 2, 4),
        claims=(
            *SYMMETRIC,
            "non_conflicting",
            "zero_if_strongly_stationary",
            "moves_if_weakly_stationary",
        ),
        golden=(22 / 36, 0.5),
    ),
    Method(
        "conflict_free",
        kdopt.conflict_free,
        num_losses(),
        ks=(1, 2, 4),
        static_args=("num_losses", "length"),
        claims=SYMMETRIC,
        golden=tuple(sum(NORMS) / (2 * n) for n in NORMS),
    ),
    Method(
        "constrained",
        kdopt.constrained,
        num_losses(),
        ks=(2, 3, 4),
        static_args=("num_losses", "on_conflict"),
        claims=("combination", "scale_invariant_weights", "non_conflicting"),
        golden=(1, 22 / 38),
        zero=TASK_LEADS,
        rests=True,
    ),
    Method(
        "pcd",
        kdopt.pcd,
        num_losses(eps=0.0),
        ks=(2, 3, 4),
        static_args=("num_losses", "relative_eps", "on_conflict"),
        claims=("combination", "scale_invariant_weights"),
        # (1, (tau - c) n_1 / n_2) / sqrt(1 - c^2 + tau^2)
        golden=tuple(
            w / (1 - COSINE**2 + 0.02**2) ** 0.5
            for w in (1, (0.02 - COSINE) * NORMS[0] / NORMS[1])
        ),
        zero=TASK_LEADS,
        rests=True,
    ),
    Method(
        "dynamic_barrier",
        kdopt.dynamic_barrier,
        num_losses(limits=1.5),
        ks=(2, 3, 4),
        needs_values=True,
        static_args=("num_losses", "on_conflict"),
        claims=("combination",),
        # the second loss is 0.5 above its limit
        golden=(1, 22.5 / 38),
        zero=TASK_LEADS,
    ),
    Method(
        "grad_cosine",
        kdopt.grad_cosine,
        num_losses(),
        ks=(1, 2, 4),
        static_args=("num_losses", "rule"),
        claims=("combination", "scale_invariant_weights"),
        golden=(1, 0),
        zero=TASK_LEADS,
        rests=True,
    ),
    _reference_row("cosine"),
    _reference_row("nearest"),
    _reference_row("hypergradient", "on_simplex"),
    Method(
        "bloop",
        kdopt.bloop,
        num_losses(),
        ks=(2, 3),
        weighted=False,
        static_args=("num_losses", "initial", "relative_eps"),
        claims=("finite",),
        zero="the task leads: only its gradient enters the mean",
    ),
    Method(
        "equal_norms",
        kdopt.equal_norms,
        num_losses(),
        ks=(1, 2, 4),
        static_args=("num_losses", "target"),
        claims=("combination", "permutation_equivariant", "loss_scale_invariant"),
        golden=tuple(1 / (2 * n) for n in NORMS),
    ),
    Method(
        "equal_norms_to_the_task",
        kdopt.equal_norms,
        num_losses(target="task", mix=0.7, decay=0.9),
        ks=(2, 3),
        plumbing=False,
        claims=("combination", "scale_invariant_weights"),
        golden=(1.0, 0.7 * NORMS[0] / NORMS[1] + 0.3),
        zero="the others are as long as the task gradient, if there is one",
    ),
    Method(
        "ferero",
        kdopt.ferero,
        num_losses(),
        ks=(1, 2, 3),
        needs_values=True,
        claims=("combination",),
    ),
    Method(
        "sdmgrad",
        kdopt.sdmgrad,
        num_losses(),
        ks=(1, 2, 3),
        claims=(*CONVEX, "permutation_equivariant"),
        golden=(0.6, 0.4),
    ),
    Method(
        "modo",
        kdopt.modo,
        num_losses(),
        ks=(1, 2, 3),
        claims=("combination", "on_simplex"),
    ),
    Method(
        "moco",
        kdopt.moco,
        num_losses(),
        ks=(1, 2, 3),
        weighted=False,
        claims=("finite",),
    ),
    Method(
        "db_mtl",
        kdopt.db_mtl,
        num_losses(),
        ks=(1, 2, 3),
        needs_values=True,
        weighted=False,
        claims=("finite",),
    ),
    Method(
        "gradnorm",
        kdopt.gradnorm,
        num_losses(),
        ks=(1, 2, 3),
        needs_values=True,
        claims=("combination",),
        golden=(1.0, 1.0),
    ),
    Method(
        "graddrop",
        kdopt.graddrop,
        num_losses(key=KEY),
        ks=(1, 2, 3),
        weighted=False,
        static_args=("num_losses", "key", "leak"),
        claims=("finite",),
    ),
    Method(
        "krum",
        kdopt.krum,
        num_losses(),
        ks=(3, 4),
        static_args=("num_losses", "num_byzantine", "num_selected"),
        claims=CONVEX,
    ),
    Method(
        "trimmed_mean",
        kdopt.trimmed_mean,
        num_losses(),
        ks=(3, 4),
        weighted=False,
        zero="a zero is a vote for zero in each element",
        hides=("nan", "inf"),  # it drops the extremes
        static_args=("num_losses", "num_trimmed"),
        claims=("finite",),
    ),
    Method(
        "excess_mtl",
        kdopt.excess_mtl,
        num_losses(),
        ks=(1, 2, 3),
        weighted=False,
        claims=("combination", "on_simplex"),
    ),
    Method(
        "random_weights",
        kdopt.random_weights,
        num_losses(key=KEY),
        ks=(1, 2, 3),
        static_args=("num_losses", "key"),
        claims=CONVEX,
        zero="weights are drawn for as many losses as there are",
    ),
    Method(
        "dot_lars",
        kdopt.dot_lars,
        two(learning_rate=0.1),
        needs_params=True,
        weighted=False,
        static_args=(),
        strict=False,
        claims=("finite",),
    ),
    Method(
        "momentum_conflict_free",
        kdopt.momentum_conflict_free,
        num_losses(),
        ks=(1, 2, 3),
        scalarizer=True,
        weighted=False,
    ),
    Method(
        "dto_kd_amortized",
        kdopt.dto_kd_amortized,
        num_losses(),
        ks=(2, 3, 4),
        needs_values=True,
        scalarizer=True,
        strict=False,
    ),
    Method(
        "dto_kd_amortized_same_batch",
        kdopt.dto_kd_amortized,
        num_losses(signal="same_batch"),
        needs_values=True,
        scalarizer=True,
        strict=False,
        extras=lambda k: {"value_fn": lambda params: 0.9 * _samplers.values(0, k)},
    ),
    Method(
        "dto_kd_amortized_directional",
        kdopt.dto_kd_amortized,
        num_losses(signal="directional"),
        needs_values=True,
        scalarizer=True,
        strict=False,
        extras=lambda k: {
            "slopes_fn": lambda updates: -np.arange(1, k + 1, dtype=np.float32)
        },
    ),
    Method(
        "dto_kd_amortized_gram",
        kdopt.dto_kd_amortized,
        num_losses(signal="gram"),
        needs_values=True,
        scalarizer=True,
        strict=False,
        extras=lambda k: {"gram": np.eye(k)},
    ),
    Method(
        "dto_kd_amortized_literal",
        kdopt.dto_kd_amortized,
        num_losses(signal="literal"),
        needs_values=True,
        scalarizer=True,
        strict=False,
    ),
    Method(
        "famo",
        kdopt.famo,
        num_losses(),
        ks=(2, 3, 4),
        needs_values=True,
        scalarizer=True,
        strict=False,
        extras=lambda k: {"value_fn": lambda params: 0.9 * _samplers.values(0, k)},
    ),
    Method(
        "hypergradient",
        kdopt.hypergradient,
        num_losses(),
        ks=(2, 3),
        scalarizer=True,
        strict=False,
        extras=lambda k: {"slopes": np.linspace(-1, 1, k, dtype=np.float32)},
    ),
    _scalarizer_row("uncertainty", strict=False),
    _scalarizer_row("imtl_l", strict=False),
    _scalarizer_row("dwa", window=2),
    _scalarizer_row("softadapt", window=1),
    _scalarizer_row("stch"),
    _scalarizer_row("geometric_mean"),
    _scalarizer_row("cosmos"),
    _scalarizer_row("pbi"),
    _scalarizer_row("slaw"),
    _scalarizer_row("relobralo"),
    Method(
        "magnitude_match",
        kdopt.magnitude_match,
        num_losses(),
        ks=(1, 2, 3),
        needs_values=True,
        scalarizer=True,
        static_args=("num_losses", "anchor", "matched"),
    ),
    Method(
        "lagrangian",
        kdopt.lagrangian,
        num_losses(limits=1.0),
        ks=(2, 3),
        needs_values=True,
        scalarizer=True,
        static_args=("num_losses", "start"),
    ),
    Method(
        "linear_scalarizer",
        kdopt.scalarizers.linear,
        lambda k: {"weights": [0.1 + 0.4 * i for i in range(k)]},
        ks=(1, 2, 3, 4),
        scalarizer=True,
        static_args=(),
    ),
    Method(
        "random_weights_scalarizer",
        kdopt.scalarizers.random_weights,
        num_losses(key=KEY),
        ks=(1, 2, 3),
        scalarizer=True,
        static_args=("num_losses", "key"),
    ),
    Method("dot_nesterov", kdopt.dot, two(nesterov=True), **STREAM),
    Method("dot_normalized", kdopt.dot, two(normalize=True), **STREAM),
    Method(
        "gain_matched_sgd",
        kdopt.gain_matched_sgd,
        weighted=False,
        claims=("finite", "linear_under_scaling"),
        static_args=(),
    ),
    Method(
        "scale_by_dot_adam",
        kdopt.scale_by_dot_adam,
        weighted=False,
        claims=("finite",),
        static_args=(),
    ),
    Method(
        "scale_by_multi_adam",
        kdopt.scale_by_multi_adam,
        num_losses(),
        ks=(1, 2, 3),
        weighted=False,
        claims=("finite",),
    ),
    Method(
        "scale_by_mt_adam",
        kdopt.scale_by_mt_adam,
        num_losses(),
        ks=(1, 2, 3),
        weighted=False,
        claims=("finite",),
        zero="all are scaled to the gradient of the first loss",
    ),
    Method(
        "scale_by_dot_lion",
        kdopt.scale_by_dot_lion,
        weighted=False,
        claims=("finite",),
        static_args=(),
    ),
)

METHOD = {method.name: method for method in METHODS}
BALANCERS = tuple(method for method in METHODS if not method.scalarizer)


def with_k(methods: tuple[Method, ...]) -> list[tuple[str, int]]:
    """All pairs of name and number of losses, for ``pytest.mark.parametrize``."""
    return [(method.name, k) for method in methods for k in method.ks]


@functools.cache
def transform(name: str, k: int) -> optax.GradientTransformationExtraArgs:
    """The method itself, made once."""
    return METHOD[name].make(k)


@functools.cache
def jitted(name: str, k: int) -> Callable[..., Any]:
    """``(grads, state, params, values) -> (update, state)``, compiled once a shape."""
    method, tx = METHOD[name], transform(name, k)

    @jax.jit
    def step(grads, state, params, values):
        feed = method.feed(grads)
        return tx.update(feed, state, params, values=values, **method.extras(k))

    return step


def first_step(name: str, k: int):
    """The ``run`` of the theorems: matrix and values to update and weights."""
    step = jitted(name, k)

    @functools.cache
    def start(size: int):
        params = jnp.zeros(size)
        return transform(name, k).init(params), params

    def run(grads: np.ndarray, values: np.ndarray):
        update, state = step(tuple(grads), *start(grads.shape[1]), values)
        weights = getattr(state, "loss_weights", None)
        return np.asarray(update), None if weights is None else np.asarray(weights)

    return run
