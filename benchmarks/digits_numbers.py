"""Measure the numbers that the lesson of the digits names: what epsilon, log(p + 1e-13), dropout and channels do.

    python benchmarks/digits_numbers.py           all; Question_digits/assets/ways.json gets what each way to train gave
    python benchmarks/digits_numbers.py --short   only what takes no training of 500 steps; prints, writes nothing

All in PyTorch, on the digits and photographs of scikit-learn.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import fingerprints  # noqa: E402
from exercises import answer_path  # noqa: E402
from exercises import load_answer as load_from  # noqa: E402

WAYS = {  # how training differs from the answer's defaults
    "as given": {},
    "keep 0.9": {"keep": 0.9},
    "no dropout": {"keep": 1.0},
    "twice the channels": {"channels": [20, 24, 16]},
    "four times the channels": {"channels": [40, 48, 32]},
    "log(p + 1e-13)": {"loss": "clipped"},
}


def load_answer():
    """Return the answer as a module, and its options at their defaults."""
    answer = load_from(answer_path("digits_cnn", "pytorch"))
    sys.argv = [answer.__file__, "--device", "cpu"]
    return answer, answer.read_options()


def clipped_loss(logits, targets):
    """Return binary cross entropy of probabilities, 1e-13 added to each before its logarithm."""
    p, t = torch.sigmoid(logits), targets.float()
    return -(t * torch.log(p + 1e-13) + (1 - t) * torch.log(1 - p + 1e-13)).mean()


def measure_log(answer):
    """Print loss and gradient of a pixel that is more and more wrong, from logits and with 1e-13."""
    pixels = [(0, logit) for logit in (5, 10, 15, 16, 17, 20, 40, 100)]
    for target, logit in [*pixels, *((1, -logit) for _, logit in pixels), (1, -30)]:
        numbers = []
        for loss in (answer.compute_loss, clipped_loss):
            x = torch.full((1, 1, 1, 1), float(logit), requires_grad=True)
            value = loss(x, torch.full((1, 1, 1, 1), target))
            value.backward()
            numbers += [value.item(), x.grad.item()]
        text = "{:.6f}, gradient {:.6f}; with 1e-13 {:.6f}, gradient {:.6f}".format(*numbers)
        print(f"{('background', 'digit')[target]} at logit {logit}: loss {text}")


def measure_epsilon(answer, options, steps=100):
    """Print how far the curve moves when epsilon stands elsewhere or is another, against a training as given."""
    data = answer.load_data(options)
    exam = answer.make_pictures(*data["test"], 2, np.random.default_rng(0))
    options = argparse.Namespace(**vars(options) | {"iterations": steps})
    original = torch.optim.Adam.step
    curves = {}
    for name, epsilon in (
        ("1e-8 beside the uncorrected root: the answers", None),
        ("1e-8 beside the corrected root: PyTorch unless told", lambda step: 1e-8),
        ("1e-7 beside the uncorrected root: Keras unless told", lambda step: 1e-7 / math.sqrt(1 - 0.999**step)),
    ):
        count = 0

        def step(self, closure=None, epsilon=epsilon):
            nonlocal count
            count += 1
            if epsilon:
                self.param_groups[0]["eps"] = epsilon(count)
            return original(self, closure)

        torch.optim.Adam.step = step
        try:
            rng = np.random.default_rng(0)
            network = answer.build_network(rng, options)
            curves[name] = np.array(answer.train(network, data["train"], exam, options, rng)[0])
        finally:
            torch.optim.Adam.step = original
    first, *others = curves
    for name in others:
        apart = np.abs(curves[name] - curves[first]) / curves[first]
        parts = ", ".join(f"{apart[:n].max():.1e} of the loss in {n} steps" for n in (2, 10, steps))
        print(f"{name}: apart from the answers by {parts}")
    for step in (1, 10, 100, 1000, 10_000):
        print(f"step {step}: the two places differ by a factor of {1 / math.sqrt(1 - 0.999**step):.2f}")


def measure_ways(answer, options, seeds):
    """Return {way: [{"mean_digit_iou": ...}, ... one by seed]}."""
    data = answer.load_data(options)
    exam = answer.make_pictures(*data["test"], options.pictures, np.random.default_rng(answer.TEST_SEED))
    original, runs = answer.compute_loss, {}
    for way, changes in WAYS.items():
        changed = argparse.Namespace(**vars(options) | changes)
        answer.compute_loss = clipped_loss if changes.get("loss") else original
        runs[way] = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            network = answer.build_network(rng, changed)
            answer.train(network, data["train"], exam, changed, rng)
            predictions = answer.predict(network, answer.normalise(exam[0]), changed) >= 0
            runs[way].append({"mean_digit_iou": answer.mean_digit_iou(predictions, exam[1])})
            print(
                f"{way}, seed {seed}: {runs[way][-1]}, {sum(each.numel() for each in network.parameters())} parameters",
                flush=True,
            )
    answer.compute_loss = original
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="only what takes no training of 500 steps")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    arguments = parser.parse_args()
    answer, options = load_answer()
    measure_log(answer)
    measure_epsilon(answer, options)
    if not arguments.short:
        path = REPOSITORY / "Question_digits/assets/ways.json"
        found = fingerprints.describe("digits_cnn") | {"runs": measure_ways(answer, options, arguments.seeds)}
        path.parent.mkdir(parents=True, exist_ok=True)
        answer.write_whole(path, lambda part: part.write_text(json.dumps(found, indent=1) + "\n"))
        print(f"written to {path}")


if __name__ == "__main__":
    main()
