"""Each framework takes the steps that PyTorch takes: a few, in double precision, of small networks of every exercise.

Seconds for each, where test_networks.py and test_double_precision.py take minutes for the real ones; what PyTorch does
is compared with formulas in test_pieces.py.
"""

import sys

import convert_weights
import exercises
import numpy as np
import pytest
from conftest import ANSWERS, EXERCISES, FRAMEWORKS, ROOT

BOUND = 1e-9  # relative to the largest number of each array; at most 1.3e-11 is measured
# SegNet's deepest batch norms see 12 values of a channel, and multiply what rounding leaves there: 4.6e-10 is measured.
BOUNDS = {("segnet", framework): 1e-8 for framework in FRAMEWORKS}
BOUNDS["nearest bilinear", "keras"] = 1e-6  # on TensorFlow, Keras resizes so in single precision: 1.1e-7 is measured
OPTIONS = {"--device": "cpu", "--iterations": 4, "--batch": 3}
NEWTS = OPTIONS | {"--size": 16, "--lr": 0.1, "--augment": "affine"}
DIGITS = OPTIONS | {"--channels": (4, 3), "--keep": 0.8, "--pictures": 5}
# Of each case its options; "concat 2" is concat with two poolings.
CASES = {
    "bin_loss": NEWTS,
    "bin_test": NEWTS,
    "semaseg_loss": NEWTS,
    "semaseg_test": NEWTS,
    "nearest": NEWTS,
    "nearest bilinear": NEWTS | {"--upsampling": "bilinear"},
    "transposeconv": NEWTS,
    "transposeconv 2": NEWTS | {"--poolings": 2},
    "concat": NEWTS,
    "concat 2": NEWTS | {"--poolings": 2},
    "unet": NEWTS | {"--size": 188},
    "unetlike": NEWTS | {"--size": 32},
    "segnet": NEWTS | {"--size": 64},
    "digits_cnn": DIGITS,
    "graph_conv": DIGITS,
    "graph_conv 3": DIGITS | {"--order": 3, "--neighbours": 4},
}
NARROW = {
    "unet": {"CHANNELS": (2, 3, 4, 5, 6)},
    "unetlike": {"CHANNELS": (2, 3, 4, 5, 6)},
    "segnet": {
        "ENCODER": ((3, 4, 4), (4, 5, 5), (5, 6, 6, 6), (6, 7, 7, 7), (7, 7, 7, 7)),
        "DECODER": ((7, 7, 7, 7), (7, 7, 7, 6), (6, 6, 6, 5), (5, 5, 4), (4, 4, 64)),
    },
}

# Run by a child in which the answer's framework is imported, as well as here for PyTorch.
COLLECT = """
import sys
import tempfile
from pathlib import Path
import numpy as np
from convert_weights import get_weights

def copy(network):
    return {name: np.array(array) for name, array in get_weights(framework, network).items()}

answer.FLOAT = "float64"
for name, value in narrow.items():
    setattr(answer, name, value)
options, rng, found = answer.read_options(), np.random.default_rng(1), {}
network = answer.build_network(np.random.default_rng(0), options)
found |= {f"drawn {name}": array for name, array in copy(network).items()}
if hasattr(answer, "load_newts"):
    images = rng.uniform(-1, 1, (5, options.size, options.size, 3))
    inner = options.size - 2 * getattr(answer, "MARGIN", 0)
    targets = rng.integers(0, len(answer.CLASSES), (5, inner, inner), np.uint8)
    found["losses"] = answer.train(network, images, targets, options, np.random.default_rng(2))
else:
    images = rng.standard_normal((5, 32, 32, 3))
    data = answer.load_data(options)
    exam = answer.make_pictures(*data["test"], options.pictures, np.random.default_rng(3))
    found["losses"], evaluations = answer.train(network, data["train"], exam, options, np.random.default_rng(2))
    found["evaluations"] = np.array(evaluations)
found |= {f"trained {name}": array for name, array in copy(network).items()}
# Where a sigmoid or a softmax would be rounded to 0 or 1.
large = rng.uniform(-300, 300, (2, 5, 5, 1 if len(answer.CLASSES) == 2 else 3))
labels = rng.integers(0, len(answer.CLASSES), (2, 5, 5, 1), np.uint8)
to_tensor = getattr(answer, "to_tensor", lambda array, device: array)  # Keras takes arrays
loss = answer.compute_loss(to_tensor(large, options.device), to_tensor(labels, options.device))
found["large loss"] = float(getattr(loss, "array", loss))
if hasattr(answer, "predict"):
    found["logits"] = answer.predict(network, images, options)
else:
    found["loss on others"] = answer.evaluate(network, images, targets, options)
with tempfile.TemporaryDirectory() as folder:
    answer.save_weights(network, Path(folder))
    other = answer.build_network(np.random.default_rng(9), options)
    answer.load_weights(other, Path(folder))
found |= {f"read {name}": array for name, array in copy(other).items()}
"""
CHILD = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import exercises
*arguments, framework, narrow, path = sys.argv[1:]
answer, narrow = exercises.load_answer(sys.argv[0]), eval(narrow)
sys.argv[1:] = arguments
{COLLECT}
np.savez(path, **found)
raise SystemExit(0)
"""


def list_arguments(case):
    """Return the command line of a case."""
    return [str(part) for name, value in CASES[case].items() for part in (name, *np.atleast_1d(value))]


@pytest.fixture(scope="module")
def collect(fork, tmp_path_factory):
    """Return {name: array} of a case in a framework."""
    folder, kept = tmp_path_factory.mktemp("steps"), {}

    def run(case, framework):
        if (case, framework) not in kept:
            exercise, path = case.split()[0], folder / f"{case} {framework}.npz"
            extra = [framework, repr(NARROW.get(exercise, {})), path]
            done = fork(ANSWERS[exercise, framework], *list_arguments(case), *extra, cwd=folder, before=CHILD)
            if done.returncode or not path.exists():
                raise RuntimeError(done.stderr)
            with np.load(path) as file:
                kept[case, framework] = dict(file)
        return kept[case, framework]

    return run


def find_distance(one, other):
    """Return the largest difference of two arrays, relative to the largest number in them."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert one.shape == other.shape and np.isfinite(one).all() and np.isfinite(other).all()
    return np.abs(one - other).max() / max(np.abs(one).max(), 1e-3)


def test_every_exercise_that_trains_is_here():
    """Those of Question_voc and Question_street are in tests of their own and, by fingerprints, in double precision."""
    subjects = ("semaseg", "digits")
    trained = {name for name, exercise in EXERCISES.items() if exercise.trains and exercise.subject in subjects}
    assert {case.split()[0] for case in CASES} == trained


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "pytorch"])
@pytest.mark.parametrize("case", CASES)
def test_a_few_steps_are_those_of_pytorch(collect, case, framework):
    """First weights bit for bit; then losses and every tensor. Keras's running variances alone are others, by n - 1."""
    expected, found = collect(case, "pytorch"), collect(case, framework)
    assert found.keys() == expected.keys()
    for name in (name for name in expected if name.startswith("drawn ")):
        assert np.array_equal(found[name], expected[name]), name
    assert len(expected["losses"]) == OPTIONS["--iterations"] and np.ptp(expected["losses"]) > 0.01
    apart = {}
    for name in expected.keys() - {"logits", "loss on others"}:
        if not (framework == "keras" and name.endswith("variance")):
            apart[name] = find_distance(found[name], expected[name])
    if framework != "keras":
        apart |= {name: find_distance(found[name], expected[name]) for name in expected if name.startswith("lo")}
    print(f"\n{case}, {framework}: {max(apart.values()):.1e}")
    bound = BOUNDS.get((case, framework), BOUND)
    assert max(apart.values()) < bound, {name: value for name, value in apart.items() if value >= bound}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", ["bin_loss", "concat 2", "segnet", "digits_cnn", "graph_conv 3"])
def test_what_is_saved_is_what_is_read(collect, case, framework):
    """Bit for bit, the running averages of batch norm too."""
    found = collect(case, framework)
    trained = {name[8:]: array for name, array in found.items() if name.startswith("trained ")}
    assert trained.keys() == {name[5:] for name in found if name.startswith("read ")}
    for name, array in trained.items():
        assert np.array_equal(found[f"read {name}"], array), name
        assert not np.array_equal(array, found[f"drawn {name}"]), name


@pytest.mark.parametrize("case", CASES)
def test_keras_predicts_what_pytorch_does_with_its_weights(collect, monkeypatch, case):
    """Its running variances among them."""
    found, exercise = collect(case, "keras"), case.split()[0]
    answer = exercises.load_answer(ANSWERS[exercise, "pytorch"])
    monkeypatch.setattr(sys, "argv", ["answer", *list_arguments(case)])
    monkeypatch.setattr(answer, "FLOAT", "float64")
    for name, value in NARROW.get(exercise, {}).items():
        monkeypatch.setattr(answer, name, value)
    try:
        options = answer.read_options()
        network = answer.build_network(np.random.default_rng(0), options)
        weights = {name[8:]: array for name, array in found.items() if name.startswith("trained ")}
        convert_weights.set_weights("pytorch", network, weights)
        rng = np.random.default_rng(1)
        if not hasattr(options, "size"):
            images = rng.standard_normal((5, 32, 32, 3))
        else:
            images = rng.uniform(-1, 1, (5, options.size, options.size, 3))
            targets = rng.integers(0, len(answer.CLASSES), (5, options.size, options.size), np.uint8)
        if hasattr(answer, "predict"):
            logits = answer.predict(network, images, options)
            assert find_distance(found["logits"], logits) < BOUNDS.get((case, "keras"), BOUND)
        else:
            assert found["loss on others"] == pytest.approx(answer.evaluate(network, images, targets, options))
    finally:
        answer.torch.set_default_dtype(answer.torch.float32)


# SegNet reduced to one pooling and one unpooling between convolutions that pass each channel on as it is.
POOL = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import exercises
import numpy as np
from convert_weights import get_weights, set_weights
framework, path = sys.argv.pop(), sys.argv.pop()
answer = exercises.load_answer(sys.argv[0])
answer.FLOAT, answer.ENCODER, answer.DECODER = "float64", ((3, 3),), ((3, 64),)
options = answer.read_options()
network = answer.build_network(np.random.default_rng(0), options)
weights = {{name: np.zeros(array.shape) for name, array in get_weights(framework, network).items()}}
for name, array in weights.items():
    if name.endswith("kernel"):
        array[range(3), range(3), array.shape[2] // 2, array.shape[3] // 2] = 1
    elif name.endswith(("gamma", "variance")):
        array[:] = 1
set_weights(framework, network, weights)
np.save(path, answer.predict(network, np.load("ties.npy"), options))
raise SystemExit(0)
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_segnet_puts_the_first_of_equal_maxima_back(fork, tmp_path, framework):
    """Numbers 0, 1 and 2 at random tie in most windows: the first in reading order is taken."""
    ties = np.random.default_rng(5).integers(0, 3, (2, 32, 32, 3)).astype(np.float64)
    np.save(tmp_path / "ties.npy", ties)
    arguments = ["--device", "cpu", "--size", 32, "--batch", 2, "unpooled.npy", framework]
    done = fork(ANSWERS["segnet", framework], *arguments, cwd=tmp_path, before=POOL)
    if done.returncode:
        raise RuntimeError(done.stderr)
    expected = np.zeros_like(ties)
    for picture, row, column, channel in np.ndindex(2, 16, 16, 3):
        window = ties[picture, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
        i, j = divmod(int(window.ravel().argmax()), 2)
        expected[picture, 2 * row + i, 2 * column + j, channel] = window.max()
    # Batch norm divides by the root of 1 + 1e-5, twice.
    assert np.load(tmp_path / "unpooled.npy") == pytest.approx(expected / (1 + 1e-5), abs=1e-9)
