"""What each choice in fine-tuning is worth: batch norm, batch, heads and learning rates, over several seeds.

    python benchmarks/voc_finetune.py [--seeds 3] [--pretrained FILE.pth] [--out FILE.json]

Each run is the last phase of the PyTorch answer to deeplab_finetune, with its own functions and at its defaults but for
what the way says. It begins with the weights that a run of the answer left, outputs/04_deeplab_finetune_pytorch/
pretrained.pth. The table shows mIoU and pixel accuracy on val: seven ways, some minutes a seed on a CPU.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import fingerprints  # noqa: E402
from exercises import answer_path, load_answer  # noqa: E402
from results import write_results  # noqa: E402

PRETRAINED = REPOSITORY / "outputs/04_deeplab_finetune_pytorch/pretrained.pth"
WAYS = {  # options of the answer, and what is learnt: all, all at the full learning rate, or the new layers alone
    "as given": ({}, "all"),
    "running averages move": ({"norm": "running"}, "all"),
    "batch of 2": ({"batch": 2}, "all"),
    "batch of 2, running averages move": ({"batch": 2, "norm": "running"}, "all"),
    "heads kept": ({"heads": "kept"}, "all"),
    "one learning rate for all": ({}, "one rate"),
    "only the new layers learn": ({}, "new"),
}


def stop(message):
    """End with one line and status 2."""
    print(f"voc_finetune.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def run(pretrained, given, learns, seed, iterations, out):
    """Return {"miou": ..., "pixel_accuracy": ...} of one fine-tuning."""
    answer = load_answer(answer_path("deeplab_finetune", "pytorch"))
    arguments = {"seed": seed, "device": "cpu", "out": out, "workers": 0} | given
    arguments |= {"iterations": iterations} if iterations else {}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    with mock.patch.object(sys, "argv", [answer.__file__, *words]):
        options = answer.read_options()
    voc, (classes, _) = answer.find_voc(options.data), answer.PHASES["finetuned"]
    names = {}
    for split in ("train", "val"):
        found = {name: np.unique(answer.read_pair(voc, name)[1]) for name in answer.read_names(voc, split)}
        names[split] = [name for name, indices in found.items() if {*classes} & {*indices}]
    rng = np.random.default_rng(options.seed)
    network = answer.build_network(rng, options)
    number = options.iterations * options.batch
    samples = answer.Samples(voc, names["train"][: answer.FEW], classes, number, options, rng)
    answer.load_weights(network, pretrained, options.depth)
    if options.heads == "new":
        answer.draw_heads(network, rng)
    if learns == "new":
        for name, weight in network.named_parameters():
            weight.requires_grad_(name.startswith(answer.HEADS))
    with mock.patch.object(answer, "HEADS", ("",) if learns == "one rate" else answer.HEADS):
        answer.train(network, samples, "finetuned", options)
    measures, _ = answer.evaluate(network, voc, names["val"], classes, options)
    return {name: measures[name] for name in ("miou", "pixel_accuracy")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (%(default)s of them)")
    parser.add_argument("--pretrained", type=Path, default=PRETRAINED, help="weights to begin with (%(default)s)")
    parser.add_argument("--iterations", type=int, help="of each run (the answer's default)")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    if options.seeds < 1:
        stop(f"--seeds {options.seeds}: give a number from 1 up")
    if not options.pretrained.exists():
        stop(f"{options.pretrained}: no such file: run Question_voc/answers/04_deeplab_finetune_pytorch.py")
    torch.set_num_threads(1)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, (given, learns) in WAYS.items():
            seeds = range(options.seeds)
            runs[way] = [run(options.pretrained, given, learns, seed, options.iterations, folder) for seed in seeds]
    table = Table("fine-tuning", "mIoU", "pixel accuracy")
    for way, results in runs.items():
        cells = []
        for name in ("miou", "pixel_accuracy"):
            values = [result[name] for result in results]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        table.add_row(way, *cells)
    Console().print(table)
    if options.out:
        described = fingerprints.describe("deeplab_finetune")
        write_results(options.out, described | {"seeds": options.seeds, "iterations": options.iterations, "runs": runs})


if __name__ == "__main__":
    main()
