"""Exercise 3, street_train, in TensorFlow: train on the records, validate after each epoch, go on after a stop.

New here: MEAN, STD, NUMBERS, LEARNING_RATE, MOMENTUM, FADE, CHOICES, EARLIER, SCALES, CHANNELS, WIDTH, STAGES, RATES,
WEIGHTS, CHECKPOINT, parse_example, Records, read_epoch, take_turns_at, iterate, make_sample, count_steps, augment,
normalise, draw_batches, to_tensor, UNet, block, DeepLabV3, Bottleneck, ASPP, conv_norm, Conv, TransposedConv,
he_normal, BatchNorm, conv_norm_relu, run_layers, upsample, interpolate, build_network, compute_loss, weigh_classes,
learning_rate, train, open_log, write_log, save_weights, load_weights, save_checkpoint, load_checkpoint, describe,
tell_apart, predict, validate, count_pairs, measure, paint, read_options, main. As in
01_street_preprocess_tensorflow.py: VOID, save_image. All else is as in 02_street_records_tensorflow.py.
"""

import argparse
import contextlib
import functools
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import tensorflow as tf
finally:
    os.dup2(stderr, 2)

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
VOID = 255  # the index of pixels that count for nothing; as train id: evaluation ignores this label
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (1400, range(1, 10**6), "training steps"),
    "batch": (4, range(2, 4097), "images in a batch"),  # the mean of an image needs two for its batch norm
    "size": (128, range(32, 2049, 16), "height and width of the crops"),  # U-Net halves them four times
    "pictures": (16, range(10**6), "validation images to write a picture of"),
    "workers": (2, range(65), "processes or threads that read ahead; 0 for none"),
    "seed": (0, range(2**63), "of all random numbers"),
}
LEARNING_RATE = 0.1  # at its peak, by default
MOMENTUM = 0.9
FADE = 0.75  # by how much of their logarithms the weights of classes have fallen in the end
CHOICES = {  # the first is the default
    "network": ("unet", "deeplab"),
    "weighting": ("classes", "none"),
    "device": ("auto", "cpu", "cuda"),
}
EARLIER = "02_street_records"  # the exercise whose output this one reads
WEIGHTS = "best.index"  # in --out, of the best mIoU
CHECKPOINT = "checkpoint.npz"  # in --out, where --resume goes on
SPLITS = ("train", "val")  # the labels of Cityscapes' third, test, are not published
BUFFER = 1000  # records that are shuffled at a time: not all of a large set has to be at hand
SCALES = (1, 1.25)  # an image is enlarged by a number between these
CHANNELS = (16, 32, 64, 128, 256)  # of U-Net at each size
WIDTH = 16  # of DeepLabV3's first convolution
STAGES = ((1, 1, 1), (2, 2, 1), (4, 1, 1), (8, 1, 2))  # of its backbone: width, stride, dilation
RATES = (2, 4, 6)  # of its ASPP, for small images


class Damaged(Exception):
    """A record is not what was written; the message names the shard, the byte where the record begins, and the fix."""


def find_script(exercise):
    """Return the path of the answer to another exercise in the same framework; it writes to outputs/STEM by default."""
    return Path(__file__).with_name(f"{exercise}_{Path(__file__).stem.split('_')[-1]}.py")


def find_stage(folder, exercise, key):
    """Return the metrics of an earlier exercise, which have key if it was finished.

    Where it was not, and folder is where it writes by default, it is run first.
    """
    script, metrics = find_script(exercise), read_metrics(folder / "metrics.json")
    if key not in metrics and folder == Path("outputs", script.stem) and script.exists():
        print(f"{folder} is not there, or not whole: {script.name} runs first, with its defaults", flush=True)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what stops that script, Ctrl-C too, it says itself
        status = subprocess.run([sys.executable, str(script)]).returncode
        signal.signal(signal.SIGINT, handler)
        if status:
            raise SystemExit(status)
        metrics = read_metrics(folder / "metrics.json")
    if key not in metrics:
        stop(f"{folder}: is not there, or not whole: run {script.name} first, or name its folder by --data")
    return metrics


def parse_example(payload):
    """Return the name of an example, its image (height, width, 3) uint8 and its classes (height, width) uint8."""
    keys = "image/filename", "image/encoded", "image/segmentation/class/encoded"
    features = tf.io.parse_single_example(payload, dict.fromkeys(keys, tf.io.FixedLenFeature([], tf.string)))
    name, image, classes = (features[key] for key in keys)
    return name, tf.io.decode_png(image, channels=3), tf.io.decode_png(classes, channels=1)[..., 0]


def read_shard(path):
    """Yield the payloads of a shard, one after another; Damaged where a sum is wrong."""
    offset = 0
    with contextlib.suppress(tf.errors.DataLossError):  # which does not name the file
        for payload in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield payload
            offset += 16 + len(payload)
    # TensorFlow raises no error where a shard is cut off within the length of a record, or its sum.
    if offset < path.stat().st_size:
        raise Damaged(f"{path}: the record at byte {offset} is damaged or cut off: write the records again")


def check_shards(folder, metrics):
    """Stop where a shard is missing, is not as long as it was written, or was not written at all.

    A shard that is cut off between two records is a good one by itself: only its length, which metrics tell, shows it.
    """
    found = {path.name: path.stat().st_size for path in folder.glob("[!.]*.tfrecord")}
    for shard in itertools.chain(*metrics["shards"].values()):
        size = found.pop(shard["name"], "no such file")
        if size != shard["bytes"]:
            stop(
                f"{folder / shard['name']}: {shard['bytes']} bytes were written, found {size}: write the records again"
            )
    for name in found:
        stop(f"{folder / name}: {folder / 'metrics.json'} does not name it: remove it, or write the records again")


def take_turns(counts, shards):
    """Return the records of shards, [(shard, number), ...]: of each shard the first, of each the second, ..."""
    return [(shard, turn) for turn in range(max(counts)) for shard in shards if turn < counts[shard]]


def draw_order(counts, seed, epoch):
    """Return the shards in a drawn order, and the records of an epoch, [(shard, number), ...], each of them once.

    counts tells how many records each shard has. The shards are read in turn, and of every BUFFER records that come in
    so, the order is drawn. It depends on seed and epoch alone: one can begin at any epoch.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    shards = rng.permutation(len(counts)).tolist()
    turns, order = take_turns(counts, shards), []
    for start in range(0, len(turns), BUFFER):
        block = turns[start : start + BUFFER]
        order += [block[place] for place in rng.permutation(len(block))]
    return shards, order


class Records:
    """What shards hold: their paths, and where in each of them the records begin."""

    def __init__(self, paths):
        self.paths = paths
        lengths = ((16 + len(payload) for payload in read_shard(path)) for path in paths)
        self.offsets = [list(itertools.accumulate(each, initial=0))[:-1] for each in lengths]


def read_epoch(records, epoch, options):
    """Return a dataset of the payloads of an epoch, a tensor, in their order.

    tf.data has the means for draw_order: interleave takes turns, batch makes blocks, gather puts a block in order.
    """
    counts = [len(offsets) for offsets in records.offsets]

    def draw(epoch):
        shards, order = draw_order(counts, options.seed, epoch)
        places = {record: place for place, record in enumerate(take_turns(counts, shards))}
        return [np.array(numbers) for numbers in (shards, [places[record] % BUFFER for record in order])]

    shards, places = (tf.ensure_shape(numbers, [None]) for numbers in tf.numpy_function(draw, [epoch], 2 * [tf.int64]))
    payloads = take_turns_at(tf.gather([str(path) for path in records.paths], shards), len(counts))
    blocks = tf.data.Dataset.from_tensor_slices(places).batch(BUFFER)
    return tf.data.Dataset.zip(payloads.batch(BUFFER), blocks).map(tf.gather).unbatch()


def take_turns_at(paths, number):
    """Return a dataset of the payloads of a number of shards, in the order of take_turns."""
    return tf.data.Dataset.from_tensor_slices(paths).interleave(tf.data.TFRecordDataset, number, block_length=1)


def iterate(dataset, records):
    """Yield what a dataset yields that is made of records; Damaged where a sum is wrong."""
    try:
        yield from dataset
    except (tf.errors.DataLossError, tf.errors.NotFoundError):  # which name no file, or in many words
        for path in records.paths:
            path.stat()
            for _ in read_shard(path):
                pass
        raise


def make_sample(image, classes, epoch, place, options):
    """Return an image (size, size, 3) and its classes (size, size) for training, of a record and its place in an epoch.

    Each sample has a random generator of its own, so it is the same whichever process makes it, and when. (Workers that
    copy one generator would all draw the same crops, and a training that goes on after a stop would draw others.)
    """
    rng = np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(epoch, place)))
    image, classes = augment(image, classes, options.size, rng)
    return normalise(image), classes


def count_steps(records, options):
    """Return the number of steps in an epoch; those left over, too few for a batch, are others in each epoch."""
    return sum(len(offsets) for offsets in records.offsets) // options.batch


def augment(image, classes, size, rng):
    """Return a crop, size x size, of image and classes at a random scale, mirrored or not, in other colours.

    What lies beyond the image is black, and void. Colours change in saturation, contrast and brightness.
    """
    scale = rng.uniform(*SCALES)
    height, width = (round(scale * length) for length in classes.shape)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    classes = cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    below, right = (max(0, size - length) for length in classes.shape)
    image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    classes = cv2.copyMakeBorder(classes, 0, below, 0, right, cv2.BORDER_CONSTANT, value=VOID)
    top, left = (rng.integers(length - size + 1) for length in classes.shape)
    step = rng.choice((1, -1))  # a step of -1 mirrors left and right
    crop = np.s_[top : top + size, left : left + size]
    image, classes = image[crop][:, ::step].astype(np.float32), classes[crop][:, ::step]
    grey = image.mean(axis=2, keepdims=True)
    image = (grey + rng.uniform(0.7, 1.3) * (image - grey)) * rng.uniform(0.7, 1.3) + rng.uniform(-30, 30)
    return image.clip(0, 255).round().astype(np.uint8), np.ascontiguousarray(classes)


def normalise(image):
    """Return an image (height, width, 3) uint8 such that ImageNet's have mean 0 and standard deviation 1."""
    return ((image / 255 - MEAN) / STD).astype(FLOAT)


def draw_batches(records, first, options):
    """Yield batches on the device, from an iteration on: images (batch, size, size, 3), classes (batch, size, size)."""
    steps, shape = count_steps(records, options), (options.size, options.size)
    epochs = tf.data.Dataset.range(first // steps, math.ceil(options.iterations / steps))

    def read(epoch):
        payloads = read_epoch(records, epoch, options).take(steps * options.batch)
        return payloads.enumerate().map(lambda place, payload: (payload, epoch, place))

    def make(payload, *key):
        _, image, classes = parse_example(payload)
        # OpenCV, not tf.image, whose random numbers and rounding are others.
        sample = functools.partial(make_sample, options=options)
        image, classes = tf.numpy_function(sample, [image, classes, *key], (FLOAT, tf.uint8))
        return tf.ensure_shape(image, (*shape, 3)), tf.ensure_shape(classes, shape)  # NumPy does not tell TensorFlow

    samples = (
        epochs.flat_map(read).skip(first % steps * options.batch).take((options.iterations - first) * options.batch)
    )
    dataset = samples.map(make, num_parallel_calls=options.workers or None).batch(options.batch)
    for images, classes in iterate(dataset.prefetch(options.workers), records):
        yield tf.identity(images), tf.identity(classes)  # from main memory to the GPU, if there is one


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    return tf.constant(array)  # channels last, as in NumPy; on the GPU if set_up has left TensorFlow one


class UNet(tf.Module):
    """U-Net with padding: images (batch, height, width, 3), sides multiples of 16, to logits (batch, ..., class)."""

    def __init__(self, rng, classes):
        self.encoder, self.decoder = [], []
        for in_channels, channels in itertools.pairwise((3, *CHANNELS)):
            self.encoder.append(block(rng, in_channels, channels))
        for in_channels, channels in itertools.pairwise(CHANNELS[::-1]):
            upsample = TransposedConv(rng, in_channels, channels)
            self.decoder.append([upsample, BatchNorm(channels), tf.nn.relu])
            self.decoder.append(block(rng, 2 * channels, channels))
        self.classifier = Conv(rng, CHANNELS[0], classes, 1, bias=True)

    def __call__(self, x, training):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(run_layers(encode, x, training))
            x = tf.nn.max_pool2d(skips[-1], 2, 2, "VALID")  # half the height and width, and next twice the channels
        x = run_layers(self.encoder[-1], x, training)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = tf.concat([skips.pop(), run_layers(upsample, x, training)], axis=3)  # twice the height and width
            x = run_layers(decode, x, training)
        return self.classifier(x)


def block(rng, in_channels, channels):
    """Return two times conv(3) + BatchNorm + ReLU; it keeps the size."""
    return [*conv_norm_relu(rng, in_channels, channels, 3), *conv_norm_relu(rng, channels, channels, 3)]


class DeepLabV3(tf.Module):
    """A small DeepLabV3 (arXiv:1706.05587) without auxiliary head and dropout: see Question_voc.

    A ResNet of a block in each stage, which ends at an eighth of the height and width, ASPP, and bilinear upsampling.
    """

    def __init__(self, rng, classes):
        self.stem = conv_norm_relu(rng, 3, WIDTH, 7, stride=2)
        self.stages, channels = [], WIDTH
        for wider, stride, dilation in STAGES:
            self.stages.append(Bottleneck(rng, channels, wider * WIDTH, stride, dilation))
            channels = 4 * wider * WIDTH
        self.aspp = ASPP(rng, channels, 4 * WIDTH)
        self.head = conv_norm_relu(rng, 4 * WIDTH, 4 * WIDTH, 3)
        self.classifier = Conv(rng, 4 * WIDTH, classes, 1, bias=True)

    def __call__(self, images, training):
        x = run_layers(self.stem, images, training)
        x = tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])  # a quarter of the height and width
        x = run_layers([*self.stages, self.aspp, *self.head, self.classifier], x, training)  # an eighth
        return upsample(x, images.shape[1:3])


class Bottleneck(tf.Module):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, rng, in_channels, channels, stride, dilation):
        self.narrow = conv_norm_relu(rng, in_channels, channels, 1)
        self.middle = conv_norm_relu(rng, channels, channels, 3, stride, dilation)
        self.widen = conv_norm(rng, channels, 4 * channels, 1)
        self.shortcut = conv_norm(rng, in_channels, 4 * channels, 1, stride)

    def __call__(self, x, training):
        y = run_layers([*self.narrow, *self.middle, *self.widen], x, training)
        return tf.nn.relu(y + run_layers(self.shortcut, x, training))


class ASPP(tf.Module):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, rng, in_channels, channels):
        self.branches = [conv_norm_relu(rng, in_channels, channels, 1)]
        self.branches += [conv_norm_relu(rng, in_channels, channels, 3, dilation=rate) for rate in RATES]
        self.branches += [conv_norm_relu(rng, in_channels, channels, 1)]
        self.project = conv_norm_relu(rng, len(self.branches) * channels, channels, 1)

    def __call__(self, x, training):
        mean = tf.reduce_mean(x, axis=(1, 2), keepdims=True)
        branches = [run_layers(branch, x, training) for branch in self.branches[:-1]]
        whole = run_layers(self.branches[-1], mean, training)
        branches.append(tf.broadcast_to(whole, tf.shape(branches[0])))  # the mean of the image, at every pixel
        return run_layers(self.project, tf.concat(branches, axis=3), training)


def conv_norm(rng, in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    return [Conv(rng, in_channels, channels, kernel, stride, dilation), BatchNorm(channels)]


class Conv(tf.Module):
    """A convolution that keeps the height and width but for its stride, its weights drawn by NumPy."""

    def __init__(self, rng, in_channels, channels, kernel, stride=1, dilation=1, bias=False):
        self.stride, self.dilation = stride, dilation
        weight = he_normal(rng, (channels, in_channels, kernel, kernel))
        self.weight = tf.Variable(weight.transpose(2, 3, 1, 0), dtype=FLOAT)  # (height, width, in, out)
        if bias:
            self.bias = tf.Variable(tf.zeros(channels, FLOAT))

    def __call__(self, x):
        # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See Question_voc.
        padding = 2 * [self.dilation * (self.weight.shape[0] // 2)]
        x = tf.pad(x, [[0, 0], padding, padding, [0, 0]])
        # Not tf.nn.conv2d, which does the same but has no gradient for dilated kernels on a CPU, unless oneDNN helps.
        x = tf.nn.convolution(x, self.weight, self.stride, "VALID", dilations=self.dilation)
        return tf.nn.bias_add(x, self.bias) if hasattr(self, "bias") else x


class TransposedConv(tf.Module):
    """A transposed convolution of kernel 2 and stride 2, its weights drawn by NumPy: it doubles height and width."""

    def __init__(self, rng, in_channels, channels):
        weight = he_normal(rng, (channels, in_channels, 2, 2))
        self.weight = tf.Variable(weight.transpose(2, 3, 0, 1), dtype=FLOAT)  # (height, width, out, in)
        self.bias = tf.Variable(tf.zeros(channels, FLOAT))

    def __call__(self, x):
        size = tf.stack([tf.shape(x)[0], 2 * x.shape[1], 2 * x.shape[2], self.bias.shape[0]])
        return tf.nn.bias_add(tf.nn.conv2d_transpose(x, self.weight, size, strides=2), self.bias)


def he_normal(rng, shape):
    """Draw weights (out, in, height, width), He normal by fan-in (arXiv:1502.01852, section 2.2)."""
    return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))


class BatchNorm(tf.Module):
    """Batch normalisation (arXiv:1502.03167) with running averages that move by a tenth each step in training."""

    def __init__(self, channels):
        self.weight, self.bias = tf.Variable(tf.ones(channels, FLOAT)), tf.Variable(tf.zeros(channels, FLOAT))
        self.running_mean = tf.Variable(tf.zeros(channels, FLOAT), trainable=False)
        self.running_var = tf.Variable(tf.ones(channels, FLOAT), trainable=False)

    def __call__(self, x, training):
        mean, variance = self.running_mean, self.running_var
        if training:
            mean, variance = tf.nn.moments(x, axes=(0, 1, 2))
            count = tf.cast(tf.size(x) / x.shape[3], FLOAT)
            unbiased = variance * count / (count - 1)  # as in PyTorch
            self.running_mean.assign_add(0.1 * (mean - self.running_mean))
            self.running_var.assign_add(0.1 * (unbiased - self.running_var))
        # Not the fused kernel, tf.compat.v1.nn.fused_batch_norm: it takes no float64.
        scale = self.weight / tf.sqrt(variance + 1e-5)
        return x * scale + (self.bias - mean * scale)


def conv_norm_relu(rng, in_channels, channels, kernel, stride=1, dilation=1):
    """Return convolution, batch norm and ReLU."""
    return [*conv_norm(rng, in_channels, channels, kernel, stride, dilation), tf.nn.relu]


def run_layers(layers, x, training):
    """Return x after some layers, one after the other."""
    for layer in layers:
        x = layer(x, training) if isinstance(layer, ASPP | Bottleneck | BatchNorm) else layer(x)
    return x


def upsample(x, size):
    """Return x (batch, height, width, channels) at another size, bilinear, with align_corners=False."""
    # tf.image.resize does the same, but computes in float32 whatever it is given.
    rows, columns = (interpolate(*lengths) for lengths in zip(x.shape[1:3], size, strict=True))
    return tf.einsum("wj,bhjc->bhwc", columns, tf.einsum("hi,bijc->bhjc", rows, x))


def interpolate(length, new_length):
    """Return the matrix (new_length, length) that interpolates linearly between pixels, which keep their centres."""
    places = np.clip((np.arange(new_length) + 0.5) * length / new_length - 0.5, 0, length - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(length))).astype(FLOAT)


def build_network(rng, classes, options):
    """Return a network for a number of classes, its weights drawn in the order of the layers."""
    return (UNet if options.network == "unet" else DeepLabV3)(rng, classes)  # on the GPU, if set_up has left one


def compute_loss(logits, classes, weights):
    """Return softmax cross entropy, the mean over the pixels that are not void, each by the weight of its class.

    logits (batch, height, width, class), classes (batch, height, width), weights (class,).
    """
    valid = classes != VOID
    labels = tf.cast(tf.where(valid, classes, 0), tf.int32)  # TensorFlow has no index to ignore
    shares = tf.where(valid, tf.gather(weights, labels), 0)
    losses = shares * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_sum(losses) / tf.maximum(tf.reduce_sum(shares), 1)  # all of a batch may be void


def weigh_classes(metrics, iteration, options):
    """Return the weight of each class, (class,), at an iteration: 1, or more for a rare one.

    By the paper it is 1 / ln(1.02 + share) (arXiv:1606.02147, section 5.2). With such weights a network soon learns
    what is rare, but paints it too thick: so they fade towards 1 as training goes on.
    """
    pixels = np.array([metrics["pixels"][name] for name in metrics["classes"]])
    weights = np.ones(len(pixels)) if options.weighting == "none" else 1 / np.log(1.02 + pixels / pixels.sum())
    return (weights ** (1 - FADE * iteration / options.iterations)).astype(FLOAT)


def learning_rate(iteration, options):
    """Return the learning rate of an iteration, counted from 0: linear warm-up over a tenth, then cosine decay."""
    warm_up = math.ceil(options.iterations / 10)
    if iteration < warm_up:
        return options.lr * (iteration + 1) / warm_up
    return options.lr * (1 + math.cos(math.pi * (iteration - warm_up) / (options.iterations - warm_up))) / 2


def train(network, records, metrics, options):
    """Train by stochastic gradient descent with momentum; return the losses, and what each validation measured.

    At the end of each epoch the network is validated. If its mIoU is the best so far, its weights are kept; and what
    training needs to go on from there is kept in any case.
    """
    variables = network.trainable_variables
    velocities = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
    losses, validations = load_checkpoint(network, velocities, options) if options.resume else ([], [])
    log = open_log(options.out / "logs", len(losses))

    @tf.function  # compiles the step to a graph at its first call
    def step(images, classes, weights, rate):
        with tf.GradientTape() as tape:
            loss = compute_loss(network(images, training=True), classes, weights)
        for variable, velocity, gradient in zip(variables, velocities, tape.gradient(loss, variables), strict=True):
            velocity.assign(MOMENTUM * velocity - rate * gradient)
            variable.assign_add(velocity)
        return loss

    bar = tqdm(draw_batches(records["train"], len(losses), options), "train", options.iterations, initial=len(losses))
    for iteration, (images, classes) in enumerate(bar, start=len(losses)):
        rate = learning_rate(iteration, options)
        weights = tf.constant(weigh_classes(metrics, iteration, options))
        # A number in place of a constant would compile the step anew each time.
        losses.append(float(step(images, classes, weights, tf.constant(rate, FLOAT))))
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop(f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one")
        write_log(log, iteration + 1, {"train/loss": losses[-1], "train/learning_rate": rate})
        if len(losses) % count_steps(records["train"], options) == 0 or len(losses) == options.iterations:
            measures, _ = validate(network, records["val"], metrics["classes"], options)
            validations.append({"iteration": len(losses), **measures})
            write_log(log, iteration + 1, {f"val/{name}": measures[name] for name in ("miou", "pixel_accuracy")})
            if measures["miou"] == max(each["miou"] for each in validations):
                save_weights(network, options.out / WEIGHTS)
            log.flush()  # what is logged up to here will not be logged again
            save_checkpoint(network, velocities, losses, validations, options)
    log.close()
    return losses, validations


def open_log(folder, iterations):
    """Return a writer for TensorBoard (`tensorboard --logdir outputs`); what was logged after iterations is void."""
    if not iterations:
        for file in folder.glob("events.out.tfevents.*"):  # of an earlier training
            file.unlink()
    # At each START but the first, TensorBoard drops what was logged of that step and later ones. TensorFlow 2's writer
    # has no means to log it; that of TensorFlow 1 has, but works in a graph only.
    with tf.Graph().as_default():
        log = tf.compat.v1.summary.FileWriter(str(folder))
        log.add_session_log(tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START), iterations + 1)
        log.close()
    return tf.summary.create_file_writer(str(folder))


def write_log(log, iteration, numbers):
    """Log {name: number} of an iteration."""
    # tf.summary.scalar writes the same, but takes TensorBoard's package, which only looking at the logs needs.
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
    with log.as_default(iteration):
        for name, number in numbers.items():
            tf.summary.write(name, number, metadata=metadata)


def save_weights(network, path):
    """Write the weights and the running averages of batch norm to a checkpoint: path, its index, and beside it data."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(network=network).write(f"{folder}/{path.stem}")
        except tf.errors.OpError as error:  # a full disk
            raise OSError(f"{folder}, in the folder for temporary files (TMPDIR): {type(error).__name__}") from None
        path.unlink(missing_ok=True)  # never an old index with new data
        for file in sorted(Path(folder).iterdir()):  # the data, then the index
            write_whole(path.with_name(file.name), lambda part, file=file: shutil.copy(file, part))


def load_weights(network, path):
    """Read into the network what save_weights wrote."""
    try:
        # TensorFlow cannot read from a path with a [ in it; on Windows it may hold the copies open for longer.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            for suffix in (".index", ".data-00000-of-00001"):
                shutil.copy(path.with_suffix(suffix), f"{folder}/weights{suffix}")
            tf.train.Checkpoint(network=network).read(f"{folder}/weights").assert_consumed()
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this --network for these records" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, or name what training wrote")


def save_checkpoint(network, velocities, losses, validations, options):
    """Write all that training needs to go on from here."""
    state = {f"variable {i}": variable.numpy() for i, variable in enumerate([*network.variables, *velocities])}
    content = io.BytesIO()  # one file: of the two that tf.train.Checkpoint writes, a kill might leave an old one
    np.savez(content, losses=losses, validations=json.dumps(validations), options=describe(options), **state)
    write_whole(options.out / CHECKPOINT, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(network, velocities, options):
    """Set network and velocities to what save_checkpoint wrote; return losses and validations up to there."""
    path = options.out / CHECKPOINT
    if not path.exists():  # stopped before the end of the first epoch
        return [], []
    try:
        with np.load(path) as state:
            given, losses, validations = str(state["options"]), state["losses"].tolist(), state["validations"]
            same, validations = given == describe(options), json.loads(str(validations))
            if same:
                for i, variable in enumerate([*network.variables, *velocities]):
                    variable.assign(state[f"variable {i}"])
    except OSError:
        raise
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        stop(f"{path}: not a whole checkpoint: remove it, and train from the start")
    if not same:
        theirs, own = tell_apart(given, describe(options))
        stop(f"--resume: {path} is of a run with {theirs}, and this one has {own}: give the same")
    return losses, validations


def describe(options):
    """Return, as a text, the options that decide what training computes."""
    rest = ("resume", "out", "device", "workers", "pictures")
    return ", ".join(f"--{name} {value}" for name, value in vars(options).items() if name not in rest)


def tell_apart(one, other):
    """Return what describe tells of one run and not of the other, and the reverse: two texts."""
    parts = one.split(", "), other.split(", ")
    return [", ".join(part for part in own if part not in rest) for own, rest in (parts, parts[::-1])]


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
    return network(to_tensor(images, options.device), training=False).numpy()


def validate(network, records, names, options):
    """Return the measures over all whole images, and {name: (image, classes, prediction)} of the first of them."""
    pairs, shown = 0, {}
    payloads = take_turns_at([str(path) for path in records.paths], len(records.paths))
    batches = payloads.map(parse_example).batch(options.batch)
    number = math.ceil(sum(len(offsets) for offsets in records.offsets) / options.batch)
    for batch in tqdm(iterate(batches.as_numpy_iterator(), records), "validate", number, leave=False):
        predictions = predict(network, normalise(batch[1]), options).argmax(axis=3).astype(np.uint8)
        for name, image, classes, prediction in zip(*batch, predictions, strict=True):
            pairs = pairs + count_pairs(classes, prediction, len(names))
            if len(shown) < options.pictures:
                shown[name.decode()] = image, classes, prediction
    return measure(pairs, names), shown


def count_pairs(classes, predictions, number):
    """Return how many pixels of each true class (rows) have each predicted class (columns); void is left out."""
    valid = classes != VOID
    pairs = np.bincount(number * classes[valid].astype(int) + predictions[valid], minlength=number**2)
    return pairs.reshape(number, number)


def measure(pairs, names):
    """Return pixel accuracy, IoU by class, None if it is neither in the truth nor predicted, and their mean."""
    intersection = pairs.diagonal()
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - intersection
    iou = {name: float(i / u) if u else None for name, i, u in zip(names, intersection, union, strict=True)}
    miou = float(np.mean([value for value in iou.values() if value is not None]))
    return {"miou": miou, "iou": iou, "pixel_accuracy": float(intersection.sum() / pairs.sum())}


def paint(classes, colours):
    """Return the colours, (height, width, 3) uint8, of classes (height, width); void is black."""
    return np.uint8([*colours, *[(0, 0, 0)] * (VOID + 1 - len(colours))])[classes]


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


def write_metrics(path, metrics):
    """Write metrics.json."""
    write_whole(path, lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))


def read_metrics(path):
    """Return what an earlier run wrote to metrics.json, or the same without content where there is no such file."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"options": {}}
        dict(metrics["options"])
    except (ValueError, KeyError, TypeError):
        stop(f"{path}: not what this exercise writes: remove it, or name another folder")
    return metrics


def stop(message):
    """End the script with one line that names the file or option and the fix, and with status 2."""
    tqdm.write(f"{Path(__file__).name}: {message}", file=sys.stderr)  # not behind a progress bar
    raise SystemExit(2)


def read_options():
    """Return the options of the command line; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    own_data = Path("outputs", find_script(EARLIER).stem)
    parser.add_argument("--data", type=Path, default=own_data, help=f"what {EARLIER} wrote (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with a run of the same options that was stopped")
    parser.add_argument("--lr", type=float, default=LEARNING_RATE, help="learning rate at its peak (%(default)s)")
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
    set_up(options)
    return options


def set_up(options):
    """Choose the device: TensorFlow takes the GPU for whatever can run there, unless it is hidden."""
    tf.get_logger().setLevel("ERROR")  # or weights of another network would be told in many lines
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if options.device == "cuda" and not has_gpu:
        stop("--device cuda: TensorFlow sees no GPU: use --device cpu, or install a driver and tensorflow[and-cuda]")
    if options.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if options.device == "auto":
        options.device = "cuda" if has_gpu else "cpu"


def main():
    options = read_options()
    if options.resume and (options.out / "metrics.json").exists():
        stop(f"--resume: the training in {options.out} is finished: train anew without it, or name another --out")
    metrics = find_stage(options.data, EARLIER, "noticed")
    check_shards(options.data, metrics)
    records = {split: Records([options.data / shard["name"] for shard in metrics["shards"][split]]) for split in SPLITS}
    if not count_steps(records["train"], options):
        stop(f"--batch {options.batch}: more than the images in {options.data}: give a smaller one")
    if any(length % 16 for length in metrics["size"]):  # U-Net halves the images four times
        stop(f"{options.data}: images of {metrics['size']}: make them of sides that are multiples of 16")
    for path in tqdm(records["train"].paths + records["val"].paths, "check", leave=False):
        for _ in read_shard(path):  # what is damaged should show now, not after minutes
            pass
    rng = np.random.default_rng(options.seed)
    network = build_network(rng, len(metrics["classes"]), options)
    options.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, if nothing may be written
    (options.out / "metrics.json").unlink(missing_ok=True)  # of an earlier training, whose weights are replaced now
    losses, validations = train(network, records, metrics, options)
    load_weights(network, options.out / WEIGHTS)
    measures, shown = validate(network, records["val"], metrics["classes"], options)
    for name, (image, classes, prediction) in shown.items():
        panels = [image, *(paint(each, metrics["colours"]) for each in (classes, prediction))]
        save_image(options.out / "pictures" / f"{name}.png", np.vstack(panels).repeat(2, axis=0).repeat(2, axis=1))
        save_image(options.out / "predictions" / f"{name}.png", paint(prediction, metrics["colours"]))
    rows = [f"{iteration},{loss}\n" for iteration, loss in enumerate(losses, start=1)]
    write_whole(options.out / "loss.csv", lambda part: part.write_text("".join(["iteration,loss\n", *rows])))
    rows = [f"{each['iteration']},{each['miou']},{each['pixel_accuracy']}\n" for each in validations]
    table = "".join(["iteration,miou,pixel_accuracy\n", *rows])
    write_whole(options.out / "validation.csv", lambda part: part.write_text(table))
    best = max(validations, key=lambda each: each["miou"])["iteration"]
    own = {"answer": Path(__file__).stem, "options": {name: str(value) for name, value in vars(options).items()}}
    write_metrics(options.out / "metrics.json", own | {"best": best, "final_loss": losses[-1], **measures})
    (options.out / CHECKPOINT).unlink(missing_ok=True)
    print(f"best after iteration {best}: mIoU {measures['miou']:.3f}, pixel accuracy {measures['pixel_accuracy']:.3f}")
    print(", ".join(f"{name} {'none' if iou is None else f'{iou:.3f}'}" for name, iou in measures["iou"].items()))
    print(f"Weights, losses and measures are in {options.out}/, pictures of what was found in {options.out}/pictures/")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        main()
    except Damaged as error:
        stop(error)
    except OSError as error:  # a folder that may not be written, a full disk
        stop(f"{error}: fix that, or name another folder with --data or --out")
    except Exception as error:
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        stop("out of memory: give smaller numbers, or free some memory")
