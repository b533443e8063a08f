"""Exercise 3, street_train, in Keras: train on the records, validate after each epoch, go on after a stop.

New here: MEAN, STD, NUMBERS, LEARNING_RATE, MOMENTUM, FADE, CHOICES, EARLIER, SCALES, CHANNELS, WIDTH, STAGES, RATES,
WEIGHTS, CHECKPOINT, make_batch, make_sample, count_steps, augment, normalise, Batches, read_ahead, draw_batches,
to_tensor, unet, block, deeplab, bottleneck, aspp, conv_norm, BatchNorm, conv_norm_relu, Upsample, interpolate,
draw_kernel, draw_transposed_kernel, build_network, compute_loss, weigh_classes, learning_rate, train, open_log,
write_log, save_weights, load_weights, save_checkpoint, load_checkpoint, describe, tell_apart, predict, validate,
count_pairs, measure, paint, read_options, main. As in 01_street_preprocess_keras.py: VOID, save_image. All else is as
in 02_street_records_keras.py.
"""

import argparse
import collections
import functools
import importlib.util
import io
import itertools
import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import google_crc32c
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
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
from keras import layers

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
DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Keras calls them, whatever its backend
EARLIER = "02_street_records"  # the exercise whose output this one reads
WEIGHTS = "best.weights.h5"  # in --out, of the best mIoU
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


def masked_crc(data):
    """Return the sum of data as records have it, 4 bytes: its CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def read_varint(data, position):
    """Return the number that begins at position, and the position after it."""
    number = shift = 0
    while data[position] > 127:
        number |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return number | data[position] << shift, position + 1


def split_fields(data):
    """Return the fields that data is made of, [(number, content), ...]."""
    fields, position = [], 0
    while position < len(data):
        tag, position = read_varint(data, position)
        length, position = read_varint(data, position)
        fields.append((tag >> 3, data[position : position + length]))
        position += length
    return fields


def parse_example(payload):
    """Return the features that make_example was given."""
    features = {}
    [(_, entries)] = split_fields(payload)
    for _, entry in split_fields(entries):
        (_, key), (_, feature) = split_fields(entry)
        [(kind, values)] = split_fields(feature)
        [(_, content)] = split_fields(values)
        features[key.decode()] = content if kind == 1 else read_varint(content, 0)[0]
    return features


def read_length(file, offset):
    """Return the length of the payload of the record at offset; the file then stands at the payload."""
    file.seek(offset)
    head = file.read(12)
    if len(head) < 12 or masked_crc(head[:8]) != head[8:]:
        raise Damaged(f"{file.name}: the record at byte {offset} is damaged or cut off: write the records again")
    return struct.unpack("<Q", head[:8])[0]


def read_record(file, offset):
    """Return the payload of the record that begins at offset of a file; Damaged where a sum is wrong."""
    length = read_length(file, offset)
    data = file.read(length + 4)
    if len(data) < length + 4 or masked_crc(data[:-4]) != data[-4:]:
        raise Damaged(f"{file.name}: the record at byte {offset} is damaged or cut off: write the records again")
    return data[:-4]


def index_records(path):
    """Return where the records of a shard begin, found by their lengths alone, so that each can be read by itself."""
    offsets, size = [0], path.stat().st_size
    with open(path, "rb") as file:
        while offsets[-1] < size:
            offsets.append(offsets[-1] + 16 + read_length(file, offsets[-1]))
    if offsets[-1] > size:
        raise Damaged(f"{path}: the record at byte {offsets[-2]} is damaged or cut off: write the records again")
    return offsets[:-1]


def read_shard(path):
    """Yield the payloads of a shard, one after another."""
    offsets = index_records(path)
    with open(path, "rb") as file:
        for offset in offsets:
            yield read_record(file, offset)


def decode(features):
    """Return the name of an example, its image (height, width, 3) uint8 and its classes (height, width) uint8."""
    keys = "image/encoded", "image/segmentation/class/encoded"
    return features["image/filename"].decode(), *(np.array(Image.open(io.BytesIO(features[key]))) for key in keys)


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
    """What shards hold: item (shard, number) is the name, image and classes of a record."""

    def __init__(self, paths):
        self.paths, self.offsets = paths, [index_records(path) for path in paths]

    def __getitem__(self, place):
        shard, number = place
        with open(self.paths[shard], "rb") as file:
            return decode(parse_example(read_record(file, self.offsets[shard][number])))


def make_batch(records, iteration, options):
    """Return the batch of an iteration, from 0 on: images (batch, size, size, 3), classes (batch, size, size) uint8."""
    epoch, step = divmod(iteration, count_steps(records, options))
    _, order = draw_order([len(offsets) for offsets in records.offsets], options.seed, epoch)
    places = range(step * options.batch, (step + 1) * options.batch)
    samples = [make_sample(*records[order[place]][1:], epoch, place, options) for place in places]
    images, classes = zip(*samples, strict=True)
    return np.stack(images), np.stack(classes)


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


class Batches(keras.utils.PyDataset):
    """The batches of a training from an iteration on, in their order: item 0, 1, 2, ... is images and classes."""

    def __init__(self, records, first, options):
        super().__init__(workers=options.workers)
        self.records, self.first, self.options = records, first, options

    def __len__(self):
        return self.options.iterations - self.first

    def __getitem__(self, number):
        return make_batch(self.records, self.first + number, self.options)


def read_ahead(batches):
    """Yield the batches in order, while batches.workers threads read those that follow.

    fit() has its own means for this, which Keras keeps private: a plain loop over a PyDataset reads nothing ahead.
    """
    waiting = collections.deque()
    with ThreadPoolExecutor(batches.workers) as pool:
        for number in range(len(batches)):
            waiting.append(pool.submit(batches.__getitem__, number))
            if len(waiting) > batches.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw_batches(records, first, options):
    """Yield batches on the device, from an iteration on: images (batch, size, size, 3), classes (batch, size, size)."""
    batches = Batches(records, first, options)
    for images, classes in read_ahead(batches) if batches.workers else batches:
        yield to_tensor(images, options.device), to_tensor(classes, options.device)


def to_tensor(array, device):
    """Return an array as a tensor of the same shape on the device."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(array)


def unet(x, classes, initializer):
    """Apply U-Net with padding to images (batch, height, width, 3), sides multiples of 16; return the logits."""
    skips = []
    for channels in CHANNELS[:-1]:
        skips.append(block(x, channels, initializer))
        x = layers.MaxPooling2D(2)(skips[-1])  # half the height and width, and next twice the channels
    x = block(x, CHANNELS[-1], initializer)
    transposed = functools.partial(draw_transposed_kernel, initializer)
    for channels in CHANNELS[-2::-1]:
        x = layers.Conv2DTranspose(channels, 2, strides=2, kernel_initializer=transposed)(x)
        x = layers.ReLU()(BatchNorm()(x))  # twice the height and width
        x = block(layers.Concatenate()([skips.pop(), x]), channels, initializer)
    return layers.Conv2D(classes, 1, kernel_initializer=initializer)(x)


def block(x, channels, initializer):
    """Apply two times conv(3) + BatchNorm + ReLU; it keeps the size."""
    return conv_norm_relu(conv_norm_relu(x, channels, 3, initializer), channels, 3, initializer)


def deeplab(images, classes, initializer):
    """Apply a small DeepLabV3 (arXiv:1706.05587) without auxiliary head and dropout, see Question_voc, to images.

    A ResNet of a block in each stage, which ends at an eighth of the height and width, ASPP, and bilinear upsampling.
    """
    x = conv_norm_relu(images, WIDTH, 7, initializer, stride=2)  # half the height and width
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # a quarter; what left a ReLU is never below such a 0
    for wider, stride, dilation in STAGES:
        x = bottleneck(x, wider * WIDTH, initializer, stride, dilation)  # an eighth in the end
    x = conv_norm_relu(aspp(x, 4 * WIDTH, initializer), 4 * WIDTH, 3, initializer)
    return Upsample()(layers.Conv2D(classes, 1, kernel_initializer=initializer)(x), images)


def bottleneck(x, channels, initializer, stride, dilation):
    """Apply a residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""
    y = conv_norm_relu(x, channels, 1, initializer)
    y = conv_norm_relu(y, channels, 3, initializer, stride, dilation)
    y = conv_norm(y, 4 * channels, 1, initializer)
    return layers.ReLU()(layers.Add()([y, conv_norm(x, 4 * channels, 1, initializer, stride)]))


def aspp(x, channels, initializer):
    """Apply atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""
    branches = [conv_norm_relu(x, channels, 1, initializer)]
    branches += [conv_norm_relu(x, channels, 3, initializer, dilation=rate) for rate in RATES]
    mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
    branches += [Upsample()(conv_norm_relu(mean, channels, 1, initializer), x)]  # the mean of the image, at every pixel
    return conv_norm_relu(layers.Concatenate()(branches), channels, 1, initializer)


def conv_norm(x, channels, kernel, initializer, stride=1, dilation=1):
    """Apply a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    if stride > 1:  # padding on all sides alike: "same" would not do so at stride 2; see Question_voc
        x = layers.ZeroPadding2D(kernel // 2)(x)
    settings = {"dilation_rate": dilation, "use_bias": False, "kernel_initializer": initializer}
    return BatchNorm()(layers.Conv2D(channels, kernel, stride, "valid" if stride > 1 else "same", **settings)(x))


class BatchNorm(layers.BatchNormalization):
    """Batch normalisation (arXiv:1502.03167) with running averages that move by a tenth each step in training.

    Keras's own differs where it counts little: its running variance is biased, and with floats of 64 bits it computes
    in 32 on any backend but TensorFlow.
    """

    def call(self, x, training=None):
        mean, variance = self.moving_mean, self.moving_variance
        if training and self.trainable:
            mean, variance = keras.ops.moments(x, axes=(0, 1, 2))
            count = keras.ops.cast(keras.ops.size(x) / x.shape[3], FLOAT)
            self.moving_mean.assign_add(0.1 * (mean - self.moving_mean))
            unbiased = variance * count / (count - 1)  # as in PyTorch
            self.moving_variance.assign_add(0.1 * (unbiased - self.moving_variance))
        return keras.ops.batch_normalization(x, mean, variance, -1, self.beta, self.gamma, 1e-5)


def conv_norm_relu(x, channels, kernel, initializer, stride=1, dilation=1):
    """Apply convolution, batch norm and ReLU."""
    return layers.ReLU()(conv_norm(x, channels, kernel, initializer, stride, dilation))


class Upsample(layers.Layer):
    """Brings x (batch, height, width, channels) to the size of others, bilinear, with align_corners=False."""

    def call(self, x, others):
        # keras.ops.image.resize does the same, but on TensorFlow computes in float32 whatever it is given.
        sizes = keras.ops.shape(x)[1:3], keras.ops.shape(others)[1:3]
        rows, columns = (interpolate(*lengths) for lengths in zip(*sizes, strict=True))
        return keras.ops.einsum("wj,bhjc->bhwc", columns, keras.ops.einsum("hi,bijc->bhjc", rows, x))


def interpolate(length, new_length):
    """Return the matrix (new_length, length) that interpolates linearly between pixels, which keep their centres."""
    old, new = (keras.ops.arange(number, dtype=FLOAT) for number in (length, new_length))
    scale = keras.ops.cast(length, FLOAT) / keras.ops.cast(new_length, FLOAT)
    places = keras.ops.minimum(keras.ops.relu((new + 0.5) * scale - 0.5), old[-1])
    return keras.ops.relu(1 - keras.ops.abs(places[:, None] - old))


def draw_kernel(rng, shape, dtype):
    """Return a kernel (height, width, in, out), which Keras's initializers would draw otherwise than NumPy does.

    He normal by fan-in (arXiv:1502.01852, section 2.2).
    """
    height, width, in_channels, channels = shape
    kernel = rng.standard_normal((channels, in_channels, height, width)) * np.sqrt(2 / (in_channels * height * width))
    return kernel.transpose(2, 3, 1, 0).astype(dtype)


def draw_transposed_kernel(initializer, shape, dtype):
    """Return the kernel of a transposed convolution, which Keras stores as (height, width, out, in)."""
    height, width, channels, in_channels = shape
    return initializer((height, width, in_channels, channels), dtype).swapaxes(2, 3)


def build_network(rng, classes, options):
    """Return a network for a number of classes on the device: images to logits (batch, height, width, class).

    NumPy draws its weights in the order of the layers, so that all four frameworks start alike; biases are 0.
    """
    with keras.device(DEVICES[options.device]):
        inputs = keras.Input((None, None, 3))  # height and width are left open
        apply = unet if options.network == "unet" else deeplab
        network = keras.Model(inputs, apply(inputs, classes, functools.partial(draw_kernel, rng)))
    network.jit_compile = False  # XLA would compile predict() anew for each size of image
    return network


def compute_loss(logits, classes, weights):
    """Return softmax cross entropy, the mean over the pixels that are not void, each by the weight of its class.

    logits (batch, height, width, class), classes (batch, height, width), weights (class,).
    """
    valid = keras.ops.not_equal(classes, VOID)
    labels = keras.ops.cast(keras.ops.where(valid, classes, 0), "int32")
    factors = keras.ops.where(valid, keras.ops.take(weights, labels), 0)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    total = keras.ops.sum(factors * losses)
    return total / keras.ops.maximum(keras.ops.sum(factors), 1)  # all of a batch may be void


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
    # Of NumPy's type, since Keras on TensorFlow casts a Python float by way of float32, where 0.9 is 2.6e-8 off.
    optimizer = keras.optimizers.SGD(options.lr, momentum=np.float64(MOMENTUM))
    weights = keras.Variable(weigh_classes(metrics, 0, options), trainable=False, dtype=FLOAT)
    trainer = keras.Model(network.inputs, network.outputs)  # the same layers; network keeps no optimizer, to be saved
    trainer.compile(
        optimizer,
        loss=lambda classes, logits: compute_loss(logits, classes, weights),  # Keras passes the targets first
        jit_compile=BACKEND == "jax",  # else JAX runs step by step; elsewhere XLA compiles longer than it saves
    )
    optimizer.build(network.trainable_variables)
    losses, validations = load_checkpoint(network, optimizer, options) if options.resume else ([], [])
    log = open_log(options.out / "logs", len(losses))
    bar = tqdm(draw_batches(records["train"], len(losses), options), "train", options.iterations, initial=len(losses))
    for iteration, (images, classes) in enumerate(bar, start=len(losses)):
        optimizer.learning_rate = rate = learning_rate(iteration, options)
        weights.assign(weigh_classes(metrics, iteration, options))
        with keras.device(DEVICES[options.device]):
            losses.append(float(trainer.train_on_batch(images, classes)))
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
            save_checkpoint(network, optimizer, losses, validations, options)
    log.close()
    return losses, validations


def open_log(folder, iterations):
    """Return a writer for TensorBoard (`tensorboard --logdir outputs`); what was logged after iterations is void."""
    if not iterations:
        for file in folder.glob("events.out.tfevents.*"):  # of an earlier training
            file.unlink()
    return SummaryWriter(str(folder), purge_step=iterations + 1)


def write_log(log, iteration, numbers):
    """Log {name: number} of an iteration."""
    for name, number in numbers.items():
        log.add_scalar(name, number, iteration)


def save_weights(network, path):
    """Write the weights and the running averages of batch norm."""

    def write(part):
        # HDF5 crashes where the disk is full: first make sure of the room, that of the arrays and what it adds to each.
        part.write_bytes(bytes(sum(array.nbytes + 4096 for array in network.get_weights())))
        network.save_weights(part)

    write_whole(path, write)


def load_weights(network, path):
    """Read into the network what save_weights wrote."""
    try:
        with warnings.catch_warnings(action="error"):  # as for a layer that the file lacks
            network.load_weights(path)
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this --network for these records" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, or name what training wrote")


def save_checkpoint(network, optimizer, losses, validations, options):
    """Write all that training needs to go on from here."""
    variables = [keras.ops.convert_to_numpy(variable) for variable in network.variables + optimizer.variables]
    texts = {"validations": json.dumps(validations), "options": describe(options)}
    content = io.BytesIO()
    np.savez(content, *variables, losses=losses, **texts)
    write_whole(options.out / CHECKPOINT, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(network, optimizer, options):
    """Set network and optimizer to what save_checkpoint wrote; return losses and validations up to there."""
    path = options.out / CHECKPOINT
    if not path.exists():  # stopped before the end of the first epoch
        return [], []
    try:
        with np.load(path) as state:
            given, losses, validations = str(state["options"]), state["losses"].tolist(), str(state["validations"])
            same, validations = given == describe(options), json.loads(validations)
            if same:
                for i, variable in enumerate(network.variables + optimizer.variables):
                    variable.assign(state[f"arr_{i}"])
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
    with keras.device(DEVICES[options.device]):
        # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
        return network.predict_on_batch(images)


def validate(network, records, names, options):
    """Return the measures over all whole images, and {name: (image, classes, prediction)} of the first of them."""
    pairs, shown = 0, {}
    places = take_turns([len(offsets) for offsets in records.offsets], range(len(records.offsets)))
    for start in tqdm(range(0, len(places), options.batch), "validate", leave=False):
        batch = [records[place] for place in places[start : start + options.batch]]
        logits = predict(network, np.stack([normalise(image) for _, image, _ in batch]), options)
        for (name, image, classes), prediction in zip(batch, logits.argmax(axis=3).astype(np.uint8), strict=True):
            pairs = pairs + count_pairs(classes, prediction, len(names))
            if len(shown) < options.pictures:
                shown[name] = image, classes, prediction
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
