r"""The settings that a study tries, and which of them are equivalent.

.. math::
    L = (1 - \alpha) \, \mathrm{CE}(q, p^s)
        + \alpha \, L_2(o^t_{\tau_t}, o^s_{\tau_s})

where :math:`L_2` is the cross-entropy of probabilities or the mean squared difference
of logits.

References:
    Sultan et al., `An Empirical Investigation into the Effect of Parameter Choices in
    Knowledge Distillation <https://arxiv.org/abs/2401.06356>`_, 2024. The grids and the
    order of the greedy search are our own, since the paper does not give them.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

DISTANCES = ("ce", "kl", "mse")
TEACHERS = ("t_hs", "t_ll", "human")
BALANCERS = ("fixed", "dynamic_lambda", "min_norm", "dto_kd", "dot")
WITHOUT_ALPHA = ("min_norm", "dto_kd")
TIED = "tied"

Setting: TypeAlias = dict[str, Any]
"""A value for every knob: ``alpha``, ``distance``, ``tau_teacher``, ``tau_student`` (a
number or ``tied`` to the teacher's), ``teacher`` and ``balancer``."""

Space: TypeAlias = dict[str, tuple]
"""The values of every knob, in the order of the greedy search."""

# Alpha last: at 0 the other knobs have no effect, and a greedy search would stop there.
SPACE: Space = {
    "teacher": ("t_hs", "t_ll"),
    "distance": ("ce", "mse"),
    "tau_teacher": (1.0, 2.0, 4.0),
    "tau_student": (1.0, TIED),
    "alpha": (0.0, 0.5, 0.75, 0.9, 1.0),
    "balancer": ("fixed",),
}

# The paper recommends three of these; alpha and tau_teacher are our choice.
RECOMMENDED: Setting = {
    "alpha": 0.9,
    "distance": "ce",
    "tau_teacher": 1.0,
    "tau_student": 1.0,
    "teacher": "t_ll",
    "balancer": "fixed",
}


def canonicalize(setting: Setting) -> Setting:
    """Removes knobs without effect, so that equivalent trainings compare equal.

    * ``tied`` becomes a number;
    * ``kl`` has the gradient of ``ce``, so only ``dto_kd``, which uses loss values,
      distinguishes them;
    * at ``alpha`` 0 a weighted sum does not use the teacher;
    * ``min_norm`` balances the losses without weights, and ``dto_kd`` is invariant to
      constant factors, so these have no ``alpha``;
    * tied temperatures do not affect the mean squared difference of logits.

    >>> canonicalize(RECOMMENDED | {"alpha": 0.0})
    {'alpha': 0.0, 'balancer': 'fixed'}
    >>> canonicalize(RECOMMENDED | {"tau_teacher": 4.0, "tau_student": "tied"})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'alpha': 0.9, 'distance': 'ce', 'tau_teacher': 4.0, 'tau_student': 4.0,
     'teacher': 't_ll', 'balancer': 'fixed'}
    """
    out = RECOMMENDED | setting
    if out["tau_student"] == TIED:
        out["tau_student"] = out["tau_teacher"]
    balancer = out["balancer"]
    if balancer in WITHOUT_ALPHA:
        del out["alpha"]
    if balancer != "dto_kd" and out["distance"] == "kl":
        out["distance"] = "ce"
    if balancer in ("fixed", "dot") and out["alpha"] == 0:
        return {"alpha": 0.0, "balancer": balancer}
    if out["distance"] == "mse" and out["tau_student"] == out["tau_teacher"]:
        out["tau_student"] = out["tau_teacher"] = 1.0
    return out


def key(setting: Setting) -> tuple:
    """Returns a hashable key of a training."""
    return tuple(sorted(canonicalize(setting).items()))


def list_settings(space: Space) -> list[Setting]:
    """Returns all settings of a space; the last knob varies fastest."""
    return [
        dict(zip(space, values, strict=True))
        for values in itertools.product(*space.values())
    ]


def deduplicate(settings: Sequence[Setting]) -> list[Setting]:
    """Returns the first setting of each distinct training."""
    firsts: dict[tuple, Setting] = {}
    for setting in settings:
        firsts.setdefault(key(setting), setting)
    return list(firsts.values())


def check(space: Space) -> None:
    """Refuses invalid values, listing the valid ones.

    Raises:
        ValueError: If a knob has no values or an invalid one.
    """
    words = {"distance": DISTANCES, "teacher": TEACHERS, "balancer": BALANCERS}
    for knob, values in space.items():
        option = f"--{knob.replace('_', '-')}"
        if not values:
            raise ValueError(f"{option} needs at least one value.")
        for value in values:
            if knob in words and value not in words[knob]:
                choices = ", ".join(words[knob])
                raise ValueError(f"{option} {value!r} is unknown; choose {choices}.")
            if knob == "alpha" and not 0 <= value <= 1:
                raise ValueError(f"{option} must lie in [0, 1], got {value}.")
            if knob.startswith("tau") and value != TIED:
                _check_temperature(option, value)


def _check_temperature(option: str, value: Any) -> None:
    if not isinstance(value, float | int) or not 0 < value < math.inf:
        tied = f" or {TIED!r}" if option == "--tau-student" else ""
        raise ValueError(f"{option} must be a positive number{tied}, got {value!r}.")
