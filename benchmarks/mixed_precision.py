"""Time and memory of a training step in PyTorch in single precision, in TF32, and by automatic mixed precision.

    python benchmarks/mixed_precision.py [--device cuda] [--steps 20]

The networks of deeplab_finetune, at its default size and at that of the published weights, and those of street_train,
at theirs and at a larger one; images and classes are random. The whole step is timed, loss.item() included, the mean
over --steps after three others. TF32 is what PyTorch computes convolutions in on a GPU by default; in mixed precision
the convolutions compute in bfloat16 or, with scaled gradients, in float16, and the weights stay in float32
(https://docs.pytorch.org/docs/stable/amp.html).
"""

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from exercises import answer_path, load_answer  # noqa: E402

PRECISIONS = {"float32": None, "TF32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
CASES = [  # exercise, network, images in a batch, height and width of each
    ("deeplab_finetune", "14", 8, 128),
    ("deeplab_finetune", "101", 8, 513),
    ("street_train", "unet", 4, 128),
    ("street_train", "unet", 16, 512),
    ("street_train", "deeplab", 4, 128),
    ("street_train", "deeplab", 16, 512),
]


def make_step(exercise, name, batch, size, precision, device):
    """Return a function that trains for one step, on random images, and returns the loss."""
    answer, rng = load_answer(answer_path(exercise, "pytorch")), np.random.default_rng(0)
    if exercise == "street_train":
        network = answer.build_network(rng, 8, SimpleNamespace(network=name, device=device))
        compute_loss, classes = functional.cross_entropy, 8
    else:
        network = answer.build_network(rng, SimpleNamespace(depth=name, device=device))
        compute_loss, classes = answer.compute_loss, 21
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    targets = torch.randint(0, classes, (batch, size, size), device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    half = PRECISIONS[precision]
    network.train()

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, half, enabled=half is not None):
            loss = compute_loss(network(images), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="that are timed (%(default)s)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU: use --device cpu")
    print("| network | batch | precision | step, ms | peak memory, GiB |\n|---|---|---|---|---|")
    for exercise, name, batch, size in CASES:
        for precision in PRECISIONS if options.device == "cuda" else ("float32", "bfloat16"):
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            step = make_step(exercise, name, batch, size, precision, options.device)
            for _ in range(3):
                step()
            start = time.perf_counter()
            for _ in range(options.steps):
                step()
            spent = (time.perf_counter() - start) / options.steps
            memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if options.device == "cuda" else ""
            row = f"`{exercise}`, {name}", f"{batch} of {size} x {size}", precision, f"{1e3 * spent:.1f}", memory
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
