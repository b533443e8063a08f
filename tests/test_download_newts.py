"""Dataset/download_newts.py against a server on this machine: whole files or none, and one line when it fails."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Dataset"))
import download_newts

DATASET = download_newts.HERE
NAMES = [f"{split}/{kind}" for split in ("test", "train") for kind in ("images/a/a_1.jpg", "seg_images/a/a_1.png")]
FILES = {name: f"the bytes of {name} ".encode() * 500 for name in NAMES}
LAST = NAMES[-1]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Server:
    """Serves `files` ({name: bytes}) under /newts/ at `url`; `requests` counts what was asked for, by name.

    `faults` {name: fault} spoils answers: "wrong byte", "drop" (half of the file, then the connection closes),
    "drop once", "stall" (half of the file, then nothing) or an HTTP status. `stalled` is set once a stall has begun.
    """

    def __init__(self, files):
        self.files, self.faults, self.requests = files, {}, Counter()
        self.stalled, self.closing = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/newts/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, handler):
        name = handler.path.removeprefix("/newts/")
        self.requests[name] += 1
        fault = self.faults.get(name)
        if isinstance(fault, int) or name not in self.files:
            handler.send_error(fault or 404)
            return
        body = self.files[name]
        if fault == "wrong byte":
            body = body[:-1] + bytes([body[-1] ^ 1])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if fault == "drop" or (fault == "drop once" and self.requests[name] == 1):
            body = body[: len(body) // 2]
        elif fault == "stall":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            self.stalled.set()
            self.closing.wait(30)
            return
        handler.wfile.write(body)

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server(FILES)
    yield server
    server.close()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    path = tmp_path / "registry.txt"
    write_registry(path, FILES)
    monkeypatch.setattr(download_newts, "REGISTRY", path)
    return path


@pytest.fixture(autouse=True)
def no_proxy_and_no_waiting(monkeypatch):
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "photographs"


def write_registry(path, files):
    path.write_text("".join(f"{name} {hashlib.sha256(body).hexdigest()}\n" for name, body in files.items()))


def read_registry():
    """{name: SHA-256} of the project's own registry."""
    lines = (DATASET / "photographs_registry.txt").read_text().splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


def tree(folder):
    """{name: bytes} of every file below the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_complete(out, files=FILES):
    assert tree(out) == {**files, "LICENSE": (DATASET / "photographs_LICENSE.txt").read_bytes()}
    assert not (out / ".partial").exists()


def fail(capsys, url, out):
    """Run main, which must fail in one line on stderr with status 2; return that line."""
    assert download_newts.main(["--mirror", url, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("download_newts.py: ")
    assert captured.err.count("\n") == 1
    return captured.err


def start(url, registry, out):
    """Start the script in a process of its own, with the registry given."""
    code = (
        "import sys, download_newts; from pathlib import Path; "
        "download_newts.REGISTRY = Path(sys.argv[1]); sys.exit(download_newts.main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, str(registry), "--mirror", url, "--out", str(out)]
    return subprocess.Popen(command, cwd=DATASET, stderr=subprocess.PIPE, text=True)


def test_brings_every_file_and_the_licence_and_names_the_source(server, registry, out, capsys):
    assert download_newts.main(["--mirror", server.url, "--out", str(out)]) == 0
    assert_complete(out)
    assert server.requests == dict.fromkeys(NAMES, 1)
    captured = capsys.readouterr()
    assert captured.err == ""
    for part in ("Yoshito Nagaoka", "MIT", "github.com/yoyoyo-yo/DeepLearningMugenKnock", f"--data {out}"):
        assert part in captured.out


def test_a_second_run_asks_for_nothing_and_touches_nothing(server, registry, out):
    assert download_newts.download(server.url, registry, out) == (4, 4)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert download_newts.download(server.url, registry, out) == (4, 0)
    assert server.requests.total() == 4
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_the_files(server, registry, out):
    download_newts.download(server.url, registry, out)
    assert (out / LAST).stat().st_mode & 0o777 == 0o644


def test_a_deleted_file_is_fetched_again_alone(server, registry, out):
    download_newts.download(server.url, registry, out)
    server.requests.clear()
    (out / LAST).unlink()
    assert download_newts.download(server.url, registry, out) == (4, 1)
    assert server.requests == {LAST: 1}
    assert_complete(out)


def test_a_changed_file_is_reported_and_left(server, registry, out, capsys):
    download_newts.download(server.url, registry, out)
    server.requests.clear()
    (out / LAST).write_bytes(b"a mask that I corrected")
    assert str(out / LAST) in fail(capsys, server.url, out)
    assert (out / LAST).read_bytes() == b"a mask that I corrected"
    assert server.requests.total() == 0


def test_a_wrong_byte_is_named_and_not_left(server, registry, out, capsys):
    server.faults[LAST] = "wrong byte"
    line = fail(capsys, server.url, out)
    assert LAST in line and "SHA-256" in line
    assert server.requests[LAST] == 3
    assert not (out / "train").exists()
    assert tree(out / ".partial") == {name: FILES[name] for name in NAMES[:-1]}

    server.faults.clear()
    server.requests.clear()
    assert download_newts.main(["--mirror", server.url, "--out", str(out)]) == 0
    assert server.requests == {LAST: 1}
    assert_complete(out)


def test_a_connection_that_breaks_once_is_tried_again(server, registry, out):
    server.faults[LAST] = "drop once"
    download_newts.download(server.url, registry, out)
    assert server.requests[LAST] == 2
    assert_complete(out)


@pytest.mark.parametrize(("fault", "words"), [("drop", "ChunkedEncodingError"), (404, "404"), (503, "503")])
def test_a_file_that_never_comes_ends_in_one_line(server, registry, out, capsys, fault, words):
    server.faults[LAST] = fault
    line = fail(capsys, server.url, out)
    assert LAST in line and words in line
    assert server.requests[LAST] == 3
    assert tree(out) == {f".partial/{name}": FILES[name] for name in NAMES[:-1]}


def test_no_server_leaves_nothing(server, registry, out, capsys):
    server.close()
    line = fail(capsys, server.url, out)
    assert "network" in line and "--mirror" in line
    assert not out.exists()


def test_a_folder_that_the_user_made_stays(server, registry, out, capsys):
    server.close()
    out.mkdir()
    fail(capsys, server.url, out)
    assert list(out.iterdir()) == []


def test_a_server_that_never_answers_is_asked_once(registry, out, capsys, monkeypatch):
    calls = []

    def never_answers(self, url, *_):
        calls.append(url)
        raise requests.ConnectTimeout("no answer")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", never_answers)
    assert "network" in fail(capsys, "http://127.0.0.1/", out)
    assert len(calls) == 1
    assert not out.exists()


def test_a_mirror_that_is_no_address(registry, out, capsys):
    assert "MissingSchema" in fail(capsys, "mirror", out)


def test_a_killed_run_is_completed_by_the_next(server, registry, out):
    server.faults[LAST] = "stall"
    process = start(server.url, registry, out)
    assert server.stalled.wait(20)
    process.kill()
    process.communicate()
    left = tree(out)
    assert len(left) == 4 and all(name.startswith(".partial/") for name in left)

    server.faults.clear()
    server.requests.clear()
    assert download_newts.download(server.url, registry, out) == (4, 4)
    assert server.requests == {LAST: 1}
    assert_complete(out)


def test_what_a_killed_run_left_is_gone_after_a_failure(server, registry, out, capsys):
    leftover = out / ".partial" / "train" / "images" / "a" / "tmpq3k_1x"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half a")
    server.close()
    fail(capsys, server.url, out)
    assert not out.exists()


def test_a_run_killed_at_its_very_end_is_tidied_by_the_next(server, registry, out):
    download_newts.download(server.url, registry, out)
    server.requests.clear()
    (out / ".partial").mkdir()
    (out / ".partial" / NAMES[0].rpartition("/")[2]).write_bytes(b"")
    assert download_newts.download(server.url, registry, out) == (4, 0)
    assert server.requests.total() == 0
    assert_complete(out)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C another way")
def test_ctrl_c_ends_in_one_line(server, registry, out):
    server.faults[LAST] = "stall"
    process = start(server.url, registry, out)
    assert server.stalled.wait(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "download_newts.py: stopped: run it again to fetch the rest\n"
    assert tree(out) == {f".partial/{name}": FILES[name] for name in NAMES[:-1]}


def test_out_is_a_file(server, registry, out, capsys):
    out.write_text("mine")
    assert str(out) in fail(capsys, server.url, out)
    assert out.read_text() == "mine"


def test_out_in_a_folder_that_is_not_there(server, registry, out, capsys):
    assert str(out) in fail(capsys, server.url, out / "newts")
    assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_out_in_a_folder_that_is_read_only(server, registry, out, capsys):
    out.mkdir(mode=0o500)
    assert str(out) in fail(capsys, server.url, out)


def test_the_registry_pairs_every_picture_with_a_mask():
    sums = read_registry()
    assert len(sums) == 44
    assert all(len(sha256) == 64 and set(sha256) <= set("0123456789abcdef") for sha256 in sums.values())
    pictures = {name for name in sums if "/images/" in name}
    assert len(pictures) == 22
    masks = {name.replace("/images/", "/seg_images/").replace(".jpg", ".png") for name in pictures}
    assert pictures | masks == set(sums)


@pytest.mark.skipif("IMORI_PHOTOGRAPHS" not in os.environ, reason="IMORI_PHOTOGRAPHS names no folder of photographs")
def test_the_photographs_themselves(tmp_path, out, capsys, monkeypatch):
    bodies = [path.read_bytes() for path in Path(os.environ["IMORI_PHOTOGRAPHS"]).rglob("*") if path.is_file()]
    by_sum = {hashlib.sha256(body).hexdigest(): body for body in bodies}
    entries = read_registry()
    files = {name: by_sum[sha256] for name, sha256 in entries.items() if sha256 in by_sum}
    assert files, "the folder holds none of the photographs"
    registry = tmp_path / "registry.txt"
    registry.write_text("".join(f"{name} {entries[name]}\n" for name in files))
    monkeypatch.setattr(download_newts, "REGISTRY", registry)

    server = Server(files)
    last = list(files)[-1]
    server.faults[last] = "wrong byte"
    assert last in fail(capsys, server.url, out)
    server.faults.clear()
    assert download_newts.download(server.url, registry, out) == (len(files), len(files))
    server.close()
    assert_complete(out, files)
