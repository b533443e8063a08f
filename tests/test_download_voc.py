"""Dataset/download_voc.py against a server on this machine: whole files or none, and one line when it fails."""

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT

DATASET = ROOT / "Dataset"
sys.path.insert(0, str(DATASET))
import download_voc  # noqa: E402

BASE = "VOCdevkit/VOC2012"
LISTS = f"{BASE}/ImageSets/Segmentation"
NAMES = ("2007_000032", "2007_000039", "2011_003271")
WANTED = {f"{BASE}/JPEGImages/{name}.jpg": f"picture {name} ".encode() * 3000 for name in NAMES}
WANTED |= {f"{BASE}/SegmentationClass/{name}.png": f"mask {name} ".encode() * 300 for name in NAMES}
WANTED |= {f"{LISTS}/{split}.txt": "\n".join(names).encode() + b"\n" for split, names in
           (("train", NAMES[:2]), ("val", NAMES[2:]), ("trainval", NAMES))}  # fmt: skip
REST = {
    f"{BASE}/Annotations/2007_000032.xml": b"<annotation/>",
    f"{BASE}/SegmentationObject/2007_000032.png": b"objects",
    f"{BASE}/ImageSets/Main/car_train.txt": b"2007_000032 -1\n",
    "VOCdevkit/readme.txt": b"read me",
}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pack(files, *members):
    """The bytes of a tar of {name: bytes} and of members (TarInfo) without a content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("VOCdevkit/VOC2012/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return buffer.getvalue()


ARCHIVE = pack(WANTED | REST)


class Server:
    """Serves `body` under its name at `url`; `ranges` keeps what part each request asked for.

    With resumes it can send a part of a file. breaks: how many answers break off in the middle of what they send;
    stalls: it stops there and keeps the connection; status: what it answers instead.
    """

    def __init__(self, body, name):
        self.body, self.name, self.ranges = body, name, []
        self.resumes, self.breaks, self.stalls, self.status, self.shift = True, 0, False, None, 0
        self.stalled, self.closing = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/files"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        if self.status or handler.path != f"/files/{self.name}":
            handler.send_error(self.status or 404)
            return
        first, body = 0, self.body
        if asked and self.resumes:
            first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + self.shift
            body = body[first:]
            if not body:
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(self.body)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{len(self.body) - 1}/{len(self.body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.breaks or self.stalls:
            self.breaks -= self.breaks > 0
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            if self.stalls:
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
    server = Server(ARCHIVE, download_voc.ARCHIVE)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """The MD5 of the made archive, small pieces, no proxy and no waiting."""
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download_voc, "MD5", hashlib.md5(ARCHIVE).hexdigest())
    monkeypatch.setattr(download_voc, "CHUNK", 1 << 12)
    monkeypatch.setattr(download_voc.time, "sleep", lambda seconds: None)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "写真 voc"


@pytest.fixture
def part(out):
    return out / ".partial" / f"{download_voc.ARCHIVE}.part"


def tree(folder):
    """{name: bytes} of every file below the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch(server, out, *options):
    return download_voc.main(["--mirror", server.url, "--out", str(out), *map(str, options)])


def fail(capsys, server, out, *options):
    """Run main, which must fail in one line on stderr with status 2; return that line."""
    capsys.readouterr()
    assert fetch(server, out, *options) == 2
    printed = capsys.readouterr().err
    lines = printed.splitlines()
    assert len(lines) == 1 and lines[0].startswith("download_voc.py: "), printed
    return lines[0]


def test_it_brings_what_segmentation_needs_and_says_what_it_leaves_out(server, out, capsys):
    assert fetch(server, out) == 0
    assert tree(out) == WANTED and not (out / ".partial").exists()
    printed = capsys.readouterr().out
    left_out = "Annotations (1), ImageSets/Main (1), SegmentationObject (1), VOCdevkit (1)\n"
    numbers = f"2 pictures to train on and 1 to validate, with their masks, are in {out / BASE}\n"
    for said in ("Flickr", "do not pass them on", "2 GB", left_out, numbers):
        assert said in printed
    assert server.ranges == [None]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_have_the_usual_modes_not_those_in_the_archive(server, out):
    assert fetch(server, out) == 0
    plain = out.parent / "plain"
    plain.touch()
    modes = {path.stat().st_mode for path in out.rglob("*") if path.is_file()}
    assert modes == {plain.stat().st_mode}


def test_a_second_run_asks_for_nothing_and_touches_nothing(server, out, capsys):
    assert fetch(server, out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    server.ranges.clear()
    assert fetch(server, out) == 0 and not server.ranges
    assert "is there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("lost", [f"{BASE}/JPEGImages/{NAMES[2]}.jpg", f"{LISTS}/val.txt"])
def test_what_is_lost_is_brought_again(server, out, lost):
    assert fetch(server, out) == 0
    (out / lost).unlink()
    assert fetch(server, out) == 0 and tree(out) == WANTED


def test_a_download_that_breaks_off_is_resumed_in_the_same_run(server, out):
    server.breaks = 2
    assert fetch(server, out) == 0 and tree(out) == WANTED
    first, second = (int(asked[6:-1]) for asked in server.ranges[1:])
    assert server.ranges[0] is None and len(ARCHIVE) * 0.4 < first < len(ARCHIVE) * 0.6 < second < len(ARCHIVE)


def test_a_download_that_broke_off_is_resumed_in_the_next_run(server, out, part, capsys):
    server.breaks = 9
    assert "run again" in fail(capsys, server, out)
    kept = part.stat().st_size
    assert part.read_bytes() == ARCHIVE[:kept] and 0 < kept < len(ARCHIVE)
    assert tree(out) == {f".partial/{part.name}": ARCHIVE[:kept]}
    server.breaks = 0
    server.ranges.clear()
    assert fetch(server, out) == 0 and tree(out) == WANTED
    assert server.ranges == [f"bytes={kept}-"] and "there already" in capsys.readouterr().out


def test_without_ranges_a_download_begins_anew(server, out, part, capsys):
    server.resumes, server.breaks = False, 1
    assert fetch(server, out) == 0 and tree(out) == WANTED
    assert len(server.ranges) == 2 and server.ranges[1]
    assert "begins anew" in capsys.readouterr().out


def test_another_page_does_not_replace_what_has_come(server, out, part, capsys):
    """Whatever is asked for, some networks answer with a page to log in."""
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE[:5000])
    server.resumes, server.body = False, b"<html>Log in, please</html>"
    assert f"answered with another file: log in to your network, or remove {part}" in fail(capsys, server, out)
    assert tree(out) == {f".partial/{part.name}": ARCHIVE[:5000]}
    server.resumes, server.body = True, ARCHIVE
    assert fetch(server, out) == 0 and tree(out) == WANTED and server.ranges == 2 * ["bytes=5000-"]


def test_a_part_that_was_not_asked_for_is_not_appended(server, out, part):
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE[:5000])
    server.shift = 512
    assert fetch(server, out) == 0 and tree(out) == WANTED
    assert server.ranges == ["bytes=5000-", None]


def test_a_part_that_is_whole_already_is_not_fetched_again(server, out, part):
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE)
    assert fetch(server, out) == 0 and tree(out) == WANTED
    assert server.ranges == [f"bytes={len(ARCHIVE)}-"]


def test_a_part_that_is_too_long_is_fetched_anew(server, out, part):
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE + b"more")
    assert fetch(server, out) == 0 and tree(out) == WANTED
    assert server.ranges == [f"bytes={len(ARCHIVE) + 4}-", None]


def test_a_wrong_md5_is_told_and_nothing_is_unpacked(server, out, capsys):
    server.body = ARCHIVE[:-1] + b"x"
    assert "MD5" in fail(capsys, server, out)
    assert not out.exists()
    server.body = ARCHIVE  # and the next run does not go on with what was wrong
    assert fetch(server, out) == 0 and tree(out) == WANTED


def test_a_wrong_beginning_is_found_by_the_md5_and_thrown_away(server, out, part, capsys):
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 5000)
    assert "MD5" in fail(capsys, server, out) and not tree(out)


@pytest.mark.parametrize("status", [404, 403, 503])
def test_what_the_server_refuses_is_told(server, out, part, capsys, status):
    server.status = status
    line = fail(capsys, server, out)
    assert str(status) in line and "--mirror" in line and len(server.ranges) == 1
    assert not out.exists()
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE[:5000])
    fail(capsys, server, out)
    assert part.read_bytes() == ARCHIVE[:5000]  # a refusal costs nothing of what had come


def test_no_server_is_told(server, out, capsys):
    server.close()
    assert "--mirror" in fail(capsys, server, out) and not out.exists()
    out.mkdir()
    assert "--mirror" in fail(capsys, server, out, "--mirror", "no address")
    assert not list(out.iterdir())  # a folder that was there stays


# ---- an archive at hand ----


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """A function that makes an archive of {name: bytes} and members, which counts as the published one."""

    def make(files, *members):
        path = tmp_path / "at hand.tar"
        path.write_bytes(pack(files, *members))
        monkeypatch.setattr(download_voc, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
        return path

    return make


def test_an_archive_at_hand_is_taken_and_stays(server, out, at_hand):
    archive = at_hand(WANTED | REST)
    before = archive.read_bytes()
    assert fetch(server, out, "--archive", archive) == 0
    assert tree(out) == WANTED and not server.ranges and archive.read_bytes() == before


def test_another_archive_is_refused(server, out, at_hand, tmp_path, capsys, monkeypatch):
    archive = at_hand(WANTED)
    monkeypatch.setattr(download_voc, "MD5", "0" * 32)
    assert "--archive" in fail(capsys, server, out, "--archive", archive)
    assert str(tmp_path / "none.tar") in fail(capsys, server, out, "--archive", tmp_path / "none.tar")
    assert not out.exists() and not server.ranges


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


HOSTILE = {
    "up": {f"{BASE}/JPEGImages/../../../../evil.jpg": b"evil"},
    "up and down": {f"{BASE}/ImageSets/../JPEGImages/evil.jpg": b"evil"},
    "up from the start": {"../evil.jpg": b"evil"},
    "absolute": {"/tmp/evil.jpg": b"evil"},
    "disk": {"C:/evil.jpg": b"evil"},
    "disk with backslash": {f"{BASE}/JPEGImages/C:\\evil.jpg": b"evil"},
    "backslash": {f"{BASE}/JPEGImages/..\\..\\..\\..\\evil.jpg": b"evil"},
    "stream": {f"{BASE}/JPEGImages/one.jpg:evil": b"evil"},
    "share": {"//server/share/evil.jpg": b"evil"},
    "line": {f"{BASE}/JPEGImages/one\nevil.jpg": b"evil"},
    "symbolic link": link(f"{BASE}/JPEGImages/evil.jpg", "/etc/passwd", tarfile.SYMTYPE),
    "symbolic link inside": link(f"{BASE}/JPEGImages/evil.jpg", "2007_000032.jpg", tarfile.SYMTYPE),
    "folder as link": link(f"{BASE}/SegmentationClass", "/tmp", tarfile.SYMTYPE),
    "hard link": link(f"{BASE}/JPEGImages/evil.jpg", "/etc/passwd", tarfile.LNKTYPE),
    "hard link inside": link(f"{BASE}/JPEGImages/evil.jpg", f"{BASE}/JPEGImages/2007_000032.jpg", tarfile.LNKTYPE),
    "device": link(f"{BASE}/JPEGImages/evil.jpg", "", tarfile.CHRTYPE),
    "pipe": link("VOCdevkit/evil", "", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_member_earns_an_error_and_nothing_is_unpacked(server, tmp_path, at_hand, capsys, kind):
    hostile, out = HOSTILE[kind], tmp_path / "deep/enough/voc"
    out.parent.mkdir(parents=True)
    archive = at_hand(WANTED | hostile) if isinstance(hostile, dict) else at_hand(WANTED, hostile)
    line = fail(capsys, server, out, "--archive", archive)
    assert "nothing was unpacked" in line and ("evil" in line or "SegmentationClass" in line)
    assert not out.exists() and list(tree(tmp_path)) == [archive.name]


@pytest.mark.parametrize(
    "files",
    [
        {},
        REST,
        {name: data for name, data in WANTED.items() if "SegmentationClass" not in name},
        {name: data for name, data in WANTED.items() if not name.endswith(f"{NAMES[1]}.png")},
    ],
    ids=["nothing", "the rest", "no masks", "a mask less"],
)
def test_an_archive_that_lacks_something_is_told(server, out, at_hand, capsys, files):
    line = fail(capsys, server, out, "--archive", at_hand(files))
    assert BASE in line
    assert not download_voc.is_complete(out / BASE)


def test_an_archive_that_is_cut_off_or_no_tar_is_told(server, out, at_hand, capsys, monkeypatch):
    archive = at_hand(WANTED)
    for content in (archive.read_bytes()[:20000], b"no tar " * 1000):
        archive.write_bytes(content)
        monkeypatch.setattr(download_voc, "MD5", hashlib.md5(content).hexdigest())
        assert "not a whole tar" in fail(capsys, server, out, "--archive", archive)
        assert not out.exists()


def test_a_full_disk_while_unpacking_leaves_nothing_half_done(server, out, capsys, monkeypatch):
    copy, copied = download_voc.shutil.copyfileobj, []

    def fill_up(source, target, *rest):
        copied.append(target)
        if len(copied) == 4:
            target.write(b"half of")
            raise OSError(28, "No space left on device")
        copy(source, target, *rest)

    monkeypatch.setattr(download_voc.shutil, "copyfileobj", fill_up)
    assert "No space left" in fail(capsys, server, out)
    assert list(tree(out)) == [f".partial/{download_voc.ARCHIVE}"]
    monkeypatch.undo()
    monkeypatch.setattr(download_voc, "MD5", hashlib.md5(ARCHIVE).hexdigest())
    server.ranges.clear()
    assert fetch(server, out) == 0 and tree(out) == WANTED and not server.ranges  # what had come is used


# ---- where it goes ----


def test_a_drawn_set_is_not_mixed_with_the_real_one(server, out, capsys):
    folder = out / BASE
    folder.mkdir(parents=True)
    (folder / download_voc.MARK).write_text("drawn")
    assert "drawn" in fail(capsys, server, out) and not server.ranges
    assert list(tree(out)) == [f"{BASE}/{download_voc.MARK}"]


def test_out_is_a_file_or_in_no_folder(server, out, capsys):
    assert str(out) in fail(capsys, server, out / "deeper") and not out.exists()
    out.write_text("mine")
    assert str(out) in fail(capsys, server, out)
    assert out.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C another way")
def test_ctrl_c_ends_in_one_line_and_keeps_the_part(server, out, part):
    server.stalls = True
    code = (
        "import sys, download_voc; download_voc.CHUNK = 4096; download_voc.MD5 = sys.argv[1]; "
        "sys.exit(download_voc.main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, download_voc.MD5, "--mirror", server.url, "--out", str(out)]
    process = subprocess.Popen(command, cwd=DATASET, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stalled.wait(20)
    while not part.exists() or not part.stat().st_size:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "download_voc.py: stopped: run it again to fetch the rest; what has come is kept\n"
    kept = part.read_bytes()
    assert ARCHIVE.startswith(kept) and kept
    server.stalls = False
    assert fetch(server, out) == 0 and tree(out) == WANTED and server.ranges[-1] == f"bytes={len(kept)}-"
