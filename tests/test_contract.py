"""What every answer promises its user, over each script that there is: whatever is listed here is run alone."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import (
    FRAMEWORKS,
    MAKERS,
    SCRIPTS,
    draw,
    encode,
    encode_idx,
    find_options,
    find_size,
    is_trained,
    pickle_batch,
    run_python,
    write,
)

WEIGHTS = {
    "pytorch": ["weights.pt"],
    "tensorflow": ["weights.data-00000-of-00001", "weights.index"],
    "keras": ["network.weights.h5"],
    "chainer": ["weights.npz"],
}
# The values that a script is run with; of what has choices and is not here, the last choice.
VALUES = {"--iterations": 3, "--batch": 2, "--lr": 0.005, "--seed": 1, "--device": "cpu", "--out": "out 出力"}
VALUES |= {"--augment": "flips", "--pictures": 3, "--keep": 0.5, "--channels": 20, "--order": 2}
TRAINED = [script for script in SCRIPTS if is_trained(script)]
TESTED = [script for script in TRAINED if "_loss_" not in script.name]  # those that say which pixel is what
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def test_there_are_answers():
    assert len(SCRIPTS) >= 48 and TRAINED
    assert {script.stem.rsplit("_", 1)[1] for script in SCRIPTS} == set(FRAMEWORKS)


@pytest.fixture(scope="session")
def run(tmp_path_factory, made):
    """Run a script, copied alone into an empty folder, with all its options, once: (its folder, what came of it)."""
    done = {}

    def run_once(script):
        if script not in done:
            folder = tmp_path_factory.mktemp("一つ だけ")
            shutil.copy(script, folder)
            arguments = []
            for option, choices in find_options(script).items():
                arguments.append(option)
                if option not in ("--train", "--test"):
                    chosen = {option: choices[-1]} if choices else {"--size": find_size(script, 32)}
                    arguments.append((chosen | made | VALUES)[option])
            done[script] = folder, run_python(script.name, *arguments, cwd=folder)
        return done[script]

    return run_once


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@by_name
def test_runs_alone_with_every_option_and_writes_what_it_must(run, script):
    exercise, framework = script.stem.rsplit("_", 1)
    folder, result = run(script)
    assert result.returncode == 0, result.stderr
    assert f"Written to {VALUES['--out']}" in result.stdout.splitlines()[-1]
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr
    assert {path.name for path in folder.iterdir()} == {script.name, VALUES["--out"]}
    out = folder / VALUES["--out"]
    files = list_files(out)
    assert not [file for file in files if "/." in f"/{file}"], "left over"

    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    told = {"exercise": exercise, "framework": framework, "device": "cpu", "seed": 1, "iterations": 3}
    assert {name: metrics[name] for name in told} == told
    assert {"python", framework, "numpy"} <= metrics["versions"].keys()
    assert metrics["milliseconds_per_iteration"] == pytest.approx(1000 * metrics["seconds"] / 3)
    assert metrics["seconds"] > 0
    assert sys.platform == "win32" or 50 < metrics["peak_memory_mb"] < 20_000
    if script in TRAINED:
        with open(out / "loss.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["iteration"] for row in rows] == ["1", "2", "3"]
        assert float(rows[-1]["loss"]) == metrics["final_loss"]
        assert all(0 < float(row["loss"]) < 10 for row in rows)
        assert isinstance(metrics["parameters"], int) and metrics["parameters"] > 0
        assert set(WEIGHTS[framework]) <= set(files)
        assert sum((out / name).stat().st_size for name in WEIGHTS[framework]) > 3 * metrics["parameters"]
    if exercise.startswith("bin_") and script in TRAINED:  # 5 convolutions of 32 to 32 channels, one of 3, one to 1
        assert metrics["parameters"] == 5 * (32 * 32 * 9 + 32) + (3 * 32 * 9 + 32) + (32 + 1) + 6 * 64
    if script not in TRAINED:
        shown = {"train": 5, "test": 3} if "--data" in find_options(script) else {"train": 3, "test": 3}
        assert metrics["pictures"] == shown
        for part, number in shown.items():
            assert len([file for file in files if file.startswith(f"pictures/{part}/")]) == number
    assert ("miou" in metrics) == (script in TESTED)


def read_classes(picture, classes):
    """Return the index of the class at each pixel of a mask or of a prediction, whose newts may be white."""
    akahara, madara = picture[..., 0] > 100, picture[..., 1] > 100
    return np.where(akahara, 1, np.where(madara, classes.index("madara") if "madara" in classes else 1, 0))


@pytest.mark.parametrize("script", TESTED, ids=lambda script: script.stem)
def test_measures_are_those_of_the_predictions_written(run, newts, script):
    out = run(script)[0] / VALUES["--out"]
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    classes = list(metrics["iou"])
    # A script that makes its own pictures writes them in folders like those of the newts.
    truths = (newts if "--data" in find_options(script) else out) / "test/seg_images"
    masks = {
        path.relative_to(truths).with_suffix("").as_posix().lower(): path
        for path in truths.rglob("[!.]*")
        if path.suffix.lower() == ".png"
    }
    pairs = []
    for name, path in masks.items():
        assert cv2.imread(out / "pictures" / f"{name}.png").shape[1] > 300
        prediction = cv2.imread(out / "predictions" / f"{name}.png", cv2.IMREAD_COLOR_RGB)
        mask = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
        # Each new pixel takes the old one under its middle.
        sides = zip(prediction.shape[:2], mask.shape[:2], strict=True)
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in sides)
        pairs.append((read_classes(mask[rows][:, columns], classes), read_classes(prediction, classes)))
    truth, prediction = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    assert len(pairs) == 3 and len(list_files(out / "predictions")) == len(list_files(out / "pictures")) == 3
    assert metrics["pixel_accuracy"] == pytest.approx((truth == prediction).mean())
    for index, name in enumerate(classes):
        both, either = (truth == index) & (prediction == index), (truth == index) | (prediction == index)
        assert metrics["iou"][name] == pytest.approx(both.sum() / either.sum())
    assert metrics["miou"] == pytest.approx(np.mean(list(metrics["iou"].values())))


# Each kind of wrong input: (its options beyond the right ones, what the line must hold); it may spoil the made data,
# each of which lies in folder under the name of its option.
def no_such_folder(folder):
    return ["--data", folder / "nowhere"], "nowhere"


def no_images(folder):
    shutil.rmtree(folder / "--data/train/images")
    write(folder / "--data/train/images/notes.txt", b"")
    return [], str(folder / "--data/train/images")


def image_without_mask(folder):
    (folder / "--data/train/seg_images/akahara/grey.png").unlink()
    return [], "grey.jpeg"


def mask_without_image(folder):
    (folder / "--data/train/images/akahara/grey.jpeg").unlink()
    return [], "grey.png"


def no_picture(folder):
    write(folder / "--data/train/images/akahara/grey.jpeg", b"a text, by name a picture\n")
    return [], "grey.jpeg"


def cut_off(folder):
    path = folder / "--data/train/images/Madara/TWO.JPG"
    write(path, path.read_bytes()[:-200])
    return [], "TWO.JPG"


def other_size(folder):
    write(folder / "--data/train/seg_images/akahara/grey.png", encode(".png", draw(64, 65, (127, 0, 0))[1]))
    return [], "grey.png"


def jpeg_mask(folder):
    path = folder / "--data/train/seg_images/akahara/grey.png"
    path.unlink()
    write(path.with_suffix(".jpg"), encode(".jpg", draw(64, 64, (127, 0, 0))[1]))
    return [], "JPEG"


def wrong_in_test_only(folder):
    write(folder / "--data/test/seg_images/akahara/grey.png", encode(".png", np.full((64, 64, 3), 9, np.uint8)))
    return [], "[9, 9, 9]"


def no_folder_of_digits(folder):
    return ["--mnist", folder / "nowhere"], "nowhere: no such folder"


def folder_without_digits(folder):
    return ["--mnist", folder / "--cifar"], "--mnist"


def wrong_magic(folder):
    path = folder / "--mnist/t10k-images.idx3-ubyte"
    write(path, b"\0\0\x08\x01" + path.read_bytes()[4:])
    return [], f"{path}: begins with 0x801"


def digits_cut_off(folder):
    path = folder / "--mnist/t10k-images.idx3-ubyte"
    write(path, path.read_bytes()[:-1])
    return [], str(path)


def packed_digits_cut_off(folder):
    path = folder / "--mnist/raw/train-images-idx3-ubyte.gz"
    write(path, path.read_bytes()[:-9])
    return [], str(path)


def a_single_digit(folder):
    shutil.rmtree(folder / "--mnist/raw")
    write(folder / "--mnist/t10k-images.idx3-ubyte", encode_idx(np.ones((1, 28, 28), np.uint8)))
    return [], "--mnist"


def folder_without_photographs(folder):
    return ["--cifar", folder / "--mnist"], "--cifar"


def photographs_cut_off(folder):
    path = folder / "--cifar/cifar-10-batches-bin/data_batch_1.bin"
    write(path, path.read_bytes()[:-1])
    return [], str(path)


def pickle_cut_off(folder):
    write(folder / "--cifar/test_batch", pickle_batch(np.zeros((3, 3072), np.uint8))[:-40])
    return [], str(folder / "--cifar/test_batch")


def hostile_pickle(folder):
    write(folder / "--cifar/test_batch", b"cos\nmkdir\n(V" + str(folder / "hostile").encode() + b"\ntR.")
    return [], "os.mkdir"


def size(folder):
    return ["--size", "0"], "--size 0"


def device(folder):
    return ["--device", "cuda"], "--device cuda"


def iterations(folder):
    return ["--iterations", "0"], "--iterations 0"


def batch(folder):
    return ["--batch", "two"], "--batch"


def pictures(folder):
    return ["--pictures", "0"], "--pictures 0"


def keep(folder):
    return ["--keep", "1.5"], "--keep 1.5"


def channels(folder):
    return ["--channels", "8", "0"], "--channels 0"


def out_is_a_file(folder):
    write(folder / "a file", b"")
    return ["--out", folder / "a file"], "a file"


def unknown_option(folder):
    return ["--epochs", "3"], "--epochs"


def rate(folder):
    return ["--lr", "nan"], "--lr nan"


def no_weights(folder):
    return ["--test"], "weights"


def far_too_high_rate(folder):
    return ["--lr", "1e30", "--iterations", 20], "--lr 1e+30"


KINDS = {  # by the option that a script must have for them
    "--data": (no_such_folder, no_images, image_without_mask, mask_without_image, no_picture, cut_off, other_size)
    + (jpeg_mask, wrong_in_test_only),
    "--mnist": (no_folder_of_digits, folder_without_digits, wrong_magic, digits_cut_off, packed_digits_cut_off)
    + (a_single_digit,),
    "--cifar": (folder_without_photographs, photographs_cut_off, pickle_cut_off, hostile_pickle),
    "--lr": (rate, no_weights, far_too_high_rate),
    "--out": (device, iterations, batch, out_is_a_file, unknown_option),
    "--size": (size,),
    "--pictures": (pictures,),
    "--keep": (keep,),
    "--channels": (channels,),
}


def pair_up():
    """Return pairs of a script and a kind of wrong input that it can meet, so that each of either comes once at least.

    The kinds that fewest scripts can meet choose their script first; each choice is what was chosen least so far.
    """
    fits = {kind: option for option, kinds in KINDS.items() for kind in kinds}
    scripts = {kind: [script for script in SCRIPTS if option in find_options(script)] for kind, option in fits.items()}
    pairs, of_script, of_kind = [], dict.fromkeys(SCRIPTS, 0), dict.fromkeys(fits, 0)

    def choose(script, kind):
        pairs.append((script, kind))
        of_script[script] += 1
        of_kind[kind] += 1

    for kind in sorted(fits, key=lambda kind: len(scripts[kind])):
        choose(min(scripts[kind], key=of_script.get), kind)
    for script in (script for script in SCRIPTS if not of_script[script]):
        choose(script, min((kind for kind in fits if script in scripts[kind]), key=of_kind.get))
    return pairs


def name_pair(value):
    return getattr(value, "stem", None) or value.__name__


def test_each_script_and_each_wrong_input_has_its_turn():
    scripts, kinds = map(set, zip(*pair_up(), strict=True))
    assert scripts == set(SCRIPTS) and kinds == {kind for kinds in KINDS.values() for kind in kinds}


@pytest.mark.parametrize("script, kind", pair_up(), ids=name_pair)
def test_wrong_input_ends_in_one_line(tmp_path, script, kind):
    folder = tmp_path / "いもり の data"
    right = {"--iterations": 1, "--batch": 2, "--size": find_size(script, 16), "--device": "cpu", "--pictures": 2}
    right |= {option: make(folder / option) for option, make in MAKERS.items()} | {"--out": tmp_path / "o"}
    right = {option: value for option, value in right.items() if option in find_options(script)}
    options, named = kind(folder)
    before = list_files(tmp_path)
    result = run_python(script, *itertools.chain(*right.items()), *options, cwd=tmp_path)
    lines = [line for line in result.stderr.splitlines() if line and "%|" not in line]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith(f"{script.name}: ") and named in lines[0]
    assert "Traceback" not in result.stderr and "Written" not in result.stdout
    assert list_files(tmp_path) == before and not (folder / "hostile").exists()


# Runs in a process of its own: an answer that may take so many bytes of memory and no more.
LIMITED = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
sys.argv[1:2] = []
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to such a limit")
@pytest.mark.parametrize("framework", ("pytorch", "chainer"))
def test_memory_that_runs_out_ends_in_one_line(newts, tmp_path, framework):
    (script,) = (script for script in SCRIPTS if script.stem == f"bin_loss_{framework}")
    options = ["--data", newts, "--out", tmp_path / "o", "--batch", 64, "--size", 512, "--iterations", 1]
    result = run_python("-c", LIMITED, script, 4 * 2**30, *options, "--device", "cpu", cwd=tmp_path)
    lines = [line for line in result.stderr.splitlines() if line and "%|" not in line]
    assert result.returncode == 2, result.stderr
    assert lines == [f"{script.name}: out of memory: give a smaller --batch or --size"]
    assert not list_files(tmp_path / "o")


# Runs in a process of its own: tests with the weights that training saved, then with those that are none of its own.
LOAD = """
import importlib.util, sys
from pathlib import Path
script, out, data = map(Path, sys.argv[1:])
spec = importlib.util.spec_from_file_location("answer", script)
answer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(answer)
numbers = ["--batch", "2", "--size", "32", "--device", "cpu"]
sys.argv = [script.name, "--test", "--out", str(out), "--data", str(data), *numbers]
answer.main()
network = answer.build_network(answer.np.random.default_rng(0), answer.read_options())


def other(kernel, blocks):  # as the network is, but for the size of its kernels or the number of its convolutions
    if answer.FRAMEWORK == "pytorch":
        nn = answer.nn
        layers = [part for i in range(blocks) for part in
                  (nn.Conv2d(32 if i else 3, 32, kernel), nn.ReLU(), nn.BatchNorm2d(32))]
        return nn.Sequential(*layers, nn.Conv2d(32, 1, 1))
    if answer.FRAMEWORK == "chainer":
        links, network = answer.links, answer.chainer.Sequential()
        for i in range(blocks):
            network.append(links.Convolution2D(32 if i else 3, 32, kernel))
            network.append(answer.functions.relu)
            network.append(links.BatchNormalization(32))
        network.append(links.Convolution2D(32, 1, 1))
        return network
    if answer.FRAMEWORK == "keras":
        x = inputs = answer.keras.Input((None, None, 3))
        for i in range(blocks):
            x = answer.keras.layers.Conv2D(32, kernel, padding="same")(x)
            x = answer.keras.layers.BatchNormalization()(x)
        return answer.keras.Model(inputs, answer.keras.layers.Conv2D(1, 1)(x))
    rng = answer.np.random.default_rng(0)
    network = answer.Network(rng)
    network.convs = [answer.Conv(rng, 32 if i else 3, 32, kernel) for i in range(blocks)]
    network.norms = [answer.BatchNorm(32) for _ in range(blocks)]
    return network


def attempt(what):
    print(f"===== {what}", file=sys.stderr)
    try:
        answer.load_weights(network, out)
        print("was taken", file=sys.stderr)
    except SystemExit as end:
        print("status", end.code, file=sys.stderr)


for kernel, blocks in ((1, 6), (3, 5), (3, 7)):
    answer.save_weights(other(kernel, blocks), out)
    attempt(f"kernel {kernel}, {blocks} blocks")
answer.save_weights(network, out)
path = next(path for path in sorted(out.iterdir()) if "weights" in path.name)
data = path.read_bytes()
for place in (0, len(data) // 2, len(data) - 30):
    path.write_bytes(data[:place])
    attempt(f"cut at {place}")
path.write_bytes(data)
answer.load_weights(network, out)
for path in out.glob("*weights*"):
    path.unlink()
attempt("missing")
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_testing_with_saved_weights(run, newts, tmp_path, framework):
    """--test alone gives what one go gave and keeps what training told; weights that are not its own give the line."""
    script = next(script for script in SCRIPTS if script.stem == f"bin_test_{framework}")
    first = run(script)[0] / VALUES["--out"]
    out = shutil.copytree(first, tmp_path / "out")
    shutil.rmtree(out / "predictions")
    result = run_python("-c", LOAD, script, out, newts, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    before, after = (json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (first, out))
    assert after == before
    for path in (first / "predictions").rglob("*.png"):
        assert (out / path.relative_to(first)).read_bytes() == path.read_bytes()
    attempts = [attempt.splitlines() for attempt in result.stderr.split("===== ")[1:]]
    assert len(attempts) == 7
    faults = []
    for what, *lines in attempts:
        # TensorFlow adds these when it lets go of a checkpoint; a script has ended by then.
        lines = [line for line in lines if not line.startswith("WARNING:tensorflow:")]
        wrong = "no such file" if what == "missing" else "not the weights of this network"
        line = f"{script.name}: {out / WEIGHTS[framework][-1]}: {wrong}: train first"
        if len(lines) != 2 or not lines[0].startswith(line) or lines[1] != "status 2":
            faults.append([what, *lines])
    assert not faults, faults


# Runs in a process of its own, which forks a child for each run, so that PyTorch is imported once.
KILL = """
import importlib.util, json, os, signal, sys, threading, time
from pathlib import Path
script, data, out = map(Path, sys.argv[1:4])
kills = int(sys.argv[4])
spec = importlib.util.spec_from_file_location("answer", script)
answer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(answer)
answer.torch.set_num_threads(1)
# tqdm's own lock is shared with the children: one that is killed while it holds it would stop all that follow.
answer.tqdm.monitor_interval = 0
answer.tqdm.set_lock(threading.RLock())
numbers = ["--iterations", "3", "--batch", "2", "--size", "16", "--device", "cpu"]
sys.argv = [script.name, "--data", str(data), "--out", str(out), *numbers]
null = os.open(os.devnull, os.O_WRONLY)
stdout, stderr = os.dup(1), os.dup(2)
os.dup2(null, 1), os.dup2(null, 2)
answer.main()  # once here, so that all is imported, in one thread, since a thread would not outlive the fork
sys.stdout.flush()
os.dup2(stdout, 1), os.dup2(stderr, 2)


def look():
    files = {}
    for path in out.rglob("*"):
        try:
            if path.is_file():
                state = path.stat()
                files[str(path)] = state.st_size, state.st_mtime_ns, state.st_ino
        except FileNotFoundError:
            pass
    return files


def run(changes):
    # Return how often the folder was seen to change until the end, or until it is killed at that many changes.
    child = os.fork()
    if not child:
        os.dup2(null, 1), os.dup2(null, 2)
        answer.main()
        os._exit(0)
    seen, before = 0, look()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        after = look()
        if after != before:
            seen, before = seen + 1, after
            if seen >= changes:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return -seen
    return seen


total = run(10**9)
print(json.dumps({"total": total}), flush=True)
assert look(), "the run that none killed wrote nothing"
for number in range(kills):
    killed = run(1 + number * (total - 1) // kills)
    print(json.dumps({"killed": killed}), flush=True)
    sys.stdin.readline()
"""


def find_damage(out):
    """Return the files in a folder of results that are not whole, and whether any lies there half-written."""
    torch = pytest.importorskip("torch")
    damaged, leftover = [], False
    for path in (path for path in out.rglob("*") if path.is_file()):
        if path.name.startswith(".part-"):
            leftover = True
            continue
        data = path.read_bytes()
        try:
            if path.suffix == ".png":
                whole = data[-12:] == b"\0\0\0\0IEND\xaeB`\x82" and cv2.imread(path) is not None
            elif path.suffix == ".json":
                whole = "miou" in json.loads(data)
            elif path.suffix == ".csv":
                whole = data.endswith(b"\n") and len(data.splitlines()) == 4
            else:
                whole = len(torch.load(path, weights_only=True)) > 10
        except Exception as error:
            whole = False
            print(path, error)
        if not whole:
            damaged.append(path.name)
    return damaged, leftover


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_while_writing_leaves_every_file_whole_or_absent(tmp_path, newts):
    """24 kills, spread over all that a run is seen to write; half the time into a folder that has old results."""
    script = next(script for script in SCRIPTS if script.stem == "bin_test_pytorch")
    out, kills, halves = tmp_path / "out", 24, 0
    process = subprocess.Popen(
        [sys.executable, "-c", KILL, script, newts, out, str(kills)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        assert json.loads(process.stdout.readline())["total"] > 8
        killed = 0
        for number in range(kills):
            killed += json.loads(process.stdout.readline())["killed"] < 0
            damaged, leftover = find_damage(out)
            assert damaged == []
            halves += leftover
            if number % 2:
                shutil.rmtree(out)
            process.stdin.write("on\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert killed >= 20 and halves >= 3  # some of them did come in the middle of a file


# Runs in a process of its own: one checkpoint over another, the script killed after each of its steps.
MIXED = """
import importlib.util, sys
from pathlib import Path
script, out = map(Path, sys.argv[1:])
spec = importlib.util.spec_from_file_location("answer", script)
answer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(answer)
sys.argv = [str(script), "--device", "cpu"]
options = answer.read_options()
old, new, read = (answer.build_network(answer.np.random.default_rng(seed), options) for seed in (0, 1, 2))
first = lambda network: network.convs[0].kernel.numpy().tolist()


class Killed(BaseException):
    pass


def count(function):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            raise Killed
        return function(*arguments, **options)
    return counted


answer.Path.replace, answer.Path.unlink = count(Path.replace), count(Path.unlink)
for steps in range(5):
    left = 100
    answer.save_weights(old, out)
    left = steps
    try:
        answer.save_weights(new, out)
        ended = "ended"
    except Killed:
        ended = "killed"
    try:
        answer.load_weights(read, out)
        print(ended, "old" if first(read) == first(old) else "new" if first(read) == first(new) else "mixed")
    except SystemExit as end:
        print(ended, "stopped", end.code)
left = 100
answer.save_weights(new, out)
index = (out / "weights.index").read_bytes()
answer.save_weights(old, out)
data = out / "weights.data-00000-of-00001"
numbers = data.read_bytes()
answer.save_weights(new, out)
data.write_bytes(numbers)
try:
    answer.load_weights(read, out)
    print("an old file of numbers with a new index was taken")
except SystemExit as end:
    print("stopped", end.code)
"""


def test_a_checkpoint_of_two_files_is_never_mixed(tmp_path):
    """TensorFlow writes an index and a file of numbers: killed between the two, a script has old or new or says so."""
    script = next(script for script in SCRIPTS if script.stem == "bin_loss_tensorflow")
    result = run_python("-c", MIXED, script, tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    *kills, last = result.stdout.splitlines()
    assert kills == ["killed old", "killed stopped 2", "killed stopped 2", "ended new", "ended new"]
    assert last == "stopped 2"
