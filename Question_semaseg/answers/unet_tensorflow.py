"""Exercise 10, unet, in TensorFlow: U-Net as published, but with batch normalisation.

Its convolutions have no padding, so a picture of 572 x 572 gives classes for its middle 388 x 388, and 236 for 52: the
input is mirrored outward by what is lost. Run it without options, or see --help.
"""

import argparse
import itertools
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import tensorflow as tf
finally:
    os.dup2(stderr, 2)

EXERCISE, FRAMEWORK = "unet", "tensorflow"
VERSIONS = {"python": sys.version.split()[0], "tensorflow": tf.__version__, "numpy": np.__version__}
CLASSES = {"background": (0, 0, 0), "akahara": (127, 0, 0), "madara": (0, 127, 0)}  # and their colours in a mask
ON_CPU = {"iterations": 40, "batch": 1, "lr": 0.02, "size": 236}  # the defaults: few steps,
ON_GPU = {"iterations": 500, "batch": 1, "lr": 0.02, "size": 572}  # since each is long on a CPU
WARM_UP = 20  # iterations in which the learning rate rises
SIZES = range(188, 2049, 16)  # that the network can take
CHOICES = {"augment": ("affine", "flips", "none"), "device": ("auto", "cpu", "cuda")}  # the first is the default
CHANNELS = (64, 128, 256, 512, 1024)
MARGIN = 92  # pixels that the convolutions take from each side


class Network(tf.Module):
    """U-Net (arXiv:1505.04597): images to logits (batch, height - 184, width - 184, 3)."""

    def __init__(self, rng):
        self.encoder, self.decoder = [], []
        for in_channels, channels in itertools.pairwise((3, *CHANNELS)):
            self.encoder.append(Block(rng, in_channels, channels))
        for in_channels, channels in itertools.pairwise(CHANNELS[::-1]):
            self.decoder.append(Upsample(rng, in_channels, channels))
            self.decoder.append(Block(rng, 2 * channels, channels))
        self.classifier = Conv(rng, CHANNELS[0], len(CLASSES), 1)

    def __call__(self, x, training):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(encode(x, training))
            x = tf.nn.max_pool2d(skips[-1], 2, 2, "VALID")  # half the height and width, and next twice the channels
        x = self.encoder[-1](x, training)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = upsample(x, training)
            x = tf.concat([crop(skips.pop(), x.shape[1]), x], axis=3)  # twice the height and width
            x = decode(x, training)
        return self.classifier(x)


class Block(tf.Module):
    """Two times conv(3) + BatchNorm + ReLU; it takes 4 from height and width."""

    def __init__(self, rng, in_channels, channels):
        self.first, self.first_norm = Conv(rng, in_channels, channels, 3), BatchNorm(channels)
        self.second, self.second_norm = Conv(rng, channels, channels, 3), BatchNorm(channels)

    def __call__(self, x, training):
        x = tf.nn.relu(self.first_norm(self.first(x), training))
        return tf.nn.relu(self.second_norm(self.second(x), training))


class Upsample(tf.Module):
    """Transposed convolution + BatchNorm + ReLU: it doubles height and width."""

    def __init__(self, rng, in_channels, channels):
        self.conv, self.norm = TransposedConv(rng, in_channels, channels), BatchNorm(channels)

    def __call__(self, x, training):
        return tf.nn.relu(self.norm(self.conv(x), training))


class Conv(tf.Module):
    """A convolution of stride 1 without padding."""

    def __init__(self, rng, in_channels, out_channels, kernel):
        weights = he_normal(rng, (out_channels, in_channels, kernel, kernel)).transpose(
            2, 3, 1, 0
        )  # here (..., in, out)
        self.kernel, self.bias = tf.Variable(weights), tf.Variable(tf.zeros(out_channels))

    def __call__(self, x):
        return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, strides=1, padding="VALID"), self.bias)


class TransposedConv(tf.Module):
    """A transposed convolution of kernel 2 and stride 2: it doubles height and width, which are known beforehand."""

    def __init__(self, rng, in_channels, out_channels):
        weights = he_normal(rng, (out_channels, in_channels, 2, 2)).transpose(2, 3, 0, 1)  # here (..., out, in)
        self.kernel, self.bias = tf.Variable(weights), tf.Variable(tf.zeros(out_channels))

    def __call__(self, x):
        size = tf.stack([tf.shape(x)[0], 2 * x.shape[1], 2 * x.shape[2], self.bias.shape[0]])
        return tf.nn.bias_add(tf.nn.conv2d_transpose(x, self.kernel, size, strides=2), self.bias)


def crop(features, size):
    """Return the middle size x size of features (batch, height, width, channels)."""
    start = (features.shape[1] - size) // 2
    return features[:, start : start + size, start : start + size]


# As in unet_pytorch.py
def resize(image, target, size):
    """Return the image mirrored outward to size x size pixels, and its target as large as the output that lies within.

    What the output shows is resized to size - 2 x 92; the overlap-tile strategy of U-Net (arXiv:1505.04597, figure 2).
    """
    inner = size - 2 * MARGIN
    image = cv2.resize(image, (inner, inner), interpolation=cv2.INTER_AREA)
    image = np.pad(image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect")
    return image, cv2.resize(target, (inner, inner), interpolation=cv2.INTER_NEAREST_EXACT)


# As in semaseg_test_pytorch.py
def test(network, names, images, targets, options):
    """Predict each test picture, write what came out beside the truth, and return the measures."""
    logits = predict_augmented(network, images, options)  # (pictures, height, width, class)
    predictions = logits.argmax(axis=3).astype(np.uint8)  # (pictures, height, width)
    for i, name in enumerate(tqdm(names, desc="test")):
        painted = paint(predictions[i])
        panels = {"input": (images[i] + 1) / 2, "truth": paint(targets[i]), "prediction": painted}
        save_picture(options.out / "pictures" / f"{name}.png", panels)
        png = cv2.imencode(".png", painted[..., ::-1])[1].tobytes()  # OpenCV takes blue-green-red
        write_whole(options.out / "predictions" / f"{name}.png", lambda aside, png=png: aside.write_bytes(png))
    measures = measure(predictions, targets)
    each = ", ".join(f"{name} {value:.3f}" for name, value in measures["iou"].items() if value is not None)
    print(f"mIoU {measures['miou']:.3f} ({each}), pixel accuracy {measures['pixel_accuracy']:.3f}")
    return measures


# As in semaseg_loss_tensorflow.py
def compute_loss(logits, targets):
    """Return softmax cross entropy, the mean over all pixels; logits (batch, height, width, 3)."""
    logits = tf.reshape(logits, (-1, len(CLASSES)))  # (batch x height x width, class)
    labels = tf.cast(tf.reshape(targets, [-1]), tf.int32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


# As in bin_test_pytorch.py
def predict_augmented(network, images, options):
    """Return the logits as predict does, the mean over the eight symmetries of a square: test-time augmentation."""
    ways = [(turns, step) for turns in range(4) for step in (1, -1)]  # quarter turns; -1 walks an axis backwards
    changed = np.concatenate([np.rot90(images[:, ::step], turns, axes=(1, 2)) for turns, step in ways])
    logits = np.split(predict(network, changed, options), len(ways))
    back = [np.rot90(part, -turns, axes=(1, 2))[:, ::step] for part, (turns, step) in zip(logits, ways, strict=True)]
    return np.mean(back, axis=0)


def measure(predictions, targets):
    """Return pixel accuracy, IoU (intersection over union) by class, None if in neither array, and their mean."""
    pairs = np.bincount((len(CLASSES) * targets.astype(int) + predictions).ravel(), minlength=len(CLASSES) ** 2)
    confusion = pairs.reshape(len(CLASSES), len(CLASSES))  # a row for each true class, a column for each predicted
    intersection = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    iou = {name: float(i / u) if u else None for name, i, u in zip(CLASSES, intersection, union, strict=True)}
    miou = float(np.mean([value for value in iou.values() if value is not None]))
    return {"pixel_accuracy": float(intersection.sum() / confusion.sum()), "iou": iou, "miou": miou}


# As in semaseg_dataset_pytorch.py
def read_mask(path):
    """Return (height, width) uint8, the index of each pixel's class: 0 background, 1 akahara, 2 madara."""
    mask = read_picture(path)
    mask[mask == 128] = 127  # the masks of the original photographs have 128
    is_class = np.stack([(mask == colour).all(axis=2) for colour in CLASSES.values()])  # (class, height, width)
    strange = np.unique(mask[~is_class.any(axis=0)], axis=0).tolist()
    if strange:
        known = ", ".join(f"{name} {colour}" for name, colour in CLASSES.items())
        stop(f"{path}: colours of no class, {strange[:3]}: paint {known}, and save as PNG, since JPEG changes colours")
    return is_class.argmax(axis=0).astype(np.uint8)


def paint(classes):
    """Return the colours (height, width, 3) uint8 of class indices (height, width)."""
    return np.array(list(CLASSES.values()), np.uint8)[classes]


# As in bin_dataset_tensorflow.py
def pick_device(name):
    """Return "cpu" or "cuda" for the option's auto, cpu or cuda."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if name == "cuda" and not has_gpu:
        stop("--device cuda: TensorFlow sees no GPU: use --device cpu, or install a driver and tensorflow[and-cuda]")
    if name == "cpu":
        tf.config.set_visible_devices([], "GPU")  # else TensorFlow would take the GPU for whatever can run there
    return "cuda" if name != "cpu" and has_gpu else "cpu"


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    return tf.constant(array)  # channels last, as NumPy and OpenCV have them, on the GPU if there is one


# As in bin_dataset_pytorch.py
def find_pictures(folder):
    """Return {name: path} of the pictures below folder; the name is the path below it, lower case, without suffix."""
    pictures = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and "/." not in f"/{below.as_posix()}":  # not if hidden
            name = below.with_suffix("").as_posix().lower()
            if name in pictures:
                stop(f"{path}: has the same name as {pictures[name].name}: give one of them another, and its mask too")
            pictures[name] = path
    if not pictures:
        wrong = "no .jpg, .jpeg or .png picture in it" if folder.is_dir() else "no such folder"
        stop(f"{folder}: {wrong}: --data takes a folder with train/ and test/, in each images/ and seg_images/")
    return dict(sorted(pictures.items()))


def read_picture(path):
    """Return (height, width, 3) uint8, red-green-blue, of a JPEG or PNG file, be it grey, coloured or transparent."""
    data = path.read_bytes()  # cv2.imread cannot open a path with Japanese characters on Windows
    # What a cut-off JPEG lacks OpenCV paints grey and says nothing, so look for the end mark behind the last scan.
    is_jpeg = data.startswith(b"\xff\xd8")
    is_whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") if is_jpeg else b"IEND" in data[-64:]
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if is_whole else None
    if picture is None:
        stop(f"{path}: not a whole JPEG or PNG picture: copy or save it again, or remove it with its partner")
    return picture


def load_newts(folder, size):
    """Return names, images (pictures, ..., 3) float32 from -1 to 1, targets (pictures, ...) uint8, sized by resize."""
    image_paths, mask_paths = find_pictures(folder / "images"), find_pictures(folder / "seg_images")
    for name in sorted(image_paths.keys() ^ mask_paths.keys()):
        lack = "mask in seg_images/" if name in image_paths else "picture in images/"
        stop(f"{(image_paths | mask_paths)[name]}: has no {lack}: add {name} there, or remove this file")
    images, targets = [], []
    for name, path in image_paths.items():
        image, target = read_picture(path), read_mask(mask_paths[name])
        if image.shape[:2] != target.shape:
            image_size, mask_size = ("{1} x {0}".format(*array.shape) for array in (image, target))
            stop(f"{mask_paths[name]}: is {mask_size} pixels, its picture {image_size}: make both the same size")
        for pictures, picture in zip((images, targets), resize(image, target, size), strict=True):
            pictures.append(picture)
    return list(image_paths), np.float32(images) / 127.5 - 1, np.stack(targets)


def augment(image, target, kind, rng):
    """Return an image and its target changed alike: mirrored at random; by "affine" half of them are turned as well."""
    if kind == "none":
        return image, target
    down, right = rng.choice((1, -1), size=2)  # -1 walks an axis backwards
    changed = [np.ascontiguousarray(array[::down, ::right]) for array in (image, target)]
    if kind == "affine" and rng.random() < 0.5:
        angle, scale, shift = rng.uniform(-180, 180), 1.7 ** rng.uniform(-1, 1), rng.uniform(-0.2, 0.2, size=2)
        for i, interpolation in enumerate((cv2.INTER_LINEAR, cv2.INTER_NEAREST)):  # a class has no in-between
            size = changed[i].shape[:2]
            matrix = cv2.getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), angle, scale)
            matrix[:, 2] += shift * len(target)
            edge = cv2.BORDER_REFLECT_101  # what comes in from outside is the picture mirrored, and so is its target
            changed[i] = cv2.warpAffine(changed[i], matrix, size, flags=interpolation, borderMode=edge)
    return changed


def draw_batches(images, targets, options, rng):
    """Yield options.iterations batches: images (batch, height, width, 3), targets (batch, height, width, 1)."""
    order = []
    for _ in range(options.iterations):
        while len(order) < options.batch:  # each picture comes once before any comes again
            order.extend(rng.permutation(len(images)))
        chosen, order = order[: options.batch], order[options.batch :]
        batch = [augment(images[i], targets[i], options.augment, rng) for i in chosen]
        yield np.stack([image for image, _ in batch]), np.stack([target for _, target in batch])[..., None]


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


# As in bin_loss_tensorflow.py
class BatchNorm(tf.Module):
    """Batch normalisation (arXiv:1502.03167) with running averages that move by a tenth each step."""

    def __init__(self, channels):
        self.gamma, self.beta = tf.Variable(tf.ones(channels)), tf.Variable(tf.zeros(channels))
        self.mean = tf.Variable(tf.zeros(channels), trainable=False)
        self.variance = tf.Variable(tf.ones(channels), trainable=False)

    def __call__(self, x, training):
        if not training:
            return tf.nn.batch_normalization(x, self.mean, self.variance, self.beta, self.gamma, 1e-5)
        # One kernel for all: faster than tf.nn.moments and tf.nn.batch_normalization.
        x, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, self.gamma, self.beta, epsilon=1e-5)
        self.mean.assign_add(0.1 * (mean - self.mean))
        self.variance.assign_add(0.1 * (variance - self.variance))
        return x


def build_network(rng, options):
    """Return a Network; TensorFlow puts it on the GPU if pick_device has left it one."""
    return Network(rng)


def train(network, images, targets, options, rng):
    """Take options.iterations steps of gradient descent with momentum; return the loss at each."""
    weights = network.trainable_variables
    velocities = [tf.Variable(tf.zeros_like(weight)) for weight in weights]

    @tf.function  # compiles the step to a graph at its first call
    def step(batch_images, batch_targets, rate):
        with tf.GradientTape() as tape:
            loss = compute_loss(network(batch_images, training=True), batch_targets)
        for weight, velocity, gradient in zip(weights, velocities, tape.gradient(loss, weights), strict=True):
            velocity.assign(0.9 * velocity - rate * gradient)
            weight.assign_add(velocity)
        return loss

    losses = []
    bar = tqdm(draw_batches(images, targets, options, rng), desc="train", total=options.iterations)
    for iteration, batch in enumerate(bar):
        rate = tf.constant(learning_rate(iteration, options))  # a Python number would compile the step anew each time
        losses.append(float(step(*(to_tensor(array, options.device) for array in batch), rate)))
        show_loss(bar, losses[-1], options)
    return losses


def predict(network, images, options):
    """Return the logits, (pictures, height, width, outputs) float32, of images (pictures, height, width, 3)."""
    # Batch norm by its running averages: a picture's result must not depend on the others in its batch.
    infer = tf.function(lambda batch: network(batch, training=False), reduce_retracing=True)
    starts = range(0, len(images), options.batch)
    return np.concatenate([infer(to_tensor(images[start : start + options.batch], options.device)) for start in starts])


def save_weights(network, out):
    """Write the weights and the running averages of batch norm to a checkpoint, out/weights.index and its data."""
    out.mkdir(parents=True, exist_ok=True)
    tf.train.Checkpoint(network=network).write(str(out / ".part-weights"))
    (out / "weights.index").unlink(missing_ok=True)  # without an index there is no checkpoint, rather than a mixed one
    for ending in ("data-00000-of-00001", "index"):
        (out / f".part-weights.{ending}").replace(out / f"weights.{ending}")


def load_weights(network, out):
    """Read into the network what save_weights wrote to out."""
    path = out / "weights.index"
    try:
        tf.train.Checkpoint(network=network).read(str(out / "weights")).assert_consumed()
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this network" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, without --test, or name the folder of the weights with --out")


def count_parameters(network):
    """Return how many numbers training sets."""
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


# As in bin_loss_pytorch.py
def he_normal(rng, shape):
    """Draw weights (out, in, kernel height, kernel width), He normal by fan-in (arXiv:1502.01852, section 2.2)."""
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def learning_rate(iteration, options):
    """Return the rate at an iteration, counted from 0: slowly up to --lr over WARM_UP, then down in the last fifth."""
    # At the full rate from the start, differences in rounding would grow so fast that the four curves would part.
    return options.lr * min(((iteration + 1) / WARM_UP) ** 10, 1, 5 * (1 - iteration / options.iterations))


def show_loss(bar, loss, options):
    """Show the loss in the progress bar; stop where it is no number any more."""
    bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
    if not math.isfinite(loss):
        bar.close()
        stop(f"--lr {options.lr}: the loss is {loss} after {bar.n} iterations: give a smaller one")


def read_options():
    """Return the command line's options; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_data, own_out = (Path(__file__).parent / "../../Dataset").resolve(), Path("outputs", Path(__file__).stem)
    parser.add_argument("--train", action="store_true", help="only train")
    parser.add_argument("--test", action="store_true", help="only test, with the weights that training saved")
    parser.add_argument("--data", type=Path, default=own_data, help="folder with train/ and test/ (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    defaults = {name: f"{value} on a CPU, {ON_GPU[name]} on a GPU" for name, value in ON_CPU.items()}
    defaults |= {name: value for name, value in ON_CPU.items() if value == ON_GPU[name]}
    parser.add_argument("--iterations", type=int, help=f"steps of training ({defaults['iterations']})")
    parser.add_argument("--batch", type=int, help=f"pictures in a batch ({defaults['batch']})")
    parser.add_argument("--lr", type=float, help=f"learning rate ({defaults['lr']})")
    parser.add_argument("--size", type=int, help=f"side of the network's pictures in pixels ({defaults['size']})")
    options = parser.parse_args()
    options.device = pick_device(options.device)
    for name, value in (ON_CPU if options.device == "cpu" else ON_GPU).items():
        if vars(options)[name] is None:
            setattr(options, name, value)
    for name, least, most in (("iterations", 1, 10**9), ("batch", 1, 4096), ("seed", 0, 2**63)):
        if not least <= vars(options)[name] <= most:
            stop(f"--{name} {vars(options)[name]}: give a whole number from {least} to {most}")
    if not 0 < options.lr < math.inf:
        stop(f"--lr {options.lr}: give a number above 0, such as {ON_CPU['lr']}")
    if options.size not in SIZES:
        least, most = sorted(sorted(SIZES, key=lambda size: abs(size - options.size))[:2])
        stop(f"--size {options.size}: the network cannot take it: give {least} or {most}, the nearest it can")
    options.train, options.test = (options.train or not options.test), (options.test or not options.train)
    return options


def read_metrics(path):
    """Return the metrics of an earlier run, none if there is no such file or a damaged one."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    # All pictures are read before training: what is wrong with a test picture should show now, not after minutes.
    newts = {part: load_newts(options.data / part, options.size) for part in ("train", "test") if vars(options)[part]}
    options.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, where nothing may be written
    network = build_network(rng, options)
    metrics = {"exercise": EXERCISE, "framework": FRAMEWORK, "versions": VERSIONS, "device": options.device}
    metrics_path = options.out / "metrics.json"
    if options.train:
        start = time.perf_counter()
        losses = train(network, *newts["train"][1:], options, rng)
        seconds = time.perf_counter() - start
        metrics |= {"seed": options.seed, "iterations": options.iterations, "parameters": count_parameters(network)}
        metrics |= {"seconds": seconds, "milliseconds_per_iteration": 1000 * seconds / options.iterations}
        metrics |= {"peak_memory_mb": peak_memory_mb(), "final_loss": losses[-1]}
        save_weights(network, options.out)
        rows = "".join(f"{iteration},{loss}\n" for iteration, loss in enumerate(losses, start=1))
        write_whole(options.out / "loss.csv", lambda aside: aside.write_text(f"iteration,loss\n{rows}"))
    else:
        load_weights(network, options.out)
        metrics = read_metrics(metrics_path) | metrics
    if options.test:
        metrics |= test(network, *newts["test"], options)
    write_whole(metrics_path, lambda aside: aside.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Written to {options.out}/: {', '.join(sorted(path.name for path in options.out.glob('[!.]*')))}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:  # a folder that may not be written, a full disk; Ctrl-C
        stop(f"{error}: mend that, or name another folder with --data or --out" if str(error) else "interrupted")
    except Exception as error:
        if not any(word in repr(error) for word in ("memory", "Memory", "OOM")):  # each framework says it otherwise
            raise
        stop("out of memory: give a smaller --batch or --size")
