"""Run by test_street_train.py, once for each framework in a process of its own: what street_train computes.

    python collect_street_train.py FRAMEWORK FOLDER RECORDS

In double precision, with few channels, FOLDER/FRAMEWORK.npz gets, for each network: weights as drawn, and logits; the
weights after one step; the losses of ten steps, and weights, measures and logits after them.
And the batches that several workers make.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import exercises  # noqa: E402
from convert_weights import get_weights, to_numpy  # noqa: E402

framework, folder, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
script = exercises.answer_path("street_train", framework)
answer = exercises.load_answer(script)
answer.FLOAT, answer.CHANNELS, answer.WIDTH = "float64", (4, 4, 6, 6, 8), 4
numbers, metrics = {}, json.loads((data / "metrics.json").read_text("utf-8"))
learning_rate = answer.learning_rate


def read_options(*arguments):
    sys.argv = [str(script), "--device", "cpu", "--data", str(data), "--batch", "2", "--size", "32", *arguments]
    return answer.read_options()


def copy_weights(network, name):
    return {f"{name} {key}": np.array(array) for key, array in get_weights(framework, network).items()}


def to_array(tensor):
    return to_numpy(framework, tensor)


read_options()  # sets the framework up
records = {
    split: answer.Records([data / shard["name"] for shard in shards]) for split, shards in metrics["shards"].items()
}
images = answer.normalise(np.random.default_rng(1).integers(0, 256, (2, 32, 64, 3), np.uint8))
for kind, weighting in (("unet", "classes"), ("deeplab", "none")):
    options = read_options(
        "--network", kind, "--weighting", weighting, "--workers", "0", "--iterations", "10", "--batch", "4"
    )
    network = answer.build_network(np.random.default_rng(3), len(metrics["classes"]), options)
    numbers |= copy_weights(network, f"{kind} drawn")
    numbers[f"{kind} logits"] = answer.predict(network, images, options)

    def find_rate(iteration, options, network=network, kind=kind, kept=numbers):
        if iteration == 1 and not any(name.startswith(f"{kind} step") for name in kept):  # the second step begins
            kept |= copy_weights(network, f"{kind} step")
        return learning_rate(iteration, options)

    answer.learning_rate = find_rate
    with tempfile.TemporaryDirectory() as out:
        options.out = Path(out)
        losses, validations = answer.train(network, records, metrics, options)
    numbers |= copy_weights(network, f"{kind} trained")
    numbers[f"{kind} losses"] = np.array(losses)
    numbers[f"{kind} validations"] = [[each[key] for key in ("iteration", "miou")] for each in validations]
    numbers[f"{kind} predicted"] = answer.predict(network, images, options)
for workers, first in ((0, 0), (1, 3), (2, 0), (3, 3)):
    options = read_options("--workers", str(workers), "--iterations", "7", "--seed", "5")
    for number, batch in enumerate(answer.draw_batches(records["train"], first, options), start=first):
        for what, array in zip(("images", "classes"), batch, strict=True):
            array = to_array(array)
            array = array.transpose(0, 2, 3, 1) if array.ndim == 4 and array.shape[1] == 3 else array
            numbers[f"workers {workers} batch {number} {what}"] = array
np.savez(folder / f"{framework}.npz", **numbers)
