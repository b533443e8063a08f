"""Print what TensorFlow itself makes of records, as JSON, for test_street_data.py: in a process of its own.

    python tests/collect_street.py FOLDER

FOLDER gets random examples as TensorFlow writes them, and shards of unequal length; the reader of the TensorFlow answer
to street_records is tried on shards that are cut off, and on some with a flipped bit.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from conftest import ANSWERS, load

ANSWER = load(ANSWERS["street_records", "tensorflow"])
tf = ANSWER.tf
COUNTS = ([5, 2, 7, 1], [3], [4, 0, 4], [1, 6])
BUFFER = 4  # so that there are several blocks


def draw_features(rng):
    """Return features of random keys: bytes of any length, and numbers up to 2 ** 63 - 1."""
    features = {}
    for number in range(int(rng.integers(1, 6))):
        key = f"{number}/" + "".join(map(chr, rng.integers(97, 123, rng.integers(0, 140)))) + "é" * int(rng.integers(2))
        length, bits = int(rng.choice([0, 1, 20, 127, 128, 300, 20_000])), int(rng.integers(0, 64))
        features[key] = rng.bytes(length) if rng.integers(2) else int(rng.integers(2**63 - 1)) >> bits
    return features


def write_examples(folder):
    """Write a shard of 60 random examples; return their features, bytes as hexadecimal digits."""
    rng = np.random.default_rng(0)
    examples = [draw_features(rng) for _ in range(60)]
    ANSWER.write_shard(folder / "random.tfrecord", map(ANSWER.make_example, examples))
    return [{key: value.hex() if isinstance(value, bytes) else value for key, value in e.items()} for e in examples]


def list_orders(folder):
    """Return the names, shard:number, in the order in which the answer's read_epoch has them, for some epochs."""
    png = tf.io.encode_png(np.zeros((2, 3, 1), np.uint8)).numpy()
    ANSWER.BUFFER, orders = BUFFER, []
    for number, counts in enumerate(COUNTS):
        paths = [folder / f"{number}-{shard}.tfrecord" for shard in range(len(counts))]
        for shard, path in enumerate(paths):
            keys = ("image/encoded", "image/segmentation/class/encoded")
            examples = [
                dict.fromkeys(keys, png) | {"image/filename": f"{shard}:{i}".encode()} for i in range(counts[shard])
            ]
            ANSWER.write_shard(path, map(ANSWER.make_example, examples))
        for epoch in range(3):
            options = SimpleNamespace(seed=7, device="cpu")
            orders.append([counts, epoch, [name for name, _, _ in ANSWER.read_epoch(paths, epoch, options)]])
    return orders


def try_cuts(folder):
    """Return, for each length that a small shard is cut off to, how many records are read, and the message."""
    whole, cut, found = folder / "whole.tfrecord", folder / "cut.tfrecord", []
    ANSWER.write_shard(whole, [b"one", b"", b"three"])
    data = whole.read_bytes()
    for length in range(len(data) + 1):
        cut.write_bytes(data[:length])
        number, message = 0, None
        try:
            for _ in ANSWER.read_shard(cut):
                number += 1
        except ANSWER.Damaged as error:
            message = str(error)
        found.append([number, message])
    return found


def main():
    folder = Path(sys.argv[1])
    found = {"examples": write_examples(folder), "orders": list_orders(folder), "cuts": try_cuts(folder)}
    found["noticed"] = ANSWER.count_noticed(folder / "random.tfrecord", 60, np.random.default_rng(1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
