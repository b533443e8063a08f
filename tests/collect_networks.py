"""Run by test_networks.py, once for each framework in a process of its own: what each network is and gives.

    python collect_networks.py FRAMEWORK FOLDER

FOLDER/weights_<exercise>.npz holds weights in the common layout of tools/convert_weights.py, absent for the framework
that is to draw them; numbers_<framework>.npz and train_<exercise>/ are written.
"""

import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import convert_weights  # noqa: E402

framework, folder = sys.argv[1], Path(sys.argv[2])
STEPS = dict.fromkeys(("unet", "segnet"), int(os.environ.get("IMORI_STEPS", 5)))  # `make parity` takes more
SIZES = {"unet": 236, "unetlike": 64, "segnet": 64}
numbers = {}


def load(exercise, *arguments):
    """Return an answer as a module, and its options."""
    script = convert_weights.find_answer(exercise, framework)
    sys.argv = [str(script), "--device", "cpu", *map(str, arguments)]
    answer = convert_weights.load_script(script)
    return answer, answer.read_options()


def predict(answer, options, weights, images):
    network = answer.build_network(np.random.default_rng(0), options)
    convert_weights.set_weights(framework, network, weights)
    back = convert_weights.get_weights(framework, network)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)
    return answer.predict(network, images, options)


for exercise in ("semaseg_test", "nearest", "transposeconv", "concat", "unet", "unetlike", "segnet"):
    size = SIZES.get(exercise, 32)
    answer, options = load(exercise, "--size", size, "--batch", 2)
    drawn = convert_weights.get_weights(framework, answer.build_network(np.random.default_rng(3), options))
    numbers[f"{exercise} drawn"] = np.concatenate([drawn[name].ravel()[:2000] for name in sorted(drawn)])
    path, rng = folder / f"weights_{exercise}.npz", np.random.default_rng(4)
    images = rng.uniform(-1, 1, (3, size, size, 3)).astype(np.float32)
    if not path.exists():  # biases and batch norm other than 0 and 1, so that a mix-up among them shows
        for name in drawn:
            if not name.endswith("kernel"):
                drawn[name] = rng.uniform(0.5, 1.5, drawn[name].shape).astype(np.float32)
        np.savez(path, **drawn)
    weights = dict(np.load(path))
    numbers[f"{exercise} logits"] = predict(answer, options, weights, images)
    if exercise == "nearest":
        answer, options = load(exercise, "--size", size, "--upsampling", "bilinear")
        numbers["bilinear logits"] = predict(answer, options, weights, images)
    steps = STEPS.get(exercise, 100)
    batch = 1 if exercise == "unet" else 4
    train = ["--train", "--iterations", steps, "--size", size, "--batch", batch, "--seed", 1]
    answer, _ = load(exercise, *train, "--out", folder / f"train_{exercise}_{framework}")
    answer.main()
    # Again without the slow start, so that the weights move and every gradient counts.
    out = folder / f"moved_{exercise}_{framework}"
    answer, _ = load(exercise, *train, "--iterations", 5, "--lr", 0.01, "--out", out)
    answer.WARM_UP = 1
    answer.main()
    # What one step at a rate of 1 changes each kernel by is its gradient.
    answer, options = load(exercise, *train, "--iterations", 1, "--lr", 1, "--batch", 2, "--augment", "none")
    answer.WARM_UP = 1
    network = answer.build_network(np.random.default_rng(0), options)
    convert_weights.set_weights(framework, network, weights)
    targets = np.random.default_rng(7).integers(0, 3, numbers[f"{exercise} logits"].shape[:3], np.uint8)
    answer.train(network, images, targets, options, np.random.default_rng(6))
    for name, array in convert_weights.get_weights(framework, network).items():
        if name.endswith("kernel"):
            sample = slice(None, None, max(1, array.size // 5000))  # spread over all channels
            numbers[f"{exercise} gradient {name}"] = (weights[name] - array).ravel()[sample]

# SegNet reduced to one pooling and one unpooling between convolutions that pass each channel on as it is.
answer, options = load("segnet", "--size", 32, "--batch", 2)
answer.ENCODER, answer.DECODER = ((3, 3),), ((3, 64),)
network = answer.build_network(np.random.default_rng(0), options)
weights = {name: np.zeros_like(array) for name, array in convert_weights.get_weights(framework, network).items()}
for name, array in weights.items():
    if name.endswith("kernel"):
        array[range(3), range(3), array.shape[2] // 2, array.shape[3] // 2] = 1
    elif name.endswith(("gamma", "variance")):
        array[:] = 1
ties = np.random.default_rng(5).integers(0, 3, (2, 32, 32, 3)).astype(np.float32)
numbers["ties"] = ties
numbers["ties unpooled"] = predict(answer, options, weights, ties)
np.savez(folder / f"numbers_{framework}.npz", **numbers)
