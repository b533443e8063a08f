"""Dataset/download_digits.py: what a server on this machine or a folder has becomes one file, or fails in one line."""

import builtins
import functools
import gzip
import hashlib
import io
import os
import pickle
import shutil
import sys
import tarfile
import threading
from argparse import Namespace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from conftest import ROOT, encode_idx, pickle_batch, write, write_cifar, write_mnist
from exercises import answer_path, load_answer

sys.path.insert(0, str(ROOT / "Dataset"))
import download_digits
from download_digits import DownloadError

TRAIN, TEST, ARCHIVE = download_digits.SHA256


class Handler(SimpleHTTPRequestHandler):
    asked = []

    def log_message(self, *_):
        self.asked.append(self.path)


def pack(files):
    """Return {name: bytes} as a .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def make_batches():
    """Return CIFAR-10's six files, of two photographs each, by their names in the archive."""
    batches = {}
    for number, name in enumerate(download_digits.BATCHES):
        batches[f"cifar-10-batches-bin/{name}.bin"] = (bytes([number]) + bytes(range(256)) * 12) * 2
    return batches


def random_pixels(number):
    return np.random.default_rng(number).integers(0, 256, (number, 3072), np.uint8)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that is served, and functions that serve a file and that run the script, to tmp_path/digits/out.npz."""
    folder = tmp_path / "served"
    folder.mkdir()
    files = {TRAIN: np.full((3, 28, 28), 200, np.uint8), TEST: np.full((2, 28, 28), 100, np.uint8)}
    files = {name: gzip.compress(encode_idx(digits), mtime=0) for name, digits in files.items()}
    files[ARCHIVE] = pack(make_batches() | {"cifar-10-batches-bin/readme.html": b"read me"})
    for variable in ("http_proxy", "all_proxy"):
        for name in (variable, variable.upper()):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)

    def serve(name, data):
        (folder / name).write_bytes(data)
        monkeypatch.setitem(download_digits.SHA256, name, hashlib.sha256(data).hexdigest())

    for name, data in files.items():
        serve(name, data)
    Handler.asked = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{http.server_port}/"
    mirrors = ["--mnist-mirror", url, "--cifar-mirror", url, "--out", str(tmp_path / "digits/out.npz")]
    yield folder, serve, lambda *arguments: download_digits.main([*mirrors, *map(str, arguments)])
    http.shutdown()
    http.server_close()


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def load_file(path):
    """Return digits and photographs as the answers read them from a file."""
    data = load_answer(answer_path("digits_dataset", "pytorch")).load_data(Namespace(data=path))
    return [np.concatenate(arrays) for arrays in zip(data["train"], data["test"], strict=True)]


# ---- what is fetched ----


def test_all_is_fetched_into_one_file_that_the_answers_read(tmp_path, served, capsys):
    assert served[2]() == 0
    out = tmp_path / "digits/out.npz"
    assert list_files(out.parent) == ["out.npz"]
    assert f"02_digits_cnn_pytorch.py --data {out}" in capsys.readouterr().out
    digits, photographs = load_file(out)
    assert digits.shape == (5, 14, 14) and photographs.shape == (12, 32, 32, 3)
    assert digits[:3] == pytest.approx(200 / 255) and digits[3:] == pytest.approx(100 / 255)
    assert photographs[0, 0, :, 0].tolist() == list(range(32))


def test_a_second_run_asks_no_server(served, capsys):
    assert served[2]() == 0
    asked = len(Handler.asked)
    assert asked == 3 and served[2]() == 0 and len(Handler.asked) == asked
    assert "is there already" in capsys.readouterr().out


def test_only_what_is_not_at_hand_is_fetched(tmp_path, served):
    write_mnist(tmp_path / "mnist")
    write_cifar(tmp_path / "cifar")
    for given, asked, numbers in (
        (["--mnist", tmp_path / "mnist"], {ARCHIVE}, (10, 12)),
        (["--cifar", tmp_path / "cifar"], {TRAIN, TEST}, (5, 8)),
        (["--mnist", tmp_path / "mnist", "--cifar", tmp_path / "cifar"], set(), (10, 8)),
    ):
        Handler.asked = []
        assert served[2](*given) == 0
        assert {path.removeprefix("/") for path in Handler.asked} == asked
        assert tuple(map(len, load_file(tmp_path / "digits/out.npz"))) == numbers


def fails(served, capsys, *said, given=()):
    assert served[2](*given) == 2
    printed = capsys.readouterr().err.splitlines()
    lines = [line for line in printed if "%|" not in line]
    assert len(lines) == 1 and lines[0].startswith("download_digits.py: ")
    assert all(word in lines[0] for word in said), lines


@pytest.mark.parametrize("name", [TRAIN, ARCHIVE])
def test_a_file_that_is_not_the_published_one_is_not_kept(tmp_path, served, capsys, name):
    path = served[0] / name
    whole = path.read_bytes()
    for data in (whole[:-1] + b"x", whole[: len(whole) // 2], b""):
        path.write_bytes(data)
        fails(served, capsys, name, "SHA-256")
        assert name not in {file.rpartition("/")[2] for file in list_files(tmp_path / "digits")}
    path.write_bytes(whole)
    Handler.asked = []
    assert served[2]() == 0  # what came whole was kept, and the rest comes now
    assert f"/{name}" in Handler.asked and len(Handler.asked) == (3 if name == TRAIN else 1)
    assert list_files(tmp_path / "digits") == ["out.npz"]


def test_a_file_that_was_cut_short_is_fetched_again(tmp_path, served):
    write(tmp_path / "digits/.downloads" / TRAIN, b"a part")
    assert served[2]() == 0 and len(load_file(tmp_path / "digits/out.npz")[0]) == 5


def test_a_file_that_the_server_lacks(tmp_path, served, capsys):
    (served[0] / TEST).unlink()
    fails(served, capsys, TEST, "404", "--mnist-mirror")
    assert list_files(tmp_path / "digits") == [f".downloads/{TRAIN}"]


def test_an_archive_writes_nothing_but_the_file(tmp_path, served):
    batches = make_batches()
    outside = {"../../outside": b"no", "cifar-10-batches-bin/../../../outside": b"no", str(tmp_path / "outside"): b"no"}
    served[1](ARCHIVE, pack(batches | outside))
    before = set(list_files(tmp_path))
    assert served[2]() == 0
    assert set(list_files(tmp_path)) - before == {"digits/out.npz"}


def test_an_archive_without_a_batch(served, capsys):
    batches = make_batches()
    del batches["cifar-10-batches-bin/data_batch_4.bin"]
    served[1](ARCHIVE, pack(batches))
    fails(served, capsys, ARCHIVE, "data_batch_4.bin")


def test_an_out_that_cannot_be_written(tmp_path, served, capsys):
    (tmp_path / "digits").write_bytes(b"a file")
    fails(served, capsys, "digits", "--out")
    (tmp_path / "folder").mkdir()
    fails(served, capsys, "folder: is a folder", "digits.npz", given=["--out", tmp_path / "folder"])
    assert not Handler.asked  # this shows before anything is fetched


def test_the_checksums_are_whole():
    """They were copied from the lists of TensorFlow Datasets; a digit less would refuse every file."""
    assert all(len(sum_) == 64 and set(sum_) <= set("0123456789abcdef") for sum_ in download_digits.SHA256.values())


# ---- MNIST ----


def told(function, *arguments):
    """Return the one line of the DownloadError in which a function ends."""
    with pytest.raises(DownloadError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_digits_are_read_from_either_spelling_packed_or_not(tmp_path):
    digits = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    data = encode_idx(digits)
    for dot in "-.":
        for end, content in (("", data), (".gz", gzip.compress(data))):
            for part in ("train", "t10k"):
                folder = tmp_path / f"{part}{dot}{end}"
                write(folder / "MNIST/raw" / f"{part}-images{dot}idx3-ubyte{end}", content)
                assert np.array_equal(download_digits.read_digits(folder), digits)


def test_a_digit_file_that_is_there_twice_is_read_once(tmp_path):
    write_mnist(tmp_path)
    packed = tmp_path / "raw/train-images-idx3-ubyte.gz"
    write(tmp_path / "train-images-idx3-ubyte", gzip.decompress(packed.read_bytes()))
    assert len(download_digits.read_digits(tmp_path)) == 10


DAMAGE = {
    "magic": (lambda data: b"\0\0\x08\x01" + data[4:], "begins with 0x801"),
    "short": (lambda data: data[:-1], "bytes"),
    "long": (lambda data: data + b"\0", "bytes"),
    "head": (lambda data: data[:7], "bytes"),
    "nothing": (lambda data: b"", "begins with 0x0"),
    "no digits": (lambda data: b"\0\0\x08\x03" + bytes(12), "bytes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_digit_file_is_told_in_one_line(tmp_path, kind):
    change, said = DAMAGE[kind]
    path = tmp_path / "train-images-idx3-ubyte"
    write(path, change(encode_idx(np.ones((3, 28, 28), np.uint8))))
    line = told(download_digits.read_digits, tmp_path)
    assert str(path) in line and said in line


@pytest.mark.parametrize("cut", [0, 5, 200, -1])
def test_a_cut_off_packed_file_is_told_in_one_line(tmp_path, cut):
    path = tmp_path / "t10k-images.idx3-ubyte.gz"
    noise = np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)
    write(path, gzip.compress(encode_idx(noise))[:cut])
    assert str(path) in told(download_digits.read_digits, tmp_path)


def test_digits_of_two_sizes_are_told_in_one_line(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", encode_idx(np.ones((3, 28, 28), np.uint8)))
    write(tmp_path / "t10k-images-idx3-ubyte", encode_idx(np.ones((3, 14, 14), np.uint8)))
    assert "differ in the size" in told(download_digits.read_digits, tmp_path)


@pytest.mark.parametrize("option, function", [("--mnist", "read_digits"), ("--cifar", "read_photographs")])
def test_a_folder_without_the_files_is_told_in_one_line(tmp_path, option, function):
    for folder, said in ((tmp_path, "in it"), (tmp_path / "nowhere", "no such folder")):
        line = told(getattr(download_digits, function), folder)
        assert f"{option} {folder}: no" in line and said in line


def test_one_image_alone_cannot_be_dealt_out(tmp_path, served, capsys):
    write(tmp_path / "own/train-images-idx3-ubyte", encode_idx(np.ones((1, 28, 28), np.uint8)))
    write(tmp_path / "own/data_batch_1", pickle_batch(random_pixels(1)))
    for option in ("--mnist", "--cifar"):
        fails(served, capsys, option, given=[option, tmp_path / "own"])


# ---- CIFAR-10 ----


def test_the_pickle_of_the_tests_is_one_that_numpy_reads():
    pixels = random_pixels(3)
    batch = pickle.loads(pickle_batch(pixels), encoding="bytes")
    assert batch.keys() == {b"batch_label", b"labels", b"data", b"filenames"}
    assert np.array_equal(batch[b"data"], pixels) and len(batch[b"labels"]) == len(batch[b"filenames"]) == 3


def test_both_versions_give_the_same_photographs(tmp_path):
    pixels = random_pixels(4)
    binary = np.hstack([np.uint8([[0], [9], [3], [4]]), pixels]).tobytes()
    pair = [download_digits.parse_batch(binary, True), download_digits.parse_batch(pickle_batch(pixels), False)]
    assert np.array_equal(*pair) and pair[0].shape == (4, 32, 32, 3)
    for channel in range(3):  # red, green and blue, each row by row
        assert np.array_equal(pair[0][2, ..., channel].ravel(), pixels[2, 1024 * channel :][:1024])
    write(tmp_path / "test_batch.bin", binary)
    write(tmp_path / "test_batch", pickle_batch(pixels))
    assert len(download_digits.read_photographs(tmp_path)) == 4  # once, though it is there in both versions


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_that_python_3_pickled_again_is_read(protocol):
    pixels = random_pixels(2)
    expected = pixels.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
    for array in (pixels, np.asfortranarray(pixels)):
        data = pickle.dumps({b"data": array, b"labels": [1, 2]}, protocol)
        assert np.array_equal(download_digits.parse_batch(data, False), expected)


class Hostile:
    """Is pickled as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "function", [os.mkdir, builtins.exec, shutil.rmtree, getattr, np.load], ids=lambda function: function.__name__
)
def test_a_hostile_pickle_does_nothing_but_earn_an_error(tmp_path, function, protocol):
    target, kept = tmp_path / "hostile", tmp_path / "kept"
    kept.mkdir()
    arguments = {os.mkdir: [str(target)], builtins.exec: [f"import os; os.mkdir({str(target)!r})"]}
    hostile = Hostile(function, *arguments.get(function, [str(kept)]))
    path = tmp_path / "test_batch"
    for content in (hostile, {b"data": hostile}, {b"labels": [3, hostile], b"data": random_pixels(2)}):
        write(path, pickle.dumps(content, protocol))
        line = told(download_digits.read_photographs, tmp_path)
        assert str(path) in line and function.__name__ in line
        assert kept.exists() and not target.exists()
    write(path, pickle.dumps(Hostile(os.mkdir, str(target)), protocol))
    pickle.loads(path.read_bytes())
    assert target.exists()  # what it would have done


def test_what_a_batch_may_name_is_not_called_either(tmp_path):
    """A pickle may name NumPy's array and dtype; neither is made: no array of Python objects, none of a huge size."""
    for content in (np.array([{}, []], object), np.zeros((2, 3072)), np.dtype("u1"), np.zeros((2, 99), np.uint8)):
        write(tmp_path / "test_batch", pickle.dumps({b"data": content}, 2))
        assert "not a whole batch" in told(download_digits.read_photographs, tmp_path)
    huge = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftU\x01btR."
    write(tmp_path / "test_batch", b"\x80\x02" + huge)
    assert "not a whole batch" in told(download_digits.read_photographs, tmp_path)


def test_a_damaged_batch_is_told_in_one_line(tmp_path):
    pixels = random_pixels(3)
    records = np.hstack([np.uint8([[0], [1], [2]]), pixels]).tobytes()
    wrong = {
        "data_batch_1.bin": [records[:-1], records + b"\0", b"", b"\x0a" + records[1:]],
        "data_batch_2": [pickle_batch(pixels)[:cut] for cut in (0, 1, 50, 5000, -1)]
        + [pickle.dumps(content) for content in ({}, [], 5, {b"data": b"bytes"}, {b"data": None})]
        + [b"a text, by name a batch\n", gzip.compress(pickle_batch(pixels))],
    }
    for name, contents in wrong.items():
        for content in contents:
            write(tmp_path / name, content)
            line = told(download_digits.read_photographs, tmp_path)
            assert str(tmp_path / name) in line and "not a whole batch of CIFAR-10" in line
        (tmp_path / name).unlink()


def test_photographs_keep_their_colours(tmp_path):
    write_cifar(tmp_path)
    photographs = download_digits.read_photographs(tmp_path)
    assert photographs.shape == (8, 32, 32, 3)
    # One colour with noise: a mix-up of channels and places would show in how much neighbours differ.
    blurred = np.stack([cv2.blur(photograph, (9, 9)) for photograph in photographs])
    assert np.abs(photographs.astype(int) - blurred).max() < 45
