"""Run by test_networks.py, once for each framework in a process of its own: what each network is and gives.

    python collect_networks.py FRAMEWORK FOLDER

FOLDER/weights_<exercise>.npz holds weights in the common layout of tools/convert_weights.py, absent for the framework
that is to draw them; numbers_<framework>.npz is written.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import exercises  # noqa: E402
from convert_weights import get_weights, set_weights  # noqa: E402

framework, folder = sys.argv[1], Path(sys.argv[2])
SIZES = {"unet": 188, "unetlike": 64, "segnet": 64}
# In float32 it is rounding that decides between two maxima that are nearly the same. SegNet puts the maximum back where
# it was, so its logits would be others on another processor.
FLOATS = {"segnet": "float64"}
numbers = {}


def load(exercise, *arguments, dtype="float32"):
    """Return an answer as a module that computes in a type of float, and its options."""
    path = exercises.answer_path(exercise, framework)
    sys.argv = [str(path), "--device", "cpu", "--out", str(folder / f"{exercise}_{framework}"), *map(str, arguments)]
    answer = exercises.load_answer(path)
    answer.FLOAT = dtype
    return answer, answer.read_options()


def build(answer, options, weights):
    """Return a network with these weights."""
    network = answer.build_network(np.random.default_rng(0), options)
    set_weights(framework, network, weights)
    back = get_weights(framework, network)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)
    return network


for exercise in ("bin_test", "semaseg_test", "nearest", "transposeconv", "concat", "unet", "unetlike", "segnet"):
    size = SIZES.get(exercise, 32)
    arguments = ["--size", size, "--batch", 1 if exercise == "unet" else 2, "--augment", "none"]
    answer, options = load(exercise, *arguments, "--iterations", 1, "--lr", 1, dtype=FLOATS.get(exercise, "float32"))
    drawn = get_weights(framework, answer.build_network(np.random.default_rng(3), options))
    for name, array in drawn.items():
        array = np.ascontiguousarray(array)
        numbers[f"{exercise} drawn {name}"] = np.frombuffer(hashlib.sha256(array.tobytes()).digest(), np.uint8)
    path, rng = folder / f"weights_{exercise}.npz", np.random.default_rng(4)
    if not path.exists():  # biases and batch norm other than 0 and 1, so that a mix-up among them shows
        for name in drawn:
            if not name.endswith("kernel"):
                drawn[name] = rng.uniform(0.5, 1.5, drawn[name].shape).astype(np.float32)
        np.savez(path, **drawn)
    weights, rng = dict(np.load(path)), np.random.default_rng(5)
    images = rng.uniform(-1, 1, (3, size, size, 3)).astype(answer.FLOAT)
    network = build(answer, options, weights)
    numbers[f"{exercise} logits"] = logits = answer.predict(network, images, options)
    for name, values in exercises.find_exercise(exercise).network_options.items():
        for value in values[1:]:  # the first is the default
            other, its_options = load(exercise, *arguments, f"--{name}", value)
            variant = other.build_network(np.random.default_rng(3), its_options)
            numbers[f"{exercise} {name} {value} logits"] = other.predict(variant, images, its_options)

    # What is saved is what is read.
    options.out.mkdir(exist_ok=True)
    answer.save_weights(network, options.out)
    other = answer.build_network(np.random.default_rng(1), options)
    answer.load_weights(other, options.out)
    read = get_weights(framework, other)
    assert all(np.array_equal(read[name], weights[name]) for name in weights)

    # What one step at a learning rate of 1 changes a weight by is its gradient.
    targets = rng.integers(0, 2 if exercise == "bin_test" else 3, logits.shape[:3], np.uint8)
    answer.train(network, images, targets, options, np.random.default_rng(6))
    for name, array in get_weights(framework, network).items():
        if name.endswith(("kernel", "gamma", "beta")):
            sample = slice(None, None, max(1, array.size // 5000))  # spread over all channels
            numbers[f"{exercise} gradient {name}"] = (weights[name] - array).ravel()[sample]

    # A few steps of the recipe in double precision, in which every tensor must be the same.
    answer, options = load(exercise, *arguments, "--iterations", 3, dtype="float64")
    network = answer.build_network(np.random.default_rng(7), options)
    images = images.astype(np.float64)
    numbers[f"{exercise} losses"] = answer.train(network, images, targets, options, np.random.default_rng(8))
    for name, array in get_weights(framework, network).items():
        sample = slice(None, None, max(1, array.size // 5000))
        numbers[f"{exercise} trained {name}"] = array.ravel()[sample].copy()

# SegNet reduced to one pooling and one unpooling between convolutions that pass each channel on as it is.
answer, options = load("segnet", "--size", 32, "--batch", 2)
answer.ENCODER, answer.DECODER = ((3, 3),), ((3, 64),)
network = answer.build_network(np.random.default_rng(0), options)
weights = {name: np.zeros_like(array) for name, array in get_weights(framework, network).items()}
for name, array in weights.items():
    if name.endswith("kernel"):
        array[range(3), range(3), array.shape[2] // 2, array.shape[3] // 2] = 1
    elif name.endswith(("gamma", "variance")):
        array[:] = 1
numbers["ties"] = ties = np.random.default_rng(5).integers(0, 3, (2, 32, 32, 3)).astype(np.float32)
numbers["ties unpooled"] = answer.predict(build(answer, options, weights), ties, options)
np.savez(folder / f"numbers_{framework}.npz", **numbers)
