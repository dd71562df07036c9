"""The table of gradients, of runs written as trainings write them."""

from kdlab.detection import table
from kdlab.detection.config import DetectConfig
from kdlab.runs import files


def test_gradients_are_averaged_over_steps_and_seeds(tmp_path):
    config = DetectConfig(runs=tmp_path, methods=("labels_only", "vkd"), seeds=2)
    for seed, cosines in enumerate(([0.5, -0.1], [0.25, -0.25])):
        folder = files.seed_folder(config.directory, "vkd", seed)
        folder.mkdir(parents=True)
        for step, cosine in zip((1, 21), cosines, strict=True):
            record = {
                "step": step,
                "weight/task": 1.0,
                "weight/distill": 3.0 + 2 * seed,
            }
            record |= {"loss/task": 10.0 / step, "loss/distill": 2.0 - seed}
            record |= {"gradient/cosine/distill": cosine}
            record |= {"gradient/conflict/distill": float(cosine < 0)}
            record |= {"gradient/dominance/distill": float(step)}
            files.append_metrics(folder, record)
        files.write_result(folder, {"coco/ap50": 0.5})
    (row,) = table.make_gradient_rows(config)  # labels alone have one loss
    assert row == ("vkd", "0.10", "50%", "11.00", "79%", "0.48", "1.50")
    assert table.to_markdown(table.GRADIENT_HEAD, [row]).count("|") == 3 * 8
