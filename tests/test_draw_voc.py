"""Dataset/draw_voc.py: VOC's layout, sizes and colours, masks that agree with their pictures, the same for a seed."""

import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT, write
from PIL import Image

SCRIPT = ROOT / "Dataset" / "draw_voc.py"
sys.path.insert(0, str(ROOT / "Dataset"))
import draw_voc  # noqa: E402

NAMES = [f"2012_{number:06d}" for number in (*range(1, 14), *range(100001, 100004))]  # 13 to train on, 3 to validate
FILES = {"JPEGImages": ".jpg", "SegmentationClass": ".png"}


def run(*options):
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


def read_all(out):
    """{name: bytes} of every file below a folder."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set with one picture of each class to train on, in a folder whose name is not ASCII; for reading only."""
    out = tmp_path_factory.mktemp("voc") / "絵"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        assert draw_voc.draw_voc(out, 13, 3, 0) == out / "VOCdevkit" / "VOC2012"
    return out


@pytest.fixture(scope="module")
def pairs(drawn):
    """{name: (picture (height, width, 3), mask (height, width))}, as Pillow reads them."""
    folder = drawn / "VOCdevkit/VOC2012"
    return {
        name: tuple(np.array(Image.open(folder / kind / f"{name}{end}")) for kind, end in FILES.items())
        for name in NAMES
    }


def read_list(out, split):
    return (out / f"VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt").read_text().splitlines()


def test_the_layout_is_that_of_voc(drawn):
    folder = "VOCdevkit/VOC2012"
    expected = {f"{folder}/{kind}/{name}{end}" for kind, end in FILES.items() for name in NAMES}
    expected |= {f"{folder}/ImageSets/Segmentation/{split}.txt" for split in ("train", "val", "trainval")}
    assert set(read_all(drawn)) == expected | {f"{folder}/{draw_voc.MARK}"}
    assert read_list(drawn, "train") == NAMES[:13] and read_list(drawn, "val") == NAMES[13:]
    assert read_list(drawn, "trainval") == NAMES


def test_pictures_are_as_large_as_those_of_voc_and_masks_as_their_pictures(pairs):
    shapes = {picture.shape for picture, _ in pairs.values()}
    assert all(sorted(shape) in ([3, 333, 500], [3, 375, 500]) for shape in shapes)
    assert any(height > width for height, width, _ in shapes) and any(height < width for height, width, _ in shapes)
    for picture, mask in pairs.values():
        assert picture.dtype == mask.dtype == np.uint8 and picture.shape[:2] == mask.shape
        assert picture.std() > 15  # a picture, not one colour


def test_the_colour_map_is_that_of_voc():
    assert draw_voc.COLOUR_MAP.shape == (256, 3) and draw_voc.COLOUR_MAP.dtype == np.uint8
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 7: (128, 128, 128), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: tuple(draw_voc.COLOUR_MAP[number].tolist()) for number in known} == known
    assert len(np.unique(draw_voc.COLOUR_MAP, axis=0)) == 256


def test_the_classes_are_those_of_voc():
    assert len(draw_voc.CLASSES) == 21 and draw_voc.CLASSES[1:] == sorted(draw_voc.CLASSES[1:])
    assert set(draw_voc.DRAW) == set(draw_voc.VIEWS) == set(draw_voc.COMPANIONS) < set(draw_voc.CLASSES)


def test_masks_hold_class_numbers_and_the_palette(drawn):
    for path in (drawn / "VOCdevkit/VOC2012/SegmentationClass").iterdir():
        with Image.open(path) as image:
            assert image.mode == "P"
            assert np.array_equal(np.reshape(image.getpalette(), (-1, 3)), draw_voc.COLOUR_MAP)


def test_every_picture_shows_its_class_and_background(pairs):
    drawable = [draw_voc.CLASSES.index(name) for name in draw_voc.DRAW]
    for index, (name, (_, mask)) in enumerate(pairs.items()):
        numbers = set(np.unique(mask).tolist())
        assert numbers <= {0, draw_voc.VOID, *drawable}, name
        expected = drawable[index % 13 if index < 13 else index - 13]
        assert {0, draw_voc.VOID, expected} <= numbers and (mask == expected).mean() > 0.005, name
    shown = np.unique(np.concatenate([mask.ravel() for _, mask in pairs.values()]))
    assert set(shown.tolist()) == {0, draw_voc.VOID, *drawable}


def test_void_lies_between_a_class_and_any_other(pairs):
    for name, (_, mask) in pairs.items():
        for one, other in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            touch = (one != other) & (one != draw_voc.VOID) & (other != draw_voc.VOID)
            assert not touch.any(), name


def test_void_is_five_pixels_wide_also_between_two_of_a_class():
    instances = np.zeros((60, 80), np.uint8)
    instances[20:, 20:60] = 1
    instances[20:, 40:] = 2  # the same class, and it is cut off by the edges of the picture
    mask = draw_voc.add_void(np.uint8([0, 7, 7])[instances], instances)
    row = "".join(" 7x"[int(value > 0) + int(value == 255)] for value in mask[50])
    assert row == " " * 18 + "x" * 5 + "7" * 15 + "x" * 5 + "7" * 37
    assert (mask[:, 30] == 255).sum() == 5 and mask[-1, 30] == 7 and mask[-1, -1] == 7


# Without train and tvmonitor: their rails and keyboard belong to the picture, not to the class.
@pytest.mark.parametrize("name", [name for name in draw_voc.DRAW if name not in ("train", "tvmonitor")])
def test_a_mask_covers_what_was_drawn(name):
    """On grey without shadows, since it hangs in the air: what has changed is what is marked, but for blurred rims."""
    light = np.float32([0.4, -0.4, 0.82])
    for seed, (_, pose, (wide, tall)) in enumerate(draw_voc.VIEWS[name]):
        if pose == "branch":
            continue
        generator = np.random.default_rng(seed)
        scene = draw_voc.Scene(np.full((300, 300, 3), 0.4, np.float32), 0, 0, light, "air")
        foot = (150, 150 + 0.4 * 300 if pose in ("ground", "") else 150)
        seen = draw_voc.draw_thing(generator, scene, name, pose, foot, 200 / max(wide, tall), 1)
        changed = np.abs(scene.picture - 0.4).max(axis=2) > 0.01
        assert 0.01 < seen.mean() < 0.7, pose
        assert not (changed & ~cv2.dilate(seen.astype(np.uint8), np.ones((5, 5))).astype(bool)).any(), pose
        assert changed[seen].mean() > 0.85, pose


def test_several_processes_draw_the_same_bytes(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    draw_voc.draw_voc(tmp_path, 13, 3, 0)
    assert read_all(tmp_path) == read_all(drawn)


def test_more_pictures_leave_the_earlier_ones_and_fewer_shorten_the_lists(drawn, tmp_path, one_core):
    draw_voc.draw_voc(tmp_path, 3, 2, 0)
    files, earlier = read_all(tmp_path), read_all(drawn)
    pictures = [name for name in files if name.endswith((".jpg", ".png"))]
    assert len(pictures) == 10 and all(files[name] == earlier[name] for name in pictures)
    draw_voc.draw_voc(tmp_path, 1, 1, 0)  # on what it has drawn itself it may write
    assert read_list(tmp_path, "trainval") == ["2012_000001", "2012_100001"]


def test_another_seed_draws_other_pictures(pairs):
    picture, mask = draw_voc.draw_pair(1, "train", 0)
    assert mask.shape != pairs[NAMES[0]][1].shape or not np.array_equal(mask, pairs[NAMES[0]][1])
    train, val = (draw_voc.draw_pair(0, split, 0)[1] for split in ("train", "val"))
    assert train.shape != val.shape or not np.array_equal(train, val)


@pytest.mark.parametrize(
    "other", ["VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg", "VOCdevkit/VOC2007/Main.txt", "thesis.txt"]
)
def test_it_refuses_a_folder_that_holds_anything_else(tmp_path, other):
    write(tmp_path / other, b"mine")
    done = run("--out", tmp_path, "--train", 1, "--val", 1)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "--out" in lines[0] and str(tmp_path) in lines[0]
    assert read_all(tmp_path) == {other: b"mine"}


def test_hidden_files_do_not_count_as_others(tmp_path, one_core):
    write(tmp_path / ".DS_Store", b"mine")
    draw_voc.draw_voc(tmp_path, 1, 1, 0)
    assert read_list(tmp_path, "train") == ["2012_000001"] and (tmp_path / ".DS_Store").read_bytes() == b"mine"


def test_a_set_that_is_not_complete_has_no_lists(tmp_path, one_core, monkeypatch):
    draw_voc.draw_voc(tmp_path, 1, 1, 0)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(draw_voc, "draw_files", fail)
    with pytest.raises(OSError):
        draw_voc.draw_voc(tmp_path, 2, 1, 0)
    assert not list(tmp_path.rglob("ImageSets/Segmentation/*"))
    assert draw_voc.find_others(tmp_path) is None  # so it can be drawn again


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C cannot be sent to a process alone")
def test_ctrl_c_ends_in_one_line_and_leaves_whole_files(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--train", "900"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while not list(tmp_path.rglob("*.png")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and len(errors.strip().splitlines()) == 1, errors
    assert all(path.suffix in (".jpg", ".png", ".txt") for path in tmp_path.rglob("*.*"))
    assert not list(tmp_path.rglob("ImageSets/Segmentation/*"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--train", 0), "--train"),
        (("--val", -1), "--val"),
        (("--train", 100001), "--train"),
        (("--seed", -3), "--seed"),
        (("--out", SCRIPT), "--out"),
        (("--train", "many"), "--train"),
        (("--colour", "blue"), "--colour"),
    ],
)
def test_wrong_options_end_in_one_line(capsys, monkeypatch, options, named):
    monkeypatch.setattr(sys, "argv", ["draw_voc.py", *map(str, options)])
    with pytest.raises(SystemExit) as end:
        draw_voc.main()
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert end.value.code == 2 and printed.out == "" and len(lines) == 1 and named in lines[0]
