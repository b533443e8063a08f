"""What several tests use: the answers, made data sets with all that real ones hold, a way to run a script alone."""

import ast
import functools
import gzip
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the same on a machine with a GPU
os.environ.pop("KERAS_BACKEND", None)  # and in a shell that chose another for the answers
# Side by side each takes one core, since more threads than cores are slow; alone, too, or sums would round otherwise.
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
if os.name == "nt":  # a pipe there is not UTF-8, in which run_python and others read what scripts print
    os.environ.setdefault("PYTHONIOENCODING", "utf-8")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it ignored, and answers would

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import exercises  # noqa: E402

FRAMEWORKS = tuple(exercises.FRAMEWORKS)
EXERCISES = {exercise.name: exercise for exercise in exercises.read_exercises()}
ANSWERS = {(name, framework): exercises.answer_path(name, framework) for name in EXERCISES for framework in FRAMEWORKS}
SCRIPTS = list(ANSWERS.values())
AKAHARA, MADARA, GREY = (127, 0, 0), (0, 127, 0), (150, 140, 130)
# Each answer by name in the title of a test, as in [unet_keras].
by_answer = pytest.mark.parametrize("exercise, framework", ANSWERS, ids=lambda part: part)


@functools.cache
def load(path):
    """Return an answer as a module. Two frameworks in one process disturb each other, so this is for PyTorch's."""
    return exercises.load_answer(path)


def pytorch(exercise):
    """Return the PyTorch answer to an exercise as a module."""
    return load(ANSWERS[exercise, "pytorch"])


@functools.cache
def find_options(script):
    """Return the options of an answer, as in {"--lr": (), "--device": ("auto", "cpu"), ...}: name and choices."""
    tree, options = ast.parse(script.read_text("utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            if isinstance(node.args[0], ast.Constant):
                options[node.args[0].value] = ()
    for node in tree.body:
        table = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
        if table in ("NUMBERS", "CHOICES"):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                options[f"--{key.value}"] = ast.literal_eval(value) if table == "CHOICES" else ()
    return options


def run_python(*arguments, cwd, timeout=300, env=None):
    """Run Python with the arguments in folder cwd and return what came of it."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=timeout, env=env)


@pytest.fixture(scope="session")
def fork(tmp_path_factory):
    """Run an answer as run_python does, but in a child of a process that has imported its framework (forks.py).

    A second or so instead of ten. before is code to run in the child first. Elsewhere than on Linux each run is a
    process of its own: Windows cannot fork, and on macOS what a framework has started may not live through it.
    """
    servers = {}
    out, err = (tmp_path_factory.mktemp("forks") / name for name in ("out", "err"))

    def run(script, *arguments, cwd, before=""):
        framework = exercises.name_of(Path(script).stem)[1]
        task = {"script": str(script), "arguments": list(map(str, arguments)), "folder": str(cwd), "before": before}
        task = json.dumps(task | {"out": str(out), "err": str(err)})
        command = [sys.executable, str(ROOT / "tests" / "forks.py")]
        if sys.platform == "linux":
            if framework not in servers:
                one = [*command, str(ANSWERS["bin_loss", framework])]
                servers[framework] = subprocess.Popen(one, stdin=-1, stdout=-1, encoding="utf-8")
            print(task, file=servers[framework].stdin, flush=True)
            status = int(servers[framework].stdout.readline())
        else:
            status = subprocess.run(command, input=task, encoding="utf-8", timeout=300).returncode
        texts = (path.read_text("utf-8") for path in (out, err))
        return subprocess.CompletedProcess([script, *arguments], status, *texts)

    yield run
    for server in servers.values():
        server.terminate()  # it would wait for the end of its stdin, which a worker that a test left behind has, too
        server.communicate()


def stopped(capsys, function, *arguments):
    """Call a function that stops the script; return the one line that it prints."""
    with pytest.raises(SystemExit) as end:
        function(*arguments)
    printed = capsys.readouterr().err
    lines = [line for line in printed.splitlines() if line.strip() and "%|" not in line]  # without progress bars
    assert end.value.code == 2 and len(lines) == 1
    return lines[0]


def encode(suffix, picture, *flags):
    """Return the bytes of a picture, its channels red-green-blue(-alpha), as a file of that suffix."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[picture.shape[2]]
    return cv2.imencode(suffix, picture[..., order], list(flags))[1].tobytes()


def draw(height, width, colour, red=127):
    """Return a picture of a newt in grey surroundings and its mask, in which akahara may be red 128."""
    shape = np.zeros((height, width), np.uint8)
    cv2.ellipse(shape, (width // 2, height // 3), (width // 3, height // 4), 20, 0, 360, 1, -1)
    noise = np.random.default_rng(height).integers(0, 40, (height, width, 1), np.uint8)
    mask = shape[..., None] * np.uint8(colour)
    mask[mask == 127] = red
    picture = np.where(shape[..., None] > 0, np.uint8(colour) + 60, np.uint8(GREY)) + noise
    return picture, mask


def link(path, target):
    """Make path a link to a folder; skip the test where Windows lets only an administrator do so."""
    try:
        path.symlink_to(target, target_is_directory=True)
    except OSError as error:
        if os.name != "nt":
            raise
        pytest.skip(f"no rights to make links: {error}")


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_newts(folder):
    """Make a data set of 5 and 3 pictures of different sizes, kinds and spellings, with hidden files among them."""
    for part in ("train", "test"):
        images, masks = folder / part / "images", folder / part / "seg_images"
        picture, mask = draw(40, 60, AKAHARA, red=128)
        write(images / "akahara" / "one 一.jpg", encode(".jpg", picture))
        write(masks / "akahara" / "one 一.png", encode(".png", mask))
        picture, mask = draw(57, 33, MADARA)
        write(images / "Madara" / "TWO.JPG", encode(".jpg", picture))
        write(masks / "madara" / "Two.PNG", encode(".png", mask))
        picture, mask = draw(64, 64, AKAHARA)
        write(images / "akahara" / "grey.jpeg", encode(".jpg", picture[..., :1]))
        write(masks / "akahara" / "grey.png", encode(".png", mask))
        if part == "train":
            picture, mask = draw(20, 90, MADARA, red=128)
            alpha = np.full((20, 90, 1), 255, np.uint8)
            write(images / "madara" / "clear.png", encode(".png", np.dstack([picture, alpha])))
            write(masks / "madara" / "clear.png", encode(".png", np.dstack([mask, alpha])))
            picture, mask = draw(8, 8, AKAHARA)
            write(images / "small.PNG", encode(".png", picture))
            write(masks / "small.png", encode(".png", mask))
        write(images / ".hidden.jpg", b"no picture")
        write(images / ".trash" / "old.jpg", b"no picture")
        write(masks / "akahara" / "._one 一.png", b"no picture")
        write(masks / "notes.txt", b"no picture")
    return folder


def encode_idx(pictures):
    """Return pictures (any, height, width) uint8 as a file in the format of MNIST."""
    return struct.pack(">4I", 0x803, *pictures.shape) + pictures.tobytes()


def pickle_batch(pixels):
    """Return pixels (any, 3072) uint8 pickled as Python 2 has pickled the batches of CIFAR-10: strings are bytes."""

    def text(data):
        return b"T" + struct.pack("<i", len(data)) + data

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01"
    array += b"".join(b"J" + struct.pack("<i", length) for length in pixels.shape) + b"\x86"
    array += b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    array += b"\x89" + text(pixels.tobytes()) + b"tb"
    labels, names = (b"](" + item * len(pixels) + b"e" for item in (b"K\x03", text(b"cat.png")))
    items = {b"batch_label": text(b"testing batch"), b"labels": labels, b"data": array, b"filenames": names}
    return b"\x80\x02}(" + b"".join(text(name) + item for name, item in items.items()) + b"u."


def write_mnist(folder):
    """Make 6 and 4 digits, a stroke each, packed under the one spelling and not packed under the other."""
    digits = np.zeros((10, 28, 28), np.uint8)
    for i, digit in enumerate(digits):
        cv2.line(digit, (9 + i, 5), (18 - i, 22), 255, 3)
    write(folder / "raw" / "train-images-idx3-ubyte.gz", gzip.compress(encode_idx(digits[:6])))
    write(folder / "t10k-images.idx3-ubyte", encode_idx(digits[6:]))
    write(folder / "notes.txt", b"no digits")
    return folder


def write_cifar(folder):
    """Make 5 and 3 photographs, each of one colour with noise, of the binary and of the Python version."""
    rng = np.random.default_rng(5)
    photographs = rng.integers(0, 160, (8, 3, 1, 1)) + rng.integers(0, 40, (8, 3, 32, 32))
    pixels = photographs.astype(np.uint8).reshape(8, 3072)  # red, then green, then blue
    records = np.hstack([np.full((5, 1), 9, np.uint8), pixels[:5]])
    write(folder / "cifar-10-batches-bin" / "data_batch_1.bin", records.tobytes())
    write(folder / "test_batch", pickle_batch(pixels[5:]))
    return folder


def write_digits(path):
    """Make a file as Dataset/download_digits.py does: 10 digits, a stroke each, and 8 photographs, a colour each."""
    digits, rng = np.zeros((10, 28, 28), np.uint8), np.random.default_rng(5)
    for i, digit in enumerate(digits):
        cv2.line(digit, (9 + i, 5), (18 - i, 22), 255, 3)
    photographs = rng.integers(0, 160, (8, 1, 1, 3)) + rng.integers(0, 40, (8, 32, 32, 3))
    np.savez(path, digits=digits, photographs=photographs.astype(np.uint8))
    return path


def encode_mask(mask, colours=None):
    """Return a mask (height, width) as a palette PNG, in VOC's colours if no others, (any, 3) uint8, are given."""
    if colours is None:  # as VOC's development kit makes them: three bits of the index a round, the highest bit first
        bits = np.arange(256)[:, None] >> np.arange(9) & 1
        colours = sum(bits[:, 3 * i : 3 * i + 3] << 7 - i for i in range(3))
    image, file = Image.fromarray(np.uint8(mask)), io.BytesIO()
    image.putpalette(np.uint8(colours).tobytes())
    image.save(file, "PNG")
    return file.getvalue()


VOC_SIZES = {
    "train": {"2007_000032": (30, 50), "2007_000039": (50, 30), "2008_000001": (40, 40), "2009_000007": (64, 45)},
    "val": {"2007_000033": (33, 47), "2010_000042": (48, 36), "2011_000900": (20, 60)},
}


def write_voc(folder):
    """Make VOCdevkit/ with 4 images to train on and 3 to validate: one of them grey, one turned, one mask grey."""
    voc, rng = folder / "VOCdevkit" / "VOC2012", np.random.default_rng(3)
    for split, sizes in VOC_SIZES.items():
        for number, (name, (height, width)) in enumerate(sizes.items()):
            mask = np.zeros((height, width), np.uint8)
            for x, index in ((width // 4, 15), (3 * width // 4, 7 + number)):
                cv2.ellipse(mask, (x, height // 2), (width // 5, height // 3), 10, 0, 360, index, -1)
                cv2.ellipse(mask, (x, height // 2), (width // 5, height // 3), 10, 0, 360, 255, 2)
            picture = (mask[..., None] * np.uint8((3, 5, 7)) + rng.integers(0, 40, (height, width, 3))).astype(np.uint8)
            path = voc / "JPEGImages" / f"{name}.jpg"
            write(path, encode(".jpg", picture[..., :1] if name == "2008_000001" else picture))
            if name == "2009_000007":  # a camera held upright: 6 means to turn it by 90 degrees clockwise
                exif = Image.Exif()
                exif[0x0112] = 6
                Image.fromarray(np.rot90(picture)).save(path, exif=exif)
            data = encode(".png", mask[..., None]) if name == "2010_000042" else encode_mask(mask)
            write(voc / "SegmentationClass" / f"{name}.png", data)
        write(voc / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in sizes).encode())
    return folder


STREETS = {  # the names of each split, by city
    "train": {
        "aalen": ("aalen_000000_000019", "aalen_000001_000019"),
        "ulm": tuple(f"ulm_00000{i}_000019" for i in "259"),
    },
    "val": {"köln": ("köln_000000_000019", "köln_000003_000019", "köln_000004_000019")},
}


def write_streets(folder, height=40, width=80):
    """Make leftImg8bit/ and gtFine/ as Cityscapes has them, 5 and 3 pictures, with all that lies there beside them."""
    rng = np.random.default_rng(4)
    for split, cities in STREETS.items():
        for city, names in cities.items():
            for name in names:
                ids = np.zeros((height, width), np.uint8)
                ids[: height // 2], ids[height // 2 : -4] = 23, 7  # sky, road, and the car that carries the camera: 0
                for label in range(34):
                    y, x = rng.integers(height - 12), rng.integers(width - 6)
                    ids[y : y + rng.integers(3, 12), x : x + rng.integers(2, 6)] = label
                picture = (ids[..., None] * np.uint8((3, 5, 7)) + rng.integers(0, 40, (height, width, 3))).astype(
                    np.uint8
                )
                write(folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", encode(".png", picture))
                labels = folder / "gtFine" / split / city / f"{name}_gtFine"
                write(labels.with_name(f"{labels.name}_labelIds.png"), encode(".png", ids[..., None]))
                instances = np.uint16(ids)[..., None] * np.uint16(1000)
                write(labels.with_name(f"{labels.name}_instanceIds.png"), encode(".png", instances))
                colours = np.dstack([picture, np.full((height, width, 1), 255, np.uint8)])
                write(labels.with_name(f"{labels.name}_color.png"), encode(".png", colours))
                write(labels.with_name(f"{labels.name}_polygons.json"), b"{}")
            write(folder / "leftImg8bit" / split / city / f"._{names[0]}_leftImg8bit.png", b"no picture")
    write(folder / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png", b"no picture")
    return folder


@pytest.fixture(scope="session")
def newts(tmp_path_factory):
    """The made newts; for reading only."""
    return write_newts(tmp_path_factory.mktemp("いもり の data"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The file of made digits; for reading only."""
    return write_digits(tmp_path_factory.mktemp("数字 の data") / "digits.npz")


@pytest.fixture(scope="session")
def voc(tmp_path_factory):
    """The folder with the made VOCdevkit/; for reading only."""
    return write_voc(tmp_path_factory.mktemp("絵 の data"))


@pytest.fixture(scope="session")
def streets(tmp_path_factory):
    """The folder with the made leftImg8bit/ and gtFine/; for reading only."""
    return write_streets(tmp_path_factory.mktemp("街 の data"))


@pytest.fixture(scope="session")
def street_stages(streets, fork, tmp_path_factory):
    """What street_preprocess and street_records made of the made streets, 32 x 64: {exercise: folder}; to read only."""
    top, data, outs = tmp_path_factory.mktemp("街 の 記録"), streets, {}
    for name, more in {"street_preprocess": ["--size", 32, "--workers", 0], "street_records": []}.items():
        outs[name] = top / name
        arguments = ["--data", data, "--out", outs[name], "--device", "cpu", *more]
        done = fork(ANSWERS[name, "pytorch"], *arguments, cwd=top)
        assert done.returncode == 0, done.stderr
        data = outs[name]
    return outs


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; tests that need it are skipped where there is none."""
    import playwright.sync_api as api

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not path:
        pytest.skip("no Chromium")
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags = [*flags.split(), "--disable-component-update", "--disable-sync"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()
