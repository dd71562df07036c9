"""Histories and measures of made-up runs."""

import numpy as np

from kdlab.minima import measure
from kdlab.runs import files
from kdlab.runs.claim import claim
from kdlab.runs.record import record_start
from kdlab.settings.config import configure
from kdlab.train.fit import summarize

METHODS = ("kd", "dot", "dto_kd")


def history(seed, seeds=2, epochs=4, losses=("distill",)):
    rng = np.random.default_rng(seed)

    def values(low=0.0, high=1.0):
        return rng.uniform(low, high, (seeds, epochs))

    out = {
        "epoch": np.tile(np.arange(1.0, epochs + 1), (seeds, 1)),
        "seconds": values(1, 2),
        "test/accuracy": np.sort(values(0.5, 1), axis=1),
        "gradient/lambda/low": values(0, 0.2),
        "gradient/lambda/high": values(0.8, 1),
        "gradient/lambda/vertex": values(-0.5, 1.5),
        "train/gradient/dominance/distill": values(0.5, 2),
    }
    for name in losses:
        out[f"gradient/cosine/{name}"] = values(-1, 1)
        out[f"gradient/dominance/{name}"] = values(0.5, 2)
        out[f"train/gradient/conflict/{name}"] = values()
    for name in ("task", *losses):
        out[f"gradient/norm/{name}"] = values(0.5, 2)
        out[f"train/loss/{name}"] = values(0.1, 2)
        out[f"train/weight/{name}"] = values()
        out[f"train/buffer/alignment/{name}"] = values(-1, 1)
    return out


def measures(seed, points=5, plane=4):
    axis, side = np.linspace(-1, 1, points), np.linspace(-1, 1, plane)
    rng = np.random.default_rng(seed)
    bowl = side[:, None] ** 2 + side**2
    out = {"axis": axis, "plane": side}
    for name in ("task", "distill"):
        out[f"curve/{name}"] = 0.1 + axis**2 * rng.uniform(1, 3)
        out[f"plane/{name}"] = 0.1 + bowl * rng.uniform(1, 3)
        out[f"eigenvalues/{name}"] = rng.uniform(1, 3, 1)
    out["logits/student"] = rng.normal(size=(3, 3))
    out["logits/teacher"] = rng.normal(size=(3, 3))
    return out


def experiment(folder, methods=METHODS, seeds=2, losses=("distill",)):
    """Writes an experiment of made-up numbers, by the code that writes real ones."""
    config = configure(
        name=folder.name,
        runs=folder.parent,
        dataset="digits",
        teacher="mlp",
        student="mlp",
        labels=100,
        epochs=4,
        methods=methods,
    )
    claim(config)
    with record_start(folder, ["distill", "--name", folder.name]):
        pass
    times = {"kd": {"milliseconds": 12.3, "relative": 1.0}}
    files.write_step_times(folder, times)
    files.write_teacher(folder, {"accuracy/last": 0.975})
    for i, method in enumerate(methods):
        told = history(i, seeds, losses=losses)
        for seed in range(seeds):
            run = files.seed_folder(folder, method, seed)
            run.mkdir(parents=True)
            records = [
                {key: float(rows[seed, epoch]) for key, rows in told.items()}
                for epoch in range(told["epoch"].shape[1])
            ]
            for record in records:
                files.append_metrics(run, record)
            ends = {key: x for key, x in records[-1].items() if "train/loss/" in key}
            files.write_result(run, summarize(records) | ends)
        measure.write(files.seed_folder(folder, method, 0), measures(i))
    return folder
