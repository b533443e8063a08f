"""Verify Question_voc with what cannot be shipped: DeepLabV3's published weights, and Pascal VOC 2012.

    python Dataset/download_deeplab.py && python Dataset/download_voc.py        fetches the two
    make verify-voc
    python tools/verify_voc.py [--weights FILE.pth --depth 50] [--data FOLDER] [--images 20] [--frameworks "pytorch"]

In each framework the answer to voc_test reads the weights and segments the first images of val, at their own size. The
table shows, by framework: how far the logits are at most from PyTorch's in double precision, what share of the pixels
gets the same class, mIoU and pixel accuracy over those images, and the seconds for each. The exit status is 1 where
logits differ by more than 1e-3 of the largest, fewer than 99.9 % of the classes agree, or the published weights reach a
mIoU below 0.5, where a fault that all four share would show: on COCO's val they are said to reach 0.66 and 0.67
(https://docs.pytorch.org/vision/stable/models/deeplabv3.html). With --images 0, all of val: hours without a GPU.

On a GPU TF32 is switched off here, which frameworks round the inputs of a convolution to: with it they would differ by
some per cent of the largest logit.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from exercises import FRAMEWORKS, answer_path
from results import REPOSITORY, run_measured
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

TOLERANCE = 1e-3  # of logits, relative to the largest one
AGREEMENT = 0.999  # share of pixels that get the same class
FLOOR = 0.5  # mIoU of published weights
WEIGHTS = "Dataset/deeplab/deeplabv3_resnet101_coco-586e9e4e.pth"  # where the scripts in Dataset/ put them
DATA = "Dataset/voc2012"
COMPARED = 3  # images whose logits are kept to be compared; of all, classes are
# Runs in a process of its own for each framework, since two in one process disturb each other.
CHILD = """
import json, sys, time
from pathlib import Path
tools, script, number_type, out, images, *arguments = sys.argv[1:]
sys.path.insert(0, tools)
import exercises
import numpy as np
answer = exercises.load_answer(script)
answer.FLOAT = number_type
sys.argv = [script, *arguments]
if "torch" in sys.modules:
    sys.modules["torch"].backends.cudnn.allow_tf32 = False
if "tensorflow" in sys.modules:
    sys.modules["tensorflow"].config.experimental.enable_tensor_float_32_execution(False)
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_default_matmul_precision", "highest")
options = answer.read_options()
voc = answer.find_voc(options.data)
names = answer.read_names(voc, "val")[: int(images) or None]
network = answer.build_network(np.random.default_rng(0), options)
answer.load_weights(network, options.weights, options.depth)
kept, pairs, seconds = {}, 0, []
for number, name in enumerate(names):
    image, mask = answer.read_pair(voc, name)
    start = time.perf_counter()
    classes = answer.segment(network, image, options)
    seconds.append(time.perf_counter() - start)
    pairs = pairs + answer.count_pairs(mask, classes)
    kept[f"classes {name}"] = classes
    if number < COMPARED:
        kept[f"logits {name}"] = answer.predict(network, answer.normalise(image)[None], options)[0]
np.savez(out + ".npz", **kept)
Path(out + ".json").write_text(json.dumps({**answer.measure(pairs), "seconds": float(np.median(seconds))}))
""".replace("COMPARED", str(COMPARED))


def stop(message):
    """End with one line and status 2."""
    print(f"verify_voc.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def segment(framework, number_type, out, options):
    """Run the answer in a framework; return its measures, with seconds and memory, and {name: array} of its output."""
    script = answer_path("voc_test", framework)
    arguments = ["--weights", options.weights, "--data", options.data, "--depth", options.depth, "--size", options.size]
    command = [sys.executable, "-c", CHILD, Path(__file__).parent, script, number_type, out, options.images]
    command = list(map(str, [*command, *arguments, "--device", options.device]))
    status, errors, _, memory = run_measured(command, stdout=subprocess.DEVNULL)
    if status:
        stop(f"{script.name} ended with status {status}: {(errors.splitlines() or [''])[-1]}")
    with np.load(f"{out}.npz") as arrays:
        return json.loads(Path(f"{out}.json").read_text()) | {"memory": memory}, dict(arrays)


def compare(found, reference):
    """Return the largest difference of a logit, relative to the largest one, and the share of classes that agree."""
    logits = [name for name in reference if name.startswith("logits ")]
    apart = max(np.abs(found[name] - reference[name]).max() / np.abs(reference[name]).max() for name in logits)
    classes = [name for name in reference if name.startswith("classes ")]
    same = sum((found[name] == reference[name]).sum() for name in classes)
    return float(apart), float(same / sum(reference[name].size for name in classes))


def is_published(path):
    """Return whether a file is what its name says by the first digits of its SHA-256, as names of published ones do."""
    digits = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if not digits:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--weights", type=Path, default=REPOSITORY / WEIGHTS, help="file.pth (%(default)s)")
    parser.add_argument("--data", type=Path, default=REPOSITORY / DATA, help="folder with VOCdevkit/ (%(default)s)")
    parser.add_argument("--depth", choices=("101", "50", "14"), default="101", help="of the weights (%(default)s)")
    parser.add_argument("--size", type=int, default=520, help="shorter side for the network, at most (%(default)s)")
    parser.add_argument("--images", type=int, default=20, help="of val, from the first on; 0 for all (%(default)s)")
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS), help="as one argument (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    options = parser.parse_args()
    frameworks = list(dict.fromkeys(options.frameworks.split()))
    if not frameworks or not set(frameworks) <= set(FRAMEWORKS):
        stop(f"--frameworks {options.frameworks}: give one or more of {' '.join(FRAMEWORKS)}")
    if options.images < 0:
        stop(f"--images {options.images}: give a number from 0 up")
    for name, script in (("weights", "download_deeplab.py"), ("data", "download_voc.py")):
        if not vars(options)[name].exists():
            stop(f"--{name} {vars(options)[name]}: no such file or folder: fetch it by Dataset/{script}")
    console, failed, low = Console(), False, False
    header = ("framework", "logits apart\nof largest", "same\nclasses", "mIoU", "pixel\naccuracy", "s /\nimage", "GB")
    table = Table(*header, box=SIMPLE_HEAD, padding=0, pad_edge=False)
    floor = FLOOR if is_published(options.weights) else 0
    with tempfile.TemporaryDirectory() as folder:
        console.print("PyTorch in double precision, to compare with", highlight=False)
        measures, reference = segment("pytorch", "float64", f"{folder}/reference", options)
        runs = {"PyTorch, float64": (measures, (0.0, 1.0))}
        for framework in frameworks:
            console.print(f"{FRAMEWORKS[framework]}", highlight=False)
            measures, found = segment(framework, "float32", f"{folder}/{framework}", options)
            runs[FRAMEWORKS[framework]] = measures, compare(found, reference)
    for name, (measures, (apart, same)) in runs.items():
        failed |= not (apart <= TOLERANCE and same >= AGREEMENT)
        low |= measures["miou"] < floor
        memory = f"{measures['memory'] / 1000:.1f}" if measures["memory"] else "?"
        cells = f"{apart:.1e}", f"{same:.4%}", f"{measures['miou']:.4f}", f"{measures['pixel_accuracy']:.4f}"
        table.add_row(name, *cells, f"{measures['seconds']:.2f}", memory)
    console.print(table)
    print("the frameworks DIFFER" if failed else "the frameworks agree")
    if low:
        print(f"mIoU is BELOW {floor}: by weights that others trained it should not be")
    raise SystemExit(1 if failed or low else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("verify_voc.py: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
