"""Histories and measures of runs that never were."""

import json

import numpy as np

from kdlab.minima import measure

METHODS = ("kd", "dot", "dto_kd")


def history(seed, seeds=2, epochs=4):
    rng = np.random.default_rng(seed)

    def values(low=0.0, high=1.0):
        return rng.uniform(low, high, (seeds, epochs))

    out = {
        "epoch": np.tile(np.arange(1.0, epochs + 1), (seeds, 1)),
        "seconds": values(1, 2),
        "test/accuracy": np.sort(values(0.5, 1), axis=1),
        "gradient/cosine/distill": values(-1, 1),
        "gradient/lambda/low": values(0, 0.2),
        "gradient/lambda/high": values(0.8, 1),
        "gradient/lambda/vertex": values(-0.5, 1.5),
        "gradient/dominance/distill": values(0.5, 2),
        "train/gradient/conflict/distill": values(),
        "train/gradient/dominance/distill": values(0.5, 2),
    }
    for name in ("task", "distill"):
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


def experiment(folder, methods=METHODS, seeds=2):
    """Writes the files of an experiment, as far as the report reads them."""
    folder.mkdir(parents=True)
    settings = {"dataset": "digits", "teacher": "mlp", "student": "mlp", "labels": 100}
    settings |= {"noise": 0.4, "epochs": 4, "loss": "kd"}
    (folder / "config.json").write_text(json.dumps(settings))
    start = {"command": ["--name", folder.name], "git": {"revision": "0" * 40}}
    (folder / "record.json").write_text(json.dumps([start]))
    times = {"kd": {"milliseconds": 12.3, "relative": 1.0}}
    (folder / "step_time.json").write_text(json.dumps(times))
    (folder / "teacher.json").write_text(json.dumps({"accuracy/last": 0.975}))
    for i, method in enumerate(methods):
        told = history(i, seeds)
        for seed in range(seeds):
            run = folder / method / f"seed{seed}"
            run.mkdir(parents=True)
            records = [
                {key: float(rows[seed, epoch]) for key, rows in told.items()}
                for epoch in range(told["epoch"].shape[1])
            ]
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (run / "metrics.jsonl").write_text(lines)
            accuracy = records[-1]["test/accuracy"]
            result = {"accuracy/last": accuracy, "accuracy/best": accuracy}
            (run / "result.json").write_text(json.dumps(result))
        measure.write(folder / method / "seed0", measures(i))
    return folder
