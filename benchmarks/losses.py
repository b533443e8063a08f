"""Class weights and Dice against plain cross entropy: the network of bin_test trained with each, over several seeds.

    python benchmarks/losses.py [--seeds 3] [--iterations N] [--device auto] [--out Question_semaseg/assets/losses.json]

Each run is the PyTorch answer's own functions at its defaults, only compute_loss is another. The table tells the mean
over the seeds on the test pictures and, if there are several, the standard deviation; --out gets every number. At the
defaults that is twelve runs of half a minute or so.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import fingerprints  # noqa: E402
from exercises import answer_path  # noqa: E402
from exercises import load_answer as load_from  # noqa: E402

MEASURES = {"miou": "mIoU", "iou_newt": "IoU of newt", "recall": "recall", "precision": "precision"}


def stop(message):
    """End with one line and status 2."""
    print(f"losses.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def load_answer():
    """Return a fresh copy of the answer as a module, so that its compute_loss can be replaced."""
    return load_from(answer_path("bin_test", "pytorch"))


def class_weighted(newt_share):
    """Return cross entropy in which both classes weigh the same in total, though one has more pixels."""
    of_background, of_newt = 0.5 / (1 - newt_share), 0.5 / newt_share

    def compute_loss(logits, targets):
        weights = torch.where(targets == 1, of_newt, of_background)
        return functional.binary_cross_entropy_with_logits(logits, targets.float(), weights)

    return compute_loss


def dice(logits, targets):
    """Return 1 - 2 x overlap / (newt found + newt there) over the batch, the 1s keeping it from 0 / 0."""
    probabilities, targets = torch.sigmoid(logits), targets.float()
    overlap = (probabilities * targets).sum()
    return 1 - (2 * overlap + 1) / (probabilities.sum() + targets.sum() + 1)


def make_losses(plain, newt_share):
    """Return {name: compute_loss}; plain is the answer's own."""
    return {
        "cross entropy": plain,
        "class-weighted cross entropy": class_weighted(newt_share),
        "Dice": dice,
        "cross entropy + Dice": lambda logits, targets: plain(logits, targets) + dice(logits, targets),
    }


def measure(answer, logits, targets):
    """Return the measures of logits (pictures, height, width, 1) against targets (pictures, height, width)."""
    predictions = (logits[..., 0] >= 0).astype(np.uint8)  # a probability from 0.5 up
    measures = answer.measure(predictions, targets)
    overlap = int((predictions & targets).sum())
    return {
        "miou": measures["miou"],
        "iou_newt": measures["iou"]["newt"],
        "recall": overlap / max(int(targets.sum()), 1),  # of the newt that is there, how much was found
        "precision": overlap / max(int(predictions.sum()), 1),  # of what was found, how much is newt
    }


def main():
    answer = load_answer()
    answer.stop = stop  # so that a line about a folder bears this script's name
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (%(default)s of them)")
    parser.add_argument("--iterations", type=int, help="steps of training (the answer's default)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "Dataset", help="folder with train/ and test/")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "Question_semaseg/assets/losses.json", help="(%(default)s)"
    )
    asked = parser.parse_args()
    for name in ("seeds", "iterations"):
        if vars(asked)[name] is not None and vars(asked)[name] < 1:
            stop(f"--{name} {vars(asked)[name]}: give a whole number from 1 up")
    sys.argv = [
        __file__,
        "--device",
        asked.device,
        *(["--iterations", str(asked.iterations)] if asked.iterations else []),
    ]
    options = answer.read_options()
    _, images, targets = answer.load_newts(asked.data / "train", options.size)
    _, test_images, test_targets = answer.load_newts(asked.data / "test", options.size)
    newt_share = float(targets.mean())
    found = {}
    for name, compute_loss in make_losses(answer.compute_loss, newt_share).items():
        answer.compute_loss = compute_loss  # the answer's train looks it up at each step
        found[name] = []
        for seed in range(asked.seeds):
            print(f"{name}, seed {seed}", flush=True)
            rng = np.random.default_rng(seed)
            network = answer.build_network(rng, options)
            answer.train(network, images, targets, options, rng)
            found[name].append(measure(answer, answer.predict_augmented(network, test_images, options), test_targets))

    print(f"| loss | {' | '.join(MEASURES.values())} |")
    print("|---" * (1 + len(MEASURES)) + "|")
    for name, runs in found.items():
        row = []
        for key in MEASURES:
            values = [run[key] for run in runs]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            row.append(f"{statistics.mean(values):.3f}{spread}")
        print(f"| {name} | {' | '.join(row)} |")
    print(f"{newt_share:.1%} of the training pixels are newt; {options.iterations} iterations, {asked.seeds} seed(s)")
    written = fingerprints.describe("bin_test") | {"iterations": options.iterations, "newt_share": newt_share}
    answer.write_whole(asked.out, lambda part: part.write_text(json.dumps(written | {"runs": found}, indent=1) + "\n"))
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
