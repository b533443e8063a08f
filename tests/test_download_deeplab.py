"""Dataset/download_deeplab.py against a server on this machine: a whole file or none, and one line when it fails."""

import hashlib
import os
import random
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from test_download_voc import PROXIES, Server, tree

DATASET = ROOT / "Dataset"
sys.path.insert(0, str(DATASET))
import download_deeplab  # noqa: E402
import download_voc  # noqa: E402

BODY = random.Random(0).randbytes(200_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PUBLISHED = dict(download_deeplab.WEIGHTS)
NAMES = {depth: name for depth, (name, *_) in PUBLISHED.items()}
NAME = NAMES[101]


@pytest.fixture
def server():
    server = Server(BODY, NAME)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """The SHA-256 of the made file, whole and in part, small pieces, no proxy and no waiting."""
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    for depth, known in ((101, SHA256), (50, SHA256[:8])):
        monkeypatch.setitem(download_deeplab.WEIGHTS, depth, (NAMES[depth], known, 1))
    monkeypatch.setattr(download_voc, "CHUNK", 1 << 12)
    monkeypatch.setattr(download_voc.time, "sleep", lambda seconds: None)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "重み deeplab"


@pytest.fixture
def put_part(out):
    """A function that puts bytes where a download that broke off leaves them."""

    def put(data):
        out.mkdir()
        (out / f"{NAME}.part").write_bytes(data)

    return put


def fetch(server, out, *options):
    return download_deeplab.main(["--mirror", server.url, "--out", str(out), *map(str, options)])


def fail(capsys, server, out, *options):
    """Run main, which must fail in one line on stderr with status 2; return that line."""
    capsys.readouterr()
    assert fetch(server, out, *options) == 2
    printed = capsys.readouterr().err
    lines = printed.splitlines()
    assert len(lines) == 1 and lines[0].startswith("download_deeplab.py: "), printed
    return lines[0]


# ---- what is published ----


def test_the_files_are_those_of_torchvision():
    """torchvision ends a file's name with the first eight digits of its SHA-256."""
    assert download_deeplab.BASE_URL == "https://download.pytorch.org/models/"
    for depth, digits in ((101, "586e9e4e"), (50, "cd0a2569")):
        name, known, _ = PUBLISHED[depth]
        assert name == f"deeplabv3_resnet{depth}_coco-{digits}.pth" and known.startswith(digits)
    assert len(PUBLISHED[101][1]) == 64


def test_by_default_it_is_resnet_101_from_pytorch_beside_the_script(monkeypatch):
    asked = []
    monkeypatch.setattr(download_deeplab, "make_file", lambda *given: asked.append(given) or (SHA256, True))
    monkeypatch.chdir(ROOT.parent)
    assert download_deeplab.main([]) == 0
    (out, *rest) = asked[0]
    assert out.resolve() == DATASET / "deeplab" and rest == [101, download_deeplab.BASE_URL]
    assert "Dataset/deeplab/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


# ---- fetching ----


def test_it_brings_the_file_and_says_what_it_is(server, out, capsys):
    assert fetch(server, out) == 0
    assert tree(out) == {NAME: BODY} and server.ranges == [None]
    printed = capsys.readouterr().out
    for said in ("BSD", "COCO", "terms of their own", f"{server.url}/{NAME}: 1 MB\n", f"as it should be: {SHA256}\n"):
        assert said in printed
    *_, last, command = printed.splitlines()
    assert last == f"{out / NAME} was fetched; next:"
    assert command.endswith(f".py --depth 101 --weights {download_deeplab.quote(out / NAME)}")


def test_of_resnet_50_the_digits_in_the_name_are_checked_and_no_more(server, out, capsys):
    server.name = NAMES[50]
    assert fetch(server, out, "--depth", 50) == 0
    assert tree(out) == {NAMES[50]: BODY}
    printed = capsys.readouterr().out
    assert f"begins with {SHA256[:8]}, as its name says, and no more of it is checked: {SHA256}\n" in printed
    assert fetch(server, out, "--depth", 50) == 0 and len(server.ranges) == 1
    printed = capsys.readouterr().out
    assert "no more of it is checked" in printed and "nothing was fetched" in printed


def test_both_depths_lie_in_one_folder(server, out):
    assert fetch(server, out) == 0
    server.name = NAMES[50]
    assert fetch(server, out, "--depth", 50) == 0
    assert tree(out) == dict.fromkeys(NAMES.values(), BODY)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_the_file_has_the_usual_mode(server, out):
    assert fetch(server, out) == 0
    plain = out.parent / "plain"
    plain.touch()
    assert (out / NAME).stat().st_mode == plain.stat().st_mode


def test_a_second_run_asks_for_nothing_and_touches_nothing(server, out, capsys):
    assert fetch(server, out) == 0
    before = (out / NAME).stat().st_mtime_ns
    capsys.readouterr()
    server.ranges.clear()
    assert fetch(server, out) == 0 and not server.ranges
    printed = capsys.readouterr().out
    assert f"{out / NAME} is there already, intact; nothing was fetched; next:\n" in printed
    assert (out / NAME).stat().st_mtime_ns == before and tree(out) == {NAME: BODY}


@pytest.mark.parametrize("content", [b"", BODY[:-1], BODY + b"x", BODY[:-1] + bytes([BODY[-1] ^ 1])])
@pytest.mark.parametrize("depth", [101, 50])
def test_a_damaged_file_at_hand_is_told_and_stays(server, out, capsys, depth, content):
    out.mkdir()
    (out / NAMES[depth]).write_bytes(content)
    line = fail(capsys, server, out, "--depth", depth)
    assert str(out / NAMES[depth]) in line and "move it away" in line
    assert hashlib.sha256(content).hexdigest() in line
    assert (f"should be {SHA256}:" if depth == 101 else f"should begin with {SHA256[:8]}:") in line
    assert not server.ranges and tree(out) == {NAMES[depth]: content}


def test_a_file_that_shares_the_digits_of_the_name_alone_is_no_resnet_101(server, out, capsys, monkeypatch):
    known = SHA256[:-1] + ("0" if SHA256[-1] != "0" else "1")
    monkeypatch.setitem(download_deeplab.WEIGHTS, 101, (NAME, known, 1))
    assert "wrong SHA-256" in fail(capsys, server, out)
    assert not out.exists()


# ---- breaking off, and going on ----


def test_a_download_that_breaks_off_is_resumed_in_the_same_run(server, out):
    server.breaks = 2
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY}
    first, second = (int(asked[6:-1]) for asked in server.ranges[1:])
    assert server.ranges[0] is None and len(BODY) * 0.4 < first < len(BODY) * 0.6 < second < len(BODY)


def test_a_download_that_broke_off_is_resumed_in_the_next_run(server, out, capsys):
    server.breaks = 9
    line = fail(capsys, server, out)
    assert "run again" in line and download_deeplab.KEPT in line
    (name, kept), *rest = tree(out).items()
    assert not rest and name == f"{NAME}.part" and kept and BODY.startswith(kept) and kept != BODY
    server.breaks = 0
    server.ranges.clear()
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY}
    assert server.ranges == [f"bytes={len(kept)}-"] and "there already" in capsys.readouterr().out


def test_without_ranges_a_download_begins_anew(server, out, capsys):
    server.resumes, server.breaks = False, 1
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY}
    assert len(server.ranges) == 2 and server.ranges[1]
    assert "begins anew" in capsys.readouterr().out


def test_a_part_that_is_whole_already_is_not_fetched_again(server, out, put_part):
    put_part(BODY)
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY}
    assert server.ranges == [f"bytes={len(BODY)}-"]


def test_a_part_of_one_depth_is_none_of_the_other(server, out, put_part):
    put_part(b"x" * 500)
    server.name = NAMES[50]
    assert fetch(server, out, "--depth", 50) == 0 and server.ranges == [None]
    assert tree(out) == {NAMES[50]: BODY, f"{NAME}.part": b"x" * 500}


def test_the_progress_bar_has_the_name_of_the_file(server, out, monkeypatch):
    shown, tqdm = [], download_voc.tqdm
    monkeypatch.setattr(download_voc, "tqdm", lambda **settings: shown.append(settings["desc"]) or tqdm(**settings))
    assert fetch(server, out) == 0 and shown == [NAME]


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C another way")
def test_ctrl_c_ends_in_one_line_and_keeps_the_part(server, out):
    server.stalls = True
    code = (
        "import sys, download_voc, download_deeplab; download_voc.CHUNK = 4096; "
        "sys.exit(download_deeplab.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--mirror", server.url, "--out", str(out)]
    process = subprocess.Popen(command, cwd=DATASET, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    path = out / f"{NAME}.part"
    assert server.stalled.wait(20)
    while not path.exists() or not path.stat().st_size:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "download_deeplab.py: stopped: run it again to fetch the rest; what has come is kept\n"
    kept = path.read_bytes()
    assert BODY.startswith(kept) and kept
    server.stalls = False
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY} and server.ranges[-1] == f"bytes={len(kept)}-"


def test_ctrl_c_while_the_file_is_checked_gives_no_unchecked_file_its_name(server, out, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(download_deeplab, "compute_sha256", lambda path: signal.raise_signal(signal.SIGINT))
        assert fetch(server, out) == 130
    assert capsys.readouterr().err.count("\n") == 1 and tree(out) == {f"{NAME}.part": BODY}
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY} and server.ranges[-1] == f"bytes={len(BODY)}-"


# ---- what goes wrong ----


@pytest.mark.parametrize("depth", [101, 50])
def test_a_wrong_sum_is_told_and_nothing_is_kept(server, out, capsys, depth):
    server.body, server.name = BODY[:-1] + b"x", NAMES[depth]
    line = fail(capsys, server, out, "--depth", depth)
    assert "wrong SHA-256" in line and f"{server.url}/{NAMES[depth]}" in line and "run again" in line
    assert hashlib.sha256(server.body).hexdigest() in line and SHA256[:8] in line
    assert not out.exists()
    server.body = BODY  # and the next run does not go on with what was wrong
    assert fetch(server, out, "--depth", depth) == 0 and tree(out) == {NAMES[depth]: BODY}


def test_a_wrong_beginning_is_found_by_the_sum_and_thrown_away(server, out, put_part, capsys):
    put_part(b"x" * 5000)
    assert "wrong SHA-256" in fail(capsys, server, out)
    assert out.is_dir() and not tree(out)  # a folder that was there stays
    assert fetch(server, out) == 0 and tree(out) == {NAME: BODY} and server.ranges[-1] is None


@pytest.mark.parametrize("status", [404, 403, 503])
def test_what_the_server_refuses_is_told(server, out, put_part, capsys, status):
    server.status = status
    line = fail(capsys, server, out)
    assert str(status) in line and "--mirror" in line and len(server.ranges) == 1
    assert not out.exists()
    put_part(BODY[:5000])
    fail(capsys, server, out)
    assert tree(out) == {f"{NAME}.part": BODY[:5000]}  # a refusal costs nothing of what had come


def test_no_server_is_told(server, out, capsys):
    server.close()
    assert "--mirror" in fail(capsys, server, out) and not out.exists()
    assert "--mirror" in fail(capsys, server, out, "--mirror", "no address") and not out.exists()


def test_out_is_a_file_or_in_no_folder(server, out, capsys):
    assert f"there is no folder {out}:" in fail(capsys, server, out / "deeper") and not out.exists()
    out.write_text("mine")
    assert str(out) in fail(capsys, server, out)
    assert out.read_text() == "mine" and not server.ranges


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(server, out, capsys):
    out.mkdir(mode=0o555)
    line = fail(capsys, server, out)
    assert f"{out / NAME}.part" in line and "--out" in line and not list(out.iterdir())


@pytest.mark.parametrize("refused", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_a_file_that_cannot_be_written_is_told(server, out, capsys, monkeypatch, refused):
    """Also where the tests run as root, who may write everywhere."""
    monkeypatch.setattr(download_voc.Path, "open", lambda *_: (_ for _ in ()).throw(refused))
    line = fail(capsys, server, out)
    assert refused.strerror in line and str(out) in line and "--out" in line
    assert not out.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_disk_that_fills_up_is_told(server, out, capsys):
    out.mkdir()
    (out / f"{NAME}.part").symlink_to("/dev/full")
    assert f"{out} (No space left on device)" in fail(capsys, server, out)
    assert not (out / NAME).exists()


@pytest.mark.parametrize("options", [["--depth", "34"], ["--depth", "deep"], ["--colour"]])
def test_wrong_options_end_in_one_line(capsys, options):
    with pytest.raises(SystemExit) as end:
        download_deeplab.main(options)
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and options[0] in printed
