"""Four frameworks, one curve: exercise 2 does the same arithmetic in each of them.

Each framework counts in a process of its own and hands its numbers over in PyTorch's layout and order; `pytest -s`
shows how far they lie apart.
"""

import itertools

import numpy as np
import pytest
from conftest import FRAMEWORKS, SCRIPTS, load, run_python

ANSWERS = {framework: next(s for s in SCRIPTS if s.stem == f"bin_loss_{framework}") for framework in FRAMEWORKS}
PAIRS = list(itertools.combinations(FRAMEWORKS, 2))
STEPS, BATCH, SIZE, SEED = 100, 4, 48, 3
EXTREME = np.float32([-200, -104, -20, -1, 0, 1, 20, 104, 200]).repeat(2).reshape(1, 9, 2, 1)
EXTREME_TARGETS = np.uint8([0, 1] * 9).reshape(1, 9, 2, 1)

COLLECT = """
import importlib.util, json, sys
from argparse import Namespace
from pathlib import Path

script, out, steps, batch, size, seed = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:7])
spec = importlib.util.spec_from_file_location("answer", script)
answer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(answer)
framework, np, numbers = answer.FRAMEWORK, answer.np, {}
extreme, extreme_targets = np.load(out / "extreme.npy"), np.load(out / "extreme_targets.npy")


def tensors(*arrays):
    return [answer.to_tensor(array, "cpu") for array in arrays]


def forward(network, images, training):
    if framework == "pytorch":
        network.train(training)
    if framework == "chainer":
        answer.chainer.config.train = training
    return network(images, training=training) if framework in ("tensorflow", "keras") else network(images)


def channels_last(logits):
    logits = np.asarray(getattr(logits, "array", logits.detach() if framework == "pytorch" else logits))
    return logits if framework in ("tensorflow", "keras") else logits.transpose(0, 2, 3, 1)


def layers(network):
    # All with weights, in order: (the names of its weights, its running averages), as each framework has them.
    if framework == "tensorflow":
        parts = [part for pair in zip(network.convs, network.norms) for part in pair] + [network.classifier]
        return [([p.kernel, p.bias], []) if hasattr(p, "kernel") else ([p.gamma, p.beta], [p.mean, p.variance])
                for p in parts]
    if framework == "keras":
        return [(part.trainable_variables, part.non_trainable_variables) for part in network.layers if part.weights]
    if framework == "chainer":
        return [([p.W, p.b], []) if hasattr(p, "W") else ([p.gamma, p.beta], [p.avg_mean, p.avg_var])
                for p in network if isinstance(p, answer.chainer.Link)]
    return [([p.weight, p.bias], [p.running_mean, p.running_var] if hasattr(p, "running_mean") else [])
            for p in network if hasattr(p, "weight")]


def as_pytorch(array):
    array = np.asarray(array)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 and framework in ("tensorflow", "keras") else array


def weights(network):
    return [weight for weights, _ in layers(network) for weight in weights]


def averages(network):
    return [np.array(average) for _, averages in layers(network) for average in averages]


def gradients(network, images, targets, training):
    if framework in ("tensorflow", "keras"):
        import tensorflow as tf
        with tf.GradientTape() as tape:
            logits = forward(network, images, training)
            loss = answer.compute_loss(logits, targets)
        return logits, loss, tape.gradient(loss, [getattr(weight, "value", weight) if framework == "keras" else weight
                                                  for weight in weights(network)])
    logits = forward(network, images, training)
    loss = answer.compute_loss(logits, targets)
    network.cleargrads() if framework == "chainer" else network.zero_grad()
    loss.backward()
    if framework == "chainer":
        return logits, loss.array, [weight.grad for weight in weights(network)]
    return logits, loss.detach(), [weight.grad.clone() for weight in weights(network)]


# What the script itself does: training, from the command line on.
sys.argv = [script.name, "--train", "--iterations", str(steps), "--batch", str(batch), "--size", str(size)]
sys.argv += ["--seed", str(seed), "--device", "cpu", "--out", str(out / "long")]
answer.main()
options = answer.read_options()
numbers["losses"] = np.loadtxt(out / "long" / "loss.csv", delimiter=",", skiprows=1)[:, 1]
sys.argv[sys.argv.index(str(steps))], sys.argv[-1] = "5", str(out / "short")
answer.main()

# Its pieces, one step from the same weights.
names, images, targets = answer.load_newts(options.data / "train", size)
rng = np.random.default_rng(seed)
network = answer.build_network(rng, options)
drawing = Namespace(iterations=30, batch=batch, augment="affine")
batches = list(answer.draw_batches(images, targets, drawing, rng))
for number in (0, 29):
    numbers[f"batch_images_{number}"], numbers[f"batch_targets_{number}"] = batches[number]
numbers |= {"images": images, "targets": targets}
numbers["tensor_images"], numbers["tensor_targets"] = map(channels_last, tensors(*batches[0]))
numbers["start"] = np.concatenate([as_pytorch(weight if framework != "chainer" else weight.array)
                                   .ravel() if framework != "pytorch" else weight.detach().numpy().ravel()
                                   for weight in weights(network)])
numbers["logits_untrained"] = answer.predict(network, images[:5], options)
for mode, training in (("inference", False), ("training", True)):
    logits, loss, slopes = gradients(network, *tensors(*batches[0]), training)
    numbers[f"{mode}_logits"], numbers[f"{mode}_loss"] = channels_last(logits), np.asarray(loss)
    for number, slope in enumerate(slopes):
        numbers[f"{mode}_gradient_{number:02}"] = as_pytorch(slope)

# Batch norm after one batch of 2 x 4 x 4 pixels, where n and n - 1 differ.
network = answer.build_network(np.random.default_rng(seed), options)
numbers["tiny"] = images[:2, 20:24, 20:24]
forward(network, *tensors(numbers["tiny"]), True)
numbers["tiny_mean"], numbers["tiny_variance"] = averages(network)[:2]

# The network after training.
answer.load_weights(network, out / "long")
numbers["logits_trained"] = answer.predict(network, images[:5], options)
for number, average in enumerate(averages(network)):
    numbers[f"average_{number:02}"] = average

value = answer.compute_loss(*tensors(extreme, extreme_targets))
numbers["extreme_loss"] = np.asarray(getattr(value, "array", value))
np.savez(out / "numbers.npz", **numbers)
"""


@pytest.fixture(scope="session")
def numbers(tmp_path_factory):
    """{framework: {name: array}}, and below "out" the folder where its two runs of the script have written."""
    found = {}
    for framework, script in ANSWERS.items():
        out = tmp_path_factory.mktemp(framework)
        np.save(out / "extreme.npy", EXTREME)
        np.save(out / "extreme_targets.npy", EXTREME_TARGETS)
        result = run_python("-c", COLLECT, script, out, STEPS, BATCH, SIZE, SEED, cwd=out)
        assert result.returncode == 0, result.stderr
        found[framework] = dict(np.load(out / "numbers.npz")) | {"out": out}
    return found


def compare(numbers, what, names, relative=False):
    """Print and return {pair: largest difference} over the arrays of these names."""
    table = {}
    for one, other in PAIRS:
        table[one, other] = 0
        for name in names:
            a, b = (np.float64(numbers[framework][name]) for framework in (one, other))
            assert a.shape == b.shape, (name, one, a.shape, other, b.shape)
            assert np.isfinite(a).all() and np.isfinite(b).all()
            difference = np.abs(a - b) / (np.maximum(np.abs(a), np.abs(b)) if relative else 1)
            table[one, other] = max(table[one, other], difference.max())
    print(f"\n{what}: " + ", ".join(f"{one} - {other} {value:.1e}" for (one, other), value in table.items()))
    return table


@pytest.mark.parametrize("name", ["images", "targets", "tensor_images", "tensor_targets", "start"])
def test_pictures_masks_and_first_weights_are_equal_bit_for_bit(numbers, name):
    first = numbers["pytorch"][name]
    assert first.size > 9_000 and len(np.unique(first)) > 1
    for framework in FRAMEWORKS[1:]:
        assert numbers[framework][name].dtype == first.dtype
        assert np.array_equal(numbers[framework][name], first)


@pytest.mark.parametrize("name", [f"batch_{what}_{number}" for what in ("images", "targets") for number in (0, 29)])
def test_batches_are_equal_bit_for_bit(numbers, name):
    for framework in FRAMEWORKS[1:]:
        assert np.array_equal(numbers[framework][name], numbers["pytorch"][name])


# In training, batch norm divides by what it measures in the batch, and float32 lets the frameworks measure apart: on
# channels-last tensors PyTorch's own batch norm alone lies up to 5e-4 from the same in float64, Keras' and Chainer's
# as far, and six of them follow one another. No framework is nearer to float64 than the others.
BOUNDS = {"inference": 1e-4, "training": 5e-3}


@pytest.mark.parametrize("mode", BOUNDS)
def test_same_weights_give_the_same_logits_and_loss(numbers, mode):
    assert numbers["pytorch"][f"{mode}_logits"].std() > 0.1
    assert max(compare(numbers, f"{mode}_logits", [f"{mode}_logits"]).values()) < BOUNDS[mode]
    assert max(compare(numbers, f"{mode}_loss", [f"{mode}_loss"]).values()) < 1e-4


def test_predict_gives_the_same_logits(numbers):
    assert max(compare(numbers, "logits_untrained", ["logits_untrained"]).values()) < 1e-4


@pytest.mark.parametrize("mode", BOUNDS)
def test_same_weights_give_the_same_gradients(numbers, mode):
    names = sorted(name for name in numbers["pytorch"] if name.startswith(f"{mode}_gradient_"))
    assert len(names) == 7 * 2 + 6 * 2
    assert min(np.abs(numbers["pytorch"][name]).max() for name in names) > 0.005
    assert max(compare(numbers, f"{mode}_gradients", names).values()) < BOUNDS[mode]


def test_losses_of_a_hundred_steps_agree(numbers):
    losses = numbers["pytorch"]["losses"]
    assert len(losses) == STEPS and losses[-1] < 0.8 * losses[0]
    assert max(compare(numbers, "losses, relative", ["losses"], relative=True).values()) < 1e-4


def test_networks_agree_after_training(numbers):
    """The weights saved and read again, running averages among them, give about the same logits and averages."""
    assert max(compare(numbers, "logits after training", ["logits_trained"]).values()) < BOUND_TRAINED
    names = sorted(name for name in numbers["pytorch"] if name.startswith("average_"))
    assert len(names) == 12
    assert max(compare(numbers, "running averages", names).values()) < BOUND_TRAINED


BOUND_TRAINED = 1e-2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_batch_norm_moves_its_averages_by_a_tenth(numbers, framework):
    """Of n numbers PyTorch, TensorFlow and Chainer keep the sum of squares over n - 1 as the variance, Keras over n."""
    pytorch = load(ANSWERS["pytorch"])
    weights = pytorch.he_normal(np.random.default_rng(SEED), (32, 3, 3, 3))
    padded = np.pad(numbers[framework]["tiny"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (2, 4, 4, 3, kernel, kernel)
    after_relu = np.maximum(0, np.einsum("bhwikl,oikl->bhwo", windows, weights)).reshape(-1, 32)
    assert len(after_relu) == 32
    variance = after_relu.var(axis=0, ddof=0 if framework == "keras" else 1)
    assert numbers[framework]["tiny_mean"] == pytest.approx(0.1 * after_relu.mean(axis=0), abs=1e-6)
    assert numbers[framework]["tiny_variance"] == pytest.approx(0.9 + 0.1 * variance, abs=1e-6)
    assert variance.max() / 31 * 0.1 > 1e-4  # the difference would be seen


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_loss_is_the_mean_and_finite_where_a_sigmoid_would_round(numbers, framework):
    x, t = EXTREME.astype(np.float64), EXTREME_TARGETS
    expected = np.mean(np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x))))
    with np.errstate(divide="ignore", over="ignore"):
        naive = np.log(1 / (1 + np.exp(-EXTREME)))  # float32, as a network would
    assert np.isneginf(naive).any()
    assert numbers[framework]["extreme_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_same_seed_twice_is_the_same_file(numbers, tmp_path, framework):
    options = f"--train --iterations 5 --batch {BATCH} --size {SIZE} --seed {SEED} --device cpu --out out".split()
    result = run_python(ANSWERS[framework], *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    first = (numbers[framework]["out"] / "short" / "loss.csv").read_bytes()
    assert first.count(b"\n") == 6
    assert (tmp_path / "out" / "loss.csv").read_bytes() == first
