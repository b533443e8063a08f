"""digits_cnn: the same images, weights, dropout and steps in all four frameworks.

Each framework computes in a process of its own; `pytest -s` shows how far they are apart.
"""

import itertools

import numpy as np
import pytest
from conftest import FRAMEWORKS, run_python
from exercises import answer_path, load_answer

ANSWERS = {framework: answer_path("digits_cnn", framework) for framework in FRAMEWORKS}
STEPS = 10

COLLECT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import convert_weights
import exercises
import numpy as np

script, framework, out, steps = Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5]
answer, numbers = exercises.load_answer(script), {}
sys.argv = [str(script), "--device", "cpu", "--iterations", steps, "--batch", "16", "--pictures", "50", "--seed", "3"]
sys.argv += ["--out", str(out)]
answer.main()
options = answer.read_options()
network = answer.build_network(np.random.default_rng(3), options)
weights = convert_weights.get_weights(framework, network)
numbers |= {f"start {name}": array.copy() for name, array in weights.items()}  # it may be the network's own
images = np.load(out / "../images.npy")
numbers["untrained"] = answer.predict(network, images, options)
before = json.loads((out / "metrics.json").read_text())
sys.argv.append("--test")
answer.main()
assert json.loads((out / "metrics.json").read_text()) == before, "--test alone gives other measures"
answer.load_weights(network, out)
numbers["trained"] = answer.predict(network, images, options)
np.savez(out / "numbers.npz", **numbers)
"""


@pytest.fixture(scope="module")
def answer():
    return load_answer(ANSWERS["pytorch"])


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """{framework: {name: array}}, "losses" and "tests" among them: what the script wrote to loss.csv and test.csv."""
    folder, found = tmp_path_factory.mktemp("digits"), {}
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((5, 32, 32, 3)).astype(np.float32))
    for framework in FRAMEWORKS:
        out = folder / framework
        out.mkdir()
        tools, script = ANSWERS[framework].parents[2] / "tools", ANSWERS[framework]
        result = run_python("-c", COLLECT, tools, script, framework, out, STEPS, cwd=folder)
        assert result.returncode == 0, result.stderr
        found[framework] = dict(np.load(out / "numbers.npz"))
        for name, file in (("losses", "loss.csv"), ("tests", "test.csv")):
            found[framework][name] = np.loadtxt(out / file, delimiter=",", skiprows=1, ndmin=2)
    return found


def compare(numbers, what, relative=False):
    """Print the largest difference of an array between any two frameworks, and return it."""
    worst = 0
    for one, other in itertools.combinations(FRAMEWORKS, 2):
        a, b = (np.float64(numbers[framework][what]) for framework in (one, other))
        assert a.shape == b.shape and np.isfinite(a).all() and np.isfinite(b).all()
        difference = (np.abs(a - b) / (np.maximum(np.abs(a), np.abs(b)) if relative else 1)).max()
        print(f"{what}: {one} - {other} {difference:.1e}")
        worst = max(worst, difference)
    return worst


def test_the_layers_are_those_of_the_lesson(numbers):
    """5 x 5 to 10, 12, 8 channels and to 1: the sizes worked out by hand."""
    shapes = {name: array.shape for name, array in numbers["pytorch"].items() if name.startswith("start")}
    wanted = [(10, 3, 5, 5), (12, 10, 5, 5), (8, 12, 5, 5), (1, 8, 5, 5)]
    assert [shapes[f"start conv {i} kernel"] for i in range(4)] == wanted
    assert [shapes[f"start conv {i} bias"] for i in range(4)] == [(10,), (12,), (8,), (1,)]
    assert len(shapes) == 8
    assert sum(numbers["pytorch"][name].size for name in shapes) == 760 + 3012 + 2408 + 201


def test_first_weights_are_equal_bit_for_bit(numbers):
    for framework in FRAMEWORKS[1:]:
        for name, array in numbers["pytorch"].items():
            if name.startswith("start"):
                assert np.array_equal(numbers[framework][name], array), (framework, name)


def test_same_weights_give_the_same_logits(numbers):
    assert numbers["pytorch"]["untrained"].shape == (5, 32, 32, 1) and numbers["pytorch"]["untrained"].std() > 0.1
    assert compare(numbers, "untrained") < 1e-4


def test_losses_agree(numbers):
    losses = numbers["pytorch"]["losses"]
    assert losses.shape == (STEPS, 2) and losses[-1, 1] < 0.5 * losses[0, 1]
    assert compare(numbers, "losses", relative=True) < 1e-4


def test_trained_networks_agree_on_test_images(numbers):
    assert numbers["pytorch"]["tests"].shape == (1, 3) and numbers["pytorch"]["tests"][0, 0] == STEPS
    assert compare(numbers, "tests") < 1e-2
    assert np.abs(numbers["pytorch"]["trained"] - numbers["pytorch"]["untrained"]).max() > 0.1
    assert compare(numbers, "trained") < 1e-2


def test_dropout_drops_three_of_ten_and_keeps_the_mean(answer):
    options = answer.argparse.Namespace(batch=8, keep=0.7, channels=[10, 12])
    masks = answer.draw_dropout(options, np.random.default_rng(0))
    assert [mask.shape for mask in masks] == [(8, 32, 32, 10), (8, 32, 32, 12)]
    for mask in masks:
        assert mask.dtype == np.float32 and set(np.unique(mask)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
        assert (mask > 0).mean() == pytest.approx(0.7, abs=0.01) and mask.mean() == pytest.approx(1, abs=0.01)
    options.keep = 1
    assert answer.draw_dropout(options, np.random.default_rng(0)) == []


def test_dropout_drops_other_values_of_each_image(answer):
    options = answer.argparse.Namespace(batch=4, keep=0.5, channels=[6, 6])
    first, second = answer.draw_dropout(options, np.random.default_rng(0))
    arrays = [*first, *second]
    for i, one in enumerate(arrays):  # of two that have nothing to do with each other, half agree
        assert all(0.45 < (one == other).mean() < 0.55 for other in arrays[:i])


def test_dropout_multiplies_each_layer_and_testing_has_none(answer):
    options = answer.argparse.Namespace(batch=2, keep=0.5, channels=[4, 3], device="cpu")
    network = answer.build_network(np.random.default_rng(0), options)
    image = answer.to_tensor(np.ones((2, 32, 32, 3), np.float32), "cpu")
    ones = [answer.to_tensor(np.ones((2, 32, 32, channels), np.float32), "cpu") for channels in (4, 3)]
    assert answer.torch.equal(network(image, ones), network(image))
    last = network.convs[-1].bias.item()
    for dropped in (0, 1):
        masks = [mask * (number != dropped) for number, mask in enumerate(ones)]
        logits = network(image, masks).detach().numpy()
        # Where the last layer is dropped, the bias alone is left; biases start at 0, so it is where the first is, too.
        assert logits == pytest.approx(last, abs=1e-6)


def test_mean_iou_is_the_mean_over_the_images(answer):
    masks, predictions = (np.zeros((3, 32, 32, 1), np.uint8) for _ in "ab")
    masks[0, :4, :4] = masks[1, :2, :2] = masks[2, 0, 0] = 1
    predictions[0, :4, 2:6] = predictions[1, :2, :2] = 1
    assert answer.mean_digit_iou(predictions, masks) == pytest.approx((8 / 24 + 1 + 0) / 3)
    assert answer.mean_digit_iou(predictions > 0, masks) == pytest.approx((8 / 24 + 1 + 0) / 3)
    assert answer.mean_digit_iou(predictions[2:], 0 * masks[2:]) == 0  # not a division by 0


def test_training_is_adam_with_epsilon_as_the_other_frameworks_have_it(monkeypatch):
    """The answer's own steps against the formula, in double precision; epsilon beside the uncorrected root."""
    answer = load_answer(ANSWERS["pytorch"])
    monkeypatch.setattr(answer, "FLOAT", "float64")
    torch, dtype = answer.torch, answer.torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        options = answer.argparse.Namespace(
            iterations=6, batch=2, lr=0.01, keep=0.7, channels=[3, 2], device="cpu", data=None
        )
        data = answer.load_data(options)["train"]
        exam = answer.make_pictures(*data, 2, np.random.default_rng(3))
        trained, network = (answer.build_network(np.random.default_rng(1), options) for _ in "ab")
        losses, _ = answer.train(trained, data, exam, options, np.random.default_rng(2))
        rng, weights, expected = np.random.default_rng(2), list(network.parameters()), []
        means, squares = ([torch.zeros_like(weight) for weight in weights] for _ in "ab")
        batches = answer.draw_batches(*data, options, rng)
        for step, (images, masks) in enumerate(batches, start=1):
            images, masks, *dropout = (
                answer.to_tensor(array, "cpu") for array in (images, masks, *answer.draw_dropout(options, rng))
            )
            loss = answer.compute_loss(network(images, dropout), masks)
            expected.append(loss.item())
            rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for i, gradient in enumerate(torch.autograd.grad(loss, weights)):
                means[i] += 0.1 * (gradient - means[i])
                squares[i] += 0.001 * (gradient**2 - squares[i])
                weights[i].data -= rate * means[i] / (squares[i].sqrt() + 1e-8)
        assert losses == pytest.approx(expected, rel=1e-9) and len(set(losses)) == 6
        for one, other in zip(trained.parameters(), weights, strict=True):
            assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)
    finally:
        torch.set_default_dtype(dtype)


def test_a_test_asks_for_the_options_of_the_training(answer, tmp_path, monkeypatch, capsys):
    """Else Keras would take the first layers of a deeper network."""
    options = ["--device", "cpu", "--batch", "2", "--pictures", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["answer", "--iterations", "1", "--channels", "4", "4", *options])
    answer.main()
    for channels in (["4"], ["4", "5"]):
        monkeypatch.setattr("sys.argv", ["answer", "--test", "--channels", *channels, *options])
        with pytest.raises(SystemExit):
            answer.main()
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"--channels [{', '.join(channels)}]" in line and "[4, 4]" in line


@pytest.mark.parametrize(
    "arguments", [["--channels", "8", "0"], ["--channels", "1025"], ["--keep", "1.5"], ["--keep", "0"], ["--lr", "nan"]]
)
def test_what_makes_no_sense_earns_one_line(answer, monkeypatch, capsys, arguments):
    monkeypatch.setattr("sys.argv", ["answer", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as end:
        answer.read_options()
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1 and arguments[0] in line and arguments[-1] in line
