"""The situations: a user may be in any of them, and does not know in which."""

from typing import Literal, NamedTuple

TeacherKind = Literal["good", "weak", "wrong", "half"]
"""Trained on all labels, on few, on many wrong ones, or on half of the classes."""

LossKind = Literal["kl", "mse", "features"]


class Situation(NamedTuple):
    """One task, teacher and distillation loss.

    Attributes:
        name: Name in tables.
        task: One of :data:`kdlab.regret.tasks.TASKS`.
        teacher: Kind of the teacher.
        noise: Share of the student's labels that are drawn again at random.
        labels: Number of labels that the student gets; None: all.
        epochs: Passes over them.
        loss: Distillation loss: KL divergence or mean square of the logits, or
            relations between the features of the examples (RKD).
        temperature: Temperature of the KL divergence.
        scale: Factor of the distillation loss, besides the squared temperature of the
            KL divergence.
    """

    name: str
    task: str = "digits"
    teacher: TeacherKind = "good"
    noise: float = 0.0
    labels: int | None = 400
    epochs: int = 20
    loss: LossKind = "kl"
    temperature: float = 4.0
    scale: float = 1.0


SITUATIONS = {
    situation.name: situation
    for situation in (
        Situation("good teacher"),
        Situation("good teacher, 20% noise", noise=0.2),
        Situation("good teacher, 40% noise", noise=0.4),
        Situation("good teacher, 80% noise", noise=0.8),
        Situation("weak teacher", teacher="weak"),
        Situation("weak teacher, 40% noise", teacher="weak", noise=0.4),
        Situation("wrong teacher", teacher="wrong"),
        Situation("wrong teacher, 40% noise", teacher="wrong", noise=0.4),
        Situation("half-taught teacher", teacher="half"),
        Situation("half-taught teacher, 40% noise", teacher="half", noise=0.4),
        Situation("100 labels", labels=100, epochs=40),
        Situation("100 labels, 40% noise", labels=100, epochs=40, noise=0.4),
        Situation("3,000 labels", labels=3000, epochs=5),
        Situation("3,000 labels, 40% noise", labels=3000, epochs=5, noise=0.4),
        Situation("temperature 1", noise=0.2, temperature=1.0),
        Situation("temperature 8", noise=0.2, temperature=8.0),
        Situation("KL divided by 16", noise=0.2, scale=1 / 16),
        Situation("mean square of logits", noise=0.2, loss="mse"),
        Situation("features, 20% noise", noise=0.2, loss="features"),
        Situation("languages", task="languages", labels=None, epochs=5),
        Situation(
            "languages, 40% noise", task="languages", labels=None, epochs=5, noise=0.4
        ),
        Situation("fashion", task="fashion"),
        Situation("fashion, 40% noise", task="fashion", noise=0.4),
    )
}
"""Every factor alone, and those that change the best weight most with label noise. The
list was fixed before any method but fixed weights had been run on all of it."""
