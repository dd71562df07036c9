r"""The settings that a study tries, and which of them are the same training.

.. math::
    L = (1 - \alpha) \, \mathrm{CE}(q, p^s)
        + \alpha \, L_2(o^t_{\tau_t}, o^s_{\tau_s})

with :math:`L_2` the cross-entropy of probabilities or the mean square of logits.

References:
    Sultan et al., `An Empirical Investigation into the Effect of Parameter Choices in
    Knowledge Distillation <https://arxiv.org/abs/2401.06356>`_, 2024. The paper's
    grids and the order of its greedy search are not known: those here are ours.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

DISTANCES = ("ce", "kl", "mse")
TEACHERS = ("t_hs", "t_ll")
BALANCERS = ("fixed", "dynamic_lambda", "min_norm", "dto_kd", "dot")
WITHOUT_ALPHA = ("min_norm", "dto_kd")
TIED = "tied"

Setting: TypeAlias = dict[str, Any]
"""A value for every knob: ``alpha``, ``distance``, ``tau_teacher``, ``tau_student`` (a
number or ``tied`` to the teacher's), ``teacher`` and ``balancer``."""

Space: TypeAlias = dict[str, tuple]
"""The values of every knob, in the order of the greedy search."""

# Alpha last: at 0 the other knobs change nothing, and a greedy search would end there.
SPACE: Space = {
    "teacher": TEACHERS,
    "distance": ("ce", "mse"),
    "tau_teacher": (1.0, 2.0, 4.0),
    "tau_student": (1.0, TIED),
    "alpha": (0.0, 0.5, 0.75, 0.9, 1.0),
    "balancer": ("fixed",),
}

# The recommended configuration names three of them; alpha and tau_teacher are ours.
RECOMMENDED: Setting = {
    "alpha": 0.9,
    "distance": "ce",
    "tau_teacher": 1.0,
    "tau_student": 1.0,
    "teacher": "t_ll",
    "balancer": "fixed",
}


def canonical(setting: Setting) -> Setting:
    """Leaves the knobs out that change nothing, so that equal trainings are equal.

    * ``tied`` becomes the number;
    * ``kl`` has the gradient of ``ce``: only ``dto_kd``, which looks at values, tells
      them apart;
    * at ``alpha`` 0 a weighted sum has no teacher;
    * ``min_norm`` balances the losses without weights, and ``dto_kd`` does not see
      constant factors of them, so these have no ``alpha``;
    * the mean square of logits does not change with tied temperatures.

    >>> canonical(RECOMMENDED | {"alpha": 0.0})
    {'alpha': 0.0, 'balancer': 'fixed'}
    >>> canonical(RECOMMENDED | {"tau_teacher": 4.0, "tau_student": "tied"})
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
    """A hashable name of a training."""
    return tuple(sorted(canonical(setting).items()))


def points(space: Space) -> list[Setting]:
    """Every setting of a space, the last knob fastest."""
    return [
        dict(zip(space, values, strict=True))
        for values in itertools.product(*space.values())
    ]


def distinct(settings: Sequence[Setting]) -> list[Setting]:
    """One setting for each training, the first of its equals."""
    firsts: dict[tuple, Setting] = {}
    for setting in settings:
        firsts.setdefault(key(setting), setting)
    return list(firsts.values())


def check(space: Space) -> None:
    """Refuses wrong values with the right ones.

    Raises:
        ValueError: If a knob has no values or one that it cannot take.
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
