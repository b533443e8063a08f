"""street_preprocess and street_records: pairs, labels, faults and what is missing; records, their sums and their order.

What uses no framework is equal in all four answers (tools/copies.py), so PyTorch's is tested. TensorFlow's own writer
and reader run in a process of their own (collect_street.py).
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import (
    ANSWERS,
    FRAMEWORKS,
    ROOT,
    STREETS,
    encode,
    encode_mask,
    pytorch,
    run_python,
    stopped,
    write,
    write_streets,
)
from PIL import Image

sys.path.insert(0, str(ROOT / "tools"))
import copies  # noqa: E402

ANSWER, RECORDS = pytorch("street_preprocess"), pytorch("street_records")
VOID = 255
NAMES = {split: [name for names in cities.values() for name in names] for split, cities in STREETS.items()}
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


def find_files(streets, name):
    """Return the paths of the picture and the labels of a name."""
    city = name.split("_")[0]
    split = next(split for split in STREETS if city in STREETS[split])
    picture = streets / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    return picture, streets / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"


def read(path):
    return np.array(Image.open(path))


def read_json(path):
    return json.loads(path.read_text("utf-8"))


def list_outputs(out):
    """Return the bytes of what was written to train/ and val/, by path; hidden is what a run that was killed left."""
    return {
        path.relative_to(out): path.read_bytes()
        for split in STREETS
        for path in sorted((out / split).rglob("[!.]*.png"))
    }


@pytest.fixture
def preprocess(monkeypatch, capsys):
    """Run PyTorch's street_preprocess in this process; return what it prints, or its one line where it stops."""

    def run(streets, out, *arguments, fails=False):
        command = [
            "answer",
            "--data",
            streets,
            "--out",
            out,
            "--size",
            32,
            "--workers",
            0,
            "--device",
            "cpu",
            *arguments,
        ]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        if fails:
            return stopped(capsys, ANSWER.main)
        ANSWER.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def copy(streets, tmp_path):
    """A copy of the made streets, to be spoiled."""
    return shutil.copytree(streets, tmp_path / "streets")


# ---- labels ----


def test_the_labels_are_those_published():
    """Names in the order of their ids, with the first id of each category, the ids that are trained, and colours."""
    names = (
        "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking, "
        "rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign, "
        "vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle, "
        "license plate"
    ).split(", ")
    first = {
        0: "void",
        7: "flat",
        11: "construction",
        17: "object",
        21: "nature",
        23: "sky",
        24: "human",
        26: "vehicle",
    }
    trained = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    colours = (
        "000000 000000 000000 000000 000000 6f4a00 510051 804080 f423e8 faaaa0 e6968c 464646 66669c be9999 b4a5b4 "
        "966464 96785a 999999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64 00005a "
        "00006e 005064 0000e6 770b20 00008e"
    ).split()
    assert len(ANSWER.LABELS) == len(names) == len(colours) == 35
    for place, (label, name, colour) in enumerate(zip(ANSWER.LABELS, names, colours, strict=True)):
        assert label.name == name and label.id == (place if place < 34 else -1)
        assert label.category == first[max(start for start in first if start <= place)]
        assert label.train_id == (trained.index(place) if place in trained else VOID)
        assert bytes(label.colour).hex() == colour
    assert list(ANSWER.CLASSES["category"]) == list(first.values())[1:]
    assert list(ANSWER.CLASSES["class"]) == [names[i] for i in trained]
    leading = dict(zip(ANSWER.CATEGORIES, (7, 11, 20, 21, 23, 24, 26), strict=True))
    for category, label in leading.items():
        assert ANSWER.COLOURS[category] == ANSWER.LABELS[label].colour
    assert all(ANSWER.COLOURS[label.name] == label.colour for label in ANSWER.LABELS)


def test_the_table_agrees_with_cityscapes_own_scripts():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    for ours, theirs in zip(ANSWER.LABELS, labels, strict=True):
        assert (ours.name, ours.id, ours.category, ours.colour) == (
            theirs.name,
            theirs.id,
            theirs.category,
            theirs.color,
        )
        assert (ours.train_id == VOID) == theirs.ignoreInEval and ours.train_id in (theirs.trainId, VOID)


def test_label_ids_become_classes_at_both_levels():
    ids = np.arange(34)
    category = [VOID] * 7 + [0] * 4 + [1] * 6 + [2] * 4 + [3] * 2 + [4] + [5] * 2 + [6] * 8
    assert ANSWER.make_table("category")[ids].tolist() == category
    trained = {
        7: 0,
        8: 1,
        11: 2,
        12: 3,
        13: 4,
        17: 5,
        19: 6,
        20: 7,
        21: 8,
        22: 9,
        23: 10,
        24: 11,
        25: 12,
        26: 13,
        27: 14,
    }
    trained |= {28: 15, 31: 16, 32: 17, 33: 18}
    assert ANSWER.make_table("class")[ids].tolist() == [trained.get(i, VOID) for i in ids]
    for level in ANSWER.CLASSES:
        table = ANSWER.make_table(level)
        assert table.dtype == np.uint8 and (table[34:] == VOID).all()
        painted = ANSWER.paint(table[ids][None], level)
        assert (painted[0, :7] == 0).all() and tuple(painted[0, 7]) == (128, 64, 128)


# ---- finding and pairing ----


def test_pairs_are_found_by_their_names(streets):
    for split, names in NAMES.items():
        pairs, alone = ANSWER.find_pairs(streets, split)
        assert pairs == {name: find_files(streets, name) for name in names} and not alone


def test_what_has_no_partner_is_named(copy):
    picture, labels = find_files(copy, NAMES["train"][0])
    labels.unlink()
    find_files(copy, NAMES["train"][1])[0].unlink()
    pairs, alone = ANSWER.find_pairs(copy, "train")
    assert list(pairs) == NAMES["train"][2:] and len(alone) == 2
    first, second = alone
    assert first == f"{picture}: has no labels, {labels.name}: add them"
    assert second.startswith(f"{find_files(copy, NAMES['train'][1])[1]}: has no {NAMES['train'][1]}_leftImg8bit.png")


def test_an_empty_split_and_a_name_in_two_cities_are_told(copy, capsys):
    for kind, end in (("leftImg8bit", "_leftImg8bit.png"), ("gtFine", "_gtFine_labelIds.png")):
        write(copy / kind / "train" / "bonn" / f"{NAMES['train'][0]}{end}", b"")
    assert "two cities have files of the same name" in stopped(capsys, ANSWER.find_pairs, copy, "train")
    shutil.rmtree(copy / "gtFine" / "val" / "köln")
    assert "no pair such as leftImg8bit/val/CITY/" in stopped(capsys, ANSWER.find_pairs, copy, "val")


@pytest.mark.parametrize("part", ["leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"])
def test_a_folder_of_another_layout_is_told(copy, capsys, part):
    shutil.rmtree(copy / part)
    line = stopped(capsys, ANSWER.find_streets, copy)
    assert f"{copy}: holds no {part}/: " in line and "name the folder" in line


DRAWS = """
from pathlib import Path
streets = Path(__file__).with_name("streets")
for part in ("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"):
    (streets / part).mkdir(parents=True, exist_ok=True)
(streets / "unfinished.txt").touch()
with open(streets / "calls.txt", "a") as file:
    file.write("one\\n")
if {status} == 0:
    (streets / "unfinished.txt").unlink()
raise SystemExit({status})
"""


def test_streets_are_drawn_where_none_are_or_not_all(tmp_path, monkeypatch, capsys):
    streets, handler = tmp_path / "streets", signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(ANSWER, "DRAWN", streets)
    write(tmp_path / "draw_streets.py", DRAWS.format(status=130).encode())
    for _ in range(2):  # the second time the folder is there, but not complete
        with pytest.raises(SystemExit) as end:
            ANSWER.find_streets(streets)
        assert end.value.code == 130 and signal.getsignal(signal.SIGINT) == handler
    write(tmp_path / "draw_streets.py", DRAWS.format(status=0).encode())
    for _ in range(2):
        assert ANSWER.find_streets(streets) == streets
    assert (streets / "calls.txt").read_text() == 3 * "one\n"
    assert capsys.readouterr().out.count("drawing streets") == 3
    stopped(capsys, ANSWER.find_streets, tmp_path / "other")  # draws only at the default place


# ---- faults in the data ----

IDS = np.uint8(np.arange(3200).reshape(40, 80) % 34)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
FAULTS = {  # what stands in place of the picture (0) or of the labels (1), and what is said of it
    "picture cut off": (0, encode(".png", NOISE)[:-2000], "take the original"),
    "labels cut off": (1, encode(".png", NOISE[..., :1] % 34)[:-500], "take the original"),
    "no picture": (0, b"no picture", "take the original"),
    "empty": (1, b"", "take the original"),
    "another size": (1, encode(".png", IDS[:20, :40, None]), "is (20, 40) in size, its picture (40, 80)"),
    "turned": (1, encode(".png", IDS.reshape(80, 40, 1)), "is (80, 40) in size, its picture (40, 80)"),
    "unknown ids": (
        1,
        encode(".png", np.uint8(np.arange(3200).reshape(40, 80, 1) % 37)),
        "unknown label ids [34, 35, 36]",
    ),
    "train ids": (1, encode(".png", np.where(IDS > 18, VOID, IDS)[..., None]), "unknown label ids [255]"),
    "colours": (1, encode(".png", NOISE), "holds colours (mode RGB)"),
    "colours and alpha": (1, encode(".png", np.dstack([NOISE, NOISE[..., :1]])), "holds colours (mode RGBA)"),
    "palette": (1, encode_mask(IDS), "holds colours (mode P)"),
    "16 bits": (1, encode(".png", np.uint16(IDS)[..., None] * np.uint16(1000)), "more than 8 bits"),
    "transparent picture": (0, encode(".png", np.dstack([NOISE, NOISE[..., :1]])), "transparent pixels"),
    "picture of 16 bits": (0, encode(".png", np.uint16(NOISE) * np.uint16(257)), "more than 8 bits"),
}


@pytest.mark.parametrize("which, data, message", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_or_left_out(copy, tmp_path, preprocess, which, data, message):
    name, out = NAMES["train"][1], tmp_path / "out"
    path = find_files(copy, name)[which]
    path.write_bytes(data)
    line = preprocess(copy, out, fails=True)
    assert f"{path}: " in line and message in line and "--faulty skip" in line
    assert not list(out.rglob(f"*{name}.png"))
    printed = preprocess(copy, out, "--faulty", "skip")
    assert f"skipped {path}: " in printed and message in printed
    assert read_json(out / "metrics.json")["images"] == {"train": 4, "val": 3}
    assert {path.stem for path in list_outputs(out)} == {*NAMES["train"], *NAMES["val"]} - {name}


def test_an_opaque_alpha_channel_is_no_fault(copy, tmp_path, preprocess):
    path = find_files(copy, NAMES["train"][1])[0]
    path.write_bytes(encode(".png", np.dstack([NOISE, np.full_like(NOISE[..., :1], 255)])))
    preprocess(copy, tmp_path / "out")
    assert read_json(tmp_path / "out" / "metrics.json")["images"] == {"train": 5, "val": 3}


def test_a_split_that_is_all_void_is_refused(copy, tmp_path, preprocess):
    for name in NAMES["val"]:
        find_files(copy, name)[1].write_bytes(encode(".png", np.zeros((40, 80, 1), np.uint8)))
    assert "all pixels of val are void" in preprocess(copy, tmp_path / "out", fails=True)


def test_a_picture_of_another_ratio_is_refused_even_if_it_is_the_first(copy, tmp_path, preprocess):
    for path, data in zip(find_files(copy, NAMES["train"][0]), (NOISE[:, :60], IDS[:, :60, None]), strict=True):
        path.write_bytes(encode(".png", data))
    line = preprocess(copy, tmp_path / "out", fails=True)
    assert f"{NAMES['train'][0]}_leftImg8bit.png: is (40, 60) in size, another ratio" in line
    preprocess(copy, tmp_path / "out", "--faulty", "skip")
    assert read_json(tmp_path / "out" / "metrics.json")["images"] == {"train": 4, "val": 3}


@pytest.mark.parametrize("which", (0, 1))
def test_a_missing_partner_is_refused_or_left_out(copy, tmp_path, preprocess, which):
    paths = find_files(copy, NAMES["val"][0])
    paths[which].unlink()
    line = preprocess(copy, tmp_path / "out", fails=True)
    assert f"{paths[1 - which]}: has no " in line and not (tmp_path / "out").exists()
    assert f"skipped {paths[1 - which]}: has no " in preprocess(copy, tmp_path / "out", "--faulty", "skip")
    assert read_json(tmp_path / "out" / "metrics.json")["images"] == {"train": 5, "val": 2}


def test_a_split_without_one_good_pair_is_told(copy, tmp_path, preprocess):
    for name in NAMES["val"]:
        find_files(copy, name)[1].write_bytes(b"")
    assert "no pair of val is left" in preprocess(copy, tmp_path / "out", "--faulty", "skip", fails=True)


def test_a_picture_cut_off_anywhere_is_noticed_or_whole(tmp_path):
    data, path = encode(".png", NOISE[:8, :8]), tmp_path / "cut.png"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            assert np.array_equal(np.array(ANSWER.open_image(path)), NOISE[:8, :8]) and length >= len(data) - 20
        except ANSWER.Faulty as fault:
            assert str(fault).startswith(f"{path}: ")


def test_a_file_that_may_not_be_read_is_no_fault_of_its_content(tmp_path):
    with pytest.raises(OSError) as error:
        ANSWER.open_image(tmp_path)
    assert error.value.errno


# ---- what is written ----


@pytest.mark.parametrize("level", ("category", "class"))
def test_pictures_are_averaged_and_labels_take_the_pixel_under_the_middle(tmp_path, preprocess, level):
    streets = tmp_path / "streets"
    write_streets(streets, 96, 192)
    preprocess(streets, tmp_path / "out", "--level", level)  # a third of the size
    for split, names in NAMES.items():
        for name in names:
            picture, ids = map(read, find_files(streets, name))
            small = read(tmp_path / "out" / split / "images" / f"{name}.png")
            classes = read(tmp_path / "out" / split / "labels" / f"{name}.png")
            assert small.shape == (32, 64, 3) and classes.shape == (32, 64)
            assert np.abs(small - picture.reshape(32, 3, 64, 3, 3).mean(axis=(1, 3))).max() <= 0.51
            assert np.array_equal(classes, ANSWER.make_table(level)[ids[1::3, 1::3]])
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["size"] == [32, 64] and metrics["level"] == level
    assert metrics["classes"] == list(ANSWER.CLASSES[level])
    assert metrics["colours"] == [list(ANSWER.COLOURS[name]) for name in metrics["classes"]]


def count(paths, classes):
    """Return the pixels of each class in images of indices, and those of void."""
    pixels = np.bincount(np.concatenate([read(path).ravel() for path in paths]), minlength=256).tolist()
    return dict(zip(classes, pixels, strict=False)) | {"void": pixels[VOID]}


@pytest.fixture(scope="module")
def prepared(streets, fork, tmp_path_factory):
    """The folders of street_preprocess and street_records of each framework, run once."""
    folder = tmp_path_factory.mktemp("street")
    for framework in FRAMEWORKS:
        pairs, records = (folder / f"{exercise} {framework}" for exercise in ("street_preprocess", "street_records"))
        for exercise, *arguments in (
            ("street_preprocess", "--data", streets, "--out", pairs, "--size", 32, "--pictures", 2, "--workers", 2),
            ("street_records", "--data", pairs, "--out", records, "--shards", 2, "--flips", 9),
        ):
            done = fork(ANSWERS[exercise, framework], *arguments, "--device", "cpu", cwd=folder)
            assert done.returncode == 0, done.stderr
            assert "Warning" not in done.stderr
    return folder


@by_framework
def test_every_framework_writes_the_same_files_and_counts_the_same_pixels(prepared, framework):
    out = prepared / f"street_preprocess {framework}"
    assert list_outputs(out) == list_outputs(prepared / "street_preprocess pytorch")
    metrics = read_json(out / "metrics.json")
    assert (
        metrics["images"] == {"train": 5, "val": 3}
        and metrics["answer"] == ANSWERS["street_preprocess", framework].stem
    )
    for split in STREETS:
        assert metrics["pixels"][split] == count((out / split / "labels").iterdir(), ANSWER.CATEGORIES)
        assert len(list((out / "pictures" / split).iterdir())) == 2
    same = read_json(prepared / "street_preprocess pytorch" / "metrics.json")
    assert {**metrics, "answer": 0, "options": 0} == {**same, "answer": 0, "options": 0}


def test_pictures_show_image_classes_and_both(prepared):
    out = prepared / "street_preprocess pytorch"
    for path in (out / "pictures" / "val").iterdir():
        image, classes, both = np.split(read(path), 3, axis=1)
        labels = read(out / "val" / "labels" / path.name)
        assert np.array_equal(image, read(out / "val" / "images" / path.name))
        assert np.array_equal(classes, ANSWER.paint(labels, "category")) and np.array_equal(
            both, image // 2 + classes // 2
        )
        assert (classes[labels == VOID] == 0).all() and (classes[labels == 4] == (70, 130, 180)).all()


def test_what_reading_colours_would_do(tmp_path):
    ids = np.full((8, 16), 7, np.uint8)
    ids[:, 8:] = 23
    ids[0, :4] = 18  # polegroup has the colour of pole
    ids[0, 4:8] = 3  # void has that of void
    Image.fromarray(ids).save(tmp_path / "ids.png")
    found = ANSWER.measure_colours([tmp_path / "ids.png"], (4, 8))
    assert found["wrong"] == 4 / 128
    # Half the size: the top row of the left half is a blend of two rows, but not in the middle of a plane.
    assert found["blended"] == 4 / 32
    void = ["unlabeled", "ego vehicle", "rectification border", "out of roi", "static"]
    assert found["shared"] == [void, ["pole", "polegroup"], ["car", "license plate"]]


# ---- a second run ----


def times(out):
    return {path: path.stat().st_mtime_ns for path in list((out / "train").rglob("*")) + list((out / "val").rglob("*"))}


def test_a_second_run_does_only_what_is_missing(copy, tmp_path, preprocess):
    out, (first, second, third, *_) = tmp_path / "out", NAMES["train"]
    assert "8 of 8 pairs were missing" in preprocess(copy, out)
    before, metrics, files = times(out), read_json(out / "metrics.json"), list_outputs(out)
    assert "0 of 8 pairs were missing" in preprocess(copy, out) and times(out).keys() == before.keys()
    assert {path for path in before if path.is_file() and times(out)[path] != before[path]} == set()
    (out / "train" / "images" / f"{first}.png").unlink()
    (out / "train" / "labels" / f"{second}.png").unlink()
    os.utime(find_files(copy, third)[1])  # changed since it was read
    assert "3 of 8 pairs were missing" in preprocess(copy, out)
    redone = {path.stem for path in before if path.is_file() and times(out)[path] != before[path]}
    assert redone == {first, second, third}
    assert list_outputs(out) == files and read_json(out / "metrics.json") == metrics


def test_a_picture_that_has_become_faulty_does_not_stay(copy, tmp_path, preprocess):
    out, name = tmp_path / "out", NAMES["val"][2]
    preprocess(copy, out)
    find_files(copy, name)[0].write_bytes(b"no picture")
    assert "1 of 8 pairs were missing" in preprocess(copy, out, "--faulty", "skip")
    assert not list((out / "val").rglob(f"{name}.png"))


@pytest.mark.parametrize("change", (["--size", 40], ["--level", "class"]), ids=lambda change: change[0])
def test_a_run_with_other_options_into_the_same_folder_is_told(streets, tmp_path, preprocess, change):
    preprocess(streets, tmp_path / "out")
    before = times(tmp_path / "out")
    line = preprocess(streets, tmp_path / "out", *change, fails=True)
    assert (
        f"{change[0]} {change[1]}: {tmp_path / 'out'} was made with {'32' if '--size' in change else 'category'}"
        in line
    )
    assert "another --out" in line and times(tmp_path / "out") == before


def test_a_run_of_other_streets_into_the_same_folder_is_told(streets, copy, tmp_path, preprocess):
    preprocess(streets, tmp_path / "out")
    assert f"--data {copy}: " in preprocess(copy, tmp_path / "out", fails=True)
    extra = tmp_path / "out" / "val" / "images" / "bonn_000000_000019.png"
    write(extra, b"")
    assert f"{extra}: there is no such pair" in preprocess(streets, tmp_path / "out", fails=True)
    write(tmp_path / "out" / "metrics.json", b"[]")
    assert "not what this exercise writes" in preprocess(streets, tmp_path / "out", fails=True)


def test_files_without_metrics_are_not_taken_for_done(streets, tmp_path, preprocess):
    preprocess(streets, tmp_path / "out", "--level", "class")
    (tmp_path / "out" / "metrics.json").unlink()
    assert "8 of 8 pairs were missing" in preprocess(streets, tmp_path / "out")
    found = np.unique(np.concatenate([read(path).ravel() for path in (tmp_path / "out").glob("*/labels/*.png")]))
    assert set(found.tolist()) <= {*range(7), VOID}


def test_a_fault_among_processes_is_told_like_one_without(copy, tmp_path, fork):
    path, script = find_files(copy, NAMES["train"][1])[1], ANSWERS["street_preprocess", "pytorch"]
    path.write_bytes(b"")

    def run(workers, *more):
        arguments = ["--data", copy, "--out", f"{workers}", "--size", 32, "--workers", workers, *more]
        return fork(script, *arguments, "--device", "cpu", cwd=tmp_path)

    results = [run(workers) for workers in (0, 2)]
    lines = [[line for line in result.stderr.splitlines() if line.strip() and "%|" not in line] for result in results]
    assert [result.returncode for result in results] == [2, 2]
    assert lines[0] == lines[1] and len(lines[0]) == 1 and f"{path}: " in lines[0][0]
    results = [run(workers, "--faulty", "skip") for workers in (0, 2)]
    assert all(f"skipped {path}: " in result.stdout for result in results)
    assert list_outputs(tmp_path / "0") == list_outputs(tmp_path / "2")


def list_children(parent):
    """Return the processes that a process has started, on Linux."""
    return [int(each) for each in open(f"/proc/{parent}/task/{parent}/children").read().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("written", (1, 5, 11))
def test_a_run_that_is_killed_leaves_whole_files_and_no_process_and_is_finished_by_the_next(
    streets, prepared, fork, tmp_path, capsys, written
):
    slow = (
        "import runpy, sys, time; from PIL import Image; save = Image.Image.save\n"
        "def wait(self, *arguments): save(self, *arguments); time.sleep(0.05)\n"  # else it would be done too soon
        "Image.Image.save = wait; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script, out = ANSWERS["street_preprocess", "pytorch"], tmp_path / "out"
    command = [script, "--data", streets, "--out", out, "--size", 32, "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", slow, *map(str, command)], stderr=subprocess.DEVNULL)
    while sum(1 for _ in out.glob("*/*/[!.]*.png")) < written:
        assert process.poll() is None
        time.sleep(0.005)
    children = list_children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{child}") and "Z" not in open(f"/proc/{child}/stat").read() for child in children):
        assert time.monotonic() < deadline, "a process goes on"
        time.sleep(0.05)
    assert len(children) == 2
    for path in out.glob("*/*/[!.]*.png"):
        ANSWER.open_image(path)
    assert "is not there, or not whole" in stopped(
        capsys, RECORDS.find_stage, out, "01_street_preprocess", "colours_read"
    )
    names = [path.name for path in out.glob("*/labels/[!.]*.png")]
    whole = sum(1 for path in out.glob("*/images/[!.]*.png") if path.name in names)
    done = fork(*command, cwd=tmp_path)
    assert done.returncode == 0 and f"{8 - whole} of 8 pairs were missing" in done.stdout
    assert read_json(out / "metrics.json")["images"] == {"train": 5, "val": 3}
    assert list_outputs(out) == list_outputs(prepared / "street_preprocess pytorch")


# ---- records: the format ----


def crc32c(data):
    """Return the CRC-32C (Castagnoli) of data, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_sum_is_a_masked_crc32c():
    assert crc32c(b"123456789") == 0xE3069283  # the check value in the catalogues of CRCs
    for data in (b"", b"123456789", bytes(8), NOISE.tobytes()[:1000]):
        crc = crc32c(data)
        rotated = crc >> 15 | crc << 17 & 0xFFFFFFFF
        assert RECORDS.masked_crc(data) == ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little")


def test_a_record_is_length_sum_payload_sum(tmp_path):
    RECORDS.write_shard(tmp_path / "shard", [b"abc", b""])
    data = (tmp_path / "shard").read_bytes()
    assert len(data) == 16 + 3 + 16 and data[:8] == b"\3\0\0\0\0\0\0\0" and data[12:15] == b"abc"
    assert data[8:12] == RECORDS.masked_crc(data[:8]) and data[15:19] == RECORDS.masked_crc(b"abc")
    assert RECORDS.index_records(tmp_path / "shard") == [0, 19]
    assert list(RECORDS.read_shard(tmp_path / "shard")) == [b"abc", b""]


@pytest.mark.parametrize("number", (0, 1, 127, 128, 300, 2**32, 2**63 - 1))
def test_numbers_are_written_seven_bits_a_byte(number):
    data = RECORDS.write_varint(number)
    assert RECORDS.read_varint(b"\xff" + data + b"\0", 1) == (number, 1 + len(data))
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(data)) == number
    assert [byte > 127 for byte in data] == [True] * (len(data) - 1) + [False]


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory):
    """What collect_street.py prints, and the folder that it writes to."""
    folder = tmp_path_factory.mktemp("tensorflow")
    done = run_python(ROOT / "tests" / "collect_street.py", folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, **json.loads(done.stdout.splitlines()[-1]))


def test_examples_are_tensorflows(tensorflow, tmp_path):
    examples = [
        {key: bytes.fromhex(value) if isinstance(value, str) else value for key, value in features.items()}
        for features in tensorflow.examples
    ]
    assert len(examples) == 60 and {type(value) for features in examples for value in features.values()} == {int, bytes}
    payloads = list(RECORDS.read_shard(tensorflow.folder / "random.tfrecord"))
    assert [RECORDS.parse_example(payload) for payload in payloads] == examples
    assert [RECORDS.make_example(features) for features in examples] == payloads
    shuffled = [dict(sorted(features.items(), reverse=True)) for features in examples]
    RECORDS.write_shard(tmp_path / "ours", map(RECORDS.make_example, shuffled))
    assert (tmp_path / "ours").read_bytes() == (tensorflow.folder / "random.tfrecord").read_bytes()


def test_what_the_frameworks_without_records_of_their_own_share_is_the_same():
    """tools/copies.py cannot tell: TensorFlow's answer has other pieces of these names, or none."""
    pieces = {framework: copies.read_pieces(ANSWERS["street_records", framework]) for framework in FRAMEWORKS}
    names = (
        "masked_crc write_varint read_varint make_field split_fields make_example parse_example write_shard "
        "read_length read_record index_records read_shard decode"
    )
    for name, framework in itertools.product(names.split(), ("keras", "chainer")):
        assert pieces[framework][name].text == pieces["pytorch"][name].text


# ---- records: of the streets ----


def list_shards(folder):
    return sorted(path.name for path in folder.glob("*.tfrecord"))


@by_framework
def test_every_framework_writes_the_same_records(prepared, framework):
    out, same = prepared / f"street_records {framework}", prepared / "street_records pytorch"
    assert list_shards(out) == [f"{split}-0000{i}-of-00002.tfrecord" for split in ("train", "val") for i in (0, 1)]
    for name in list_shards(same):
        assert (out / name).read_bytes() == (same / name).read_bytes()
    metrics, other = read_json(out / "metrics.json"), read_json(same / "metrics.json")
    assert {**metrics, "answer": 0, "options": 0} == {**other, "answer": 0, "options": 0}
    assert metrics["answer"] == ANSWERS["street_records", framework].stem
    assert metrics["noticed"] == 9 and metrics["equal"] == 8


def test_the_records_are_the_files(prepared):
    source, out = prepared / "street_preprocess pytorch", prepared / "street_records pytorch"
    metrics, before = read_json(out / "metrics.json"), read_json(source / "metrics.json")
    assert all(metrics[key] == before[key] for key in ("level", "size", "classes", "colours"))
    assert metrics["pixels"] == before["pixels"]["train"]
    for split, names in NAMES.items():
        found = []
        for shard, number in zip(metrics["shards"][split], (3, 2) if split == "train" else (2, 1), strict=True):
            path = out / shard["name"]
            examples = [RECORDS.parse_example(payload) for payload in RECORDS.read_shard(path)]
            assert shard == {"name": path.name, "records": number, "bytes": path.stat().st_size}
            assert len(examples) == number
            for features in examples:
                name = features["image/filename"].decode()
                image, labels = ((source / split / kind / f"{name}.png").read_bytes() for kind in ("images", "labels"))
                assert features == {
                    "image/encoded": image,
                    "image/filename": name.encode(),
                    "image/format": b"png",
                    "image/height": 32,
                    "image/width": 64,
                    "image/segmentation/class/encoded": labels,
                    "image/segmentation/class/format": b"png",
                }
                found.append(name)
        assert sorted(found) == sorted(names) and found != sorted(found)


@pytest.fixture
def records(prepared, tmp_path):
    """A copy of the records, to be damaged, and their metrics."""
    folder = shutil.copytree(prepared / "street_records pytorch", tmp_path / "records")
    return folder, read_json(folder / "metrics.json")


def test_a_thousand_flipped_bits_are_all_noticed_and_named(records):
    folder, rng, flips = records[0], np.random.default_rng(0), 0
    for path in folder.glob("*.tfrecord"):
        data, offsets = path.read_bytes(), [*RECORDS.index_records(path), path.stat().st_size]
        places = [*range(12), *range(len(data) - 6, len(data)), *rng.integers(len(data), size=232).tolist()]
        for place in places:  # lengths and sums among them
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.integers(8)]) + data[place + 1 :])
            offset = max(start for start in offsets if start <= place)
            with pytest.raises(RECORDS.Damaged) as error:
                list(RECORDS.read_shard(path))
            assert str(error.value).startswith(f"{path}: the record at byte {offset} is damaged")
            flips += 1
        path.write_bytes(data)
    assert flips == 1000


def test_a_flipped_bit_of_a_payload_leaves_the_other_records(records):
    path = records[0] / "train-00000-of-00002.tfrecord"
    data, offsets = bytearray(path.read_bytes()), RECORDS.index_records(path)
    data[offsets[1] + 100] ^= 1
    path.write_bytes(data)
    assert RECORDS.index_records(path) == offsets
    with open(path, "rb") as file:
        for offset in (offsets[2], offsets[0]):
            RECORDS.parse_example(RECORDS.read_record(file, offset))
        with pytest.raises(RECORDS.Damaged, match=f"byte {offsets[1]} "):
            RECORDS.read_record(file, offsets[1])


def test_a_shard_cut_off_anywhere_is_noticed(tmp_path, tensorflow):
    path, payloads = tmp_path / "whole.tfrecord", [b"one", b"", b"three"]
    RECORDS.write_shard(path, payloads)
    data, borders = path.read_bytes(), [0, 19, 35, 56]
    assert len(tensorflow.cuts) == len(data) + 1 == 57
    for length, (number, message) in enumerate(tensorflow.cuts):
        path.write_bytes(data[:length])
        complete = sum(border <= length for border in borders) - 1
        if length in borders:  # the rest is a good shard: only its length, which metrics.json tells, shows the damage
            assert list(RECORDS.read_shard(path)) == payloads[:complete] and (number, message) == (complete, None)
            continue
        with pytest.raises(RECORDS.Damaged) as error:
            list(RECORDS.read_shard(path))
        offset = borders[complete]
        assert str(error.value).startswith(f"{path}: the record at byte {offset} is damaged or cut off")
        with pytest.raises(RECORDS.Damaged, match=f"byte {offset} "):
            RECORDS.index_records(path)
        assert number == complete and f"cut.tfrecord: the record at byte {offset} is damaged or cut off" in (
            message or ""
        )


def test_flipped_bits_are_noticed_and_named_by_tensorflows_reader_too(tensorflow):
    assert tensorflow.noticed == 60


def test_shards_that_are_missing_cut_off_or_too_many_are_told(records, capsys):
    folder, metrics = records
    RECORDS.check_shards(folder, metrics)
    path = folder / "val-00000-of-00002.tfrecord"
    data, border = path.read_bytes(), RECORDS.index_records(path)[1]
    path.write_bytes(data[:border])  # between two records
    line = stopped(capsys, RECORDS.check_shards, folder, metrics)
    assert f"{path}: {len(data)} bytes were written, found {border}: write the records again" in line
    path.unlink()
    assert f"{path}: {len(data)} bytes were written, found no such file" in stopped(
        capsys, RECORDS.check_shards, folder, metrics
    )
    path.write_bytes(data)
    extra = folder / "val-00002-of-00002.tfrecord"
    extra.write_bytes(b"")
    assert f"{extra}: {folder / 'metrics.json'} does not name it" in stopped(
        capsys, RECORDS.check_shards, folder, metrics
    )
    extra.rename(folder / ".part-1-val-00000-of-00002.tfrecord")  # of a run that was killed
    RECORDS.check_shards(folder, metrics)


def test_count_noticed_tells_apart_what_is_noticed(records, monkeypatch):
    path = records[0] / "val-00001-of-00002.tfrecord"
    assert RECORDS.count_noticed(path, 50, np.random.default_rng(0)) == 50
    good = RECORDS.masked_crc
    monkeypatch.setattr(RECORDS, "masked_crc", lambda data: good(data[:8]))  # as if only the beginning were summed up
    RECORDS.write_shard(path, list(map(RECORDS.make_example, [{"a": bytes(5000)}] * 3)))
    assert RECORDS.count_noticed(path, 50, np.random.default_rng(0)) < 10


# ---- records: their order ----


@pytest.mark.parametrize("counts", ([50, 50, 50, 50], [5, 2, 7, 1], [3], [4, 0, 4]))
def test_an_epoch_has_each_record_once_in_an_order_of_its_own(counts):
    everything = [(shard, number) for shard, count in enumerate(counts) for number in range(count)]
    shards, order = RECORDS.draw_order(counts, 0, 0)
    assert sorted(shards) == list(range(len(counts))) and sorted(order) == everything
    assert RECORDS.draw_order(counts, 0, 0) == (shards, order)
    others = [RECORDS.draw_order(counts, seed, epoch)[1] for seed, epoch in ((0, 1), (1, 0), (0, 2), (2, 1))]
    assert all(sorted(other) == everything for other in others) and any(other != order for other in others)
    assert len(everything) < 10 or all(one != two for one, two in itertools.combinations([order, *others], 2))


def test_records_are_taken_in_turn_and_shuffled_block_by_block(monkeypatch):
    turns = [(2, 0), (0, 0), (1, 0), (2, 1), (0, 1), (2, 2)]
    assert RECORDS.take_turns([2, 1, 3], [2, 0, 1]) == turns
    monkeypatch.setattr(RECORDS, "BUFFER", 4)
    counts = [30, 10, 20]
    shards, order = RECORDS.draw_order(counts, 3, 1)
    turns = RECORDS.take_turns(counts, shards)
    for start in range(0, 60, 4):
        assert sorted(order[start : start + 4]) == sorted(turns[start : start + 4])
    assert order != turns
    assert len({tuple(RECORDS.draw_order(counts, 3, epoch)[0]) for epoch in range(30)}) == 6  # of three shards
    monkeypatch.setattr(RECORDS, "BUFFER", 1000)
    order = RECORDS.draw_order([250] * 4, 0, 0)[1]
    places = {record: place for place, record in enumerate(order)}
    moved = [abs(places[record] - i) for i, record in enumerate(RECORDS.take_turns([250] * 4, range(4)))]
    assert np.mean(moved) > 250  # of two random places the mean distance is a third


def test_tf_data_has_the_same_order(tensorflow, monkeypatch):
    monkeypatch.setattr(RECORDS, "BUFFER", 4)
    assert {tuple(counts) for counts, _, _ in tensorflow.orders} == {(5, 2, 7, 1), (3,), (4, 0, 4), (1, 6)}
    for counts, epoch, names in tensorflow.orders:
        assert names == [f"{shard}:{number}" for shard, number in RECORDS.draw_order(counts, 7, epoch)[1]]


def test_an_epoch_is_read_in_its_order(prepared):
    out = prepared / "street_records pytorch"
    paths = [out / f"train-0000{i}-of-00002.tfrecord" for i in (0, 1)]
    names = [
        [RECORDS.parse_example(payload)["image/filename"].decode() for payload in RECORDS.read_shard(path)]
        for path in paths
    ]
    for epoch in (0, 1):
        examples = list(RECORDS.read_epoch(paths, epoch, SimpleNamespace(seed=5, device="cpu")))
        order = RECORDS.draw_order([3, 2], 5, epoch)[1]
        assert [name for name, _, _ in examples] == [names[shard][number] for shard, number in order]
        for name, image, classes in examples:
            folder = prepared / "street_preprocess pytorch" / "train"
            assert np.array_equal(RECORDS.to_numpy(image), read(folder / "images" / f"{name}.png"))
            assert np.array_equal(RECORDS.to_numpy(classes), read(folder / "labels" / f"{name}.png"))


# ---- from one exercise to the next ----


@pytest.fixture
def make_records(monkeypatch, capsys):
    """Run PyTorch's street_records in this process; return what it prints, or its one line where it stops."""

    def run(data, out, *arguments, fails=False):
        command = ["answer", "--data", data, "--out", out, "--device", "cpu", "--flips", 3, *arguments]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        if fails:
            return stopped(capsys, RECORDS.main)
        RECORDS.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def pairs(prepared, tmp_path):
    """A copy of what street_preprocess wrote, to be damaged."""
    return shutil.copytree(prepared / "street_preprocess pytorch", tmp_path / "pairs")


def test_shards_of_an_earlier_run_do_not_stay(pairs, tmp_path, make_records):
    out = tmp_path / "records"
    for shards in (4, 1, 3):
        make_records(pairs, out, "--shards", shards)
        assert len(list_shards(out)) == 2 * shards
        RECORDS.check_shards(out, read_json(out / "metrics.json"))
    dealt = [[shard["records"] for shard in read_json(out / "metrics.json")["shards"][split]] for split in STREETS]
    assert dealt == [[2, 2, 1], [1, 1, 1]]


def test_the_seed_deals_the_records(pairs, tmp_path, make_records):
    for seed in (0, 0, 1):
        make_records(pairs, tmp_path / f"{seed}", "--seed", seed)
    one, other = ((tmp_path / f"{seed}" / "train-00000-of-00004.tfrecord").read_bytes() for seed in (0, 1))
    assert one != other


DAMAGES = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-500]), "remove both, and run 01_street_preprocess"),
    "no picture": (lambda path: path.write_bytes(b""), "remove both, and run 01_street_preprocess"),
    "another size": (lambda path: cv2.imwrite(os.fspath(path), NOISE), "not [32, 64] in size"),
    "missing": (lambda path: path.unlink(), "holds other pairs than the 3 that were written"),
    "too many": (lambda path: shutil.copy(path, path.with_name("one.png")), "holds other pairs than the 3"),
}


@pytest.mark.parametrize("damage, message", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_pair_is_told_and_leaves_nothing_that_could_be_taken_for_records(
    pairs, tmp_path, make_records, damage, message
):
    out = tmp_path / "records"
    make_records(pairs, out)
    (pairs / "val" / "images" / "köln_000003_000019.png").rename(pairs / "val" / "images" / "x.png")
    for kind in ("images", "labels"):
        source = "x" if kind == "images" else "köln_000003_000019"
        (pairs / "val" / kind / f"{source}.png").rename(pairs / "val" / kind / "a.png")
    damage(pairs / "val" / "images" / "a.png")
    line = make_records(pairs, out, fails=True)
    assert message in line and str(pairs / "val") in line
    whole = {"missing", "too many"} & {next(name for name in DAMAGES if DAMAGES[name][0] is damage)}
    assert (out / "metrics.json").exists() == bool(whole)  # told before anything is written, or afterwards not whole


EARLIER = """
import json, sys
from pathlib import Path
print("ran", sys.argv[1:])
out = Path("outputs", Path(__file__).stem)
out.mkdir(parents=True, exist_ok=True)
(out / "metrics.json").write_text(json.dumps({{"options": {{}}, "key": 1}} if {status} == 0 else {{"options": {{}}}}))
raise SystemExit({status})
"""


def test_the_exercise_before_is_run_where_its_default_folder_is_not_whole(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RECORDS, "__file__", str(tmp_path / "02_street_records_pytorch.py"))
    default, earlier = RECORDS.Path("outputs", "01_earlier_pytorch"), tmp_path / "01_earlier_pytorch.py"

    def find():
        return RECORDS.find_stage(default, "01_earlier", "key")

    with pytest.raises(SystemExit) as end:
        find()  # there is no such script
    assert (
        end.value.code == 2 and f"{default}: is not there, or not whole: run {earlier.name}" in capfd.readouterr().err
    )
    for status in (3, 3, 0, 0):
        write(earlier, EARLIER.format(status=status).encode())
        if status:
            with pytest.raises(SystemExit) as end:
                find()
            assert end.value.code == 3
        else:
            assert find()["key"] == 1
    printed = capfd.readouterr().out
    assert printed.count("ran []") == 3 and printed.count(f"{earlier.name} runs first") == 3
    with pytest.raises(SystemExit):  # another folder than the default one
        RECORDS.find_stage(tmp_path / "other", "01_earlier", "key")
    assert "ran" not in capfd.readouterr().out
