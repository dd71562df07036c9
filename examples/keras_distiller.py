"""Balance the two losses of Keras's Distiller.

``pip install keras``, then ``KERAS_BACKEND=jax python -m examples.keras_distiller``.
Read with Keras 3.15, with which ``tests/peers/test_keras.py`` runs it.
"""

import jax.numpy as jnp
import keras  # pyrefly: ignore
import numpy as np
from keras.distillation import Distiller, LogitsDistillation  # pyrefly: ignore

import kdopt


class BalancedDistiller(Distiller):
    """A distiller that balances at the logits; Keras differentiates its one scalar.

    It takes one distillation loss, of the logits. Like Keras's own it ignores
    ``sample_weight``.

    Attributes:
        balancer: Any balancer without a memory.
    """

    balancer = kdopt.dto_kd(rescale="convex")

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        """Replaces the sum with a fixed ``student_loss_weight``."""
        del sample_weight, training
        teacher = self.teacher(x, training=False)
        (distillation,) = self.distillation_losses

        def losses_fn(logits):
            labels = jnp.reshape(y, logits.shape[:-1])
            task = kdopt.losses.cross_entropy(logits, labels)
            return task, distillation.compute_loss(teacher, logits)

        loss, aux = kdopt.balanced_loss(losses_fn, y_pred, self.balancer)
        self.student_loss_tracker.update_state(aux.values[0])
        self.distillation_loss_tracker.update_state(aux.values[1])
        self.total_loss_tracker.update_state(loss)
        return loss


def make_classifier(width: int, seed: int) -> keras.Model:
    """Makes a network of one hidden layer, for four numbers and three classes."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(width, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws points around three centres, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centres = np.random.default_rng(7).normal(0, 1, (3, 4))
    points = centres[labels] + rng.normal(0, 0.7, (count, 4))
    return points.astype(np.float32), labels


def train_teacher() -> keras.Model:
    """Trains a wide network on many points."""
    teacher = make_classifier(64, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss)
    teacher.fit(*draw(4096, seed=0), batch_size=64, epochs=3, verbose=0)
    return teacher


def distil(distiller_class, teacher, *, epochs: int = 10, **options) -> Distiller:
    """Distils a teacher into a narrow network on few points; returns the distiller."""
    distiller = distiller_class(
        teacher, make_classifier(4, seed=1), LogitsDistillation(2.0), **options
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss, metrics=["accuracy"])
    distiller.fit(
        *draw(256, seed=1), batch_size=32, epochs=epochs, verbose=0, shuffle=False
    )
    return distiller


def main() -> None:
    """Distils by Keras's fixed weights and by balanced ones; prints the accuracies."""
    if keras.backend.backend() != "jax":
        raise SystemExit("Set KERAS_BACKEND=jax: kdopt balances JAX arrays.")
    teacher, (x, y) = train_teacher(), draw(2000, seed=2)
    networks = {"teacher": teacher}
    for kind in (Distiller, BalancedDistiller):
        networks[kind.__name__] = distil(kind, teacher, epochs=50).student
    for name, network in networks.items():
        found = np.argmax(network.predict(x, verbose=0), axis=-1)
        print(f"{name}: {100 * np.mean(found == y):.1f}%")


if __name__ == "__main__":
    main()
