"""Exercise 2, street_records, in PyTorch: pictures and labels in a few TFRecord files, whose sums tell any damage.

New here: NUMBERS, CHOICES, EARLIER, BUFFER, Damaged, find_script, find_stage, find_names, masked_crc,
write_varint, read_varint, make_field, split_fields, make_example, parse_example, write_shard, read_length, read_record,
index_records, read_shard, decode, pack, check_shards, take_turns, draw_order, Records, read_epoch, to_numpy,
count_noticed, read_options, main, __main__. All else is as in 01_street_preprocess_pytorch.py.
"""

import argparse
import bisect
import io
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import google_crc32c
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "shards": (4, range(1, 1001), "files for each split"),
    "flips": (1000, range(10**6), "bits to flip, one at a time, to see whether reading notices"),
    "seed": (0, range(2**63), "of all random numbers"),
}
CHOICES = {"device": ("auto", "cpu", "cuda")}  # the first is the default
EARLIER = "01_street_preprocess"  # the exercise whose output this one reads
SPLITS = ("train", "val")  # the labels of Cityscapes' third, test, are not published
BUFFER = 1000  # records that are shuffled at a time: not all of a large set has to be at hand


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


def find_names(folder, metrics, split):
    """Return the names of the pairs that street_preprocess wrote for a split."""
    images, labels = (
        {path.stem for path in (folder / split / kind).glob("[!.]*.png")} for kind in ("images", "labels")
    )
    if images != labels or len(images) != metrics["images"][split]:
        number = metrics["images"][split]
        stop(f"{folder / split}: holds other pairs than the {number} that were written: run {EARLIER} again")
    return sorted(images)


def masked_crc(data):
    """Return the sum of data as records have it, 4 bytes: its CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def write_varint(number):
    """Return a number from 0 on as a protocol buffer has it: 7 bits a byte, the lowest first, + 128 if more follow."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def read_varint(data, position):
    """Return the number that begins at position, and the position after it."""
    number = shift = 0
    while data[position] > 127:
        number |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return number | data[position] << shift, position + 1


def make_field(number, content):
    """Return a field of a protocol buffer, by its number; the content is bytes (wire type 2), maybe fields again."""
    return write_varint(number << 3 | 2) + write_varint(len(content)) + content


def split_fields(data):
    """Return the fields that data is made of, [(number, content), ...]."""
    fields, position = [], 0
    while position < len(data):
        tag, position = read_varint(data, position)
        length, position = read_varint(data, position)
        fields.append((tag >> 3, data[position : position + length]))
        position += length
    return fields


def make_example(features):
    """Return features, {key: bytes or int from 0 on}, as a tf.train.Example, serialised with its keys sorted.

    Example: 1 Features; Features: 1 entry, any number; entry: 1 key, 2 Feature; Feature: 1 BytesList or 3 Int64List;
    either list: 1 value.
    """
    entries = b""
    for key, value in sorted(features.items()):
        kind, content = (1, value) if isinstance(value, bytes) else (3, write_varint(value))
        feature = make_field(kind, make_field(1, content))
        entries += make_field(1, make_field(1, key.encode()) + make_field(2, feature))
    return make_field(1, entries)


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


def write_shard(path, payloads):
    """Write records: of each the length of its payload in 8 bytes, the sum of these, the payload, the sum of that."""

    def write(part):
        with open(part, "wb") as file:
            for payload in payloads:
                length = struct.pack("<Q", len(payload))
                file.write(length + masked_crc(length) + payload + masked_crc(payload))

    write_whole(path, write)


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


def pack(folder, split, name, size):
    """Return the features of an example, by the keys that TensorFlow's DeepLab has; the PNGs stay as they are."""
    paths = [folder / split / kind / f"{name}.png" for kind in ("images", "labels")]
    image, labels = (path.read_bytes() for path in paths)
    features = {"image/encoded": image, "image/filename": name.encode(), "image/format": b"png"}
    features |= {"image/height": size[0], "image/width": size[1]}
    features |= {"image/segmentation/class/encoded": labels, "image/segmentation/class/format": b"png"}
    try:
        sizes = [list(array.shape[:2]) for array in decode(features)[1:]]
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        stop(f"{paths[0]}, or its labels: {error}: remove both, and run {EARLIER} again")
    if sizes != [size, size]:
        stop(f"{paths[0]}, or its labels: not {size} in size: remove both, and run {EARLIER} again")
    return features


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


def read_epoch(paths, epoch, options):
    """Yield the examples of an epoch in their order: name, image (height, width, 3), classes, both on the device."""
    records = Records(paths)
    _, order = draw_order([len(offsets) for offsets in records.offsets], options.seed, epoch)
    for name, image, classes in DataLoader(records, batch_size=None, sampler=order):
        yield name, image.to(options.device), classes.to(options.device)


def to_numpy(tensor):
    """Return a tensor as an array."""
    return tensor.cpu().numpy()


def count_noticed(path, flips, rng):
    """Flip one bit of a shard, as many times another; return how often reading noticed it and named the record."""
    data, noticed = bytearray(path.read_bytes()), 0
    offsets = list(itertools.accumulate((16 + len(payload) for payload in read_shard(path)), initial=0))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        for _ in tqdm(range(flips), "flip bits"):
            place, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
            data[place] ^= bit
            copy.write_bytes(data)
            data[place] ^= bit
            offset = offsets[bisect.bisect_right(offsets, place) - 1]
            try:
                sum(1 for _ in read_shard(copy))
            except Damaged as error:
                noticed += str(error).startswith(f"{copy}: the record at byte {offset} ")
    return noticed


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
    """Let PyTorch compute in FLOAT, and choose the device where it is left open."""
    torch.set_default_dtype(getattr(torch, FLOAT))
    if options.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    source = find_stage(options.data, EARLIER, "colours_read")
    names = {split: find_names(options.data, source, split) for split in SPLITS}
    metrics = {"answer": Path(__file__).stem, "options": {name: str(value) for name, value in vars(options).items()}}
    metrics |= {name: source[name] for name in ("level", "size", "classes", "colours")}
    metrics |= {"pixels": source["pixels"]["train"], "shards": {split: [] for split in SPLITS}}

    for old in (options.out / "metrics.json", *options.out.glob("[!.]*.tfrecord")):
        old.unlink(missing_ok=True)  # a later exercise must not take shards of two runs for those of one
    paths, start, written = {split: [] for split in SPLITS}, time.perf_counter(), 0
    for split in SPLITS:
        order = rng.permutation(names[split])
        for number in tqdm(range(options.shards), f"write {split}"):
            path = options.out / f"{split}-{number:05}-of-{options.shards:05}.tfrecord"
            dealt = order[number :: options.shards].tolist()
            write_shard(path, (make_example(pack(options.data, split, name, source["size"])) for name in dealt))
            shard = {"name": path.name, "records": len(dealt), "bytes": path.stat().st_size}
            metrics["shards"][split].append(shard)
            paths[split].append(path)
            written += shard["bytes"]
    check_shards(options.out, metrics)
    seconds = [time.perf_counter() - start]
    start = time.perf_counter()
    for path in itertools.chain(*paths.values()):
        sum(1 for _ in read_shard(path))
    seconds.append(time.perf_counter() - start)
    total = sum(map(len, names.values()))
    print(f"{total} records, {written / 1e6:.1f} MB, written with {written / seconds[0] / 1e6:.0f} MB/s")
    print(f"read with all sums checked: {written / seconds[1] / 1e6:.0f} MB/s")

    equal = {}
    for split in SPLITS:
        for name, *tensors in tqdm(read_epoch(paths[split], 0, options), f"read {split}", len(names[split])):
            files = (options.data / split / kind / f"{name}.png" for kind in ("images", "labels"))
            arrays = map(to_numpy, tensors)
            equal[name] = all(np.array_equal(a, np.array(Image.open(b))) for a, b in zip(arrays, files, strict=True))
    metrics["equal"], metrics["noticed"] = sum(equal.values()), count_noticed(paths["val"][0], options.flips, rng)
    print(f"read in the order of an epoch, and equal to the files: {metrics['equal']} of {total}")
    print(
        f"bits flipped in {paths['val'][0].name}: {options.flips}; noticed, and the record named: {metrics['noticed']}"
    )
    counts = [shard["records"] for shard in metrics["shards"]["train"]]
    for epoch in range(2):
        places = ", ".join(f"{shard}:{number}" for shard, number in draw_order(counts, options.seed, epoch)[1][:8])
        print(f"epoch {epoch} begins with the records (shard:number) {places}")
    write_metrics(options.out / "metrics.json", metrics)
    print(f"Records are in {options.out}/")


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
