"""Exercise 3 of the digits, grid_graph: the matrices are those of others, and each framework multiplies them right."""

import json
from types import SimpleNamespace

import networkx
import numpy as np
import pytest
from conftest import FRAMEWORKS, run_python
from exercises import answer_path, load_answer
from PIL import Image
from scipy import sparse
from sklearn.feature_extraction.image import grid_to_graph

ANSWERS = {framework: answer_path("grid_graph", framework) for framework in FRAMEWORKS}
GRIDS = pytest.mark.parametrize("height, width", [(2, 2), (5, 3), (4, 9)])
NEIGHBOURS = pytest.mark.parametrize("neighbours", [4, 8])
KINDS = ("combinatorial", "normalised")


@pytest.fixture(scope="module")
def answer():
    return load_answer(ANSWERS["pytorch"])


def make_graph(answer, height, width, neighbours, rng=None):
    """Return edges, weights (1, or random) and adjacency of a grid."""
    edges = answer.connect(height, width, neighbours)
    weights = rng.uniform(0.1, 2, len(edges)) if rng else np.ones(len(edges))
    return edges, weights, answer.make_adjacency(edges, weights, height * width)


def draw_networkx(height, width, neighbours):
    """Return networkx's grid of pixels (row, column), with neighbours across corners if there are 8."""
    if neighbours == 4:
        return networkx.grid_2d_graph(height, width)
    return networkx.strong_product(networkx.path_graph(height), networkx.path_graph(width))


@GRIDS
@NEIGHBOURS
def test_adjacency_is_that_of_networkx(answer, height, width, neighbours):
    edges, _, adjacency = make_graph(answer, height, width, neighbours)
    graph = draw_networkx(height, width, neighbours)
    nodes = [(row, column) for row in range(height) for column in range(width)]
    np.testing.assert_array_equal(adjacency.toarray(), networkx.to_numpy_array(graph, nodelist=nodes))
    assert len(edges) == graph.number_of_edges() and (edges[:, 0] < edges[:, 1]).all()


@GRIDS
def test_adjacency_is_that_of_scikit_learn(answer, height, width):
    expected = grid_to_graph(height, width, return_as=np.ndarray)
    np.fill_diagonal(expected, 0)  # there each pixel is its own neighbour too
    np.testing.assert_array_equal(make_graph(answer, height, width, 4)[2].toarray(), expected)


@GRIDS
@NEIGHBOURS
def test_laplacians_of_weighted_grids_are_those_of_networkx(answer, height, width, neighbours):
    edges, weights, adjacency = make_graph(answer, height, width, neighbours, np.random.default_rng(0))
    graph = networkx.Graph()
    graph.add_nodes_from(range(height * width))
    graph.add_weighted_edges_from((*edge, weight) for edge, weight in zip(edges.tolist(), weights, strict=True))
    expected = networkx.laplacian_matrix(graph), networkx.normalized_laplacian_matrix(graph)
    for kind, matrix in zip(KINDS, expected, strict=True):
        laplacian = answer.make_laplacian(adjacency, kind)
        assert sparse.issparse(laplacian)
        np.testing.assert_allclose(laplacian.toarray(), matrix.toarray(), atol=1e-12)


def test_eigenvalues_of_a_grid_are_those_of_cosines(answer):
    """Of a grid with 4 neighbours: 4 - 2 cos(pi i / height) - 2 cos(pi j / width), each i and j from 0."""
    height, width = 7, 11
    laplacian = answer.make_laplacian(make_graph(answer, height, width, 4)[2], "combinatorial")
    down, right = (2 - 2 * np.cos(np.pi * np.arange(length) / length) for length in (height, width))
    expected = np.sort(np.add.outer(down, right).ravel())[:10]
    values, vectors = answer.find_eigenvectors(laplacian, 10)
    np.testing.assert_allclose(values, expected, atol=1e-9)
    np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(10), atol=1e-9)
    wave = np.cos(np.pi * (np.arange(width) + 0.5) / width)  # the second: half a wave along the longer side
    wave = np.tile(wave, height) / np.linalg.norm(np.tile(wave, height))
    np.testing.assert_allclose(vectors[:, 1], wave, atol=1e-7)


def test_eigenvectors_come_out_the_same_again_and_point_one_way(answer):
    laplacian = answer.make_laplacian(make_graph(answer, 9, 8, 8)[2], "normalised")
    (_, first), (_, again) = (answer.find_eigenvectors(laplacian, 6) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for vector in first.T:
        assert vector[np.argmax(np.abs(vector) > 0.7 * np.abs(vector).max())] > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neighbours", ["4", "8"])
def test_the_fiedler_vector_cuts_out_what_differs_in_colour(answer, kind, neighbours):
    rng = np.random.default_rng(0)
    truth = np.zeros((16, 16), np.uint8)
    truth[3:12, 5:9] = 1
    image = np.float32(0.3 + 0.4 * truth[..., None] + rng.normal(0, 0.02, (16, 16, 3)))
    options = SimpleNamespace(neighbours=neighbours, laplacian=kind)
    vector, digit = answer.segment(image, options)
    np.testing.assert_array_equal(digit, truth)
    assert (vector[truth == 1] > 0).all() and (vector[truth == 0] <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_of_all_vectors_of_unit_length_the_fiedler_vector_is_smoothest(answer, kind):
    """As segment says: among those at right angles to the first, none has a smaller x^T L x."""
    rng = np.random.default_rng(0)
    _, _, adjacency = make_graph(answer, 6, 5, 8, rng)
    laplacian = answer.make_laplacian(adjacency, kind)
    (_, second), vectors = answer.find_eigenvectors(laplacian, 2)
    first, fiedler = vectors.T
    assert np.linalg.norm(fiedler) == pytest.approx(1) and first @ fiedler == pytest.approx(0, abs=1e-9)
    assert fiedler @ laplacian @ fiedler == pytest.approx(second)
    for size in (1e-3, 1e-1, 1e3):
        for other in rng.standard_normal((200, 30)):
            other = fiedler + size * (other - (first @ other) * first)
            other /= np.linalg.norm(other)
            assert other @ laplacian @ other > second - 1e-12
    if kind == "combinatorial":  # the sum of weight times squared difference over the edges
        rows, columns = adjacency.nonzero()
        differences = adjacency[rows, columns] * (fiedler[rows] - fiedler[columns]) ** 2
        assert differences.sum() / 2 == pytest.approx(second)  # each edge stands twice


def test_weights_are_1_between_equal_colours_and_never_0(answer):
    image = np.float32([[[0, 0, 0], [0, 0, 0], [1, 1, 1]]])
    equal, unlike = answer.weigh_edges(image, answer.connect(1, 3, 4))
    assert equal == pytest.approx(1, abs=1e-5) and 0 < unlike < 0.2


def test_weights_are_never_0_however_unlike_the_pixels(answer):
    """One white pixel on black: without an edge to it the graph would be in two parts."""
    image = np.zeros((16, 16, 3), np.float32)
    image[8, 8] = 1
    edges = answer.connect(16, 16, 4)
    weights = answer.weigh_edges(image, edges)
    white = (edges == 8 * 16 + 8).any(axis=1)
    assert white.sum() == 4 and weights[white] == pytest.approx(1e-6) and weights[~white] == pytest.approx(1, abs=1e-5)


# Runs in a process of its own: two frameworks in one disturb each other.
COLLECT = """
import sys
from pathlib import Path
tools, framework, script, folder = sys.argv[1:]
sys.path.insert(0, tools)
import exercises
answer, folder = exercises.load_answer(script), Path(folder)
sys.argv = [script, "--device", "cpu"]
np, given, found = answer.np, answer.np.load(folder / "given.npz"), {}
scipy_matrix = answer.sparse.coo_array((given["values"], tuple(given["indices"])), shape=given["shape"])
for precision in ("float32", "float64"):
    answer.FLOAT = precision
    answer.read_options()  # it sets the framework up
    weights = given["weights"].astype(precision)
    for name in ("sparse", "dense"):
        matrix = getattr(answer, f"to_{name}")(scipy_matrix, "cpu")
        images = answer.to_tensor(given["images"].astype(precision), "cpu")
        if framework in ("tensorflow", "keras"):
            import tensorflow as tf

            @tf.function
            def step(features):
                with tf.GradientTape() as tape:
                    tape.watch(features)
                    product = answer.multiply(matrix, features)
                    loss = tf.reduce_sum(product * weights)
                return product, tape.gradient(loss, features)

            features = answer.to_features(images)
            product, gradient = step(features)
        elif framework == "pytorch":
            features = answer.to_features(images).requires_grad_()
            product = answer.multiply(matrix, features)
            (product * answer.torch.from_numpy(weights)).sum().backward()
            gradient, features, product = features.grad, features.detach(), product.detach()
        else:
            features = answer.chainer.Variable(answer.to_features(images).array)  # an array alone gets no gradient
            product = answer.multiply(matrix, features)
            answer.functions.sum(product * weights).backward(retain_grad=True)
            gradient = features.grad_var
        for what, tensor in (("features", features), ("product", product), ("gradient", gradient)):
            found[f"{precision} {name} {what}"] = answer.to_numpy(tensor)
np.savez(folder / f"{framework}.npz", **found)
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_products_and_gradients_are_those_of_scipy(tmp_path, framework):
    """The matrix is neither symmetric nor in order, so one that is transposed or mixed up shows."""
    rng = np.random.default_rng(1)
    matrix = sparse.random_array((12, 12), density=0.3, rng=rng, dtype=np.float64).tocoo()
    images = rng.standard_normal((5, 3, 4, 2))  # (batch, height, width, channels)
    weights = rng.standard_normal((12, 5, 2))
    mixed = rng.permutation(matrix.nnz)
    indices = np.stack(matrix.coords)[:, mixed]
    given = {"values": matrix.data[mixed], "indices": indices, "shape": matrix.shape}
    np.savez(tmp_path / "given.npz", **given, images=images, weights=weights)
    tools, script = ANSWERS[framework].parents[2] / "tools", ANSWERS[framework]
    result = run_python("-c", COLLECT, tools, framework, script, tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    features = images.reshape(5, 12, 2).transpose(1, 0, 2)
    expected = {
        "features": features,
        "product": np.einsum("nm,mbc->nbc", matrix.toarray(), features),
        "gradient": np.einsum("nm,nbc->mbc", matrix.toarray(), weights),
    }
    found = np.load(tmp_path / f"{framework}.npz")
    for precision, most in (("float32", 1e-5), ("float64", 1e-13)):
        for name in ("sparse", "dense"):
            for what, array in expected.items():
                key = f"{precision} {name} {what}"
                assert found[key].dtype == precision, key
                np.testing.assert_allclose(found[key], array, atol=most, err_msg=key)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_draws_eigenvectors_and_cuts_digits(tmp_path, framework):
    options = ["--pictures", 4, "--iterations", 2, "--batch", 3, "--neighbours", 4, "--device", "cpu"]
    result = run_python(ANSWERS[framework], *options, "--out", tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1024 nodes, 1984 edges, 2 to 4 at a node" in result.stdout
    metrics = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert metrics["edges"] == 2 * 32 * 31 and metrics["entries"] == 1024 + 2 * metrics["edges"]
    assert metrics["largest_difference"] < 1e-4 and len(metrics["eigenvalues"]) == 16
    assert metrics["eigenvalues"] == sorted(metrics["eigenvalues"]) and abs(metrics["eigenvalues"][0]) < 1e-9
    assert all(0 < metrics["digit_iou"][part] < 1 for part in ("train", "test"))
    pictures = sorted(p.relative_to(tmp_path / "out/pictures").as_posix() for p in tmp_path.rglob("*.png"))
    parts = [f"{part}/{i:04}.png" for part in ("test", "train") for i in range(4)]
    assert pictures == sorted(["eigenvectors.png", *parts])
    with Image.open(tmp_path / "out/pictures/eigenvectors.png") as picture:
        pixels = np.array(picture).astype(int)
    side = 8 * (32 + 2)  # each pixel is drawn 8 x 8, with a margin of one around each vector
    assert pixels.shape == (4 * side, 4 * side, 3) and (pixels[:8] == 255).all() and (pixels[:, :8] == 255).all()
    bluer = (pixels[..., 2] - pixels[..., 0])[8 : side - 8]
    assert (bluer[:, 8 : side - 8] > 100).all()  # the first vector has one sign, the second two
    assert bluer[:, side + 8 : 2 * side - 8].max() == 255 and bluer[:, side + 8 : 2 * side - 8].min() < -250
