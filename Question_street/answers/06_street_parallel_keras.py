"""Exercise 6, street_parallel, in Keras: the training of street_train over several processes, on one curve.

By itself it starts --processes of them on this machine. On one machine or several, TF_CONFIG tells each of them the
addresses of all, and its own place among these:

    export TF_CONFIG='{"cluster": {"worker": ["HOST:29400", "OTHER:29400"]}, "task": {"type": "worker", "index": 0}}'
    python Question_street/answers/06_street_parallel_keras.py

Each has one device. With --device cuda it is the GPU of its number among the processes of its machine.

New here: __setup__, __setup_2__, LOST, LOSS, TIMEOUT, NUMBERS, CHOICES, VERSIONS, Stopped, make_batch, all_reduce,
BatchNorm, build_network, compute_loss, weigh_batch, train, make_step, write_log, load_checkpoint, describe, validate,
predict_records, stop, say, find_place, read_cluster, read_options, set_up, launch, meet, join, follow, gather,
stop_all, prepare, agree, main, finish, __main__. All else is as in 03_street_train_keras.py.
"""

import argparse
import collections
import contextlib
import functools
import importlib.util
import io
import itertools
import json
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
# Of several processes the one that has started them says so.
STARTED = "STREET_PARALLEL" in os.environ
signal.signal(signal.SIGINT, lambda *_: sys.exit(1 if STARTED else f"{Path(__file__).name}: interrupted"))

import cv2
import google_crc32c
import numpy as np
import PIL
from PIL import Image
from tensorboardX import SummaryWriter
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if BACKEND != "tensorflow" or not importlib.util.find_spec(BACKEND):
    message = "tf.distribute works with TensorFlow alone: set it to tensorflow, and install that"
    print(f"{Path(__file__).name}: KERAS_BACKEND={BACKEND}: {message}", file=sys.stderr)
    raise SystemExit(2)
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import keras
    import tensorflow as tf
finally:
    os.dup2(stderr, 2)
from keras import layers

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
LOST = 3  # the exit status of a process that has lost another
LOSS = ("Collective ops is aborted", "sending heartbeats", "failed to connect", "ocket closed")  # how it is told
TIMEOUT = 60  # seconds that a process waits for the others before it takes one of them for dead
VOID = 255  # the index of pixels that count for nothing; as train id: evaluation ignores this label
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (1400, range(1, 10**6), "training steps"),
    "batch": (4, range(2, 4097), "images in a batch, of all processes together"),
    "size": (128, range(32, 2049, 16), "height and width of the crops"),  # U-Net halves them four times
    "pictures": (16, range(10**6), "validation images to write a picture of"),
    "processes": (2, range(1, 4097), "that train, where this script starts them; 1 for this one alone"),
    "accumulate": (1, range(1, 4097), "parts in which a process takes its share of a batch, one after another"),
    "workers": (1, range(65), "processes or threads that read ahead for each of them; 0 for none"),
    "seed": (0, range(2**63), "of all random numbers"),
}
LEARNING_RATE = 0.1  # at its peak, by default
MOMENTUM = 0.9
FADE = 0.75  # by how much of their logarithms the weights of classes have fallen in the end
CHOICES = {  # the first is the default
    "norm": ("all", "own", "none"),  # batch norm over the images of all processes, over its own, or none
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
VERSIONS = {
    "TensorFlow": tf.__version__,
    "Keras": keras.__version__,
    "NumPy": np.__version__,
    "OpenCV": cv2.__version__,
    "Pillow": PIL.__version__,
}


class Stopped(Exception):
    """What ends the run, in one line that names the file or option and the fix."""


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
    """Return a process's share of the batch of an iteration, from 0 on, which others make the rest of.

    Images (share, size, size, 3), classes (share, size, size) uint8. Of N processes each takes every N-th of the batch.
    """
    epoch, step = divmod(iteration, count_steps(records, options))
    _, order = draw_order([len(offsets) for offsets in records.offsets], options.seed, epoch)
    places = range(step * options.batch, (step + 1) * options.batch)[options.rank :: options.processes]
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


def conv_norm(x, channels, kernel, initializer, stride=1, dilation=1):
    """Apply a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    if stride > 1:  # padding on all sides alike: "same" would not do so at stride 2; see Question_voc
        x = layers.ZeroPadding2D(kernel // 2)(x)
    settings = {"dilation_rate": dilation, "use_bias": False, "kernel_initializer": initializer}
    return BatchNorm()(layers.Conv2D(channels, kernel, stride, "valid" if stride > 1 else "same", **settings)(x))


def all_reduce(x):
    """Return the sum of x over all processes, in each. So is its gradient: what a process adds counts in all losses."""
    return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))  # it refuses a function's arguments


class BatchNorm(layers.BatchNormalization):
    """Batch normalisation (arXiv:1502.03167) with running averages that move by a tenth each step in training.

    If synchronized, it is over the images of all processes. Keras's own differs where it counts little: it subtracts
    the square of the mean from the mean of the squares, which loses digits, and its running variance is biased.
    """

    def call(self, x, training=None):
        mean, variance = self.moving_mean, self.moving_variance
        if training and self.trainable:
            add = all_reduce if self.synchronized else tf.identity
            count = add(keras.ops.cast(keras.ops.size(x) / x.shape[3], FLOAT))
            mean = add(keras.ops.sum(x, axis=(0, 1, 2))) / count
            variance = add(keras.ops.sum(keras.ops.square(x - mean), axis=(0, 1, 2))) / count
            self.moving_mean.assign_add(0.1 * (mean - self.moving_mean))
            unbiased = variance * count / (count - 1)  # as in PyTorch
            self.moving_variance.assign_add(0.1 * (unbiased - self.moving_variance))
        return keras.ops.batch_normalization(x, mean, variance, -1, self.beta, self.gamma, 1e-5)


def conv_norm_relu(x, channels, kernel, initializer, stride=1, dilation=1):
    """Apply convolution, batch norm and ReLU."""
    return layers.ReLU()(conv_norm(x, channels, kernel, initializer, stride, dilation))


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
    inputs = keras.Input((None, None, 3))  # height and width are left open
    network = keras.Model(inputs, unet(inputs, classes, functools.partial(draw_kernel, rng)))
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.synchronized = options.norm == "all"
    # For predict_on_batch: Keras's own function would wait for the logits of all processes, and put them together.
    network.predict_function = tf.function(lambda batches: network.predict_step(batches[0]), reduce_retracing=True)
    return network


def compute_loss(logits, classes, weights, total):
    """Return softmax cross entropy over the pixels that are not void, each by the weight of its class, over total.

    logits (share, height, width, class), classes (share, height, width), weights (class,). With the total of
    weigh_batch the losses of all processes and parts add up to the mean over the batch. (The mean of their means would
    be another number: one process's images have more void than another's.)
    """
    valid = keras.ops.not_equal(classes, VOID)
    labels = keras.ops.cast(keras.ops.where(valid, classes, 0), "int32")
    factors = keras.ops.where(valid, keras.ops.take(weights, labels), 0)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return keras.ops.sum(factors * losses) / total


def weigh_batch(classes, weights):
    """Return the weights of the pixels that are not void, summed over all processes, of which each has its classes."""
    valid = keras.ops.not_equal(classes, VOID)
    factors = keras.ops.take(weights, keras.ops.cast(keras.ops.where(valid, classes, 0), "int32"))
    total = all_reduce(keras.ops.sum(keras.ops.where(valid, factors, 0)))
    return keras.ops.maximum(total, 1)  # all of a batch may be void


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


def train(network, records, metrics, state, options):
    """Train by stochastic gradient descent with momentum; return the losses, and what each validation measured.

    Each process computes the gradients of its share of the batch, the optimizer adds up those of all, and all take the
    same step: their weights stay the same. state is what load_checkpoint returned, to go on from. At the end of each
    epoch the network is validated. If its mIoU is the best so far, its weights are kept; and what training needs to go
    on from there is kept in any case, by process 0.
    """
    # Of NumPy's type, since Keras on TensorFlow casts a Python float by way of float32, where 0.9 is 2.6e-8 off.
    optimizer = keras.optimizers.SGD(options.lr, momentum=np.float64(MOMENTUM))
    optimizer.build(network.trainable_variables)
    losses, validations = [], []
    if state:
        losses, validations = state["losses"].tolist(), json.loads(str(state["validations"]))
        for i, variable in enumerate(network.variables + optimizer.variables):
            variable.assign(state[f"arr_{i}"])
    step = make_step(network, optimizer, options)
    log = open_log(options.out / "logs", len(losses)) if options.rank == 0 else None
    batches = draw_batches(records["train"], len(losses), options)
    bar = tqdm(batches, "train", options.iterations, initial=len(losses), disable=options.rank > 0)
    for iteration, (images, classes) in enumerate(bar, start=len(losses)):
        optimizer.learning_rate = rate = learning_rate(iteration, options)
        weights = to_tensor(weigh_classes(metrics, iteration, options), options.device)
        losses.append(step(images, classes, weights))
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            message = f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one"
            stop_all(message, options)
        write_log(log, iteration + 1, {"train/loss": losses[-1], "train/learning_rate": rate})
        if len(losses) % count_steps(records["train"], options) == 0 or len(losses) == options.iterations:
            measures = validate(network, records["val"], metrics["classes"], options)
            validations.append({"iteration": len(losses), **measures})
            write_log(log, iteration + 1, {f"val/{name}": measures[name] for name in ("miou", "pixel_accuracy")})
            if options.rank == 0:
                if measures["miou"] == max(each["miou"] for each in validations):
                    save_weights(network, options.out / WEIGHTS)
                log.flush()  # what is logged up to here will not be logged again
                save_checkpoint(network, optimizer, losses, validations, options)
    if log:
        log.close()
    return losses, validations


def make_step(network, optimizer, options):
    """Return a function that takes a share of a batch, makes the step of the whole batch, and returns its loss.

    The share is taken in --accumulate parts, of which only one at a time must fit into the memory.
    """
    run, variables = tf.distribute.get_strategy().run, network.trainable_variables
    # Compiled once, though parts may differ in size: all processes must compile the same, or they wait for each other.
    share = None, options.size, options.size
    types = [tf.TensorSpec((*share, 3), FLOAT), tf.TensorSpec(share, "uint8")]
    types += [tf.TensorSpec(None, FLOAT), tf.TensorSpec((), FLOAT)]

    @tf.function
    def weigh(classes, weights):
        return run(weigh_batch, (classes, weights))

    @tf.function(input_signature=types)
    def differentiate(images, classes, weights, total):
        def compute(images, classes, weights, total):
            with tf.GradientTape() as tape:
                logits = network(images, training=options.norm != "none")
                loss = compute_loss(logits, classes, weights, total)
            return loss, tape.gradient(loss, variables)

        return run(compute, (images, classes, weights, total))

    @tf.function
    def update(loss, gradients):
        def apply(loss, gradients):
            optimizer.apply([tf.identity(each) for each in gradients], variables)  # adds up those of all processes
            return all_reduce(loss)

        return run(apply, (loss, gradients))

    def step(images, classes, weights):
        total, loss, gradients = weigh(classes, weights), 0, [0] * len(variables)
        for number in range(options.accumulate):
            mine = np.s_[number :: options.accumulate]
            part, slopes = differentiate(images[mine], classes[mine], weights, total)
            loss, gradients = loss + part, [a + b for a, b in zip(gradients, slopes, strict=True)]
        return float(update(loss, gradients))

    return step


def open_log(folder, iterations):
    """Return a writer for TensorBoard (`tensorboard --logdir outputs`); what was logged after iterations is void."""
    if not iterations:
        for file in folder.glob("events.out.tfevents.*"):  # of an earlier training
            file.unlink()
    return SummaryWriter(str(folder), purge_step=iterations + 1)


def write_log(log, iteration, numbers):
    """Log {name: number} of an iteration; only process 0 has a log."""
    for name, number in numbers.items() if log else ():
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


def load_checkpoint(options):
    """Return what save_checkpoint wrote, or None where training was stopped before the end of the first epoch."""
    path = options.out / CHECKPOINT
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            state = dict(file)
        described = str(state["options"])
    except OSError:
        raise
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        stop(f"{path}: not a whole checkpoint: remove it, and train from the start")
    theirs, own = tell_apart(described, describe(options))
    if theirs != own:
        stop(f"--resume: {path} is of a run with {theirs}, and this one has {own}: give the same")
    return state


def describe(options):
    """Return, as a text, what decides what training computes: options, and a sum of the records.

    How many processes do it does not, unless batch norm depends on it.
    """
    names = ["lr", "iterations", "batch", "size", "seed", "accumulate", "norm", "weighting"]
    names += ["processes"] if options.norm == "own" or options.norm == "all" and options.accumulate > 1 else []
    return ", ".join([*(f"--{name} {vars(options)[name]}" for name in names), f"records of sum {options.records}"])


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
    """Return the measures over all whole images, of which each process predicts every N-th."""
    pairs = np.zeros((len(names), len(names)), int)
    places = take_turns([len(offsets) for offsets in records.offsets], range(len(records.offsets)))
    places = places[options.rank :: options.processes]
    for start in tqdm(range(0, len(places), options.batch), "validate", leave=False, disable=options.rank > 0):
        for _, _, classes, prediction in predict_records(
            network, records, places[start : start + options.batch], options
        ):
            pairs += count_pairs(classes, prediction, len(names))
    return measure(sum(gather(pairs)), names)  # measures of parts, averaged, would be others


def predict_records(network, records, places, options):
    """Return name, image, classes and prediction of each of some records, [(shard, number), ...]."""
    batch = [records[place] for place in places]
    logits = predict(network, np.stack([normalise(image) for _, image, _ in batch]), options)
    return [(*each, found) for each, found in zip(batch, logits.argmax(axis=3).astype(np.uint8), strict=True)]


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
    """End the run: see Stopped, and the end of this file."""
    raise Stopped(message)


def say(message):
    """Print one line on stderr, not behind a progress bar."""
    tqdm.write(f"{Path(__file__).name}: {message}", file=sys.stderr)


def find_place():
    """Return the rank of this process and the number of all, as TF_CONFIG tells them; None where it is not set."""
    addresses, own = read_cluster()
    return (addresses.index(own), len(addresses)) if own else None


def read_cluster():
    """Return the addresses of all processes, by rank, and that of this one, as TF_CONFIG tells; [], None without it."""
    if "TF_CONFIG" not in os.environ:
        return [], None
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        jobs, task = config["cluster"], config["task"]
        addresses = [*jobs.get("chief", []), *jobs["worker"]]
        own = jobs[task["type"]][int(task["index"])]
        if own not in addresses or not all(int(address.rpartition(":")[2]) for address in addresses):
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        example = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
        stop(f"TF_CONFIG: give it the addresses of all processes, and the place of this one: {example}")
    return addresses, own


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
    options.rank, options.processes = find_place() or (0, options.processes)
    if options.batch < options.processes * options.accumulate:
        parts = f"{options.processes} processes and --accumulate {options.accumulate}"
        stop(f"--batch {options.batch}: fewer images than parts, by {parts}: give a larger one")
    set_up(options)
    return options


def set_up(options):
    """Let Keras compute in FLOAT, whatever the user's keras.json says, and choose the device."""
    tf.get_logger().setLevel("ERROR")  # it has warnings for what is done seldom, and so needs no tf.function
    keras.config.set_floatx(FLOAT)
    keras.config.set_dtype_policy(FLOAT)
    keras.config.set_image_data_format("channels_last")
    gpus = tf.config.list_physical_devices("GPU")
    if options.device == "cuda" and not gpus:
        stop(f"--device cuda: Keras on {BACKEND} sees no GPU: use --device cpu, or install {BACKEND} for a GPU")
    addresses, own = read_cluster()
    ranks = [rank for rank, other in enumerate(addresses) if other.rpartition(":")[0] == own.rpartition(":")[0]]
    number = len(ranks) if own else options.processes
    if options.device == "auto":
        options.device = "cuda" if len(gpus) >= number else "cpu"
    if options.device == "cuda" and number > len(gpus):
        stop(f"--device cuda: {len(gpus)} GPUs for {number} processes: start as many as there are GPUs")
    place = ranks.index(options.rank) if own else 0
    tf.config.set_visible_devices(gpus[place : place + 1] if options.device == "cuda" else [], "GPU")


def launch(options):
    """Run this script in several processes on this machine. Where one fails, end the others, and tell how it ended."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    with contextlib.ExitStack() as stack:  # open at the same time, so that all ports differ
        servers = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(options.processes)]
        addresses = [f"localhost:{server.getsockname()[1]}" for server in servers]
    threads = str(max(1, (os.cpu_count() or 1) // options.processes))  # each would take all, and disturb the others
    defaults = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), threads)
    started = []
    try:
        for rank in range(options.processes):
            place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            environment = defaults | os.environ | {"STREET_PARALLEL": "started", "TF_CONFIG": json.dumps(place)}
            command = [sys.executable, *sys.orig_argv[1:]]
            started.append(subprocess.Popen(command, env=environment))
        while None in [process.poll() for process in started] and not any(process.returncode for process in started):
            time.sleep(0.1)
        ends = {rank: process.returncode for rank, process in enumerate(started) if process.returncode}
    except SystemExit:  # Ctrl-C
        print(file=sys.stderr)  # below a progress bar
        raise
    finally:
        for process in started:
            process.terminate()
        deadline = time.monotonic() + 5
        for process in started:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
    if not ends:
        return
    rank, status = min(ends.items(), key=lambda item: item[1] == LOST)  # one fails first, and others may notice
    if status != 2:  # with 2 it has said why
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        print(file=sys.stderr)  # below a progress bar
        say(f"process {rank} of {options.processes} {how}, and so the others were: go on with --resume")
    raise SystemExit(2 if status == 2 else 1)


def meet(addresses, own):
    """Return when all processes have started; stop where one has not after TIMEOUT seconds, or where a port is in use.

    TensorFlow would wait for an hour, and not hear Ctrl-C. Each calls process 0, which answers when all have done so.
    """
    rank, deadline = addresses.index(own), time.monotonic() + TIMEOUT
    try:
        server = socket.create_server(("", int(own.rpartition(":")[2])), backlog=len(addresses))
    except OSError as error:
        stop(f"TF_CONFIG: {own}: {os.strerror(error.errno)}: give this process a free port of this machine")
    with server, contextlib.ExitStack() as stack:
        missing, callers = set(range(1, len(addresses)) if rank == 0 else [0]), []
        while missing:
            if time.monotonic() > deadline:
                who = addresses[min(missing)] if rank == 0 else f"process 0 at {addresses[0]}, or one that it waits for"
                stop(f"TF_CONFIG: {who}: no answer for {TIMEOUT} seconds: start that process too")
            with contextlib.suppress(OSError, ValueError):  # not there yet, or something else
                if rank == 0:
                    server.settimeout(1)
                    callers.append(stack.enter_context(server.accept()[0]))
                    callers[-1].settimeout(1)
                    missing.discard(int(callers[-1].recv(4)))
                    continue
                host, _, port = addresses[0].rpartition(":")
                with socket.create_connection((host, int(port)), timeout=1) as process_0:
                    process_0.sendall(str(rank).encode())
                    process_0.settimeout(max(1, deadline - time.monotonic()))
                    missing.discard(int(process_0.recv(1)))
            time.sleep(0.1)
        for caller in callers:
            with contextlib.suppress(OSError):
                caller.sendall(b"0")


def join(options):
    """Let this process be one of the group that TF_CONFIG names, or be alone."""
    addresses, own = read_cluster()
    if STARTED:
        threading.Thread(target=follow, daemon=True).start()
    alarm = getattr(signal, "alarm", lambda _: None)  # which Windows has not
    if own:
        meet(addresses, own)
        alarm(TIMEOUT)  # ends this process, should another one have ended since
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        stop(f"TF_CONFIG: {own}: {error.message.splitlines()[0]}: start all processes anew, each with a free port")
    alarm(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow has taken it, and would go on
    tf.distribute.experimental_set_strategy(strategy)  # whose variables are the same in all processes


def follow():
    """End this process where the one that has started it was ended: nobody would know of it any more."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(LOST)


def gather(thing):
    """Return what each process gives, in the order of their ranks."""
    strategy = tf.distribute.get_strategy()
    # TensorFlow gathers tensors, of numbers: those that a thing is as bytes.
    content = np.frombuffer(pickle.dumps(thing), np.uint8).astype(np.int32)
    lengths, contents = (strategy.gather(tf.constant(each), axis=0).numpy() for each in ([len(content)], content))
    parts = np.split(contents.astype(np.uint8), np.cumsum(lengths)[:-1])
    return [pickle.loads(part.tobytes()) for part in parts]


def stop_all(message, options):
    """End all processes, of which each calls this; process 0 says why, before one of them ends."""
    if options.rank == 0:
        say(message)
    with contextlib.suppress(Exception):  # another process may end first, and all has been said
        gather(None)
    raise SystemExit(2)


def prepare(options):
    """Return the metrics and records of the earlier exercise, and the checkpoint to go on from, all checked."""
    if options.resume and options.rank == 0 and (options.out / "metrics.json").exists():
        stop(f"--resume: the training in {options.out} is finished: train anew without it, or name another --out")
    metrics = read_metrics(options.data / "metrics.json")
    if "noticed" not in metrics:
        script = find_script(EARLIER).name
        stop(f"{options.data}: is not there, or not whole: run {script} first, or name its folder by --data")
    check_shards(options.data, metrics)
    records = {split: Records([options.data / shard["name"] for shard in metrics["shards"][split]]) for split in SPLITS}
    if not count_steps(records["train"], options):
        stop(f"--batch {options.batch}: more than the images in {options.data}: give a smaller one")
    if any(length % 16 for length in metrics["size"]):  # U-Net halves the images four times
        stop(f"{options.data}: images of {metrics['size']}: make them of sides that are multiples of 16")
    paths = records["train"].paths + records["val"].paths
    for path in tqdm(paths, "check", leave=False, disable=options.rank > 0):
        for _ in read_shard(path):  # what is damaged should show now, not after minutes
            pass
    keys = ("size", "classes", "pixels", "shards")
    options.records = zlib.crc32(json.dumps([metrics[key] for key in keys]).encode())
    return metrics, records, load_checkpoint(options) if options.resume and options.rank == 0 else None


def agree(options):
    """Return what prepare returns; end all processes where it fails in one of them, or where they are not alike."""
    prepared, problem, alike = None, "", ""
    try:
        prepared = prepare(options)
        own = zlib.crc32(Path(__file__).read_bytes())
        versions = [f"{name} {version}" for name, version in VERSIONS.items()]
        alike = ", ".join([describe(options), f"script of sum {own}", f"FLOAT {FLOAT}", *versions])
    except (Stopped, Damaged, OSError) as error:
        problem = str(error)
    told = gather((socket.gethostname(), problem, alike))
    if problem and all(other == problem for _, other, _ in told):  # nobody needs to know which process
        stop_all(problem, options)
    for rank, (host, other, _) in enumerate(told):
        if other:
            stop_all(f"process {rank} on {host}: {other}", options)
    for rank, (host, _, other) in enumerate(told):
        theirs, first = tell_apart(other, told[0][2])
        if theirs != first:
            stop_all(f"process {rank} on {host} has {theirs}, process 0 has {first}: make them alike", options)
    return prepared


def main():
    options = read_options()
    if not find_place():
        find_stage(options.data, EARLIER, "noticed")  # now, since several processes would all make it
        if options.processes > 1:
            return launch(options)
    join(options)
    metrics, records, state = agree(options)
    state = gather(state)[0]  # other machines need not have the file
    rng = np.random.default_rng(options.seed)
    network = build_network(rng, len(metrics["classes"]), options)
    if options.rank == 0:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, if nothing may be written
        (options.out / "metrics.json").unlink(missing_ok=True)  # of an earlier training, whose weights are replaced now
        if not options.resume:
            (options.out / CHECKPOINT).unlink(missing_ok=True)  # or a later --resume would go on with that training
    losses, validations = train(network, records, metrics, state, options)
    if options.rank == 0:
        finish(network, records, metrics, losses, validations, options)


def finish(network, records, metrics, losses, validations, options):
    """Write the tables and metrics.json, and pictures of what the best weights find; process 0 does so, alone."""
    load_weights(network, options.out / WEIGHTS)
    places = take_turns([len(offsets) for offsets in records["val"].offsets], range(len(records["val"].offsets)))
    for place in places[: options.pictures]:
        [(name, image, classes, prediction)] = predict_records(network, records["val"], [place], options)
        panels = [image, *(paint(each, metrics["colours"]) for each in (classes, prediction))]
        save_image(options.out / "pictures" / f"{name}.png", np.vstack(panels).repeat(2, axis=0).repeat(2, axis=1))
        save_image(options.out / "predictions" / f"{name}.png", paint(prediction, metrics["colours"]))
    rows = [f"{iteration},{loss}\n" for iteration, loss in enumerate(losses, start=1)]
    write_whole(options.out / "loss.csv", lambda part: part.write_text("".join(["iteration,loss\n", *rows])))
    rows = [f"{each['iteration']},{each['miou']},{each['pixel_accuracy']}\n" for each in validations]
    table = "".join(["iteration,miou,pixel_accuracy\n", *rows])
    write_whole(options.out / "validation.csv", lambda part: part.write_text(table))
    measures = dict(max(validations, key=lambda each: each["miou"]))
    best = measures.pop("iteration")
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
    except (Stopped, Damaged) as error:
        say(error)
        raise SystemExit(2) from None
    except OSError as error:  # a folder that may not be written, a full disk
        say(f"{error}: fix that, or name another folder with --data or --out")
        raise SystemExit(2) from None
    except Exception as error:
        if any(words in str(error) for words in LOSS):
            if not STARTED:  # else the process that has started this one tells it
                say("lost another process, which has ended or cannot be reached: go on with --resume")
            raise SystemExit(LOST) from None
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        say("out of memory: give smaller numbers, or free some memory")
        raise SystemExit(2) from None
