"""Exercise 3, grid_graph, in Keras: an image as a graph of pixels, its sparse matrices, and a cut by an eigenvector.

New here: NUMBERS, CHOICES, connect, make_adjacency, make_laplacian, find_eigenvectors, weigh_edges, segment, to_sparse,
to_dense, to_features, multiply, to_numpy, save_eigenvectors, main. As in 02_digits_cnn_keras.py: mean_digit_iou. All
else is as in 01_digits_dataset_keras.py.
"""

import argparse
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image
from scipy import sparse
from scipy.sparse.linalg import eigsh
from sklearn import datasets
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if BACKEND not in ("tensorflow", "jax", "torch") or not importlib.util.find_spec(BACKEND):
    message = "unknown or not installed: set it to tensorflow, jax or torch, whichever is installed"
    print(f"{Path(__file__).name}: KERAS_BACKEND={BACKEND}: {message}", file=sys.stderr)
    raise SystemExit(2)
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import keras
finally:
    os.dup2(stderr, 2)

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (50, range(1, 10**6), "batches to multiply"),
    "batch": (64, range(1, 4097), "images in a batch"),
    "pictures": (16, range(1, 10**6), "images of each part to cut"),
    "seed": (0, range(2**63), "of all random numbers"),
}
CHOICES = {  # the first is the default
    "neighbours": ("8", "4"),
    "laplacian": ("normalised", "combinatorial"),
    "device": ("auto", "cpu", "cuda"),
}
DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Keras calls them, whatever its backend
SIDE = 32  # height and width of an image, in pixels
DIGIT = 14  # height and width of the digit in it
BRIGHTEST = 200  # what a digit adds at most to a photograph's 0 to 255
INK = 0.3  # above this part of its full brightness a digit's pixel belongs to its mask
TRAIN_SHARE = 0.6  # of the digits and of the photographs; the rest is for testing alone


def load_data(options):
    """Return {"train": (digits, photographs), "test": (digits, photographs)}, from --data or from scikit-learn.

    digits (N, 14, 14) from 0 to 1, photographs (N, height, width, 3) uint8. The parts have nothing in common: the first
    60 % of the digits and photographs are for training; scikit-learn's two photographs are cut, at 60 % of their width.
    """
    if options.data is None:
        digits, photographs = datasets.load_digits().images, np.stack(datasets.load_sample_images().images)
        brightest, axis = 16, 2  # digits (1797, 8, 8), photographs (2, 427, 640, 3)
    else:
        digits, photographs = read_data(options.data)
        brightest, axis = 255, 0
    # INTER_AREA takes the mean where a digit gets smaller; where it grows, it would make uneven steps.
    interpolation = cv2.INTER_AREA if digits.shape[1] > DIGIT else cv2.INTER_LINEAR
    resized = [cv2.resize(digit.astype(FLOAT), (DIGIT, DIGIT), interpolation=interpolation) for digit in digits]
    digits = np.split(np.stack(resized) / brightest, [int(TRAIN_SHARE * len(digits))])
    photographs = np.split(photographs, [int(TRAIN_SHARE * photographs.shape[axis])], axis)
    return {"train": (digits[0], photographs[0]), "test": (digits[1], photographs[1])}


def read_data(path):
    """Return digits (N, height, width) and photographs (N, height, width, 3), both uint8, from a .npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            digits, photographs = file["digits"], file["photographs"]
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not a whole .npz file of digits and photographs" if path.exists() else "no such file"
        stop(f"--data {path}: {wrong}: make one with python Dataset/download_digits.py")
    # At least two of each, one to train on and one to test on, and no photograph smaller than an image.
    for name, array, least in (("digits", digits, (2, 1, 1)), ("photographs", photographs, (2, SIDE, SIDE, 3))):
        is_right = array.ndim == len(least) and array.shape[3:] == least[3:] and np.all(np.array(array.shape) >= least)
        if array.dtype != np.uint8 or not is_right:
            stop(f"--data {path}: {name} {array.shape} {array.dtype}: give uint8, of the shape {least} or larger")
    return digits, photographs


def make_pictures(digits, photographs, number, rng):
    """Lay random digits at random places over random patches of photographs.

    Arguments: digits (N, 14, 14) from 0 to 1, photographs (N, height, width, 3) uint8.
    Returns: images (number, 32, 32, 3) from 0 to 1, and masks (number, 32, 32, 1) uint8, 1 on the digit.
    """
    images, masks = np.zeros((number, SIDE, SIDE, 3), FLOAT), np.zeros((number, SIDE, SIDE, 1), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        photograph, digit = (array[rng.integers(len(array))] for array in (photographs, digits))
        top, left = (rng.integers(length - SIDE + 1) for length in photograph.shape[:2])
        image[:] = photograph[top : top + SIDE, left : left + SIDE]
        row, column = rng.integers(SIDE - DIGIT + 1, size=2)
        window = slice(row, row + DIGIT), slice(column, column + DIGIT)
        image[window] += BRIGHTEST * digit[..., None]
        mask[window] = digit[..., None] > INK
    return np.minimum(images, 255) / 255, masks


def normalise(images):
    """Return images (N, 32, 32, 3) changed so that each for itself has mean 0 and standard deviation 1."""
    centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
    # Over white no digit shows: such an image is plain, and must not be divided by 0.
    return centred / np.maximum(centred.std(axis=(1, 2, 3), keepdims=True), 1e-4)


def draw_batches(digits, photographs, options, rng):
    """Yield options.iterations batches: normalised images (batch, 32, 32, 3), masks (batch, 32, 32, 1)."""
    for _ in range(options.iterations):  # each of new images
        images, masks = make_pictures(digits, photographs, options.batch, rng)
        yield normalise(images), masks


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor of the same shape on the device."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(array)


def connect(height, width, neighbours):
    """Return the edges of a grid of pixels, (edges, 2) integers: each is two nodes, the smaller first, and comes once.

    Nodes are numbered in reading order. Of 4 neighbours each shares a side with the pixel, of 8 a side or a corner.
    """
    nodes = np.arange(height * width).reshape(height, width)
    pairs = [(nodes[:, :-1], nodes[:, 1:]), (nodes[:-1], nodes[1:])]
    if neighbours == 8:
        pairs += [(nodes[:-1, :-1], nodes[1:, 1:]), (nodes[:-1, 1:], nodes[1:, :-1])]
    return np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in pairs])


def make_adjacency(edges, weights, nodes):
    """Return the adjacency matrix (nodes, nodes), sparse: the weight of an edge at both its indices, else 0."""
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    return sparse.coo_array((np.tile(weights, 2), (rows, columns)), shape=(nodes, nodes)).tocsr()


def make_laplacian(adjacency, kind):
    """Return D - A, or normalised I - D^(-1/2) A D^(-1/2), sparse; D is diagonal and holds each node's degree."""
    degree = adjacency.sum(axis=1)
    if kind == "combinatorial":
        return (sparse.diags_array(degree) - adjacency).tocsr()
    scale = sparse.diags_array(1 / np.sqrt(degree))
    return (sparse.eye_array(len(degree)) - scale @ adjacency @ scale).tocsr()


def find_eigenvectors(laplacian, number):
    """Return the smallest eigenvalues (number,), ascending, and their eigenvectors (nodes, number), of unit length."""
    # Near 0 they lie close together, where the plain method is slow: solving with L + 0.001 I spreads them.
    start = np.random.default_rng(0).standard_normal(laplacian.shape[0])  # scipy's own would be another each time
    values, vectors = eigsh(laplacian.tocsc(), k=number, sigma=-1e-3, v0=start)
    order = values.argsort()
    values, vectors = values[order], vectors[:, order]
    # The opposite vector is an eigenvector too: choose the one whose first entry that is not small is positive.
    large = np.abs(vectors) > 0.7 * np.abs(vectors).max(axis=0)
    first = vectors[large.argmax(axis=0), np.arange(number)]
    return values, vectors * np.sign(first)


def weigh_edges(image, edges):
    """Return a weight for each edge of an image (height, width, 3): 1 between equal colours, near 0 between unlike."""
    one, other = image.reshape(-1, 3)[edges.T]
    differences = np.linalg.norm(one - other, axis=1)
    # By their own mean, since a difference that tells in a calm photograph is noise in a lively one.
    spread = max(differences.mean(), 0.01)
    return np.exp(-0.5 * (differences / spread) ** 2) + 1e-6  # never 0: in a graph in two parts no vector is second


def segment(image, options):
    """Cut an image in two where the edges are weak: return its Fiedler vector (height, width), and the digit as 1.

    The Fiedler vector is the second eigenvector: of all vectors of unit length at right angles to the first, the one
    for which x^T L x is least, for L = D - A the sum of weight times squared difference over the edges. Its sign
    changes about where a cut costs least for the size of the parts (Shi and Malik, Normalized cuts and image
    segmentation, 2000).
    """
    edges = connect(*image.shape[:2], int(options.neighbours))
    adjacency = make_adjacency(edges, weigh_edges(image, edges), image.shape[0] * image.shape[1])
    vector = find_eigenvectors(make_laplacian(adjacency, options.laplacian), 2)[1][:, 1]
    if options.laplacian == "normalised":
        vector = vector / np.sqrt(adjacency.sum(axis=1))  # of the same signs; the first is constant then
    vector = vector.reshape(image.shape[:2])
    digit = vector > 0
    if image[digit].mean() < image[~digit].mean():  # the graph does not know which part is the digit: the brighter one
        vector, digit = -vector, ~digit
    return vector, digit.astype(np.uint8)


def to_sparse(matrix, device):
    """Return a scipy sparse matrix on the device, in a form of the backend: Keras has none of its own."""
    matrix = matrix.tocoo().astype(FLOAT)
    indices = np.stack(matrix.coords, axis=1).astype(np.int64)
    if BACKEND == "tensorflow":
        tf = sys.modules["tensorflow"]
        return tf.sparse.reorder(tf.SparseTensor(indices, matrix.data, matrix.shape))
    if BACKEND == "torch":
        torch = sys.modules["torch"]
        return torch.sparse_coo_tensor(indices.T, matrix.data, matrix.shape, device=device, check_invariants=True)
    from jax.experimental.sparse import BCOO

    return BCOO.from_scipy_sparse(matrix)


def to_dense(matrix, device):
    """Return the same with all its zeros, for comparison; multiply takes it too."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(matrix.toarray().astype(FLOAT))


def to_features(tensor):
    """Return a batch as to_tensor gives it as features of nodes, (nodes, batch, channels)."""
    height, width, channels = tensor.shape[1:]
    return keras.ops.transpose(keras.ops.reshape(tensor, (-1, height * width, channels)), (1, 0, 2))


def multiply(matrix, features):
    """Return a matrix (nodes, nodes), sparse or not, times features (nodes, batch, channels), in their shape."""
    # It takes no more than two axes, so all images and channels stand side by side: one product for the whole batch.
    nodes, _, channels = features.shape
    columns = keras.ops.reshape(features, (nodes, -1))
    if type(matrix).__name__ == "SparseTensor":
        # keras.ops.matmul takes it too, several times slower: TensorFlow is quick where the rows are compressed.
        ops = sys.modules["tensorflow"].raw_ops
        parts = {"indices": matrix.indices, "values": matrix.values, "dense_shape": matrix.dense_shape}
        product = ops.SparseMatrixMatMul(a=ops.SparseTensorToCSRSparseMatrix(**parts), b=columns)
    else:
        product = keras.ops.matmul(matrix, columns)
    return keras.ops.reshape(product, (nodes, -1, channels))


def to_numpy(tensor):
    """Return a tensor as an array."""
    return keras.ops.convert_to_numpy(tensor)


def mean_digit_iou(predictions, masks):
    """Return intersection over union of the digit, the mean over the images; arrays (N, 32, 32, 1), 1 on the digit."""
    intersection, union = (predictions & masks).sum(axis=(1, 2, 3)), (predictions | masks).sum(axis=(1, 2, 3))
    return float(np.mean(intersection / np.maximum(union, 1)))


def save_eigenvectors(path, vectors):
    """Save a picture of 16 eigenvectors (nodes, 16), each as the grid it is over: blue above 0, red below."""
    maps = (vectors / np.abs(vectors).max(axis=0)).T.reshape(4, 4, SIDE, SIDE)  # from -1 to 1
    maps = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))  # 0 is white
    maps = maps.transpose(0, 2, 1, 3).reshape(4 * (SIDE + 2), 4 * (SIDE + 2))
    colours = np.stack([1 - np.maximum(maps, 0), 1 - np.abs(maps), 1 + np.minimum(maps, 0)], axis=2)
    save_image(path, np.uint8(255 * colours).repeat(8, axis=0).repeat(8, axis=1))


def save_image(path, image):
    """Save an image, (height, width) or (height, width, 3) uint8, as PNG."""
    write_whole(path, lambda part: Image.fromarray(image).save(part))


def write_whole(path, write):
    """Write a file beside path, then rename it: even if the script is killed, path is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{os.getpid()}-{path.name}")  # another run may write to the same folder
    try:
        write(part)
        part.replace(path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(f"{path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def stop(message):
    """End the script with one line that names the file or option and the fix, and with status 2."""
    print(f"{Path(__file__).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_options():
    """Return the options of the command line; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    parser.add_argument("--data", type=Path, help=".npz file of Dataset/download_digits.py (scikit-learn's data)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    set_up(options)
    return options


def set_up(options):
    """Let Keras compute in FLOAT, whatever the user's keras.json says, and choose the device where it is left open."""
    keras.config.set_floatx(FLOAT)
    keras.config.set_dtype_policy(FLOAT)
    keras.config.set_image_data_format("channels_last")
    default_device = str(keras.ops.zeros(1).device).lower()  # a GPU's name contains gpu or cuda, by backend
    has_gpu = "gpu" in default_device or "cuda" in default_device
    if options.device == "cuda" and not has_gpu:
        stop(f"--device cuda: Keras on {BACKEND} sees no GPU: use --device cpu, or install {BACKEND} for a GPU")
    if options.device == "auto":
        options.device = "cuda" if has_gpu else "cpu"


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    data = load_data(options)
    edges = connect(SIDE, SIDE, int(options.neighbours))
    adjacency = make_adjacency(edges, np.ones(len(edges)), SIDE * SIDE)
    laplacian = make_laplacian(adjacency, options.laplacian)
    degrees = adjacency.sum(axis=1)
    print(f"{SIDE * SIDE} nodes, {len(edges)} edges, {degrees.min():.0f} to {degrees.max():.0f} at a node;", end=" ")
    print(f"of the {SIDE**4} entries of the Laplacian {laplacian.nnz} are not 0, {laplacian.nnz / SIDE**4:.2%}")
    # Across and down a square is the same, so eigenvalues come in pairs, and any mix of two vectors would do as well.
    # A thousandth more weight on the edges that run down separates them.
    weights = 1 + 0.001 * (edges[:, 1] - edges[:, 0] == SIDE)
    tilted = make_laplacian(make_adjacency(edges, weights, SIDE * SIDE), options.laplacian)
    values, vectors = find_eigenvectors(tilted, 16)
    save_eigenvectors(options.out / "pictures/eigenvectors.png", vectors)

    metrics = {"answer": Path(__file__).stem, "nodes": SIDE * SIDE, "edges": len(edges), "entries": int(laplacian.nnz)}
    metrics |= {"eigenvalues": values.tolist(), "digit_iou": {}}
    for part in ("train", "test"):
        images, masks = make_pictures(*data[part], options.pictures, rng)
        predictions = np.zeros_like(masks)
        for i, (image, mask) in enumerate(zip(tqdm(images, part), masks, strict=True)):
            vector, predictions[i, ..., 0] = segment(image, options)
            vector = 0.5 + 0.5 * vector[..., None] / np.abs(vector).max()
            panels = np.hstack([image, *(each.repeat(3, axis=2) for each in (mask, vector, predictions[i]))])
            panels = np.uint8(np.round(255 * panels)).repeat(8, axis=0).repeat(8, axis=1)
            save_image(options.out / "pictures" / part / f"{i:04}.png", panels)
        metrics["digit_iou"][part] = mean_digit_iou(predictions, masks)
        print(f"{part}: IoU of the digit {metrics['digit_iou'][part]:.3f}, the mean of {len(images)} images cut in two")

    matrices, difference = (to_sparse(laplacian, options.device), to_dense(laplacian, options.device)), 0
    for images, _ in tqdm(draw_batches(*data["train"], options, rng), "products", options.iterations):
        features = to_features(to_tensor(images, options.device))  # (nodes, batch, 3)
        expected = laplacian @ to_numpy(features).reshape(SIDE * SIDE, -1)
        for matrix in matrices:
            product = to_numpy(multiply(matrix, features)).reshape(expected.shape)
            difference = max(difference, float(np.abs(product - expected).max()))
    metrics["largest_difference"] = difference
    print(f"a batch {tuple(features.shape)} times the Laplacian, sparse or dense: within {difference:.1e} of scipy's")
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Pictures of the eigenvectors, and of image, mask, Fiedler vector and cut, are in {options.out}/pictures/")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        main()
    except OSError as error:  # a folder that may not be written, a full disk
        stop(f"{error}: fix that, or name another folder with --out")
    except Exception as error:
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        stop("out of memory: give a smaller --batch or --pictures")
