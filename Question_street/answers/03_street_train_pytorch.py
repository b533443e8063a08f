"""Exercise 3, street_train, in PyTorch: train on the records, validate after each epoch, go on after a stop.

New here: MEAN, STD, NUMBERS, LEARNING_RATE, MOMENTUM, FADE, CHOICES, EARLIER, SCALES, CHANNELS, WIDTH, STAGES, RATES,
WEIGHTS, CHECKPOINT, make_batch, make_sample, count_steps, augment, normalise, Batches, start_worker, draw_batches,
to_tensor, UNet, block, DeepLabV3, Bottleneck, ASPP, conv_norm, conv_norm_relu, build_network, compute_loss,
weigh_classes, learning_rate, train, open_log, write_log, save_weights, load_weights, save_checkpoint, load_checkpoint,
describe, tell_apart, predict, validate, count_pairs, measure, paint, read_options, main. As in
01_street_preprocess_pytorch.py: VOID, save_image. All else is as in 02_street_records_pytorch.py.
"""

import argparse
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
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import google_crc32c
import numpy as np
import torch
from PIL import Image
from tensorboardX import SummaryWriter
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from tqdm import tqdm

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
WEIGHTS = "best.pt"  # in --out, of the best mIoU
CHECKPOINT = "checkpoint.pt"  # in --out, where --resume goes on
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


class Records(Dataset):
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


class DeepLabV3(nn.Module):
    """A small DeepLabV3 (arXiv:1706.05587) without auxiliary head and dropout: see Question_voc.

    A ResNet of a block in each stage, which ends at an eighth of the height and width, ASPP, and bilinear upsampling.
    """

    def __init__(self, classes):
        super().__init__()
        self.stem = conv_norm_relu(3, WIDTH, 7, stride=2)
        stages, channels = [], WIDTH
        for wider, stride, dilation in STAGES:
            stages.append(Bottleneck(channels, wider * WIDTH, stride, dilation))
            channels = 4 * wider * WIDTH
        self.stages = nn.Sequential(*stages)
        self.aspp = ASPP(channels, 4 * WIDTH)
        self.head = conv_norm_relu(4 * WIDTH, 4 * WIDTH, 3)
        self.classifier = nn.Conv2d(4 * WIDTH, classes, 1)

    def forward(self, images):
        x = functional.max_pool2d(self.stem(images), 3, stride=2, padding=1)  # a quarter of the height and width
        x = self.classifier(self.head(self.aspp(self.stages(x))))  # an eighth
        return functional.interpolate(x, images.shape[2:], mode="bilinear", align_corners=False)


class Bottleneck(nn.Module):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, in_channels, channels, stride, dilation):
        super().__init__()
        self.narrow = conv_norm_relu(in_channels, channels, 1)
        self.middle = conv_norm_relu(channels, channels, 3, stride, dilation)
        self.widen = conv_norm(channels, 4 * channels, 1)
        self.shortcut = conv_norm(in_channels, 4 * channels, 1, stride)

    def forward(self, x):
        return functional.relu(self.widen(self.middle(self.narrow(x))) + self.shortcut(x))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, in_channels, channels):
        super().__init__()
        branches = [conv_norm_relu(in_channels, channels, 1)]
        branches += [conv_norm_relu(in_channels, channels, 3, dilation=rate) for rate in RATES]
        branches += [conv_norm_relu(in_channels, channels, 1)]
        self.branches = nn.ModuleList(branches)
        self.project = conv_norm_relu(len(branches) * channels, channels, 1)

    def forward(self, x):
        mean = x.mean(dim=(2, 3), keepdim=True)
        branches = [branch(x) for branch in self.branches[:-1]]
        branches.append(self.branches[-1](mean).expand_as(branches[0]))  # the mean of the image, at every pixel
        return self.project(torch.cat(branches, dim=1))


def conv_norm(in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See Question_voc.
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


def conv_norm_relu(in_channels, channels, kernel, stride=1, dilation=1):
    """Return convolution, batch norm and ReLU."""
    return nn.Sequential(*conv_norm(in_channels, channels, kernel, stride, dilation), nn.ReLU())


def build_network(rng, classes, options):
    """Return a network for a number of classes on the device. NumPy draws its weights, so that all four start alike.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the layers; biases are 0.
    """
    network = (UNet if options.network == "unet" else DeepLabV3)(classes)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # PyTorch stores the kernel of a transposed convolution as (in, out, ...): draw both as (out, in, ...).
            weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
            weight.copy_(torch.from_numpy(rng.standard_normal(weight.shape) * np.sqrt(2 / weight[0].numel())))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network.to(options.device, memory_format=torch.channels_last)


def compute_loss(logits, classes, weights):
    """Return softmax cross entropy, the mean over the pixels that are not void, each by the weight of its class.

    logits (batch, class, height, width), classes (batch, height, width), weights (class,).
    """
    total = functional.cross_entropy(logits, classes.long(), weights, ignore_index=VOID, reduction="sum")
    return total / weights[classes[classes != VOID].long()].sum().clamp(min=1)  # all of a batch may be void


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
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=MOMENTUM)
    losses, validations = load_checkpoint(network, optimizer, options) if options.resume else ([], [])
    log = open_log(options.out / "logs", len(losses))
    bar = tqdm(draw_batches(records["train"], len(losses), options), "train", options.iterations, initial=len(losses))
    for iteration, (images, classes) in enumerate(bar, start=len(losses)):
        network.train()
        rate, last_rate = learning_rate(iteration, options), learning_rate(max(iteration - 1, 0), options)
        # PyTorch multiplies the velocity by the current learning rate, the others each gradient by its own step's.
        optimizer.param_groups[0].update(lr=rate, momentum=MOMENTUM * last_rate / rate)  # makes PyTorch match them
        weights = torch.from_numpy(weigh_classes(metrics, iteration, options)).to(options.device)
        loss = compute_loss(network(images), classes, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
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


def load_checkpoint(network, optimizer, options):
    """Set network and optimizer to what save_checkpoint wrote; return losses and validations up to there."""
    path = options.out / CHECKPOINT
    if not path.exists():  # stopped before the end of the first epoch
        return [], []
    try:
        state = torch.load(path, map_location=options.device, weights_only=True)
        same = state["options"] == describe(options)
        if same:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
    except OSError:
        raise
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        stop(f"{path}: not a whole checkpoint: remove it, and train from the start")
    if not same:
        theirs, own = tell_apart(state["options"], describe(options))
        stop(f"--resume: {path} is of a run with {theirs}, and this one has {own}: give the same")
    return state["losses"], state["validations"]


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
    network.eval()  # batch norm by its running averages: a prediction must not depend on the rest of its batch
    with torch.inference_mode():
        logits = network(to_tensor(images, options.device))
    return logits.permute(0, 2, 3, 1).cpu().numpy()


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
    """Let PyTorch compute in FLOAT, and choose the device where it is left open."""
    torch.set_default_dtype(getattr(torch, FLOAT))
    if options.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"


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
