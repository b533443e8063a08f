"""Exercise 3, grid_graph, in Keras: see a picture as a graph, with pixels as nodes and edges between neighbours.

The graph's matrices are scipy's, sparse, and the same in all four frameworks. They part at `to_sparse` and `multiply`,
where a matrix becomes theirs. With edges that know how like two pixels are, one eigenvector cuts out a digit.
Run it without options, or see --help.
"""

import argparse
import gzip
import importlib.util
import io
import json
import os
import pickle
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from scipy import sparse
from scipy.sparse.linalg import eigsh
from sklearn import datasets
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if BACKEND not in ("tensorflow", "jax", "torch") or not importlib.util.find_spec(BACKEND):
    mend = "set it to tensorflow (the default), jax or torch, whichever is installed"
    print(f"{Path(__file__).name}: KERAS_BACKEND={BACKEND}: unknown or not installed: {mend}", file=sys.stderr)
    raise SystemExit(2)
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import keras
finally:
    os.dup2(stderr, 2)

EXERCISE, FRAMEWORK = "grid_graph", "keras"
VERSIONS = {"python": sys.version.split()[0], "keras": keras.__version__, "numpy": np.__version__}
VERSIONS[BACKEND] = sys.modules[BACKEND].__version__
DEFAULTS = {"iterations": 50, "batch": 64, "pictures": 16}
CHOICES = {  # the first is the default
    "neighbours": ("8", "4"),
    "laplacian": ("normalised", "combinatorial"),
    "device": ("auto", "cpu", "cuda"),
}
DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Keras calls them, whatever its backend
SIDE, DIGIT = 32, 14  # of a picture and of the digit in it, in pixels
BRIGHTEST = 200  # what a digit adds at most to a photograph's 0 to 255
INK = 0.3  # above this part of its full brightness a digit's pixel belongs to its mask
TRAIN_SHARE = 0.6  # of the digits and of the photographs; the rest is for testing alone


def to_sparse(matrix, device):
    """Return a scipy sparse matrix float32 on the device, in a form of the backend: Keras has none of its own."""
    matrix = matrix.tocoo().astype(np.float32)
    places = np.stack(matrix.coords, axis=1).astype(np.int64)
    if BACKEND == "tensorflow":
        tf = sys.modules["tensorflow"]
        return tf.sparse.reorder(tf.SparseTensor(places, matrix.data, matrix.shape))
    if BACKEND == "torch":
        torch = sys.modules["torch"]
        return torch.sparse_coo_tensor(places.T, matrix.data, matrix.shape, device=device, check_invariants=True)
    from jax.experimental.sparse import BCOO

    return BCOO.from_scipy_sparse(matrix)


def to_dense(matrix, device):
    """Return the same with all its zeros, for comparison; multiply takes it too."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(matrix.toarray().astype(np.float32))


def to_features(tensor):
    """Return a batch as to_tensor gives it as features of nodes, (nodes, batch, channels)."""
    height, width, channels = tensor.shape[1:]
    return keras.ops.transpose(keras.ops.reshape(tensor, (-1, height * width, channels)), (1, 0, 2))


def multiply(matrix, features):
    """Return a matrix (nodes, nodes), sparse or not, times features (nodes, batch, channels), in their shape."""
    # It takes no more than two axes, so all pictures and channels stand side by side: one product for the whole batch.
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
    """Return a tensor as an array; this waits until it has been computed."""
    return keras.ops.convert_to_numpy(tensor)


# As in grid_graph_pytorch.py
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
    """Return the adjacency matrix (nodes, nodes), sparse: the weight of an edge in both its places, else 0."""
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
    """Return the smallest eigenvalues (number,) of a Laplacian, rising, and their eigenvectors (nodes, number)."""
    # Near 0 they lie close together, where the plain method is slow: solving with L + 0.001 I spreads them.
    start = np.random.default_rng(0).standard_normal(laplacian.shape[0])  # scipy's own would be another each time
    values, vectors = eigsh(laplacian.tocsc(), k=number, sigma=-1e-3, v0=start)
    order = values.argsort()
    values, vectors = values[order], vectors[:, order]
    # An eigenvector may as well point the other way: let the first entry that is not small be positive.
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

    The second eigenvector, named after Fiedler, is smooth where weights are large, and changes sign where a cut costs
    least for the size of the parts (Shi and Malik, Normalized cuts and image segmentation, 2000).
    """
    edges = connect(*image.shape[:2], int(options.neighbours))
    adjacency = make_adjacency(edges, weigh_edges(image, edges), image.shape[0] * image.shape[1])
    vector = find_eigenvectors(make_laplacian(adjacency, options.laplacian), 2)[1][:, 1]
    if options.laplacian == "normalised":
        vector = vector / np.sqrt(adjacency.sum(axis=1))
    vector = vector.reshape(image.shape[:2])
    part = vector > 0
    if image[part].mean() < image[~part].mean():  # which part is the digit the graph does not know; light is added
        vector, part = -vector, ~part
    return vector, part.astype(np.uint8)


def save_eigenvectors(path, values, vectors):
    """Write a picture of eigenvectors (nodes, any), each laid out as the grid that it is over, with its eigenvalue."""
    figure = Figure(figsize=(9.6, 10), layout="tight")
    for axes, value, vector in zip(figure.subplots(4, 4).flat, values, vectors.T, strict=True):
        most = np.abs(vector).max()
        axes.imshow(vector.reshape(SIDE, SIDE), cmap="RdBu", vmin=-most, vmax=most)
        axes.set(title=f"{abs(value):.4f}", xticks=[], yticks=[])
    write_whole(path, figure.savefig)


def measure_iou(predictions, masks):
    """Return intersection over union of the digit, the mean over the pictures; both arrays 1 on it, else 0."""
    axes = tuple(range(1, masks.ndim))  # all but that of the pictures
    return float(np.mean((predictions & masks).sum(axis=axes) / (predictions | masks).sum(axis=axes)))


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    data = {part: pools for part, pools in load_data(options).items() if vars(options)[part]}
    edges = connect(SIDE, SIDE, int(options.neighbours))
    adjacency = make_adjacency(edges, np.ones(len(edges)), SIDE * SIDE)
    laplacian = make_laplacian(adjacency, options.laplacian)
    metrics = {"exercise": EXERCISE, "framework": FRAMEWORK, "versions": VERSIONS, "device": options.device}
    metrics |= {"seed": options.seed, "iterations": options.iterations}
    metrics |= {"nodes": SIDE * SIDE, "edges": len(edges), "entries": int(laplacian.nnz)}
    degrees = adjacency.sum(axis=1)
    print(f"{SIDE * SIDE} nodes, {len(edges)} edges, of a node {degrees.min():.0f} to {degrees.max():.0f};", end=" ")
    print(f"of the {SIDE**4} entries of the Laplacian {laplacian.nnz} are not 0, {laplacian.nnz / SIDE**4:.2%}")
    # Across and down a square is the same, so eigenvalues come in pairs, and any mix of two vectors would do as well.
    # A thousandth more weight on the edges that run down parts them.
    weights = 1 + 0.001 * (edges[:, 1] - edges[:, 0] == SIDE)
    tilted = make_laplacian(make_adjacency(edges, weights, SIDE * SIDE), options.laplacian)
    save_eigenvectors(options.out / "pictures/eigenvectors.png", *find_eigenvectors(tilted, 16))

    metrics |= {"pictures": {}, "digit_iou": {}}
    for part, pools in data.items():
        images, masks = make_pictures(*pools, options.pictures, rng)
        predictions = np.zeros_like(masks)
        for i, (image, mask) in enumerate(zip(tqdm(images, desc=part), masks, strict=True)):
            vector, predictions[i, ..., 0] = segment(image, options)
            panels = {"image": image, "mask": mask[..., 0]}
            panels |= {"Fiedler vector": 0.5 + 0.5 * vector / np.abs(vector).max(), "cut": predictions[i, ..., 0]}
            save_picture(options.out / "pictures" / part / f"{i:04}.png", panels)
        metrics["pictures"][part], metrics["digit_iou"][part] = len(images), measure_iou(predictions, masks)
        print(
            f"{part}: IoU of the digit {metrics['digit_iou'][part]:.3f}, the mean of {len(images)} pictures cut in two"
        )

    matrices = {"sparse": to_sparse(laplacian, options.device), "dense": to_dense(laplacian, options.device)}
    seconds, difference = dict.fromkeys(matrices, 0), 0
    bar = tqdm(draw_batches(*next(iter(data.values())), options, rng), desc="products", total=options.iterations)
    for images, _ in bar:
        features = to_features(to_tensor(images, options.device))  # (nodes, batch, 3)
        expected = laplacian @ to_numpy(features).reshape(SIDE * SIDE, -1)
        for name, matrix in matrices.items():
            start = time.perf_counter()
            product = to_numpy(multiply(matrix, features))
            seconds[name] += time.perf_counter() - start
            difference = max(difference, float(np.abs(product.reshape(expected.shape) - expected).max()))
    each = {name: 1000 * value / options.iterations for name, value in seconds.items()}
    print(
        f"a product with a batch: sparse {each['sparse']:.2f} ms, dense {each['dense']:.2f} ms, {tuple(features.shape)}"
    )
    print(f"no entry farther than {difference:.1e} from what scipy gives")

    metrics |= {"seconds": seconds["sparse"], "milliseconds_per_iteration": each["sparse"], "milliseconds": each}
    metrics |= {"largest_difference": difference, "peak_memory_mb": peak_memory_mb()}
    write_whole(options.out / "metrics.json", lambda aside: aside.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Written to {options.out}/: metrics.json, pictures")


# As in digits_dataset_pytorch.py
def make_pictures(digits, photographs, number, rng):
    """Lay random digits at random places over random patches of photographs.

    Arguments: digits (any, 14, 14) float32 from 0 to 1, photographs (any, height, width, 3) uint8.
    Returns: images (number, 32, 32, 3) float32 from 0 to 1, and masks (number, 32, 32, 1) uint8, 1 on the digit.
    """
    images, masks = np.zeros((number, SIDE, SIDE, 3), np.float32), np.zeros((number, SIDE, SIDE, 1), np.uint8)
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
    """Return images (any, 32, 32, 3) changed so that each for itself has the mean 0 and the standard deviation 1."""
    centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
    # Over white no digit shows: such a picture is plain, and must not be divided by 0.
    return centred / np.maximum(centred.std(axis=(1, 2, 3), keepdims=True), 1e-4)


def draw_batches(digits, photographs, options, rng):
    """Yield options.iterations batches: normalised images (batch, 32, 32, 3) and masks (batch, 32, 32, 1)."""
    for _ in range(options.iterations):  # none comes twice
        images, masks = make_pictures(digits, photographs, options.batch, rng)
        yield normalise(images), masks


def load_data(options):
    """Return {"train": (digits, photographs), "test": (digits, photographs)}, as make_pictures takes them.

    What one part has, the other has not: the first 60 % of the digits are for training, and of the photographs, or,
    where there are only two, of the width of each.
    """
    digits, photographs = load_digits(options.mnist), load_photographs(options.cifar)
    for name, array in (("mnist", digits), ("cifar", photographs)):
        if len(array) < 2:
            stop(
                f"--{name} {vars(options)[name]}: {len(array)} in it: give more, some to train on and others to test on"
            )
    pools = split(digits, axis=0), split(photographs, axis=0 if options.cifar else 2)
    return dict(zip(("train", "test"), zip(*pools, strict=True), strict=True))


def split(array, axis):
    """Return the first 60 % of an array along an axis, and the rest."""
    return np.split(array, [int(TRAIN_SHARE * array.shape[axis])], axis)


def load_digits(folder):
    """Return digits (any, 14, 14) float32 from 0 to 1: MNIST's in a folder, or for None those of scikit-learn."""
    if folder is None:
        digits = np.float32(datasets.load_digits().images) / 16  # (1797, 8, 8)
    else:
        parts = ("train", "t10k")
        names = [[f"{part}-images{dot}idx3-ubyte{end}" for dot in "-." for end in ("", ".gz")] for part in parts]
        digits = [np.float32(digit) / 255 for path in find_files("--mnist", folder, names) for digit in read_idx(path)]
    # INTER_AREA takes the mean where a digit gets smaller; where it grows, it would make uneven steps.
    way = cv2.INTER_AREA if len(digits[0]) > DIGIT else cv2.INTER_LINEAR
    return np.stack([cv2.resize(digit, (DIGIT, DIGIT), interpolation=way) for digit in digits])


def load_photographs(folder):
    """Return (any, height, width, 3) uint8: CIFAR-10's in a folder, or for None the two of scikit-learn."""
    if folder is None:
        return np.stack(datasets.load_sample_images().images)  # (2, 427, 640, 3)
    parts = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
    paths = find_files("--cifar", folder, [[f"{part}.bin", part] for part in parts])
    return np.concatenate([read_cifar(path) for path in paths])  # (60000, 32, 32, 3)


def find_files(option, folder, names):
    """Return the path of the first file of each list of names that is below folder; of some lists it may be none."""
    there = {path.name: path for path in sorted(folder.rglob("*"), reverse=True) if path.is_file()}
    paths = [there[name] for spellings in names if (name := next(filter(there.get, spellings), None))]
    if not paths:
        wrong = f"no {names[0][0]} in it" if folder.is_dir() else "no such folder"
        stop(f"{option} {folder}: {wrong}: python Dataset/download_digits.py fetches what belongs there")
    return paths


def read_idx(path):
    """Return the pictures (any, height, width) uint8 of a file in MNIST's format, packed (.gz) or not."""
    # https://yann.lecun.com/exdb/mnist: four numbers, each four bytes with the highest first, then the pixels
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except Exception:  # damage shows at whatever its first wrong byte leads to
        stop(f"{path}: not a whole .gz file: fetch it again")
    magic, *shape = np.frombuffer(data[:16].ljust(16, b"\0"), ">u4").tolist()
    if magic != 0x803:
        stop(f"{path}: begins with {magic:#x} where pictures in MNIST's format have 0x803: fetch the file again")
    if len(data) != 16 + np.prod(shape, dtype=object) or not len(data) > 16:
        stop(f"{path}: has {len(data)} bytes, and by its head should have another number: fetch it again")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def read_cifar(path):
    """Return the pictures (any, 32, 32, 3) uint8 of a batch of CIFAR-10, of its binary or its Python version."""
    # https://www.cs.toronto.edu/~kriz/cifar.html: in binary a label from 0 to 9, then 32 x 32 red, green, blue each
    data = path.read_bytes()
    try:
        if path.suffix == ".bin":
            labels, pixels = np.split(np.frombuffer(data, np.uint8).reshape(-1, 3073), [1], axis=1)
            if labels.max() > 9:
                raise ValueError(f"a label is {labels.max()}, and the last is 9")
        else:
            pixels = unpickle(data)
        planes = pixels.reshape(len(pixels), 3, 32, 32)
    except Exception as error:  # damage shows at whatever its first wrong byte leads to
        stop(f"{path}: not a whole batch of CIFAR-10 ({error}): fetch it again")
    return planes.transpose(0, 2, 3, 1)


class Stand:
    """Stands in for whatever a pickle would make: it keeps what it is given, and does nothing."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class CifarUnpickler(pickle.Unpickler):
    """Reads a batch of CIFAR-10. A pickle may name any function to be called; here it may name few, and calls ours."""

    ADMITTED = {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    ADMITTED |= {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in self.ADMITTED:
            raise ValueError(f"it asks for {module}.{name}, which no such batch holds")
        return Stand


def unpickle(data):
    """Return the pixels (any, 3072) uint8 of the bytes of a pickled batch; an error where they hold anything else."""
    batch = CifarUnpickler(io.BytesIO(data), encoding="bytes").load()
    _, shape, dtype, is_fortran, pixels = batch[b"data"].state  # the state by which NumPy pickles an array
    if dtype.arguments[0] not in ("u1", b"u1"):
        raise ValueError("its pixels are not bytes")
    return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if is_fortran else "C")


# As in bin_dataset_pytorch.py
def write_whole(path, write):
    """Call write with a path beside `path`, then rename: even if we are killed, the file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".part-{path.name}")
    write(aside)
    aside.replace(path)


def save_picture(path, panels):
    """Write a picture of panels side by side: {title: (height, width) from 0 to 1, or (height, width, 3)}."""
    figure = Figure(figsize=(2.4 * len(panels), 2.7), layout="tight")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
    write_whole(path, figure.savefig)


def peak_memory_mb():
    """Return the most main memory that this process has held, in 10^6 bytes; None on Windows, which does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def stop(message):
    """End the script with one line that names the file or option and the mend, and with status 2."""
    print(f"{Path(__file__).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


# As in digits_dataset_pytorch.py
def read_options():
    """Return the command line's options; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    parser.add_argument("--train", action="store_true", help="only training pictures")
    parser.add_argument("--test", action="store_true", help="only test pictures")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's files, as digits (scikit-learn's)")
    parser.add_argument("--cifar", type=Path, help="folder with CIFAR-10's batches, as photographs (scikit-learn's)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    parser.add_argument("--iterations", type=int, default=DEFAULTS["iterations"], help="batches to draw (%(default)s)")
    parser.add_argument("--batch", type=int, default=DEFAULTS["batch"], help="pictures in a batch (%(default)s)")
    parser.add_argument("--pictures", type=int, default=DEFAULTS["pictures"], help="of each part to save (%(default)s)")
    options = parser.parse_args()
    limits = (("iterations", 1, 10**9), ("batch", 1, 4096), ("pictures", 1, 10**6), ("seed", 0, 2**63))
    for name, least, most in limits:
        if not least <= vars(options)[name] <= most:
            stop(f"--{name} {vars(options)[name]}: give a whole number from {least} to {most}")
    options.train, options.test = (options.train or not options.test), (options.test or not options.train)
    options.device = pick_device(options.device)
    return options


# As in bin_dataset_keras.py
def pick_device(name):
    """Return "cpu" or "cuda" for the option's auto, cpu or cuda."""
    if BACKEND == "torch":  # whose devices Keras 3.15 does not list
        has_gpu = sys.modules["torch"].cuda.is_available()
    else:
        has_gpu = any(device.startswith("gpu") for device in keras.distribution.list_devices())
    if name == "cuda" and not has_gpu:
        stop(f"--device cuda: Keras on {BACKEND} sees no GPU: use --device cpu, or install {BACKEND} for a GPU")
    return "cuda" if name != "cpu" and has_gpu else "cpu"


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(array)  # channels last, as NumPy and OpenCV have them


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:  # a folder that may not be written, a full disk; Ctrl-C
        stop(f"{error}: mend that, or name another folder with --out" if str(error) else "interrupted")
    except Exception as error:
        if not any(word in repr(error) for word in ("memory", "Memory", "OOM")):  # each framework says it otherwise
            raise
        stop("out of memory: give a smaller --batch")
