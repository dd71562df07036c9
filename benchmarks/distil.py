"""Real distillation on one accelerator: ResNet-20 from ResNet-56 on Fashion-MNIST.

``python -m benchmarks.distil --data-dir DIR`` reads the four IDX files of the data set,
as in Debian's package ``dataset-fashion-mnist``. All images stay on the device, at
32 x 32; an epoch is one program. Several students of each method, with their own
initial values and batches, are trained in one program by ``vmap`` (``--form apart``:
one after the other).

The recipe is that of CIFAR: SGD, momentum 0.9, weight decay 5e-4, shifts and flips,
temperature 4, weights 0.1 and 0.9, learning rate 0.05 for 64 images, divided by ten
after 5/8, 6/8 and 7/8 of the epochs. The number of epochs is ``--epochs``, or as many
as ``--seconds`` allows, determined after the second one. Accuracies are those of the
last epoch.
"""

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator._machine import machine, slug
from benchmarks.distil_network import Network
from benchmarks.distil_training import METHODS, Split, Trainer
from kdlab.data.dataset import Dataset
from kdlab.data.sources import idx
from kdlab.data.sources.synthetic import synthetic

RATE, RATE_BATCH = 0.05, 64
MILESTONES = 5 / 8, 6 / 8, 7 / 8


def rate(epoch: int, epochs: int, batch: int) -> float:
    """Returns the learning rate of an epoch: proportional to the batch, at most 0.2."""
    falls = sum(epoch >= round(share * epochs) for share in MILESTONES)
    return min(0.2, RATE * batch / RATE_BATCH) * 0.1**falls


def load(options: argparse.Namespace) -> Dataset:
    """Loads Fashion-MNIST from its folder, or synthetic images."""
    if options.tiny:
        return synthetic("synthetic-smoke")
    found = idx.read_files("fashion_mnist", [options.data_dir])
    if found is None:
        raise SystemExit(
            f"{options.data_dir} does not hold {', '.join(idx.FILES)}: install the "
            "package dataset-fashion-mnist, or pass --data-dir with that folder."
        )
    return found


def splits(data: Dataset) -> tuple[Split, Split]:
    """Puts training and test images on the device, padding 28 pixels to 32."""

    def framed(x: np.ndarray) -> jax.Array:
        frame = (2, 2) if x.shape[1] == 28 else (0, 0)
        return jnp.asarray(np.pad(x, ((0, 0), frame, frame, (0, 0))))

    train = framed(data.train_images), jnp.asarray(data.train_labels)
    return train, (framed(data.test_images), jnp.asarray(data.test_labels))


def train_teacher(
    network: Network, options: argparse.Namespace, data: tuple[Split, Split]
) -> tuple[Any, float]:
    """Trains the teacher; returns its weights and its test accuracy."""
    batch, epochs = options.teacher_batch, options.teacher_epochs
    trainer = Trainer(network, METHODS["labels"], batch, 1, together=False)
    state = trainer.start()
    for epoch in range(epochs):
        state = trainer.epoch(state, data[0], None, epoch, rate(epoch, epochs, batch))
    return trainer.weights(state), float(trainer.accuracy(state, data[1])[0])


class Clock:
    """The number of epochs: given, or estimated from the first two."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._end = time.perf_counter() + options.seconds
        self._most, self.epochs = options.most_epochs, options.epochs or None

    def goes_on(self, epoch: int) -> bool:
        """Returns whether to train this epoch, counted from 0."""
        return self.epochs is None or epoch < self.epochs

    def rate(self, epoch: int, batch: int) -> float:
        """Returns the learning rate, constant while the number is undetermined."""
        return rate(epoch, self.epochs, batch) if self.epochs else rate(0, 8, batch)

    def saw(self, epoch: int, seconds: float) -> None:
        """Sets the number after the second epoch, as the first may include warm-up."""
        if self.epochs is None and epoch == 1:
            left = self._end - time.perf_counter()
            self.epochs = min(self._most, 2 + max(0, int(left / seconds)))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Trains, prints a table, and writes JSON after every epoch."""
    options = _parse(arguments)
    path = options.out or Path(f"benchmarks/results/distil-{slug()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    began, clock, source = time.perf_counter(), Clock(options), load(options)
    data = splits(source)
    shape, stats = data[0][0].shape[1:], (source.mean, source.std)

    def network(name: str) -> Network:
        return Network(name, options.dtype, stats, shape, source.num_classes)

    teacher = network(options.teacher)
    weights, accuracy = train_teacher(teacher, options, data)
    seconds = round(time.perf_counter() - began, 1)
    students: dict[str, Any] = {}
    result = {
        "machine": machine(),
        "settings": {key: str(value) for key, value in vars(options).items()},
        "teacher": {"accuracy": accuracy, "seconds": seconds},
        "students": students,
    }
    print(f"teacher {options.teacher}: {accuracy:.4f} in {seconds} s", flush=True)
    trainers = {
        name: Trainer(
            network(options.student),
            METHODS[name],
            options.batch,
            options.seeds,
            teacher,
            options.form == "together",
        )
        for name in options.methods
    }
    for epoch in train_students(
        trainers, clock, options.batch, data, weights, students
    ):
        path.write_text(json.dumps(result, indent=1) + "\n")
        done = f"{epoch + 1} of {clock.epochs or 'some'}"
        print(f"epoch {done}: {_short(students)}", flush=True)
    print(json.dumps(result["machine"]))
    print(f"teacher {options.teacher}: {100 * accuracy:.2f}\n{_table(students)}")
    print(f"Written: {path}", flush=True)
    return result


def train_students(
    trainers: dict[str, Trainer],
    clock: Clock,
    batch: int,
    data: tuple[Split, Split],
    teacher: Any,
    found: dict[str, Any],
) -> Iterator[int]:
    """Trains all methods epoch by epoch; accuracies and times go to ``found``."""
    states = {name: trainer.start() for name, trainer in trainers.items()}
    with ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(trainer.compile, states[name], data, teacher)
            for name, trainer in trainers.items()
        ]
        for future in waiting:
            future.result()
    epoch = 0
    while clock.goes_on(epoch):
        turn, step = time.perf_counter(), clock.rate(epoch, batch)
        for name, trainer in trainers.items():
            since = time.perf_counter()
            states[name] = trainer.epoch(states[name], data[0], teacher, epoch, step)
            accuracies = trainer.accuracy(states[name], data[1])
            own = found.setdefault(name, {"seconds": []})
            own["seconds"].append(round(time.perf_counter() - since, 2))
            own |= _spread(accuracies) | {"epochs": epoch + 1}
        clock.saw(epoch, time.perf_counter() - turn)
        yield epoch
        epoch += 1


def _short(students: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {100 * own['mean']:.2f}" for name, own in students.items()
    )


def _spread(found: np.ndarray) -> dict[str, Any]:
    spread = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
    return {"mean": float(np.mean(found)), "sd": spread, "accuracies": found.tolist()}


def _table(students: dict[str, Any]) -> str:
    lines = ["method: test accuracy, mean and standard deviation; epochs; s/epoch"]
    for name, own in students.items():
        lines.append(
            f"  {name}: {100 * own['mean']:.2f} and {100 * own['sd']:.2f}; "
            f"{own['epochs']}; {np.median(own['seconds']):.2f}"
        )
    return "\n".join(lines)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distil",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    folder = Path("/usr/share/datasets/fashion-mnist")
    parser.add_argument("--data-dir", type=Path, default=folder)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--epochs", type=int, default=0, help="0: as many as time allows"
    )
    parser.add_argument("--most-epochs", type=int, default=40)
    parser.add_argument(
        "--seconds", type=float, default=270.0, help="time for everything"
    )
    parser.add_argument("--form", choices=("together", "apart"), default="together")
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--teacher-batch", type=int, default=512)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--tiny", action="store_true", help="use synthetic images, for a trial"
    )
    options = parser.parse_args(arguments)
    if options.tiny:
        options.teacher, options.student = "resnet8", "mlp"
        options.batch = options.teacher_batch = 4
        options.epochs = options.teacher_epochs = 1
        options.seeds, options.dtype = 2, "float32"
    return options


if __name__ == "__main__":
    main()
