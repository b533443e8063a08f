"""Read and write what the answers' runs gave, and run an answer with time and memory measured from outside.

A subject's assets/results.json is written by tools/draw_figures.py. It holds the numbers of a run of each answer, and
the fingerprint of the answer that gave them (see tools/fingerprints.py), so that a number in a lesson which belongs to
other code is found out.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "Dataset"))
from draw_voc import CLASSES, COLOUR_MAP, VOID  # noqa: E402

RESULTS = REPOSITORY / "Question_semaseg/assets/results.json"
# Where images and masks of the same names lie: those of newts, and what answers write that make their own; VOC's.
LAYOUTS = [("test/images", "test/seg_images")]
LAYOUTS += [(f"{above}JPEGImages", f"{above}SegmentationClass") for above in ("VOCdevkit/VOC2012/", "VOC2012/", "")]
PREDICTIONS = ("predictions", "results/VOC2012/Segmentation/comp6_val_cls")  # where an answer writes what it predicts
VOID_COLOUR = COLOUR_MAP[VOID]


def wait_measured(process):
    """Wait for a process to end; return the most memory that it held at a time, in 10^6 bytes.

    None where the system does not report it (Windows), and where it is no more than this process has held: Linux starts
    the count of a child with what its parent has held, so there it would be the parent's.
    """
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if sys.platform != "linux":
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    # From the table of this process: getrusage would count what its own parent has held.
    held = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return usage.ru_maxrss * 1024 / 1e6 if held and usage.ru_maxrss > int(held[1]) + 1024 else None


def run_measured(command, **more):
    """Run a command; return (exit status, what it wrote to stderr, seconds, peak memory as wait_measured has it).

    More goes to subprocess.Popen.
    """
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stderr=errors, **more)
        memory = wait_measured(process)
        seconds = time.perf_counter() - start
        errors.seek(0)
        return process.returncode, errors.read().decode(errors="replace"), seconds, memory


def run_in_turn(scripts, folder, data=None):
    """Run answers of which each reads what the one before wrote, the first data if given; return what the last wrote.

    Each writes to folder / its name. RuntimeError, with the last line that it wrote, where one fails.
    """
    for script in scripts:
        out = folder / script.stem
        command = [sys.executable, str(script), "--out", str(out), *(["--data", str(data)] if data else [])]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} ended with {done.returncode}: {(done.stderr.splitlines() or [''])[-1]}")
        data = out
    return data


def find_tests(folders):
    """Return the folders of the images and of the masks that answers were tested on, in the first of some folders."""
    for folder in folders:
        for images, masks in LAYOUTS:
            if (folder / images).is_dir():
                return folder / images, folder / masks
    return None


def find_predictions(out):
    """Return the folder of what an answer predicted, below the one it wrote to."""
    return next((out / name for name in PREDICTIONS if (out / name).is_dir()), out / PREDICTIONS[0])


def shows_only(mask, classes):
    """Whether a mask of VOC's, the path of a palette PNG, shows no other classes than these, by name."""
    with Image.open(mask) as image:
        return {*np.unique(image).tolist()} <= {VOID, *(CLASSES.index(name) for name in classes)}


def cut_panels(out, name):
    """Return input and truth from the picture of an answer that lays them and its prediction one below the other.

    (height, width, 3) uint8 each, of the prediction's size; None where an answer draws no such picture.
    """
    try:
        with Image.open(find_predictions(out) / f"{name}.png") as image:
            width, height = image.size
        with Image.open(out / "pictures" / f"{name}.png") as image:
            picture = np.array(image.convert("RGB"))
    except OSError:
        return None
    times = picture.shape[1] // width
    if picture.shape[:2] != (3 * height * times, width * times):
        return None
    return tuple(np.split(picture[::times, ::times], 3)[:2])


def cut_middle(image, ratio):
    """Return the largest part in the middle of an image whose width is ratio times its height."""
    height, width = image.shape[:2]
    high, wide = min(height, round(width / ratio)), min(width, round(height * ratio))
    top, left = (height - high) // 2, (width - wide) // 2
    return image[top : top + high, left : left + wide]


def read_results(path=RESULTS):
    """Return what assets/results.json holds: {"machine": {...}, "answers": {answer: {"fingerprint": ..., ...}}}.

    Raises OSError where the file cannot be read and ValueError where it is no such file.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict) or not isinstance(results.get("answers"), dict):
        raise ValueError("not what tools/draw_figures.py writes")
    return results


def write_results(path, results):
    """Write results, of the shape that read_results returns, whole or not at all."""
    part = path.with_name(f".part-{path.name}")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8", newline="\n")
    part.replace(path)
