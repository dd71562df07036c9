"""Prints the tables and draws the pictures of docs/transformers.md.

``python -m docs.transformers`` reads the runs of that page in ``runs/vit``,
``runs/vit_wide`` and ``runs/vit_large``, and writes to ``docs/images``. The variable
FASHION_MNIST is explained in ``examples/fashion_vit.py``.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from examples.fashion_vit import padded_images
from kdlab.data import AUGMENTATIONS, normalize
from kdlab.data.augmentation.erasing import erase
from kdlab.data.augmentation.mixing import cutmix, cutmix_box, mixup
from kdlab.minima.restore import reopen, restore_student
from kdlab.runs.files import has_result, list_seed_folders
from kdlab.runs.logs import read_tensorboard
from kdlab.runs.plot import draw_band, read_history

RUNS, WIDE, LARGE = Path("runs/vit"), Path("runs/vit_wide"), Path("runs/vit_large")
PICTURES = Path("docs/images")
BATCH = 32  # images
MEAN = 11  # logged steps, of which there are 187
ROWS = {
    "labels only": "labels/labels_only",
    "DeiT, hard": "hard/kd",
    "DeiT, soft": "soft/kd",
    "VkD": "vkd/kd",
    "VkD, released projector": "vkd_released/kd",
    "DTO-KD, exact": "vkd/dto_kd",
    "DTO-KD, shared": "vkd/dto_kd_shared",
    "VkD, fixed weights of DTO-KD, shared": "fixed/kd",
}


def print_table(runs: Path) -> None:
    """Prints accuracies and, for the last epoch, training losses and weights.

    Then accuracies seed by seed, for differences between rows.
    """
    names, seeds = ("task", "kl", "distill"), []
    for label, folder in ROWS.items():
        history = read_history(runs / folder)
        if not history:
            continue
        found = 100 * history["test/accuracy"][:, -1]
        spread = f" ± {found.std(ddof=1):.1f}" if len(found) > 1 else ""
        cells = [f"{found.mean():.1f}{spread}"]
        for kind in ("loss", "weight"):
            keys = [f"train/{kind}/{name}" for name in names]
            last = [history[key][:, -1] if key in history else [] for key in keys]
            cells += [f"{np.mean(x):.2f}" if len(x) else "" for x in last]
        print("| " + " | ".join([label, *cells]) + " |")
        seeds.append(f"{label}: {np.round(found, 2)}")
    print(*seeds, sep="\n")


def draw_accuracy() -> None:
    """Draws the test accuracy of all rows over the epochs."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    for i, (label, folder) in enumerate(ROWS.items()):
        history = read_history(RUNS / folder)
        if not history:
            continue
        found = 100 * history["test/accuracy"]
        draw_band(axes, history["epoch"][0], found, f"C{i}", label, marker="o", ms=3)
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", xticks=[1, 2, 3, 4])
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(PICTURES / "transformers-accuracy.png", dpi=110)


def read_steps(folder: Path) -> dict[str, np.ndarray]:
    """Reads the logged steps of the finished seeds: pairs of step and mean value."""
    logs = [
        read_tensorboard(seed / "tensorboard")
        for seed in list_seed_folders(folder)
        if has_result(seed)
    ]
    found = {}
    for key in logs[0] if logs else ():
        points = np.array([log[key] for log in logs])
        whole = points[:, : points.shape[1] // MEAN * MEAN]
        found[key] = whole.reshape(len(logs), -1, MEAN, 2).mean(2)
    return found


def draw_losses() -> None:
    """Draws the losses within the only epoch of the large students."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    names = {"task": "labels", "kl": "KL divergence", "distill": "features"}
    panels = list(zip(figure.subplots(1, 3), names, strict=True))
    for axes, name in panels:
        axes.set(xlabel="thousands of images", title=names[name])
    for i, (label, folder) in enumerate(ROWS.items()):
        found = read_steps(LARGE / folder)
        for axes, name in panels:
            key, shown = f"step/loss/{name}", label if name == "task" else ""
            # With one loss of distillation it is none of features.
            if key not in found or (name != "task" and "step/loss/kl" not in found):
                continue
            steps, values = found[key].transpose(2, 0, 1)
            draw_band(axes, BATCH * steps[0] / 1000, values, f"C{i}", shown)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(PICTURES / "transformers-losses.png", dpi=110)


def draw_images() -> None:
    """Draws images as they are, augmented, erased and mixed."""
    data, count = padded_images(), 8
    given = jnp.asarray(data.train_images[:count])
    key = jax.random.key(4)
    mean, std = data.mean, data.std

    def ready(x: jax.Array) -> jax.Array:
        return normalize(x, mean, std)

    box = cutmix_box(32, 32, 0.6, 14, 18)
    rows = {
        "as they are": ready(given),
        "crop_flip": ready(AUGMENTATIONS["crop_flip"](key, given)),
        "rand_augment": ready(AUGMENTATIONS["rand_augment"](key, given)),
        "three_augment": ready(AUGMENTATIONS["three_augment"](key, given)),
        "erased": erase(key, ready(given), probability=0.8),
        "mixup, 0.6": mixup(ready(given), 0.6),
        "CutMix, 0.6": cutmix(ready(given), box),
    }
    figure = Figure(figsize=(count, len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), count)
    for line, (label, pictures) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture[..., 0], cmap="gray", vmin=-1, vmax=2.5)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, fontsize=7)
    figure.savefig(PICTURES / "transformers-images.png", dpi=110)


def draw_attention() -> None:
    """Draws where the class token of a student looks in the last block."""
    data, count = padded_images(), 8
    given = data.test_images[:count]
    rows = {}
    with Progress(disable=True) as progress:
        for label in ("VkD", "DTO-KD, exact"):
            folder, method = ROWS[label].split("/")
            experiment = reopen(RUNS / folder, progress)
            plan = experiment.students.plan(method)
            student = restore_student(experiment, plan, method, 0)
            pictures = normalize(jnp.asarray(given), data.mean, data.std)
            attention = jax.jit(lambda n, x: n.outputs(x).attention)(student, pictures)
            rows[label] = np.asarray(attention.mean(1)).reshape(count, 8, 8)
    figure = Figure(figsize=(count, 1 + len(rows)), layout="constrained")
    grid = figure.subplots(1 + len(rows), count)
    for axes, picture in zip(grid[0], given, strict=True):
        axes.imshow(picture[..., 0], cmap="gray")
    for line, (label, maps) in zip(grid[1:], rows.items(), strict=True):
        for axes, seen, picture in zip(line, maps, given, strict=True):
            axes.imshow(picture[..., 0], cmap="gray")
            axes.imshow(
                seen, cmap="inferno", alpha=0.7, extent=(-0.5, 31.5, 31.5, -0.5)
            )
        line[0].set_ylabel(label, fontsize=7)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    figure.savefig(PICTURES / "transformers-attention.png", dpi=110)


if __name__ == "__main__":
    print_table(RUNS)
    print_table(WIDE)
    print_table(LARGE)
    draw_accuracy()
    draw_losses()
    draw_images()
    draw_attention()
