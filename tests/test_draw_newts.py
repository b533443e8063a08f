"""The drawn newts: the script that draws them and the set that lies in Dataset/."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "Dataset" / "draw_newts.py"
sys.path[:0] = [str(ROOT / "Dataset"), str(ROOT / "benchmarks")]

import colour_baseline  # noqa: E402
import draw_newts  # noqa: E402

COUNTS = {"train": 72, "test": 8}
PAIRS = [
    (split, species, draw_newts.FIRST_NUMBER[split] + index)
    for split, count in COUNTS.items()
    for species in draw_newts.SPECIES
    for index in range(count)
]


def paths(pair, folder=ROOT / "Dataset"):
    split, species, number = pair
    return (
        folder / split / "images" / species / f"{species}_{number:04d}.jpg",
        folder / split / "seg_images" / species / f"{species}_{number:04d}.png",
    )


def read(path):
    """A picture file as (height, width, 3) int, RGB."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return picture[..., ::-1].astype(int)


def run(*options):
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One picture of each kind for the default seed, in a folder whose name is not ASCII."""
    folder = tmp_path_factory.mktemp("newts") / "イモリ"
    result = run("--out", folder, "--train", 1, "--test", 1)
    assert result.returncode == 0, result.stderr
    return folder


def test_the_same_seed_draws_the_same_bytes_and_more_leave_the_earlier_ones(drawn, tmp_path):
    result = run("--out", tmp_path, "--train", 2, "--test", 1)
    assert result.returncode == 0, result.stderr
    first = sorted(path.relative_to(drawn) for path in drawn.rglob("*.*"))
    second = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(first) == 8 and len(second) == 12  # and nothing written aside is left over
    for name in first:
        assert (drawn / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_another_seed_draws_other_newts():
    picture, mask = draw_newts.draw_pair(0, "train", "madara", 2)
    other_picture, other_mask = draw_newts.draw_pair(1, "train", "madara", 2)
    assert not np.array_equal(picture, other_picture) and not np.array_equal(mask, other_mask)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_several_processes_draw_the_same_bytes(drawn, tmp_path, two_cores):
    assert draw_newts.draw_set(tmp_path, 0, {"train": 7, "test": 1}) == 16
    for pair in [pair for pair in PAIRS if pair[2] == draw_newts.FIRST_NUMBER[pair[0]]]:
        for once, again in zip(paths(pair, drawn), paths(pair, tmp_path), strict=True):
            assert once.read_bytes() == again.read_bytes(), again


def test_a_lost_process_is_an_error(two_cores):
    with pytest.raises(BrokenProcessPool):
        list(draw_newts.in_processes(os._exit, [(1,)] * 16))


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C cannot be sent to a process alone")
@pytest.mark.parametrize("counts", [("--train", 3, "--test", 3), ("--train", 60)])  # in this process, in several
def test_ctrl_c_ends_in_one_line_and_leaves_whole_files(tmp_path, counts):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), *map(str, counts)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while not list(tmp_path.rglob("*.png")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2 and len(errors.strip().splitlines()) == 1, errors
    assert all(path.suffix in (".jpg", ".png") for path in tmp_path.rglob("*.*"))
    assert len(list(tmp_path.rglob("*.png"))) < 12


@pytest.mark.parametrize(
    "pair", [(split, species, draw_newts.FIRST_NUMBER[split]) for split in COUNTS for species in draw_newts.SPECIES]
)
def test_the_bundled_set_is_what_the_script_draws(drawn, pair):
    for path, again in zip(paths(pair), paths(pair, drawn), strict=True):
        difference = np.abs(read(path) - read(again))
        if path.suffix == ".png":
            assert difference.max() == 0, path
        else:  # a JPEG encoder of another version may round otherwise
            assert difference.mean() < 1 and difference.max() <= 40, path


def test_where_a_leaf_is_opaque_no_newt_shows():
    """A newt of purple, which no leaf has, fills the picture: where less than half of it is left, it is not marked."""
    hidden = []
    for seed in range(8):
        picture, covered = np.full((288, 512, 3), (1.0, 0, 1)), np.ones((288, 512), bool)
        picture, covered = draw_newts.draw_before(np.random.default_rng(seed), picture, covered)
        purple = np.minimum(picture[..., 0], picture[..., 2]) - picture[..., 1]
        assert (purple[~covered] < 0.5).all() and (purple[covered] > 0.1).all()
        hidden.append((~covered).mean())
    assert sum(share > 0.005 for share in hidden) > 4 and min(hidden) == 0


def test_the_bundled_set_has_the_right_files():
    names = {path for split in COUNTS for path in (ROOT / "Dataset" / split).rglob("*") if path.is_file()}
    assert names == {path for pair in PAIRS for path in paths(pair)}
    for name in ("akahara_0010", "akahara_0011", "madara_0010"):
        assert (ROOT / "Dataset" / "test" / "images" / name.split("_")[0] / f"{name}.jpg").is_file()
    assert sum(path.stat().st_size for path in names) < 4_600_000  # the whole folder stays under 5 MB


def test_each_bundled_picture_has_an_exact_mask_with_a_newt_in_it():
    shapes, pictures = [], set()
    for pair in PAIRS:
        image_path, mask_path = paths(pair)
        image, mask = read(image_path), read(mask_path)
        assert image.shape == mask.shape, image_path
        newt = (mask == draw_newts.SPECIES[pair[1]]).all(axis=-1)
        assert (newt | (mask == 0).all(axis=-1)).all(), f"{mask_path} has a colour that is no class of its folder"
        assert 0.08 < newt.mean() < 0.55, f"{mask_path}: newts fill {newt.mean():.2f} of the picture"
        shapes.append(image.shape)
        pictures.add(image.tobytes())
    assert set(shapes) == {(144, 256, 3), (455, 256, 3)}
    assert shapes.count((144, 256, 3)) == len(PAIRS) / 2
    assert len(pictures) == len(PAIRS)


def test_colour_alone_does_not_tell_newts_from_background():
    matrix = colour_baseline.measure(ROOT / "Dataset", class_count=2)["colour rule"]
    assert np.mean(colour_baseline.scores(matrix)[1]) < 0.58


def test_the_colour_rule_finds_what_colour_does_tell():
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 2, (8, 16, 16)).astype(np.uint8)
    images = np.where(classes[..., None] == 1, (20, 90, 200), (30, 120, 40)).astype(np.uint8)
    bins, table = colour_baseline.fit_rule(images, classes, 2)
    accuracy, iou = colour_baseline.scores(
        colour_baseline.confusion(classes, table[colour_baseline.bin_of(images, bins)], 2)
    )
    assert accuracy == 1 and iou.tolist() == [1, 1]


def test_other_files_stay_and_are_told_of(tmp_path):
    other = tmp_path / "train" / "images" / "akahara" / "mine.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    result = run("--out", tmp_path, "--train", 1, "--test", 1)
    assert result.returncode == 0 and other.read_bytes() == b"mine"
    assert "mine.jpg" in result.stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--train", 0), "--train"),
        (("--test", -1), "--test"),
        (("--seed", -3), "--seed"),
        (("--out", SCRIPT), "--out"),
        (("--out", SCRIPT / "inside"), "--out"),
        (("--train", "many"), "--train"),
        (("--colour", "blue"), "--colour"),
    ],
)
def test_wrong_options_end_in_one_line(options, named):
    result = run(*options)
    assert result.returncode == 2 and result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and named in lines[0], result.stderr


def test_a_baseline_without_pictures_ends_in_one_line(tmp_path):
    script = ROOT / "benchmarks" / "colour_baseline.py"
    result = subprocess.run([sys.executable, str(script), "--data", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "--data" in result.stderr
