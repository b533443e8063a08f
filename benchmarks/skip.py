"""What a skip connection is for: transposeconv against concat, with one to three poolings, over several seeds.

    python benchmarks/skip.py [--seeds 3] [--poolings "1 2 3"] [--iterations N] [--out FILE.json]

Each run is the PyTorch answer's own functions at its defaults, but for --poolings and --seed. The table shows, on the
test images, the mIoU, and the accuracy of the pixels near a boundary: those at most 1 pixel away from one of another
class in the truth (a trimap, as in arXiv:1606.00915). A pooling widens the field of view and loses detail,
which is what a skip brings back. At the defaults that is 18 runs of half a minute or so each.
"""

import argparse
import statistics
import sys
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import answer_path, load_answer  # noqa: E402
from results import write_results  # noqa: E402

NETWORKS = {"without skip": "transposeconv", "with skip": "concat"}


def stop(message):
    """End with one line and status 2."""
    print(f"skip.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def near_boundaries(targets):
    """Return where a pixel of targets (N, height, width) uint8 has another class within 1 pixel: bool, same shape."""
    window = np.ones((3, 3), np.uint8)
    return np.stack([cv2.dilate(target, window) != cv2.erode(target, window) for target in targets])


def run(exercise, poolings, seed, iterations):
    """Return {"miou": ..., "boundary_accuracy": ...} of one training of an answer."""
    answer = load_answer(answer_path(exercise, "pytorch"))
    sys.argv = [exercise, "--poolings", str(poolings), "--seed", str(seed), "--device", "cpu"]
    sys.argv += ["--iterations", str(iterations)] if iterations else []
    options = answer.read_options()
    rng = np.random.default_rng(options.seed)
    newts = {part: answer.load_newts(options.data / part, options.size)[1:] for part in ("train", "test")}
    network = answer.build_network(rng, options)
    answer.train(network, *newts["train"], options, rng)
    images, targets = newts["test"]
    predictions = answer.predict_augmented(network, images, options).argmax(axis=3)
    near = near_boundaries(targets)
    accuracy = float((predictions == targets)[near].mean())
    return {"miou": answer.measure(predictions, targets)["miou"], "boundary_accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (%(default)s of them)")
    parser.add_argument("--poolings", default="1 2 3", help="as one argument (%(default)s)")
    parser.add_argument("--iterations", type=int, help="of each run (the answers' default)")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    if options.seeds < 1:
        stop(f"--seeds {options.seeds}: give a number from 1 up")
    if not options.poolings.split() or not set(options.poolings.split()) <= {"1", "2", "3"}:
        stop(f"--poolings {options.poolings}: give some of 1 2 3")
    runs = {}
    for poolings in options.poolings.split():
        for kind, exercise in NETWORKS.items():
            way = f"{poolings} pooling{'s' * (poolings != '1')}, {kind}"
            runs[way] = [run(exercise, poolings, seed, options.iterations) for seed in range(options.seeds)]
    table = Table("network", "mIoU", "accuracy within 1 pixel of a boundary")
    for way, results in runs.items():
        cells = []
        for name in ("miou", "boundary_accuracy"):
            values = [result[name] for result in results]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        table.add_row(way, *cells)
    Console().print(table)
    if options.out:
        write_results(options.out, {"seeds": options.seeds, "iterations": options.iterations, "runs": runs})


if __name__ == "__main__":
    main()
