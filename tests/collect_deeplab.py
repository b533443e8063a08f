"""Run by test_deeplab.py and test_voc_training.py, once for each framework: what DeepLabV3 gives, reads and learns.

    python collect_deeplab.py FRAMEWORK FOLDER deeplab            reads and predicts, by the answer to exercise 3
    python collect_deeplab.py FRAMEWORK FOLDER deeplab_finetune   writes and trains, by the answer to exercise 4

FOLDER holds what the test has made. EXERCISE_FRAMEWORK.npz is written there, of arrays, and .json, of what was
printed.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import exercises  # noqa: E402

framework, folder, exercise = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
arrays, told = {}, {}


def load(dtype, *arguments):
    """Return the answer as a module that computes in a type of float, and its options."""
    path = exercises.answer_path(exercise, framework)
    sys.argv = [str(path), "--device", "cpu", *map(str, arguments)]
    answer = exercises.load_answer(path)
    answer.FLOAT = dtype
    return answer, answer.read_options()


def try_to_load(answer, network, path, depth):
    """Return the status and the lines with which load_weights ends, None and [] where it returns."""
    printed, status = io.StringIO(), None
    with contextlib.redirect_stderr(printed):
        try:
            answer.load_weights(network, path, depth)
        except SystemExit as end:
            status = end.code
        except OSError as error:  # the answer's last block tells of these
            return 2, [f"{error}"]
    return status, printed.getvalue().splitlines()


def predict():
    """The logits of given weights, all entries of files that are right, and what is told of those that are wrong."""
    images = dict(np.load(folder / "images.npz"))
    for depth in ("14", "101"):
        for dtype in ("float32", "float64") if depth == "14" else ("float32",):
            start = time.perf_counter()
            answer, options = load(dtype, "--depth", depth)
            network = answer.build_network(np.random.default_rng(0), options)
            answer.load_weights(network, folder / f"weights_{depth}.pth", depth)
            for size, image in images.items():
                if depth == "14" or size == "128":
                    logits = answer.predict(network, image.astype(dtype), options)
                    arrays[f"{depth} {dtype} {size}"] = logits
            told[f"seconds {depth} {dtype}"] = time.perf_counter() - start
            del network
    answer, options = load("float32", "--depth", "14")
    for name, entry in answer.list_entries(answer.build_network(np.random.default_rng(5), options)).items():
        arrays[f"drawn {name}"] = entry
    for path in sorted((folder / "right").iterdir()):
        network = answer.build_network(np.random.default_rng(0), options)
        told[path.name] = try_to_load(answer, network, path, "14")
        for name, entry in answer.list_entries(network).items():
            arrays[f"{path.stem} {name}"] = np.array(entry)
    first = {name: np.array(entry) for name, entry in answer.list_entries(network).items()}
    for path in sorted((folder / "wrong").iterdir()):
        told[path.name] = try_to_load(answer, network, path, "14")
    last = answer.list_entries(network)
    told["changed"] = [name for name in first if not np.array_equal(first[name], last[name])]


class Given:
    """Samples that are given: images (number, size, size, 3) and masks."""

    def __init__(self, images, masks, answer):
        self.images, self.masks, self.first, self.dtype = images, masks, 0, answer.FLOAT

    def __len__(self):
        return len(self.images) - self.first

    def __getitem__(self, number):
        return self.images[self.first + number].astype(self.dtype), self.masks[self.first + number]


def train():
    """What a step changes in each kind of training, and what void does to the loss."""
    given = dict(np.load(folder / "training.npz"))
    arguments = ["--depth", "14", "--size", 32, "--batch", 2, "--workers", 0, "--lr", 0.01, "--out", folder / framework]
    for way in ("scratch", "finetuned running", "finetuned frozen", "finetuned void"):
        phase, norm = (way.split() + ["running"])[:2]
        answer, options = load("float64", *arguments, "--norm", norm if norm != "void" else "frozen")
        options.out.mkdir(exist_ok=True)
        network = answer.build_network(np.random.default_rng(1), options)
        masks = given["masks"] if norm != "void" else np.full_like(given["masks"], 255)
        before = {name: np.array(entry) for name, entry in answer.list_entries(network).items()}
        arrays[f"{way} losses"] = answer.train(network, Given(given["images"][:2], masks[:2], answer), phase, options)
        for name, entry in answer.list_entries(network).items():
            arrays[f"{way} {name}"] = np.array(entry) - before[name]
    # Logits of any kind where the mask is void, and a mask that is void everywhere.
    for what in ("logits", "other_logits"):
        for masks in ("part_void", "all_void"):
            pair = [answer.to_tensor(given[what][i], "cpu") for i in (0, 1)]
            loss = answer.compute_loss(pair, to_masks(answer, given[masks]))
            arrays[f"loss {what} {masks}"] = np.asarray(getattr(loss, "array", loss), np.float64)
    answer, options = load("float32", *arguments)
    network = answer.build_network(np.random.default_rng(1), options)
    answer.write_pth(folder / f"written_{framework}.pth", network)
    for name, entry in answer.list_entries(network).items():
        arrays[f"written {name}"] = np.array(entry)
    answer.draw_heads(network, np.random.default_rng(2))
    for name, entry in answer.list_entries(network).items():
        arrays[f"heads {name}"] = np.array(entry)


def to_masks(answer, masks):
    """Return masks as draw_batches hands them out."""
    if framework == "pytorch":
        return answer.torch.from_numpy(masks)
    if framework == "tensorflow":
        return answer.tf.constant(masks)
    return answer.keras.ops.convert_to_tensor(masks) if framework == "keras" else masks


{"deeplab": predict, "deeplab_finetune": train}[exercise]()
np.savez(folder / f"{exercise}_{framework}.npz", **arrays)
(folder / f"{exercise}_{framework}.json").write_text(json.dumps(told), "utf-8")
