"""The one table of methods. A new method is one row; every common test follows.

Each row says how to build the method for K losses, for which K, what ``update`` needs,
which theorems of ``_asserts`` it claims and its weights on a published example.
"""

import functools
import inspect
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
    """Arguments of methods that draw an order, for three or more losses."""
    return {"num_losses": k, **({"key": KEY} if k > 2 else {})}


def two(**kwargs: Any) -> Arguments:
    return lambda k: kwargs


class Method(NamedTuple):
    """A row of the table.

    Attributes:
        name: Name of the row, unique.
        factory: Builds the transform from keyword arguments.
        kwargs: The keyword arguments, given K.
        ks: Numbers of losses to test.
        needs_values: Whether ``update`` must be given ``values``.
        needs_params: Whether ``update`` must be given ``params``.
        scalarizer: Whether its input is one gradient tree instead of K.
        weighted: Whether its state is a ``WeightsState``, with the NaN policy of that.
        plumbing: Whether dtypes, transformations and wrappers are tested: not for a row
            that is another one with other numbers and other theorems.
        hides: What one gradient may hold, ``"nan"`` or ``"inf"``, without showing in
            the update.
        claims: Names of theorems in ``_asserts.CLAIMS``.
        golden: Weights on ``GOLDEN_GRADS`` and ``GOLDEN_VALUES``, to 1e-10.
        static_args: Arguments that ``optax.inject_hyperparams`` must leave alone.
        strict: Whether it runs under strict promotion; methods that use Optax inside do
            not.
        extras: Other keyword arguments of ``update``, given K.
        zero: Why, with a zero gradient, the update differs from that of the other
            losses alone; by default it is equal up to a positive factor.
        rests: Whether the update is zero if the first gradient is, since the other
            losses only bound or help the first.
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
        """K of the tests that need only one: the smallest above one."""
        return min(k for k in self.ks if k > 1)

    def make(self, k: int) -> optax.GradientTransformationExtraArgs:
        return self.factory(**self.kwargs(k))

    def inject(self, k: int) -> optax.GradientTransformationExtraArgs:
        wrapped = optax.inject_hyperparams(self.factory, static_args=self.static_args)
        return wrapped(**self.kwargs(k))

    def feed(self, grads: tuple) -> Any:
        """Selects what the transform takes of K gradients: all, or one tree."""
        return grads[0] if self.scalarizer else grads


GOLDEN_GRADS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
"""The example of SimplexLab/TorchJD 862baed, tests/unit/aggregation/test_values.py."""

GOLDEN_VALUES = np.array([1.0, 2.0])

KEY = jax.random.key(0)

CONVEX = ("combination", "on_simplex", "scale_invariant_weights")
SYMMETRIC = ("combination", "scale_invariant_weights", "permutation_equivariant")
DESCENT = ("non_conflicting", "zero_if_stationary", "zero_gradient_is_left_out")
FAIR = ("combination", "permutation_equivariant", "non_conflicting")
STATIONARY = ("zero_if_strongly_stationary", "moves_if_weakly_stationary")
# The norms of the example are sqrt(18) and sqrt(38), the product is -22.
NORMS = 18**0.5, 38**0.5
COSINE = -22 / (18 * 38) ** 0.5
BISECTOR = NORMS[1] / (NORMS[0] + NORMS[1])


def _row(name: str, *claims: str, options: Mapping | None = None, **fields) -> Method:
    """Arguments of a row of K losses: ``num_losses`` and ``options``."""
    fields.setdefault("factory", getattr(kdopt, name, None))
    fields.setdefault("kwargs", num_losses(**(options or {})))
    static = ("num_losses", *(fields.pop("static", ())))
    return Method(name, claims=claims, static_args=static, **fields)


def _lambda(policy: str, *claims: str, golden: float, **kwargs: Any) -> Method:
    return _two(
        f"dynamic_lambda_{policy}",
        *("combination", "on_simplex", *claims),
        factory=kdopt.dynamic_lambda,
        kwargs=two(policy=policy, **kwargs),
        needs_values=policy == "target_relative",
        weighted=True,
        golden=(1 - golden, golden),
        static_args=("policy",),
    )


def _two(name: str, *claims: str, **fields) -> Method:
    """Arguments of a row of two losses, with its own state."""
    fields.setdefault("factory", getattr(kdopt, name, None))
    fields = {"weighted": False, "static_args": (), **fields}
    return Method(name, claims=claims, **fields)


def _scalarizer(name: str, *, strict: bool = True, static=(), **fields) -> Method:
    """A row of a method that learns from values and passes one gradient."""
    fields = {"ks": (1, 2, 3), "needs_values": True, **fields}
    return _row(name, scalarizer=True, strict=strict, static=static, **fields)


def _amortized(suffix: str = "", **fields) -> Method:
    name = "dto_kd_amortized" + (f"_{suffix}" if suffix else "")
    options = {"signal": suffix} if suffix else {}
    fields = {"factory": kdopt.dto_kd_amortized, "options": options, **fields}
    return _scalarizer(name, strict=False, **{"ks": (2,), **fields})


def _lower_values(k: int) -> dict:
    return {"value_fn": lambda params: 0.9 * _samplers.values(0, k)}


def _many_weights(k: int) -> dict:
    return {"weights": [0.1 + 0.4 * i for i in range(k)]}


def _leading(name: str, *claims: str, rests: bool = True, **fields) -> Method:
    """A row of a method in which the first loss leads, and the others bound it."""
    fields = {"ks": (2, 3, 4), "rests": rests, **fields}
    zero = "the first loss leads: the others bound its step"
    return _row(name, "combination", *claims, **{"zero": zero, **fields})


def _reference(rule: str, *claims: str) -> Method:
    return _row(
        f"reference_aligned_{rule}",
        *("combination", "scale_invariant_weights", *claims),
        factory=kdopt.reference_aligned,
        options={"rule": rule},
        static=("rule",),
        ks=(3, 4),
        zero="the last gradient is the reference, whose place a zero takes",
    )


LINEAR = ("finite", "linear_under_scaling")
DTO_KD = {"factory": kdopt.dto_kd, "ks": (2, 3, 4), "needs_values": True}
DRAWN = {"kwargs": num_losses_and_key, "ks": (1, 2, 3), "static": ("key",)}
OWN = {"ks": (1, 2, 3), "weighted": False}
VACCINE = (1 + 22 / 18, 1 + 22 / 38)  # the weights that remove the conflict

METHODS = (
    _two(
        "linear",
        *("combination", "linear_under_scaling", "scale_invariant_weights"),
        kwargs=_many_weights,
        ks=(1, 2, 3, 4),
        golden=(0.1, 0.5),
        zero="each loss has its own number, whatever the others do",
    ),
    _two("dot", *LINEAR),
    _two(
        "streams",
        *LINEAR,
        kwargs=lambda k: {"momenta": [0.2 * i for i in range(k)], "dampening": 0.1},
        ks=(1, 2, 3, 4),
        zero="each loss has its own momentum, whatever the others do",
    ),
    _row(
        "min_norm",
        *(*CONVEX, *DESCENT),
        *("permutation_equivariant", "min_norm_kkt", "equal_decrease"),
        ks=(1, 2, 3, 4),
        golden=(0.6, 0.4),
    ),
    _row(
        "dto_kd",
        *("combination", "scale_invariant_weights", *DESCENT),
        *("permutation_equivariant", "loss_scale_invariant"),
        "equal_relative_decrease",
        # log-Gram (18, -11; -11, 9.5): pi = (20.5, 29) / 49.5, divided by the values
        golden=(41 / 99, 29 / 99),
        **DTO_KD,
    ),
    _row(
        "dto_kd_convex",
        *(*CONVEX, *DESCENT, "permutation_equivariant", "equal_relative_decrease"),
        options={"rescale": "convex"},
        golden=(41 / 70, 29 / 70),
        **DTO_KD,
    ),
    _row(
        "dto_kd_theorem",
        *("combination", "permutation_equivariant", "loss_scale_invariant"),
        "equal_relative_decrease",
        options={"simplex": False},
        golden=(41 / 99, 29 / 99),
        **DTO_KD,
    ),
    _lambda("fixed", "scale_invariant_weights", golden=0.9),
    _lambda(
        "gradual",
        *(*DESCENT, "scale_invariant_weights", "permutation_equivariant"),
        *("min_norm_kkt", "equal_decrease"),
        golden=0.4,
        lambda_=0.5,
    ),
    _lambda("fast", "scale_invariant_weights", golden=1.0),
    # 100 x^2 - 80 x + 18 = 6, the root nearest to 0.9
    _lambda("target", golden=0.6, target=6.0),
    # 100 x^2 - 80 x + 18 = 4 (1 + x), the root nearest to 0.9
    _lambda("target_relative", golden=0.6107878402833892, target=4.0),
    _lambda(
        "norm_balance",
        *("non_conflicting", "zero_gradient_is_left_out", "scale_invariant_weights"),
        *("permutation_equivariant", "bisector"),
        golden=1 - BISECTOR,
        lambda_=0.5,
    ),
    _lambda("safe", "non_conflicting", "scale_invariant_weights", golden=18 / 40),
    _lambda("cosine", "non_conflicting", "scale_invariant_weights", golden=18 / 40),
    _row(
        "min_norm_by_norm",
        *FAIR,
        factory=kdopt.min_norm,
        options={"normalize": "norm"},
        ks=(2, 3),
        static=("normalize",),
        plumbing=False,
    ),
    _row("pcgrad", *SYMMETRIC[:2], golden=VACCINE, **DRAWN),
    _row("gradvac", *SYMMETRIC[:2], golden=VACCINE, **DRAWN),
    _row(
        "cagrad",
        *SYMMETRIC,
        ks=(1, 2, 4),
        # the mean (1, 1, 1) and the first gradient at half the length of the mean
        golden=(0.5 + 0.5 * 3**0.5 / NORMS[0], 0.5),
    ),
    _row(
        "cagrad_wide",
        *(*SYMMETRIC, "non_conflicting"),
        factory=kdopt.cagrad,
        options={"c": 1.0},
        ks=(2, 3),
        plumbing=False,
    ),
    _row("imtl_g", *SYMMETRIC, ks=(1, 2, 4), golden=(BISECTOR, 1 - BISECTOR)),
    _row(
        "nash_mtl",
        *(*FAIR, "loss_scale_invariant"),
        ks=(1, 2, 4),
        # 1 / (n_i sqrt(1 + cos)), of length sqrt(2), shortened to 1
        golden=tuple((2 * (1 + COSINE)) ** -0.5 / n for n in NORMS),
    ),
    _row(
        "fairgrad",
        *(*FAIR, "loss_scale_invariant"),  # alpha = 1 is Nash-MTL without a bound
        ks=(1, 2, 4),
        golden=tuple((1 + COSINE) ** -0.5 / n for n in NORMS),
    ),
    _row("aligned_mtl", *SYMMETRIC, ks=(1, 2, 4), static=("scale",)),
    _row(
        "upgrad",
        *(*SYMMETRIC, "linear_under_scaling", "non_conflicting", *STATIONARY),
        ks=(1, 2, 3, 4),
        golden=tuple(weight / 2 for weight in VACCINE),
    ),
    _row(
        "upgrad_ridge",
        *SYMMETRIC,
        factory=kdopt.upgrad,
        options={"reg_eps": 1e-4},
        ks=(2, 3),
        plumbing=False,
    ),
    _row(
        "dual_proj",
        *(*SYMMETRIC, "non_conflicting", *STATIONARY),
        ks=(1, 2, 4),
        golden=(22 / 36, 0.5),
    ),
    _row(
        "conflict_free",
        *SYMMETRIC,
        ks=(1, 2, 4),
        static=("length",),
        golden=tuple(sum(NORMS) / (2 * n) for n in NORMS),
    ),
    _row(
        "sdmgrad",
        *(*CONVEX, "permutation_equivariant"),
        ks=(1, 2, 3),
        golden=(0.6, 0.4),
    ),
    _row("modo", "combination", "on_simplex", ks=(1, 2, 3)),
    _row("moco", "finite", **OWN),
    _row("db_mtl", "finite", needs_values=True, **OWN),
    _row("gradnorm", "combination", ks=(1, 2, 3), needs_values=True, golden=(1.0, 1.0)),
    _row("graddrop", "finite", options={"key": KEY}, static=("key", "leak"), **OWN),
    _row("krum", *CONVEX, ks=(3, 4), static=("num_byzantine", "num_selected")),
    _row(
        "trimmed_mean",
        "finite",
        ks=(3, 4),
        weighted=False,
        zero="a zero is a vote for zero in each element",
        hides=("nan", "inf"),  # it drops the extremes
        static=("num_trimmed",),
    ),
    _row("excess_mtl", "combination", "on_simplex", **OWN),
    _row(
        "random_weights",
        *CONVEX,
        options={"key": KEY},
        ks=(1, 2, 3),
        static=("key",),
        zero="weights are drawn for as many losses as there are",
    ),
    _two(
        "dot_lars",
        "finite",
        kwargs=two(learning_rate=0.1),
        needs_params=True,
        strict=False,
    ),
    _row("momentum_conflict_free", scalarizer=True, **OWN),
    _amortized(ks=(2, 3, 4)),
    _amortized("same_batch", extras=_lower_values),
    _amortized("gram", extras=lambda k: {"gram": np.eye(k)}),
    _amortized("literal"),
    _scalarizer("famo", ks=(2, 3, 4), strict=False, extras=_lower_values),
    _scalarizer("uncertainty", strict=False),
    _scalarizer("imtl_l", strict=False),
    _scalarizer("dwa", options={"window": 2}, static=("window",)),
    _scalarizer("softadapt", options={"window": 1}, static=("window",)),
    _scalarizer("stch"),
    _scalarizer("geometric_mean"),
    _scalarizer("cosmos"),
    _scalarizer("pbi"),
    Method(
        "linear_scalarizer",
        kdopt.scalarizers.weighted_sum,
        _many_weights,
        ks=(1, 2, 3, 4),
        scalarizer=True,
        static_args=(),
    ),
    _row(
        "random_weights_scalarizer",
        factory=kdopt.scalarizers.random_weighting,
        options={"key": KEY},
        ks=(1, 2, 3),
        scalarizer=True,
        static=("key",),
    ),
    _two("dot_nesterov", *LINEAR, factory=kdopt.dot, kwargs=two(nesterov=True)),
    _two("dot_normalized", *LINEAR, factory=kdopt.dot, kwargs=two(normalize=True)),
    _two("gain_matched_sgd", *LINEAR),
    _two("scale_by_dot_adam", "finite"),
    _two("scale_by_dot_lion", "finite"),
    _row("scale_by_multi_adam", "finite", **OWN),
    _row(
        "scale_by_mt_adam",
        "finite",
        zero="all are scaled to the gradient of the first loss",
        **OWN,
    ),
    _row(
        "min_norm_by_root_of_norm",
        *FAIR,
        factory=kdopt.min_norm,
        options={"normalize": 0.5},
        ks=(2, 3),
        plumbing=False,
    ),
    _row(
        "conflict_free_geometric",
        *SYMMETRIC,
        factory=kdopt.conflict_free,
        options={"length": "geometric"},
        static=("length",),
        ks=(2, 3),
        plumbing=False,
        # of a cosine of (1 + cos) / sqrt(2 (1 + cos)) with both
        golden=tuple(
            (NORMS[0] * NORMS[1]) ** 0.5 / (2 + 2 * COSINE) ** 0.5 / n for n in NORMS
        ),
    ),
    _leading(
        "constrained",
        *("scale_invariant_weights", "non_conflicting"),
        static=("on_conflict",),
        golden=(1, 22 / 38),
    ),
    _leading(
        "pcd",
        "scale_invariant_weights",
        options={"eps": 0.0},
        static=("relative_eps", "on_conflict"),
        # (1, (tau - c) n_1 / n_2) / sqrt(1 - c^2 + tau^2)
        golden=tuple(
            w / (1 - COSINE**2 + 0.02**2) ** 0.5
            for w in (1, (0.02 - COSINE) * NORMS[0] / NORMS[1])
        ),
    ),
    _leading(
        "dynamic_barrier",
        options={"limits": 1.5},
        needs_values=True,
        static=("on_conflict",),
        # the second loss is 0.5 above its limit
        golden=(1, 22.5 / 38),
        rests=False,
    ),
    _leading(
        "grad_cosine",
        "scale_invariant_weights",
        ks=(1, 2, 4),
        static=("rule",),
        golden=(1, 0),
    ),
    _reference("cosine"),
    _reference("nearest"),
    _reference("hypergradient", "on_simplex"),
    _row(
        "bloop",
        "finite",
        ks=(2, 3),
        weighted=False,
        static=("initial", "relative_eps"),
        zero="the task leads: only its gradient enters the mean",
    ),
    _row(
        "equal_norms",
        *("combination", "permutation_equivariant", "loss_scale_invariant"),
        ks=(1, 2, 4),
        static=("target",),
        golden=tuple(1 / (2 * n) for n in NORMS),
    ),
    _row(
        "equal_norms_to_the_task",
        *("combination", "scale_invariant_weights"),
        factory=kdopt.equal_norms,
        options={"target": "task", "mix": 0.7, "decay": 0.9},
        ks=(2, 3),
        plumbing=False,
        golden=(1.0, 0.7 * NORMS[0] / NORMS[1] + 0.3),
        zero="the others are as long as the task gradient, if there is one",
    ),
    _row("ferero", "combination", ks=(1, 2, 3), needs_values=True),
    _scalarizer(
        "hypergradient",
        ks=(2, 3),
        needs_values=False,
        strict=False,
        extras=lambda k: {"slopes": np.linspace(-1, 1, k, dtype=np.float32)},
    ),
    _amortized(
        "directional",
        extras=lambda k: {
            "slopes_fn": lambda updates: -np.arange(1, k + 1, dtype=np.float32)
        },
    ),
    _scalarizer(
        "weight_search",
        ks=(2, 3),
        needs_values=False,
        extras=lambda k: {
            "candidate_losses": np.linspace(
                1, 0, 9 if k == 2 else k * (k + 1) // 2 + (k > 1)
            )
        },
    ),
    _scalarizer("slaw"),
    _scalarizer("relobralo"),
    _scalarizer("magnitude_match", static=("anchor", "matched")),
    _scalarizer("lagrangian", ks=(2, 3), options={"limits": 1.0}, static=("start",)),
)


def engine(method: Method) -> tuple:
    """Identifies the code that runs a method: that of its update, its inputs and state.

    Methods that are one call of ``from_gram`` differ only in their weights.
    """
    k = method.few
    tx = method.make(k)
    state = jax.eval_shape(tx.init, jax.ShapeDtypeStruct((3,), jnp.float32))
    keeps = bool(jax.tree.leaves(getattr(state, "inner", ())))
    code = inspect.unwrap(tx.update).__code__  # the type checker of the tests wraps it
    return code, method.needs_values, keeps, *sorted(method.extras(k))


def one_per_engine(methods: tuple[Method, ...]) -> list[str]:
    """Names the first row of each engine, for tests of what surrounds a method."""
    first: dict[tuple, str] = {}
    for method in methods:
        first.setdefault(engine(method), method.name)
    return list(first.values())


METHOD = {method.name: method for method in METHODS}
BALANCERS = tuple(method for method in METHODS if not method.scalarizer)


def with_k(methods: tuple[Method, ...]) -> list[tuple[str, int]]:
    """Lists all pairs of name and number of losses, for ``pytest.mark.parametrize``."""
    return [(method.name, k) for method in methods for k in method.ks]


@functools.cache
def transform(name: str, k: int) -> optax.GradientTransformationExtraArgs:
    """Builds the method, once."""
    return METHOD[name].make(k)


@functools.cache
def jitted(name: str, k: int) -> Callable[..., Any]:
    """Jits ``(grads, state, params, values) -> (update, state)``, once per shape."""
    method, tx = METHOD[name], transform(name, k)

    @jax.jit
    def step(grads, state, params, values):
        feed = method.feed(grads)
        return tx.update(feed, state, params, values=values, **method.extras(k))

    return step


def first_step(name: str, k: int):
    """Makes the ``run`` of the theorems: matrix and values to update and weights."""
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
