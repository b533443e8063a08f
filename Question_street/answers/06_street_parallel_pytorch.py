"""Exercise 6, street_parallel, in PyTorch: the training of street_train over several processes, on one curve.

By itself it starts --processes of them on this machine. So do, on one machine or on each of several,

    torchrun --nproc-per-node 2 Question_street/answers/06_street_parallel_pytorch.py
    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29400 Question_street/answers/...

New here: LOST, LOSS, TIMEOUT, NUMBERS, CHOICES, VERSIONS, Stopped, make_batch, AllReduce, BatchNorm, share_norm,
build_network, compute_loss, weigh_batch, train, add_gradients, write_log, load_checkpoint, describe, validate,
predict_records, stop, say, find_place, read_options, set_up, launch, join, follow, give_up, find_patient_group, gather,
stop_all, prepare, agree, main, finish, __main__, __setup__. All else is as in 03_street_train_pytorch.py.
"""

import argparse
import contextlib
import datetime
import functools
import io
import itertools
import json
import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
# Of several processes the one that has started them says so.
STARTED = "STREET_PARALLEL" in os.environ
signal.signal(signal.SIGINT, lambda *_: sys.exit(1 if STARTED else f"{Path(__file__).name}: interrupted"))

import cv2
import google_crc32c
import numpy as np
import PIL
import torch
from PIL import Image
from tensorboardX import SummaryWriter
from torch import distributed, nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from tqdm import tqdm

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
LOST = 3  # the exit status of a process that has lost another
LOSS = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "imed out", "NCCL")  # how it is told
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
EARLIER = "02_street_records"  # the exercise whose output this one reads
WEIGHTS = "best.pt"  # in --out, of the best mIoU
CHECKPOINT = "checkpoint.pt"  # in --out, where --resume goes on
SPLITS = ("train", "val")  # the labels of Cityscapes' third, test, are not published
BUFFER = 1000  # records that are shuffled at a time: not all of a large set has to be at hand
SCALES = (1, 1.25)  # an image is enlarged by a number between these
CHANNELS = (16, 32, 64, 128, 256)  # of U-Net at each size
VERSIONS = {"PyTorch": torch.__version__, "NumPy": np.__version__, "OpenCV": cv2.__version__, "Pillow": PIL.__version__}


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


class Records(Dataset):
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


class Batches(IterableDataset):
    """The batches of a training from an iteration on, in their order; of N workers each makes every N-th.

    Every worker has a copy of the dataset. If each went through all of it, every batch would come N times.
    """

    def __init__(self, records, first, options):
        self.records, self.first, self.options = records, first, options

    def __iter__(self):
        worker = get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for iteration in range(self.first + start, self.options.iterations, step):
            yield make_batch(self.records, iteration, self.options)


def start_worker(_):
    """Let a worker ignore Ctrl-C, which a terminal sends to it too: the main process ends in one line, for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = lambda *_: None  # of the thread that hands tensors over, should the main process end meanwhile
    cv2.setNumThreads(0)  # a process has no threads but its own after a fork, and needs none


def draw_batches(records, first, options):
    """Yield batches on the device, from an iteration on: images (batch, 3, size, size), classes (batch, size, size)."""
    batches = Batches(records, first, options)
    loader = DataLoader(batches, batch_size=None, num_workers=options.workers, worker_init_fn=start_worker)
    try:
        for images, classes in loader:  # which takes from its workers in turn
            # The permuted view leaves the bytes where they are: that is torch.channels_last, faster on a CPU.
            yield images.permute(0, 3, 1, 2).to(options.device), classes.to(options.device)
    except Damaged as error:  # a worker's has its whole traceback for a message
        raise Damaged(str(error).strip().rpartition("Damaged: ")[2]) from None


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor (batch, channels, height, width) on the device."""
    # The permuted view leaves the bytes where they are: that is torch.channels_last, the faster layout on a CPU.
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)


class UNet(nn.Module):
    """U-Net with padding: images (batch, 3, height, width), sides multiples of 16, to logits (batch, class, ...)."""

    def __init__(self, classes):
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for in_channels, channels in itertools.pairwise((3, *CHANNELS)):
            self.encoder.append(block(in_channels, channels))
        for in_channels, channels in itertools.pairwise(CHANNELS[::-1]):
            upsample = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
            self.decoder.append(nn.Sequential(upsample, nn.BatchNorm2d(channels), nn.ReLU()))
            self.decoder.append(block(2 * channels, channels))
        self.classifier = nn.Conv2d(CHANNELS[0], classes, 1)

    def forward(self, x):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(encode(x))
            x = functional.max_pool2d(skips[-1], 2)  # half the height and width, and next twice the channels
        x = self.encoder[-1](x)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = torch.cat([skips.pop(), upsample(x)], dim=1)  # twice the height and width
            x = decode(x)
        return self.classifier(x)


def block(in_channels, channels):
    """Return two times conv(3) + BatchNorm + ReLU; it keeps the size."""
    return nn.Sequential(*conv_norm_relu(in_channels, channels, 3), *conv_norm_relu(channels, channels, 3))


def conv_norm(in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See Question_voc.
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class AllReduce(torch.autograd.Function):
    """The sum over all processes, in each. So is its gradient: what a process adds counts in the losses of all."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return AllReduce.forward(ctx, gradient)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm (arXiv:1502.03167) over the images of all processes. nn.SyncBatchNorm does so, but refuses a CPU."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        count = AllReduce.apply(torch.full((), x.numel() / x.shape[1]))
        mean = AllReduce.apply(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = AllReduce.apply(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (variance * count / (count - 1) - self.running_var)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


def conv_norm_relu(in_channels, channels, kernel, stride=1, dilation=1):
    """Return convolution, batch norm and ReLU."""
    return nn.Sequential(*conv_norm(in_channels, channels, kernel, stride, dilation), nn.ReLU())


def share_norm(network, options):
    """Return a network whose batch norm is over the images of all processes."""
    if options.device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for layer in [layer for layer in network.modules() if isinstance(layer, nn.Sequential)]:
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(layer, name, BatchNorm(child.num_features))
    return network


def build_network(rng, classes, options):
    """Return a network for a number of classes on the device. NumPy draws its weights, so that all four start alike.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the layers; biases are 0.
    """
    network = UNet(classes)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # PyTorch stores the kernel of a transposed convolution as (in, out, ...): draw both as (out, in, ...).
            weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
            weight.copy_(torch.from_numpy(rng.standard_normal(weight.shape) * np.sqrt(2 / weight[0].numel())))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if options.norm == "all":
        network = share_norm(network, options)
    return network.to(options.device, memory_format=torch.channels_last)


def compute_loss(logits, classes, weights, total):
    """Return softmax cross entropy over the pixels that are not void, each by the weight of its class, over total.

    logits (share, class, height, width), classes (share, height, width), weights (class,). With the total of
    weigh_batch the losses of all processes and parts add up to the mean over the batch. (The mean of their means would
    be another number: one process's images have more void than another's.)
    """
    return functional.cross_entropy(logits, classes.long(), weights, ignore_index=VOID, reduction="sum") / total


def weigh_batch(classes, weights):
    """Return the weights of the pixels that are not void, summed over all processes, of which each has its classes."""
    total = weights[classes[classes != VOID].long()].sum()
    distributed.all_reduce(total)
    return total.clamp(min=1)  # all of a batch may be void


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

    Each process computes the gradients of its share of the batch, DistributedDataParallel adds up those of all, and all
    take the same step: their weights stay the same. state is what load_checkpoint returned, to go on from. At the end
    of each epoch the network is validated. If its mIoU is the best so far, its weights are kept; and what training
    needs to go on from there is kept in any case, by process 0.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=MOMENTUM)
    losses, validations = [], []
    if state:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        losses, validations = state["losses"], state["validations"]
    parallel = DistributedDataParallel(network, forward_sync_buffers=False)  # they are alike as it is
    log = open_log(options.out / "logs", len(losses)) if options.rank == 0 else None
    batches = draw_batches(records["train"], len(losses), options)
    bar = tqdm(batches, "train", options.iterations, initial=len(losses), disable=options.rank > 0)
    for iteration, (images, classes) in enumerate(bar, start=len(losses)):
        network.train(options.norm != "none")
        rate, last_rate = learning_rate(iteration, options), learning_rate(max(iteration - 1, 0), options)
        # PyTorch multiplies the velocity by the current learning rate, the others each gradient by its own step's.
        optimizer.param_groups[0].update(lr=rate, momentum=MOMENTUM * last_rate / rate)  # makes PyTorch match them
        weights = torch.from_numpy(weigh_classes(metrics, iteration, options)).to(options.device)
        optimizer.zero_grad()
        losses.append(add_gradients(parallel, images, classes, weights, options))
        optimizer.step()
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
    distributed.destroy_process_group()  # what is left process 0 does alone
    return losses, validations


def add_gradients(parallel, images, classes, weights, options):
    """Add to the gradients of the network those of the whole batch, of which this is a share; return the batch's loss.

    The share is taken in --accumulate parts, of which only one at a time must fit into the memory.
    """
    total, loss = weigh_batch(classes, weights), torch.zeros((), device=options.device)
    for number in range(options.accumulate):
        mine = np.s_[number :: options.accumulate]
        # With the last part the gradients, those of the parts before in them, go to the other processes.
        with contextlib.nullcontext() if number == options.accumulate - 1 else parallel.no_sync():
            part = compute_loss(parallel(images[mine]), classes[mine], weights, total)
            (options.processes * part).backward()  # DistributedDataParallel divides the sum by the number of processes
        loss += part.detach()
    distributed.all_reduce(loss)
    return loss.item()


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
    content = io.BytesIO()  # in memory first, since torch.save reports a full disk by an error that names no file
    torch.save(network.state_dict(), content)
    write_whole(path, lambda part: part.write_bytes(content.getvalue()))


def load_weights(network, path):
    """Read into the network what save_weights wrote."""
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this --network for these records" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, or name what training wrote")


def save_checkpoint(network, optimizer, losses, validations, options):
    """Write all that training needs to go on from here."""
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    content = io.BytesIO()
    torch.save(state | {"validations": validations, "options": describe(options)}, content)
    write_whole(options.out / CHECKPOINT, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(options):
    """Return what save_checkpoint wrote, or None where training was stopped before the end of the first epoch."""
    path = options.out / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        described = state["options"]
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
    network.eval()  # batch norm by its running averages: a prediction must not depend on the rest of its batch
    with torch.inference_mode():
        logits = network(to_tensor(images, options.device))
    return logits.permute(0, 2, 3, 1).cpu().numpy()


def validate(network, records, names, options):
    """Return the measures over all whole images, of which each process predicts every N-th."""
    pairs = torch.zeros((len(names), len(names)), dtype=torch.long)
    places = take_turns([len(offsets) for offsets in records.offsets], range(len(records.offsets)))
    places = places[options.rank :: options.processes]
    for start in tqdm(range(0, len(places), options.batch), "validate", leave=False, disable=options.rank > 0):
        for _, _, classes, prediction in predict_records(
            network, records, places[start : start + options.batch], options
        ):
            pairs += torch.from_numpy(count_pairs(classes, prediction, len(names)))
    pairs = pairs.to(options.device)
    distributed.all_reduce(pairs)  # a sum over the set: measures of parts, averaged, would be others
    return measure(pairs.cpu().numpy(), names)


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
    """Return the rank of this process and the number of all, as a launcher has told it; None where none has."""
    if "RANK" not in os.environ:
        return None
    rank, number = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if not (rank.isdecimal() and number.isdecimal() and int(rank) < int(number)):
        stop(f"RANK={rank} WORLD_SIZE={number}: give both, the first below the second, or neither: torchrun sets them")
    return int(rank), int(number)


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
    """Let PyTorch compute in FLOAT, and choose the device where it is left open."""
    torch.set_default_dtype(getattr(torch, FLOAT))
    if options.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    if options.device == "auto":  # each process of a machine takes a GPU of its own
        number = int(os.environ.get("LOCAL_WORLD_SIZE", options.processes))
        options.device = "cuda" if torch.cuda.device_count() >= number else "cpu"


def launch(options):
    """Run this script in several processes on this machine, as torchrun does, and end as they do."""
    os.environ["STREET_PARALLEL"] = "started"
    threads = max(1, (os.cpu_count() or 1) // options.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # each would take all cores, and they disturb each other
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it has twenty lines to say of a failure
    config = {"run_id": Path(__file__).stem, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    try:
        elastic_launch(
            LaunchConfig(1, 1, options.processes, max_restarts=0, logs_specs=DefaultLogsSpecs(), **config),
            sys.executable,
        )(*sys.orig_argv[1:])
    except SignalException:
        sys.exit(f"{Path(__file__).name}: interrupted")
    except ChildFailedError as error:
        # One fails first. Of the others, some notice by themselves, and some are ended.
        ends = {rank: failure.exitcode for rank, failure in error.failures.items()}
        rank, status = min(ends.items(), key=lambda item: item[1] in (LOST, -signal.SIGTERM))
        if status != 2:  # with 2 it has said why
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            print(file=sys.stderr)  # below a progress bar
            say(f"process {rank} of {options.processes} {how}, and so the others were: go on with --resume")
        raise SystemExit(2 if status == 2 else 1) from None


def join(options):
    """Let this process be one of the group that torchrun has started, or be alone."""
    if options.device == "cuda":
        local, number = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= number:
            stop(f"--device cuda: {number} GPUs for {local + 1} or more processes: start as many as there are GPUs")
        torch.cuda.set_device(local)
    backend, wait = "nccl" if options.device == "cuda" else "gloo", datetime.timedelta(seconds=TIMEOUT)
    if not find_place():
        store = distributed.HashStore()
        return distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=follow, daemon=True).start()
    timer = threading.Timer(2 * TIMEOUT, give_up)  # gloo can wait for ever for a machine that it cannot reach
    timer.start()
    try:
        store, rank, number = next(distributed.rendezvous("env://", timeout=wait))
        # After a restart torchrun's store still has the addresses of the processes that were ended.
        store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=number, timeout=wait)
        find_patient_group()
    except (ValueError, RuntimeError) as error:
        place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = str(error).splitlines()[0]
        fix = "name a free port of the first machine, their network by GLOO_SOCKET_IFNAME, and start all processes"
        stop(f"MASTER_ADDR:MASTER_PORT {place}: {reason}: {fix}")
    finally:
        timer.cancel()


def follow():
    """End this process where the one that has started it was ended: nobody would know of it any more."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(LOST)


def give_up():
    """End this process, which waits for others and cannot be stopped."""
    say(
        f"the others have not met within {2 * TIMEOUT} seconds: start all, and name their network by GLOO_SOCKET_IFNAME"
    )
    os._exit(LOST)


@functools.cache
def find_patient_group():
    """Return all processes as a group that waits for an hour: one may still be reading its records."""
    return distributed.new_group(backend="gloo", timeout=datetime.timedelta(hours=1))


def gather(thing):
    """Return what each process gives, in the order of their ranks."""
    things = [None] * distributed.get_world_size()
    distributed.all_gather_object(things, thing, group=find_patient_group())
    return things


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
