"""What the four frameworks must have in common for one curve: the batches, batch norm and the losses, in float32.

Each framework counts in a process of its own and hands its numbers over. The networks are compared in test_networks.py,
and whole steps in double precision in test_double_precision.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import FRAMEWORKS, ROOT, pytorch, run_python

SIZE, SEED = 48, 3
# Logits at which the sigmoid of float32 is 0 or 1, each with both targets; with a class more for the softmax.
EXTREME = np.float32([-200, -104, -20, -1, 0, 1, 20, 104, 200]).repeat(2).reshape(1, 9, 2, 1)
TARGETS = np.uint8([0, 1] * 9).reshape(1, 9, 2, 1)
EXTREME_3 = np.concatenate([EXTREME, np.zeros_like(EXTREME), -EXTREME], axis=3)

COLLECT = """
import sys
from types import SimpleNamespace
import numpy as np

tools, framework, out, size, seed = sys.argv[1:]
sys.path.insert(0, tools)
import exercises
from convert_weights import get_weights

size, numbers, given = int(size), {}, np.load(f"{out}/given.npz")


def load(exercise):
    sys.argv = [exercise, "--device", "cpu", "--size", str(size)]
    answer = exercises.load_answer(exercises.answer_path(exercise, framework))
    return answer, answer.read_options()


def to_numpy(tensor):  # channels last
    tensor = np.asarray(getattr(tensor, "array", tensor.detach() if framework == "pytorch" else tensor))
    return tensor.transpose(0, 2, 3, 1) if framework in ("pytorch", "chainer") and tensor.ndim == 4 else tensor


to_tensor = load("bin_dataset")[0].to_tensor  # in Keras, train_on_batch makes tensors by itself
answer, options = load("bin_loss")
_, images, targets = answer.load_newts(exercises.REPOSITORY / "Dataset" / "train", size)
rng = np.random.default_rng(int(seed))
network = answer.build_network(rng, options)
drawing = SimpleNamespace(iterations=30, batch=4, augment="affine")
batches = list(answer.draw_batches(images, targets, drawing, rng))
for number in (0, 29):
    for what, array in zip(("images", "targets"), batches[number]):
        numbers[f"{what} {number}"] = array
        numbers[f"{what} {number} tensor"] = to_numpy(to_tensor(array, "cpu"))

# One step, in which the first batch norm sees 2 x 4 x 4 pixels, so that n and n - 1 differ.
tiny = SimpleNamespace(iterations=1, batch=2, lr=1e-3, augment="none", device="cpu")
answer.train(network, given["tiny"], given["tiny_targets"], tiny, np.random.default_rng(0))
weights = get_weights(framework, network)
numbers["mean"], numbers["variance"] = weights["norm 0 mean"], weights["norm 0 variance"]

for exercise, logits in (("bin_loss", given["extreme"]), ("semaseg_loss", given["extreme_3"])):
    answer, _ = load(exercise)
    loss = answer.compute_loss(to_tensor(logits, "cpu"), to_tensor(given["targets"], "cpu"))
    numbers[exercise] = to_numpy(loss)
np.savez(f"{out}/numbers.npz", **numbers)
"""


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(SEED)
    tiny = {
        "tiny": np.float32(rng.uniform(-1, 1, (2, 4, 4, 3))),
        "tiny_targets": rng.integers(0, 2, (2, 4, 4), np.uint8),
    }
    return tiny | {"extreme": EXTREME, "extreme_3": EXTREME_3, "targets": TARGETS}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory, given):
    """{framework: {name: array}}."""
    found = {}
    for framework in FRAMEWORKS:
        out = tmp_path_factory.mktemp(framework)
        np.savez(out / "given.npz", **given)
        result = run_python("-c", COLLECT, ROOT / "tools", framework, out, SIZE, SEED, cwd=out)
        assert result.returncode == 0, result.stderr
        found[framework] = dict(np.load(out / "numbers.npz"))
    return found


@pytest.mark.parametrize("what", ["images", "targets"])
@pytest.mark.parametrize("number", [0, 29])
def test_batches_are_equal_bit_for_bit_and_tensors_hold_them(numbers, what, number):
    """Drawn when the same generator has drawn the weights; transformed, or the comparison would be an easy one."""
    first = numbers["pytorch"][f"{what} {number}"]
    assert first.shape == (4, SIZE, SIZE, 3 if what == "images" else 1) and len(np.unique(first)) > 1
    for framework in FRAMEWORKS:
        for name in (f"{what} {number}", f"{what} {number} tensor"):
            array = numbers[framework][name]
            assert array.dtype == first.dtype and np.array_equal(array, first), (framework, name)
    assert not np.array_equal(first, numbers["pytorch"][f"{what} {29 - number}"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_batch_norm_moves_its_averages_by_a_tenth(numbers, given, framework):
    """Of n numbers PyTorch, TensorFlow and Chainer keep the sum of squares over n - 1 as the variance, Keras over n."""
    answer = pytorch("bin_loss")
    network = answer.build_network(np.random.default_rng(SEED), SimpleNamespace(device="cpu"))
    weights = next(network.parameters()).detach().numpy()
    padded = np.pad(given["tiny"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (2, 4, 4, 3, kernel, kernel)
    after_relu = np.maximum(0, np.einsum("bhwikl,oikl->bhwo", windows, weights)).reshape(-1, 32)
    assert len(after_relu) == 32
    variance = after_relu.var(axis=0, ddof=0 if framework == "keras" else 1)
    assert numbers[framework]["mean"] == pytest.approx(0.1 * after_relu.mean(axis=0), abs=1e-6)
    assert numbers[framework]["variance"] == pytest.approx(0.9 + 0.1 * variance, abs=1e-6)
    assert variance.max() / 31 * 0.1 > 1e-4  # the difference would be seen


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_losses_are_finite_where_a_sigmoid_or_a_softmax_would_round(numbers, framework):
    x, t = EXTREME.astype(np.float64), TARGETS
    expected = np.mean(np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x))))
    with np.errstate(divide="ignore", over="ignore"):
        naive = np.log(1 / (1 + np.exp(-EXTREME)))  # float32, as a network would
    assert np.isneginf(naive).any()
    assert numbers[framework]["bin_loss"] == pytest.approx(expected, rel=1e-6)
    x = EXTREME_3.reshape(-1, 3).astype(np.float64)
    largest = x.max(axis=1)
    logarithm = largest + np.log(np.exp(x - largest[:, None]).sum(axis=1))  # of the sum of exponentials
    expected = np.mean(logarithm - x[np.arange(len(x)), TARGETS.ravel()])
    assert numbers[framework]["semaseg_loss"] == pytest.approx(expected, rel=1e-6)
