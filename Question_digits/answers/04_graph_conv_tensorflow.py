"""Exercise 4, graph_conv, in TensorFlow: find the digit by convolutions on the graph of pixels, of Kipf and Welling or
Chebyshev.

New here: NUMBERS, CHOICES, CHANNELS, KEEP, make_propagation, Network, GraphConv, Linear, build_network. As in
03_grid_graph_tensorflow.py: connect, make_adjacency, make_laplacian, to_sparse, to_features, multiply. All else is as
in 02_digits_cnn_tensorflow.py.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image
from scipy import sparse
from sklearn import datasets
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import tensorflow as tf
finally:
    os.dup2(stderr, 2)

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
CLASSES = ("background", "digit")
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (500, range(1, 10**6), "training steps"),
    "batch": (64, range(1, 4097), "images in a batch"),
    "pictures": (1000, range(1, 10**6), "images to test on"),
    "order": (1, range(1, 26), "terms of a Chebyshev filter; 1 is a layer of Kipf and Welling"),
    "seed": (0, range(2**63), "of all random numbers in training"),
}
LEARNING_RATE = 0.005  # by default
CHOICES = {"neighbours": ("8", "4"), "device": ("auto", "cpu", "cuda")}  # the first is the default
CHANNELS = 5 * (32,)  # of the hidden layers, by default
KEEP = 1  # the share of values that dropout keeps, by default: all
SIDE = 32  # height and width of an image, in pixels
DIGIT = 14  # height and width of the digit in it
BRIGHTEST = 200  # what a digit adds at most to a photograph's 0 to 255
INK = 0.3  # above this part of its full brightness a digit's pixel belongs to its mask
TRAIN_SHARE = 0.6  # of the digits and of the photographs; the rest is for testing alone
TEST_SEED = 10**6  # of the test images: the same for every --seed
TEST_EVERY = 50  # iterations from one evaluation on test images to the next
SHOWN = 16  # test images that are saved


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


def draw_dropout(options, rng):
    """Return for each layer an array (batch, 32, 32, channels) to multiply by, which drops a value where it is 0."""
    # What is kept grows by 1 / keep, so that the sums of the next layer stay as large as in testing, without dropout.
    # The frameworks' own dropout does the same, but each draws from its own generator: then no two curves would agree.
    shapes = [(options.batch, SIDE, SIDE, channels) for channels in options.channels if options.keep < 1]
    return [(rng.random(shape, np.float32) < options.keep).astype(FLOAT) / options.keep for shape in shapes]


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    return tf.constant(array)  # channels last, as in NumPy; on the GPU if set_up has left TensorFlow one


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


def make_propagation(adjacency, order):
    """Return the matrix that a layer multiplies by, sparse: what it mixes into each node, and with what share.

    Order 1, Kipf and Welling's (arXiv:1609.02907, equation 2): D^(-1/2) (A + I) D^(-1/2), D being the degrees in A + I.
    More, Chebyshev's (arXiv:1606.09375, section 2.1): 2 L / 2 - I, which moves the normalised Laplacian's eigenvalues
    from 0 to 2, where all lie, to -1 to 1, where Chebyshev polynomials stay small.
    """
    identity = sparse.eye_array(adjacency.shape[0])
    if order == 1:
        return identity - make_laplacian(adjacency + identity, "normalised")
    return make_laplacian(adjacency, "normalised") - identity


def to_sparse(matrix, device):
    """Return a scipy sparse matrix as a tf.SparseTensor: the row and column of each entry, and its value."""
    matrix = matrix.tocoo().astype(FLOAT)
    indices = np.stack(matrix.coords, axis=1).astype(np.int64)
    return tf.sparse.reorder(tf.SparseTensor(indices, matrix.data, matrix.shape))


def to_features(tensor):
    """Return a batch as to_tensor gives it as features of nodes, (nodes, batch, channels)."""
    height, width, channels = tensor.shape[1:]
    return tf.transpose(tf.reshape(tensor, (-1, height * width, channels)), (1, 0, 2))


def multiply(matrix, features):
    """Return a matrix (nodes, nodes), sparse or not, times features (nodes, batch, channels), in their shape."""
    # It takes no more than two axes, so all images and channels stand side by side: one product for the whole batch.
    columns = tf.reshape(features, (features.shape[0], -1))
    if isinstance(matrix, tf.SparseTensor):
        # tf.sparse.sparse_dense_matmul does the same several times slower, since it does not compress the rows.
        parts = {"indices": matrix.indices, "values": matrix.values, "dense_shape": matrix.dense_shape}
        product = tf.raw_ops.SparseMatrixMatMul(a=tf.raw_ops.SparseTensorToCSRSparseMatrix(**parts), b=columns)
    else:
        product = matrix @ columns
    return tf.reshape(product, tf.shape(features))


class Network(tf.Module):
    """Graph convolutions, each with ReLU and dropout, and a logit of each node: images to logits (batch, 32, 32, 1)."""

    def __init__(self, rng, matrix, channels, order):
        self.matrix = matrix
        sizes = itertools.pairwise((3, *channels))
        self.convs = [GraphConv(rng, in_channels, out_channels, order) for in_channels, out_channels in sizes]
        self.classifier = Linear(rng, channels[-1], 1)

    def __call__(self, x, dropout=()):
        x = to_features(x)  # (nodes, batch, 3)
        for number, conv in enumerate(self.convs):
            x = tf.nn.relu(conv(self.matrix, x))  # (nodes, batch, channels)
            if dropout:
                x = x * to_features(dropout[number])
        return tf.reshape(tf.transpose(self.classifier(x), (1, 0, 2)), (-1, SIDE, SIDE, 1))


class GraphConv(tf.Module):
    """A graph convolution: features (nodes, batch, in_channels) to (nodes, batch, out_channels)."""

    def __init__(self, rng, in_channels, out_channels, order):
        self.order, self.linear = order, Linear(rng, order * in_channels, out_channels)

    def __call__(self, matrix, x):
        if self.order == 1:
            return self.linear(multiply(matrix, x))
        terms = [x, multiply(matrix, x)]  # each term sees one ring of neighbours more
        while len(terms) < self.order:
            terms.append(2 * multiply(matrix, terms[-1]) - terms[-2])
        return self.linear(tf.concat(terms, axis=2))  # (nodes, batch, order x in_channels) before


class Linear(tf.Module):
    """The last axis times a kernel, and a bias. NumPy draws the kernel, so that all four frameworks start alike.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the layers; biases are 0.
    """

    def __init__(self, rng, in_channels, out_channels):
        kernel = rng.standard_normal((out_channels, in_channels)) * np.sqrt(2 / in_channels)
        self.kernel = tf.Variable(kernel.T, dtype=FLOAT)  # (in, out)
        self.bias = tf.Variable(tf.zeros(out_channels, FLOAT))

    def __call__(self, x):
        return tf.nn.bias_add(tf.tensordot(x, self.kernel, axes=1), self.bias)


def build_network(rng, options):
    """Return a Network with weights from rng, on the GPU if set_up has left TensorFlow one."""
    edges = connect(SIDE, SIDE, int(options.neighbours))
    adjacency = make_adjacency(edges, np.ones(len(edges)), SIDE * SIDE)
    matrix = to_sparse(make_propagation(adjacency, options.order), options.device)
    return Network(rng, matrix, options.channels, options.order)


def compute_loss(logits, targets):
    """Return sigmoid cross entropy, the mean over all pixels; logits and targets (batch, height, width, 1)."""
    # Expects logits: the loss includes the sigmoid, since the logarithm of a rounded sigmoid could be infinite.
    labels = tf.cast(targets, logits.dtype)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def train(network, data, test_set, options, rng):
    """Take options.iterations steps of Adam (arXiv:1412.6980), each on new images made of data.

    Returns: the loss at each step, and (iteration, loss, IoU) on test images, every TEST_EVERY steps and at the last.
    """
    weights = network.trainable_variables
    means, squares = ([tf.Variable(tf.zeros_like(weight)) for weight in weights] for _ in range(2))

    @tf.function  # compiles the step to a graph at its first call
    def step(images, masks, dropout, rate):
        with tf.GradientTape() as tape:
            loss = compute_loss(network(images, dropout), masks)
        gradients = tape.gradient(loss, weights)
        for weight, mean, square, gradient in zip(weights, means, squares, gradients, strict=True):
            mean.assign_add(0.1 * (gradient - mean))
            square.assign_add(0.001 * (gradient**2 - square))
            weight.assign_sub(rate * mean / (tf.sqrt(square) + 1e-8))
        return loss

    losses, evaluations = [], []
    bar = tqdm(draw_batches(*data, options, rng), "train", options.iterations)
    for iteration, batch in enumerate(bar, start=1):
        # The two running averages began at 0 and are still too small: this corrects both, but not epsilon.
        rate = tf.constant(options.lr * math.sqrt(1 - 0.999**iteration) / (1 - 0.9**iteration), FLOAT)
        images, masks, *dropout = (to_tensor(array, options.device) for array in (*batch, *draw_dropout(options, rng)))
        losses.append(float(step(images, masks, dropout, rate)))
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop(f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration}: try a smaller one")
        if iteration % TEST_EVERY == 0 or iteration == options.iterations:
            evaluations.append((iteration, *evaluate(network, *test_set, options)))
    return losses, evaluations


def save_weights(network, out):
    """Write the weights to a checkpoint, out/weights.index and its data."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(network=network).write(f"{folder}/weights")
        except tf.errors.OpError as error:  # a full disk
            raise OSError(f"{folder}, in the folder for temporary files (TMPDIR): {type(error).__name__}") from None
        (out / "weights.index").unlink(missing_ok=True)  # never an old index with new data
        for path in sorted(Path(folder).iterdir()):  # the data, then the index
            write_whole(out / path.name, lambda part, path=path: shutil.copy(path, part))


def load_weights(network, out):
    """Read into the network what save_weights wrote to out."""
    path = out / "weights.index"
    try:
        # TensorFlow cannot read from a path with a [ in it; on Windows it may hold the copies open for longer.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            for part in out.glob("weights.*"):
                shutil.copy(part, folder)
            tf.train.Checkpoint(network=network).read(f"{folder}/weights").assert_consumed()
    except OSError:  # of the copies
        raise
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this network" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, without --test, or name the folder of the weights with --out")


def read_metrics(path):
    """Return what training wrote to metrics.json, or the same without content where there is no such file."""
    try:
        metrics = json.loads(path.read_text()) if path.exists() else {"options": {}}
        dict(metrics["options"])
    except (ValueError, KeyError, TypeError):
        stop(f"{path}: not what training writes: train first, without --test, or name its folder with --out")
    return metrics


def predict(network, images, options):
    """Return the logits, (N, height, width, 1), of normalised images (N, height, width, 3)."""
    infer = tf.function(network, reduce_retracing=True)
    starts = range(0, len(images), options.batch)
    return np.concatenate([infer(to_tensor(images[start : start + options.batch], options.device)) for start in starts])


def evaluate(network, images, masks, options):
    """Return the loss, and the mean IoU of the digit, on the first options.batch test images."""
    images, masks = images[: options.batch], masks[: options.batch]
    logits = predict(network, normalise(images), options)
    loss = compute_loss(to_tensor(logits, options.device), to_tensor(masks, options.device))
    return float(loss), mean_digit_iou(logits >= 0, masks)


def mean_digit_iou(predictions, masks):
    """Return intersection over union of the digit, the mean over the images; arrays (N, 32, 32, 1), 1 on the digit."""
    intersection, union = (predictions & masks).sum(axis=(1, 2, 3)), (predictions | masks).sum(axis=(1, 2, 3))
    return float(np.mean(intersection / np.maximum(union, 1)))


def measure(predictions, targets):
    """Return {"miou": mean, "iou": {class: intersection over union, None if in neither}, "pixel_accuracy": share}."""
    pairs = np.bincount((len(CLASSES) * targets.astype(int) + predictions).ravel(), minlength=len(CLASSES) ** 2)
    confusion = pairs.reshape(len(CLASSES), len(CLASSES))  # a row for each true class, a column for each predicted
    intersection = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    iou = {name: float(i / u) if u else None for name, i, u in zip(CLASSES, intersection, union, strict=True)}
    miou = float(np.mean([value for value in iou.values() if value is not None]))
    return {"miou": miou, "iou": iou, "pixel_accuracy": float(intersection.sum() / confusion.sum())}


def test(network, images, masks, options):
    """Save the first predictions, and a picture of input, truth, probability and prediction; return the measures.

    They are predictions/0000.png, pictures/0000.png and so on; the measures are measure's, and "mean_digit_iou".
    """
    logits = predict(network, normalise(images), options)
    probabilities = 0.5 + 0.5 * np.tanh(0.5 * logits)  # the sigmoid, 1 / (1 + exp(-logits)), without overflow
    predictions = (probabilities >= 0.5).astype(np.uint8)
    shown = (np.uint8(np.round(255 * array[:SHOWN])) for array in (images, masks, probabilities, predictions))
    for i, (image, *maps) in enumerate(zip(*shown, strict=True)):
        panels = np.hstack([image, *(each.repeat(3, axis=2) for each in maps)])
        save_image(options.out / "pictures" / f"{i:04}.png", panels.repeat(8, axis=0).repeat(8, axis=1))
        files = {"test/images": image, "test/seg_images": maps[0][..., 0], "predictions": maps[2][..., 0]}
        for folder, file in files.items():
            save_image(options.out / folder / f"{i:04}.png", file)
    return measure(predictions, masks) | {"mean_digit_iou": mean_digit_iou(predictions, masks)}


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
    parser.add_argument("--test", action="store_true", help="only test, with the weights that training saved")
    parser.add_argument("--data", type=Path, help=".npz file of Dataset/download_digits.py (scikit-learn's data)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--lr", type=float, default=LEARNING_RATE, help="learning rate (%(default)s)")
    parser.add_argument("--keep", type=float, default=KEEP, help="what dropout keeps; 1 is no dropout (%(default)s)")
    parser.add_argument("--channels", type=int, nargs="+", default=[*CHANNELS], help="of the hidden layers %(default)s")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    if not 0 < options.lr < math.inf:
        stop(f"--lr {options.lr}: give a number above 0, such as {LEARNING_RATE}")
    if not 0 < options.keep <= 1:
        stop(f"--keep {options.keep}: give a number above 0, up to 1")
    for channels in options.channels:
        if not 1 <= channels <= 1024:
            stop(f"--channels {channels}: give 1 to 1024")
    set_up(options)
    return options


def set_up(options):
    """Choose the device: TensorFlow takes the GPU for whatever can run there, unless it is hidden."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if options.device == "cuda" and not has_gpu:
        stop("--device cuda: TensorFlow sees no GPU: use --device cpu, or install a driver and tensorflow[and-cuda]")
    if options.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if options.device == "auto":
        options.device = "cuda" if has_gpu else "cpu"


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    data = load_data(options)
    test_set = make_pictures(*data["test"], options.pictures, np.random.default_rng(TEST_SEED))
    network = build_network(rng, options)
    if options.test:
        path = options.out / "metrics.json"
        metrics = read_metrics(path)
        for name in sorted({"channels", "neighbours", "order"} & metrics["options"].keys() & vars(options).keys()):
            given, trained = str(vars(options)[name]), metrics["options"][name]
            if given != trained:
                stop(f"--{name} {given}: the weights in {options.out} were trained with {trained}: give the same")
        load_weights(network, options.out)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, where nothing may be written
        losses, evaluations = train(network, data["train"], test_set, options, rng)
        save_weights(network, options.out)
        rows = [f"{iteration},{loss}\n" for iteration, loss in enumerate(losses, start=1)]
        write_whole(options.out / "loss.csv", lambda part: part.write_text("".join(["iteration,loss\n", *rows])))
        rows = [f"{iteration},{loss},{iou}\n" for iteration, loss, iou in evaluations]
        head = "iteration,loss,mean_digit_iou\n"
        write_whole(options.out / "test.csv", lambda part: part.write_text("".join([head, *rows])))
        metrics = {"answer": Path(__file__).stem, "final_loss": losses[-1]}
        metrics["options"] = {name: str(value) for name, value in vars(options).items()}
        write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    metrics |= test(network, *test_set, options)
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"IoU of the digit {metrics['mean_digit_iou']:.3f}, the mean of {options.pictures} test images", end="; ")
    print(f"pixel accuracy {metrics['pixel_accuracy']:.3f}; all is in {options.out}/")


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
