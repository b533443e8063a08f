"""tools/parity.py, on made losses, and one short run of an answer."""

import sys

import numpy as np
import parity
import pytest
from conftest import pytorch, stopped


def test_the_largest_relative_difference_of_each_pair_is_told():
    losses = {"pytorch": [1.0, 0.5, 0.25], "keras": [1.0, 0.5, 0.2], "chainer": [1.0, 0.6, 0.25]}
    found = parity.compare({name: np.array(each) for name, each in losses.items()})
    assert found == {
        ("pytorch", "keras"): pytest.approx(0.2),  # relative to the larger loss
        ("pytorch", "chainer"): pytest.approx(1 / 6),
        ("keras", "chainer"): pytest.approx(0.2),
    }


@pytest.mark.parametrize("other", [[1.0, np.nan], [1.0, np.inf], [1.0]])
def test_losses_that_cannot_be_compared_end_in_one_line(capsys, other):
    line = stopped(capsys, parity.compare, {"pytorch": np.array([1.0, 0.5]), "keras": np.array(other)})
    assert line.startswith("parity.py: pytorch and keras: ") and "nothing to compare" in line


@pytest.mark.parametrize(
    "steps, apart, status", [(30, 5e-10, 0), (30, 1e-8, 1), (31, 1e-8, 0), (31, 2e-5, 1), (500, 5e-6, 0)]
)
def test_the_status_says_whether_they_agree(monkeypatch, capsys, steps, apart, status):
    """Up to 1e-9 over 30 iterations, and 1e-5 over more, however many exercises follow that agree."""
    asked = []

    def train(exercise, framework, iterations):
        asked.append((exercise.name, framework, iterations))
        return np.ones(steps) * (1 + apart if (exercise.name, framework) == ("concat", "keras") else 1)

    monkeypatch.setattr(parity, "train", train)
    arguments = ["--exercises", "concat unetlike", "--frameworks", "pytorch keras", "--iterations", str(steps)]
    monkeypatch.setattr(sys, "argv", ["parity.py", *arguments])
    with pytest.raises(SystemExit) as end:
        parity.main()
    assert end.value.code == status
    pairs = [(name, framework) for name in ("concat", "unetlike") for framework in ("pytorch", "keras")]
    assert asked == [(*pair, steps) for pair in pairs]
    assert capsys.readouterr().out.splitlines()[-1] == f"largest of all: {apart:.1e} (concat)"


def test_a_run_is_whole_and_in_double_precision(monkeypatch, tmp_path):
    """The losses of the answer's own training on the bundled newts, to the digits that single precision lacks."""
    monkeypatch.setattr(parity, "REPOSITORY", tmp_path)
    losses = parity.train(parity.find_exercise("bin_loss"), "pytorch", 3)
    answer = pytorch("bin_loss")
    monkeypatch.setattr(sys, "argv", ["answer", "--device", "cpu", "--iterations", "3"])
    monkeypatch.setattr(answer, "FLOAT", "float64")
    try:
        options = answer.read_options()
        rng = np.random.default_rng(options.seed)
        _, images, targets = answer.load_newts(options.data / "train", options.size)
        network = answer.build_network(rng, options)
        expected = answer.train(network, images, targets, options, rng)
    finally:
        answer.torch.set_default_dtype(answer.torch.float32)
    assert len(losses) == 3 and losses == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--frameworks", "keras"],
        ["--frameworks", "keras theano"],
        ["--iterations", "0"],
        ["--exercises", "bin_dataset"],
    ],
)
def test_wrong_options_end_in_one_line(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["parity.py", *arguments])
    line = stopped(capsys, parity.main)
    assert line.startswith(f"parity.py: {arguments[0]}")
