"""Dataset/download_digits.py against a server on this machine: checked files or none, and one line when it fails."""

import functools
import gzip
import hashlib
import io
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import ROOT, SCRIPTS, encode_idx, load

sys.path.insert(0, str(ROOT / "Dataset"))
import download_digits

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
    """Return CIFAR-10's six files, of two pictures each, by their names in the archive."""
    batches = {}
    for number, name in enumerate(download_digits.BATCHES):
        batches[f"cifar-10-batches-bin/{name}"] = (bytes([number]) + bytes(range(256)) * 12) * 2
    return batches


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that is served, and a function that runs the download from it to tmp_path/digits."""
    folder = tmp_path / "served"
    folder.mkdir()
    digits = np.full((3, 28, 28), 200, np.uint8)
    files = {name: gzip.compress(encode_idx(digits), mtime=0) for name in (TRAIN, TEST)}
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
    mirrors = ["--mnist-mirror", url, "--cifar-mirror", url]
    run = functools.partial(download_digits.main, [*mirrors, "--out", str(tmp_path / "digits")])
    yield folder, serve, run
    http.shutdown()
    http.server_close()


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_is_fetched_and_the_answers_read_it(tmp_path, served, capsys):
    assert served[2]() == 0
    out = tmp_path / "digits"
    assert list_files(out) == [
        *(f"cifar-10/{name}" for name in download_digits.BATCHES),
        *sorted(f"mnist/{name}" for name in (TRAIN, TEST)),
    ]
    assert f"--mnist {out / 'mnist'} --cifar {out / 'cifar-10'}" in capsys.readouterr().out
    answer = load(next(script for script in SCRIPTS if script.stem == "digits_dataset_pytorch"))
    assert len(answer.load_digits(out / "mnist")) == 6
    assert answer.load_photographs(out / "cifar-10").shape == (12, 32, 32, 3)


def test_a_second_run_asks_no_server(served):
    assert served[2]() == 0
    asked = len(Handler.asked)
    assert asked == 3 and served[2]() == 0 and len(Handler.asked) == asked


def test_only_what_is_missing_is_fetched(tmp_path, served):
    assert served[2]() == 0
    (tmp_path / "digits/mnist" / TEST).unlink()
    (tmp_path / "digits/cifar-10/test_batch.bin").unlink()
    Handler.asked = []
    assert served[2]() == 0 and len(Handler.asked) == 2
    assert len(list_files(tmp_path / "digits")) == 8


def fails(served, capsys, *said):
    assert served[2]() == 2
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
    assert served[2]() == 0  # what came whole was kept, and the rest comes now
    assert len(list_files(tmp_path / "digits")) == 8


def test_a_file_that_the_server_lacks(tmp_path, served, capsys):
    (served[0] / TEST).unlink()
    fails(served, capsys, TEST, "404", "--mnist-mirror")
    assert list_files(tmp_path / "digits") == [f"mnist/{TRAIN}"]


def test_a_file_of_the_users_own_stays(tmp_path, served, capsys):
    own = tmp_path / "digits/mnist" / TRAIN
    own.parent.mkdir(parents=True)
    own.write_bytes(b"my own")
    fails(served, capsys, str(own), "--out")
    assert own.read_bytes() == b"my own"


def test_an_archive_writes_nothing_but_the_batches(tmp_path, served):
    batches = make_batches()
    outside = {"../../outside": b"no", "cifar-10-batches-bin/../../../outside": b"no", str(tmp_path / "outside"): b"no"}
    served[1](ARCHIVE, pack(batches | outside))
    before = set(list_files(tmp_path))
    assert served[2]() == 0
    added = set(list_files(tmp_path)) - before
    assert len(added) == 8 and not [name for name in added if "outside" in name]


def test_an_archive_without_a_batch(tmp_path, served, capsys):
    batches = make_batches()
    del batches["cifar-10-batches-bin/data_batch_4.bin"]
    served[1](ARCHIVE, pack(batches))
    fails(served, capsys, ARCHIVE, "data_batch_4.bin")


def test_an_out_that_cannot_be_written(tmp_path, served, capsys):
    (tmp_path / "digits").write_bytes(b"a file")
    fails(served, capsys, "digits", "--out")


def test_the_checksums_are_whole():
    """They were copied from the lists of TensorFlow Datasets; a digit less would refuse every file."""
    assert all(len(sum_) == 64 and set(sum_) <= set("0123456789abcdef") for sum_ in download_digits.SHA256.values())
