"""Exercise 4 of the digits, graph_conv: its layers are those of the papers, and the same in all four frameworks.

Each framework computes in a process of its own; `pytest -s` shows how far they are apart.
"""

import itertools
import sys

import numpy as np
import pytest
from conftest import FRAMEWORKS, run_python
from exercises import answer_path, load_answer
from torch_geometric import nn as geometric_nn

ANSWERS = {framework: answer_path("graph_conv", framework) for framework in FRAMEWORKS}
PAIRS = list(itertools.combinations(FRAMEWORKS, 2))
ORDERS = (1, 3)
STEPS = 10


@pytest.fixture(scope="module")
def answer():
    return load_answer(ANSWERS["pytorch"])


def read_options(answer, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["answer", "--device", "cpu", *map(str, arguments)])
    return answer.read_options()


@pytest.fixture
def layer(answer, monkeypatch):
    """A function that gives for an order and neighbours a layer of 3 to 5 channels, its matrix, and edges both ways."""

    def make(order, neighbours):
        options = read_options(answer, monkeypatch, "--order", order, "--neighbours", neighbours, "--channels", 5)
        network = answer.build_network(np.random.default_rng(0), options)
        answer.torch.manual_seed(0)
        answer.nn.init.normal_(network.convs[0].linear.bias)  # other than 0, so that one too many shows
        edges = answer.connect(answer.SIDE, answer.SIDE, neighbours)
        both = np.concatenate([edges, edges[:, ::-1]])
        return network.convs[0], network.matrix, answer.torch.from_numpy(both.T.copy())

    return make


def apply_both(answer, ours, matrix, theirs, edges):
    """Return what our layer and theirs make of the same features, as arrays (batch, nodes, channels)."""
    features = np.random.default_rng(2).standard_normal((2, answer.SIDE**2, 3)).astype(np.float32)
    features = answer.torch.from_numpy(features)
    with answer.torch.no_grad():
        return ours(matrix, features.transpose(0, 1).contiguous()).transpose(0, 1).numpy(), theirs(features, edges)


@pytest.mark.parametrize("neighbours", [4, 8])
def test_order_1_is_the_layer_of_kipf_and_welling(answer, layer, neighbours):
    ours, matrix, edges = layer(1, neighbours)
    theirs = geometric_nn.GCNConv(3, 5)
    theirs.lin.weight.data, theirs.bias.data = ours.linear.weight.data, ours.linear.bias.data
    one, other = apply_both(answer, ours, matrix, theirs, edges)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("order", [2, 3, 5])
def test_higher_orders_are_chebyshev_filters(answer, layer, neighbours, order):
    ours, matrix, edges = layer(order, neighbours)
    theirs = geometric_nn.ChebConv(3, 5, order, normalization="sym")  # which takes 2 for the largest eigenvalue
    for linear, weight in zip(theirs.lins, ours.linear.weight.data.split(3, dim=1), strict=True):
        linear.weight.data = weight
    theirs.bias.data = ours.linear.bias.data
    one, other = apply_both(answer, ours, matrix, theirs, edges)
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("order", ORDERS)
def test_eigenvalues_of_the_propagation_lie_from_minus_1_to_1(answer, order, neighbours):
    edges = answer.connect(6, 7, neighbours)
    matrix = answer.make_propagation(answer.make_adjacency(edges, np.ones(len(edges)), 42), order)
    values = np.linalg.eigvalsh(matrix.toarray())
    assert values.min() > -1 - 1e-9 and values.max() < 1 + 1e-9
    assert np.abs(values).max() == pytest.approx(1)


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("order", ORDERS)
def test_a_turned_or_mirrored_image_gives_turned_or_mirrored_logits(answer, monkeypatch, order, neighbours):
    """No direction is told from another: what an isotropic filter cannot see. The convolutions of digits_cnn can."""
    options = read_options(answer, monkeypatch, "--order", order, "--neighbours", neighbours)
    network = answer.build_network(np.random.default_rng(0), options)
    cnn = load_answer(answer_path("digits_cnn", "pytorch"))
    cnn_options = read_options(cnn, monkeypatch)
    cnn_network = cnn.build_network(np.random.default_rng(0), cnn_options)
    image = np.random.default_rng(1).standard_normal((1, answer.SIDE, answer.SIDE, 3)).astype(np.float32)
    for change in (lambda a: np.rot90(a, axes=(1, 2)), lambda a: a[:, ::-1], lambda a: a.swapaxes(1, 2)):
        changed = np.ascontiguousarray(change(image))
        logits = answer.predict(network, image, options), answer.predict(network, changed, options)
        np.testing.assert_allclose(change(logits[0]), logits[1], atol=1e-4)
        logits = cnn.predict(cnn_network, image, cnn_options), cnn.predict(cnn_network, changed, cnn_options)
        assert np.abs(change(logits[0]) - logits[1]).max() > 0.05


@pytest.mark.parametrize("order, layers, radius", [(1, 5, 5), (3, 5, 10), (2, 3, 3), (3, 4, 8), (1, 8, 8)])
def test_how_far_the_network_sees(answer, monkeypatch, order, layers, radius):
    """A ring of neighbours for each layer of Kipf and Welling, order - 1 of them for each Chebyshev filter."""
    options = read_options(answer, monkeypatch, "--order", order, "--channels", *[4] * layers)
    network = answer.build_network(np.random.default_rng(0), options)
    for conv in network.convs:
        conv.linear.bias.data += 100  # so that no ReLU cuts anything off
    image = answer.torch.zeros(1, 3, answer.SIDE, answer.SIDE, requires_grad=True)
    network(image)[0, 0, 16, 16].backward()
    rows, columns = np.nonzero(image.grad[0].abs().sum(axis=0).numpy())
    assert np.abs(np.stack([rows, columns]) - 16).max() == radius


@pytest.mark.parametrize(
    "arguments, parameters",
    [
        ([], (3 * 32 + 32) + 4 * (32 * 32 + 32) + (32 + 1)),
        (["--order", 3], (9 * 32 + 32) + 4 * (96 * 32 + 32) + (32 + 1)),
        (["--order", 2, "--channels", 7, 5], (6 * 7 + 7) + (14 * 5 + 5) + (5 + 1)),
    ],
)
def test_parameters(answer, monkeypatch, arguments, parameters):
    options = read_options(answer, monkeypatch, *arguments)
    network = answer.build_network(np.random.default_rng(0), options)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# Runs in a process of its own for each framework.
COLLECT = """
import sys
from pathlib import Path
tools, framework, script, folder, steps, *orders = sys.argv[1:]
sys.path.insert(0, tools)
import convert_weights
import exercises
answer = exercises.load_answer(script)
np, found = answer.np, {}
for order in orders:
    network = ["--device", "cpu", "--batch", "4", "--channels", "8", "6", "--order", order]
    sys.argv = [script, *network]
    options = answer.read_options()
    built = answer.build_network(np.random.default_rng(3), options)
    for name, array in convert_weights.get_weights(framework, built).items():
        found[f"{order} {name}"] = array
    found[f"{order} logits"] = answer.predict(built, np.load(Path(folder) / "images.npy"), options)
    for keep in ("1", "0.8"):
        out = str(Path(folder) / f"{framework}_{order}_{keep}")
        sys.argv = [script, *network, "--pictures", "5", "--iterations", steps, "--keep", keep, "--out", out]
        answer.main()
        found[f"{order} losses {keep}"] = np.loadtxt(Path(out) / "loss.csv", delimiter=",", skiprows=1)[:, 1]
np.savez(Path(folder) / f"{framework}.npz", **found)
"""


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """{framework: {name: array}}: first weights, logits, and losses of short runs, of each order."""
    folder = tmp_path_factory.mktemp("graph_conv")
    np.save(folder / "images.npy", np.random.default_rng(4).standard_normal((6, 32, 32, 3)).astype(np.float32))
    found = {}
    for framework, script in ANSWERS.items():
        tools = script.parents[2] / "tools"
        result = run_python("-c", COLLECT, tools, framework, script, folder, STEPS, *ORDERS, cwd=folder)
        assert result.returncode == 0, result.stderr
        found[framework] = dict(np.load(folder / f"{framework}.npz"))
    return found


@pytest.mark.parametrize("order", ORDERS)
def test_first_weights_are_equal_bit_for_bit(numbers, order):
    kernels = [name for name in numbers["pytorch"] if name.startswith(f"{order} linear") and name.endswith("kernel")]
    assert [numbers["pytorch"][name].shape for name in kernels] == [(8, 3 * order), (6, 8 * order), (1, 6)]
    for framework in FRAMEWORKS[1:]:
        assert numbers[framework].keys() == numbers["pytorch"].keys()
        for name in kernels:
            np.testing.assert_array_equal(numbers[framework][name], numbers["pytorch"][name])


def show(what, table):
    print(f"\n{what}: " + ", ".join(f"{one} - {other} {value:.1e}" for (one, other), value in table.items()))
    return table


@pytest.mark.parametrize("order", ORDERS)
def test_same_weights_give_the_same_logits(numbers, order):
    logits = {framework: numbers[framework][f"{order} logits"] for framework in FRAMEWORKS}
    assert logits["pytorch"].shape == (6, 32, 32, 1) and logits["pytorch"].std() > 1e-2
    table = {(one, other): np.abs(logits[one] - logits[other]).max() for one, other in PAIRS}
    assert max(show(f"order {order}, logits", table).values()) < 1e-4


@pytest.mark.parametrize("keep", ["1", "0.8"])
@pytest.mark.parametrize("order", ORDERS)
def test_losses_agree(numbers, order, keep):
    losses = {framework: numbers[framework][f"{order} losses {keep}"] for framework in FRAMEWORKS}
    assert len(losses["pytorch"]) == STEPS
    assert losses["pytorch"][-1] < 0.9 * losses["pytorch"][0]
    table = {(a, b): (np.abs(losses[a] - losses[b]) / losses[a]).max() for a, b in PAIRS}
    assert max(show(f"order {order}, keep {keep}, relative difference of losses", table).values()) < 1e-4


@pytest.mark.parametrize("arguments", [["--order", 0], ["--order", 26], ["--channels", 8, 0], ["--keep", 1.5]])
def test_what_makes_no_sense_earns_one_line(answer, monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as end:
        read_options(answer, monkeypatch, *arguments)
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1 and f"{arguments[0]} {arguments[-1]}" in line
