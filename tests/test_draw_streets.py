"""Dataset/draw_streets.py: Cityscapes' layout, names, ids and colours, labels that agree, the same for a seed."""

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

SCRIPT = ROOT / "Dataset" / "draw_streets.py"
sys.path.insert(0, str(ROOT / "Dataset"))
import draw_streets  # noqa: E402
from draw_streets import CITIES, COLOURS, IDS, LABELS, MARK, UNFINISHED  # noqa: E402

TRAIN, VAL = 14, 4
SUFFIXES = ("leftImg8bit", "gtFine_labelIds", "gtFine_instanceIds", "gtFine_color")
VOID = range(IDS["ego vehicle"], IDS["out of roi"] + 1)  # ids of the camera's own doing


def run(*options):
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


def read_all(out):
    """{name: bytes} of every file below a folder."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def path_of(out, split, index, suffix):
    city, name = draw_streets.name_of(split, index)
    return out / suffix.split("_")[0] / split / city / f"{name}_{suffix}.png"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set in a folder whose name is not ASCII; for reading only."""
    out = tmp_path_factory.mktemp("streets") / "絵"
    assert draw_streets.draw_streets(out, TRAIN, VAL, 0, jobs=1) == out
    return out


@pytest.fixture(scope="module")
def frames(drawn):
    """[(picture, label ids, instance ids, colours)], as Pillow reads them."""
    places = [("train", index) for index in range(TRAIN)] + [("val", index) for index in range(VAL)]
    return [tuple(np.array(Image.open(path_of(drawn, *place, suffix))) for suffix in SUFFIXES) for place in places]


def test_the_layout_is_that_of_cityscapes(drawn):
    expected = {MARK}
    for split, count in (("train", TRAIN), ("val", VAL)):
        for index in range(count):
            city = CITIES[split][index % len(CITIES[split])]
            name = f"{city}_{index // len(CITIES[split]):06d}_000019"
            expected.add(f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            expected |= {f"gtFine/{split}/{city}/{name}_{suffix}.png" for suffix in SUFFIXES[1:]}
    assert set(read_all(drawn)) == expected
    assert "leftImg8bit/train/ahornfurt/ahornfurt_000001_000019_leftImg8bit.png" in expected


def test_cityscapes_own_script_reads_the_names(drawn):
    helpers = pytest.importorskip("cityscapesscripts.helpers.csHelpers")
    for path in drawn.rglob("*.png"):
        info = helpers.getCsFileInfo(str(path))
        assert info.city == path.parent.name and info.sequenceNb.isdigit() and info.frameNb == "000019"
        assert (info.type, info.type2, info.ext) == (path.relative_to(drawn).parts[0], info.type2, "png")
        assert info.type2 in ("", "labelIds", "instanceIds", "color")


def test_train_and_val_show_different_cities():
    every = CITIES["train"] + CITIES["val"]
    assert len(set(every)) == len(every) and all(city.isascii() and city.isalpha() and city.islower() for city in every)


def test_ids_and_colours_are_those_of_cityscapes():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    theirs = {label.name: (label.id, label.color, label.hasInstances) for label in labels.labels if label.id >= 0}
    ours = {name: (number, LABELS[name], number in draw_streets.THINGS) for name, number in IDS.items()}
    assert ours == theirs


def test_some_ids_and_colours():
    known = {"unlabeled": 0, "ego vehicle": 1, "road": 7, "pole": 17, "sky": 23, "person": 24, "bicycle": 33}
    assert {name: IDS[name] for name in known} == known and len(LABELS) == 34
    known = {7: (128, 64, 128), 11: (70, 70, 70), 18: (153, 153, 153), 23: (70, 130, 180), 26: (0, 0, 142)}
    assert {number: tuple(COLOURS[number].tolist()) for number in known} == known
    assert list(draw_streets.THINGS) == list(range(24, 34))


def test_files_have_the_modes_and_sizes_of_cityscapes(drawn, frames):
    modes = {}
    for suffix in SUFFIXES:
        with Image.open(path_of(drawn, "val", 0, suffix)) as image:
            assert image.size == (512, 256)
            modes[suffix] = image.mode
    assert modes.pop("gtFine_instanceIds") in ("I", "I;16")
    assert modes == {"leftImg8bit": "RGB", "gtFine_labelIds": "L", "gtFine_color": "RGBA"}
    raw = cv2.imread(str(path_of(drawn, "val", 0, "gtFine_instanceIds").relative_to(drawn.parent)), -1)
    assert raw is None or raw.dtype == np.uint16
    assert all(picture.std() > 20 for picture, *_ in frames)  # a picture, not one colour


def test_the_colours_are_those_of_the_ids(frames):
    for _, labels, _, colours in frames:
        assert (colours[..., 3] == 255).all() and np.array_equal(colours[..., :3], COLOURS[labels])


def test_instances_agree_with_the_label_ids(frames):
    things = 0
    for _, labels, instances, _ in frames:
        single = instances < 1000
        assert np.array_equal(instances[single], labels[single]) and not np.isin(labels[single], range(24, 34)).any()
        assert np.array_equal(instances[~single] // 1000, labels[~single])
        for label in np.unique(labels[~single]):
            numbers = np.unique(instances[labels == label] % 1000)
            assert numbers.tolist() == list(range(len(numbers)))  # from 0, none left out
            things += len(numbers)
    assert things > 5 * len(frames)


def test_an_instance_is_one_thing():
    """Its pixels lie together, but for what stands before it."""
    labels = np.full((4, 6), IDS["road"], np.uint8)
    marks = np.zeros((4, 6), np.int32)
    labels[1:3, :3], marks[1:3, :2], marks[1:3, 2] = IDS["car"], 40, 7
    labels[0, 5], marks[0, 5] = IDS["person"], 9
    ids = draw_streets.number_instances(labels, marks)
    assert ids.dtype == np.uint16
    assert (ids[1:3, :2] == 26001).all() and (ids[1:3, 2] == 26000).all() and ids[0, 5] == 24000 and ids[3, 3] == 7


def test_bonnet_and_border_are_void(frames):
    for picture, labels, _, _ in frames:
        assert (labels[0] == IDS["out of roi"]).all() and (labels[1, 2:-2] == IDS["rectification border"]).all()
        for rim in (labels[1:, :2], labels[1:, -2:], labels[-2:]):
            assert (rim == IDS["rectification border"]).all()
        assert picture[labels == IDS["rectification border"]].mean() < 40  # nothing is seen there
        bonnet = labels == IDS["ego vehicle"]
        assert 0.02 < bonnet.mean() < 0.15 and bonnet[-3, 64:-64].all() and not bonnet[: 256 * 3 // 4].any()
        for column in bonnet[:-2, 2:-2].T:
            assert not np.diff(column.astype(int)).min() < 0  # it goes on to the lower edge
        assert np.isin(labels[2:-2, 2:-2], VOID).sum() == bonnet[2:-2, 2:-2].sum()


def test_every_picture_is_a_street(frames):
    for _, labels, _, _ in frames:
        shares = np.bincount(labels.ravel(), minlength=len(LABELS)) / labels.size
        assert shares[IDS["road"]] + shares[IDS["rail track"]] + shares[IDS["parking"]] > 0.05
        assert (shares > 0).sum() >= 8 and shares[IDS["unlabeled"]] == 0 and shares.max() < 0.7
        flat = np.isin(labels, [IDS[name] for name in draw_streets.GROUND])
        assert not flat[:100].any()  # 256 * 0.4 is the highest horizon
        assert not (labels[130:] == IDS["sky"]).any()  # and 256 * 0.48 the lowest
        assert not ((labels[:-1] == IDS["sky"]) & flat[1:]).any()  # something stands at the end of each street


def test_some_pictures_have_no_sky_and_some_no_people(frames):
    sky = [bool((labels == IDS["sky"]).any()) for _, labels, _, _ in frames]
    people = [bool(np.isin(labels, (IDS["person"], IDS["rider"])).any()) for _, labels, _, _ in frames]
    assert 0 < sum(sky) < len(sky) and 0 < sum(people) < len(people)


def test_most_classes_are_shown(frames):
    shown = {number for _, labels, _, _ in frames for number in np.unique(labels)}
    needed = "road sidewalk parking building wall fence pole vegetation terrain sky person rider car bicycle".split()
    assert {IDS[name] for name in (*needed, "traffic light", "traffic sign")} <= shown


def seen(label, draw, height=256, at=8.0):
    """Where a thing alone on grey has changed the picture, and where its label is."""
    generator = np.random.default_rng(3)
    scene = draw_streets.Scene(generator, (height, 2 * height))
    draw_streets.choose_weather(scene)
    scene.sunny, scene.curvature, scene.heading, scene.offset = False, 0.0, 0.0, 0.0
    scene.colours[:], scene.labels[:] = 2.0, 0
    draw(scene, at)
    changed = (scene.colours != 2).any(axis=2)
    assert changed.any() and np.array_equal(changed, scene.labels > 0), label
    assert not (changed & ((scene.depth < 0.5) | (scene.depth > at + 8))).any()
    return scene


@pytest.mark.parametrize("kind", ["car", "truck", "bus", "train", "caravan", "trailer"])
@pytest.mark.parametrize("turn", [0.0, np.pi, np.pi / 2])
def test_labels_cover_what_was_drawn_of_a_vehicle(kind, turn):
    scene = seen(kind, lambda scene, at: draw_streets.draw_thing(scene, {}, kind, 0.0, at, turn), at=24.0)
    assert set(np.unique(scene.labels)) == {0, IDS[kind]} and set(np.unique(scene.instances)) == {0, 1}
    assert 0.003 < (scene.labels > 0).mean() < 0.5


@pytest.mark.parametrize("kind", ["lamp", "traffic light", "sign", "polegroup", "person", "static", "dynamic", "tree"])
def test_labels_cover_what_was_drawn_of_others(kind):
    scene = seen(kind, lambda scene, at: draw_streets.draw_thing(scene, {}, kind, 1.0, at, 0.0))
    name = {"lamp": "pole", "traffic light": "pole", "sign": "pole", "tree": "vegetation"}.get(kind, kind)
    allowed = {0, IDS[name], IDS["traffic light" if kind == "traffic light" else "traffic sign"]}
    assert IDS[name] in np.unique(scene.labels) and set(np.unique(scene.labels)) <= allowed


def test_who_rides_is_an_instance_of_its_own():
    for turn in (0.0, np.pi, np.pi / 2):
        scene = seen("cyclist", lambda scene, at: draw_streets.draw_thing(scene, {}, "cyclist", 0.3, at, turn))  # noqa: B023
        for label, other in (("bicycle", "rider"), ("rider", "bicycle")):
            numbers = np.unique(scene.instances[scene.labels == IDS[label]])
            assert len(numbers) == 1 and numbers[0] not in scene.instances[scene.labels == IDS[other]]
        people = cv2.boundingRect((scene.labels == IDS["rider"]).astype(np.uint8))
        wheels = cv2.boundingRect((scene.labels == IDS["bicycle"]).astype(np.uint8))
        assert people[1] < wheels[1] and people[1] + people[3] < wheels[1] + wheels[3]  # sits above it


def test_between_the_bars_of_a_fence_the_label_is_fence():
    generator = np.random.default_rng(0)
    scene = draw_streets.Scene(generator, (256, 512))
    draw_streets.choose_weather(scene)
    scene.curvature, scene.heading, scene.offset = 0.0, 0.0, 0.0
    scene.colours[:] = 2.0
    draw_streets.along(scene, 4.0, 8, 20, 1.5, draw_streets.bars(np.float32((0.2, 0.2, 0.2)), 0.3, (0.1, 1.4)), "fence")
    bars = scene.labels == IDS["fence"]
    scene.label_what_is_seen_through()
    fence = scene.labels == IDS["fence"]
    assert 0 < bars.sum() < 0.8 * fence.sum() and (scene.colours[fence & ~bars] == 2).all()


def test_what_is_nearer_hides_what_is_farther():
    first, second = np.float32((0.1, 0.2, 0.3)), np.float32((0.9, 0.8, 0.7))
    scene = draw_streets.Scene(np.random.default_rng(0), (8, 16))
    everything, mask = np.s_[:], np.ones((8, 16), bool)
    scene.commit(everything, mask, first, np.float32(5), IDS["car"], 1)
    mask[:, 8:] = False
    scene.commit(everything, mask, second, np.float32(9), IDS["sky"], 0)
    assert (scene.labels == IDS["car"]).all() and (scene.instances == 1).all()
    scene.commit(everything, mask, second, np.float32(3), IDS["person"], 2)
    assert (scene.labels[:, :8] == IDS["person"]).all() and (scene.labels[:, 8:] == IDS["car"]).all()
    assert np.array_equal(scene.colours[0, 0], second) and (scene.depth[:, :8] == 3).all()


def test_several_processes_draw_the_same_bytes(tmp_path):
    for jobs in (1, 2):
        draw_streets.draw_streets(tmp_path / str(jobs), 13, 3, 0, 96, jobs)
    assert read_all(tmp_path / "1") == read_all(tmp_path / "2")


@pytest.mark.parametrize("kind", ["plain", "bars", "boards", "leaves", "crash_barrier", "front"])
def test_one_column_is_painted_as_it_is_among_others(kind):
    """An array (height, 1) may have strides that make OpenCV read beyond its end."""
    scene = draw_streets.Scene(np.random.default_rng(0), (64, 128))
    draw_streets.choose_weather(scene)
    tint = np.float32((0.5, 0.4, 0.3))
    painter = {
        "plain": lambda: draw_streets.plain(tint, 1.0),
        "bars": lambda: draw_streets.bars(tint, 0.2, (0.1, 1.1)),
        "front": lambda: draw_streets.front(scene)[0],
    }.get(kind, lambda: getattr(draw_streets, kind)(tint))()
    t, step = np.linspace(5, 9, 80), np.full(80, 0.05)
    h = np.linspace(0, 6, 50, dtype=np.float32)[:, None] * np.linspace(1, 1.2, 80, dtype=np.float32)
    colours, solid = painter(t, h, step, scene.light_on((0, 0, -1)))
    assert colours.shape == (50, 80, 3) and colours.dtype == np.float32 and colours.std() > 0
    for column in (np.s_[0:1], np.s_[33:34]):
        alone, solid_alone = painter(t[column], h[:, column], step[column], scene.light_on((0, 0, -1)))
        assert np.allclose(alone, colours[:, column], atol=1e-6)
        assert (
            solid is True
            and solid_alone is True
            or np.array_equal(np.broadcast_to(solid, h.shape)[:, column], np.broadcast_to(solid_alone, (50, 1)))
        )


def test_more_pictures_leave_the_earlier_ones_and_fewer_remove_the_rest(drawn, tmp_path):
    draw_streets.draw_streets(tmp_path, 3, 2, 0, jobs=1)
    files, earlier = read_all(tmp_path), read_all(drawn)
    pictures = [name for name in files if name.endswith(".png")]
    assert len(pictures) == 20 and all(files[name] == earlier[name] for name in pictures)
    write(tmp_path / "leftImg8bit/train/home/home_000000_000019_leftImg8bit.png", b"mine")
    draw_streets.draw_streets(tmp_path, 1, 1, 0, 64, jobs=1)  # on what it has drawn itself it may write
    left = sorted(path.name for path in tmp_path.rglob("*_leftImg8bit.png"))
    assert left == [f"{name}_000000_000019_leftImg8bit.png" for name in ("ahornfurt", "home", "quellmark")]
    assert "64 pixels" in (tmp_path / MARK).read_text() and not (tmp_path / UNFINISHED).exists()


def test_another_seed_or_split_draws_other_pictures():
    pictures = [
        draw_streets.draw_one(seed, split, 0, 128)[1] for seed, split in ((0, "train"), (1, "train"), (0, "val"))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (pictures[one] != pictures[other]).mean() > 0.1


def test_a_larger_picture_shows_the_same_street(frames):
    picture, labels, instances = draw_streets.draw_one(0, "train", 1, 768)
    assert picture.shape == (384, 768, 3) and picture.dtype == np.uint8
    assert labels.shape == instances.shape == (384, 768)
    smaller = cv2.resize(labels, (512, 256), interpolation=cv2.INTER_NEAREST)
    assert (smaller == frames[1][1]).mean() > 0.95


@pytest.mark.parametrize("other", ["leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", "thesis.txt"])
def test_it_refuses_a_folder_that_holds_anything_else(tmp_path, other):
    write(tmp_path / other, b"mine")
    done = run("--out", tmp_path, "--train", 1, "--val", 1)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "--out" in lines[0] and str(tmp_path) in lines[0]
    assert read_all(tmp_path) == {other: b"mine"}


def test_hidden_files_do_not_count_as_others(tmp_path):
    write(tmp_path / ".DS_Store", b"mine")
    draw_streets.draw_streets(tmp_path, 1, 1, 0, 64, jobs=1)
    assert (tmp_path / MARK).exists() and (tmp_path / ".DS_Store").read_bytes() == b"mine"


def test_a_set_that_is_not_complete_says_so(tmp_path, monkeypatch):
    draw_streets.draw_streets(tmp_path, 1, 1, 0, 64, jobs=1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(draw_streets, "draw_files", fail)
        with pytest.raises(OSError):
            draw_streets.draw_streets(tmp_path, 2, 1, 0, 64, jobs=1)
    assert (tmp_path / UNFINISHED).exists() and not (tmp_path / MARK).exists()
    assert draw_streets.find_others(tmp_path) is None  # so it can be drawn again
    draw_streets.draw_streets(tmp_path, 1, 1, 0, 64, jobs=1)
    assert not (tmp_path / UNFINISHED).exists() and (tmp_path / MARK).exists()


def start(out, *options):
    """The script under way, when it has written its first picture."""
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--train", "900", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while not list(out.rglob("*_color.png")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return process


def check_whole(out):
    for path in out.rglob("*_*.png"):
        assert cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), -1) is not None, path
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    assert (out / UNFINISHED).exists() and not (out / MARK).exists()


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C cannot be sent to a process alone")
def test_ctrl_c_ends_in_one_line_and_leaves_whole_files(tmp_path):
    process = start(tmp_path, "--width", "128")
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and len(errors.strip().splitlines()) == 1, errors
    assert all(path.suffix in (".png", ".txt") for path in tmp_path.rglob("*.*"))
    check_whole(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_it_leaves_whole_files_and_the_next_run_clears_up(tmp_path):
    for _ in range(3):
        process = start(tmp_path, "--width", "128", "--jobs", "1")
        time.sleep(0.2)
        process.kill()
        process.communicate(timeout=60)
        check_whole(tmp_path)
    folder = tmp_path / "gtFine/train/ahornfurt"
    write(folder / ".ahornfurt_000000_000019_gtFine_color.png.123.part", b"half")
    draw_streets.draw_streets(tmp_path, 2, 1, 0, 128, jobs=1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 * 4 + 1 and not [path for path in files if path.suffix == ".part"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--train", 0), "--train"),
        (("--val", -1), "--val"),
        (("--train", 100001), "--train"),
        (("--seed", -3), "--seed"),
        (("--width", 62), "--width"),
        (("--width", 513), "--width"),
        (("--jobs", 0), "--jobs"),
        (("--out", SCRIPT), "--out"),
        (("--train", "many"), "--train"),
        (("--colour", "blue"), "--colour"),
    ],
)
def test_wrong_options_end_in_one_line(capsys, monkeypatch, tmp_path, options, named):
    small = ("--out", tmp_path, "--train", 1, "--val", 1)  # so that little is drawn where none is noticed
    monkeypatch.setattr(sys, "argv", ["draw_streets.py", *map(str, small + options)])
    with pytest.raises(SystemExit) as end:
        draw_streets.main()
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert end.value.code == 2 and printed.out == "" and len(lines) == 1 and named in lines[0]
