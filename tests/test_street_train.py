"""street_train: the same steps in four frameworks, void, class weights, augmentation, workers, going on after a kill.

Each framework counts in a process of its own (collect_street_train.py). What uses no framework is equal in all four
answers (tools/copies.py), so it is PyTorch's that is tested.
"""

import csv
import gc
import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ANSWERS, FRAMEWORKS, ROOT, pytorch, run_python, stopped
from tensorboardX.proto.event_pb2 import Event

ANSWER, VOID = pytorch("street_train"), 255
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
by_other = pytest.mark.parametrize("framework", FRAMEWORKS[1:])
by_network = pytest.mark.parametrize("network", ["unet", "deeplab"])
SMALL = ["--batch", 2, "--size", 32, "--workers", 0, "--pictures", 1, "--device", "cpu"]


def make_options(**changes):
    options = {"size": 32, "batch": 2, "seed": 0, "workers": 0, "device": "cpu", "iterations": 6, "lr": 0.1}
    return SimpleNamespace(
        **options | {"network": "unet", "weighting": "none", "pictures": 1, "resume": False} | changes
    )


@pytest.fixture(scope="module")
def records(street_stages):
    """The made records: {split: Records}, and the metrics beside them."""
    folder = street_stages["street_records"]
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    paths = {split: [folder / shard["name"] for shard in shards] for split, shards in metrics["shards"].items()}
    return {split: ANSWER.Records(each) for split, each in paths.items()}, metrics


# ---- one curve ----


@pytest.fixture(scope="module")
def collected(tmp_path_factory, street_stages):
    """Return a function of a framework: all that collect_street_train.py has found, once."""
    folder, done = tmp_path_factory.mktemp("一本 の 曲線"), {}

    def find(framework):
        if framework not in done:
            collect = Path(__file__).with_name("collect_street_train.py")
            result = run_python(collect, framework, folder, street_stages["street_records"], cwd=folder)
            assert result.returncode == 0, result.stderr[-3000:]
            done[framework] = dict(np.load(folder / f"{framework}.npz"))
        return done[framework]

    return find


def select(numbers, start):
    return {name: array for name, array in numbers.items() if name.startswith(start)}


def find_distance(one, other):
    """Return the largest difference of two arrays, relative to the largest number in them."""
    assert one.shape == other.shape and np.isfinite(one).all() and np.isfinite(other).all()
    return np.abs(one - other).max() / max(np.abs(one).max(), 1e-3)


@by_other
@by_network
def test_weights_are_drawn_bit_for_bit_alike_and_give_the_same_logits(collected, network, framework):
    expected, found = (select(collected(name), f"{network} drawn") for name in ("pytorch", framework))
    assert expected.keys() == found.keys()
    assert len([name for name in expected if name.endswith("kernel")]) == {"unet": 23, "deeplab": 25}[network]
    for name in expected:
        assert np.array_equal(expected[name], found[name]), name
    logits = [collected(name)[f"{network} logits"] for name in ("pytorch", framework)]
    assert logits[0].shape == (2, 32, 64, 7) and np.ptp(logits[0]) > 0.1 and find_distance(*logits) < 1e-9


@by_other
@by_network
def test_gradients_agree(collected, network, framework):
    """What one step changes: by every kernel and bias, and by batch norm, whose averages move, too."""
    changes = []
    for name in ("pytorch", framework):
        drawn = select(collected(name), f"{network} drawn")
        stepped = select(collected(name), f"{network} step")
        changes.append({key: stepped[key.replace("drawn", "step")] - drawn[key] for key in drawn})
    for key, change in changes[0].items():
        if framework == "keras" and key.endswith("variance"):  # the biased one, as far as the answer leaves it so
            continue
        assert np.linalg.norm(change) > 1e-6 or key.endswith("bias"), key
        assert np.abs(change - changes[1][key]).max() < 1e-9 * max(1, np.abs(change).max()), key


@by_other
@by_network
def test_ten_steps_agree(collected, network, framework):
    expected, found = (collected(name) for name in ("pytorch", framework))
    losses = expected[f"{network} losses"]
    assert len(losses) == 10 and np.ptp(losses) > 0.1
    assert found[f"{network} losses"] == pytest.approx(losses, rel=1e-9)
    assert found[f"{network} validations"] == pytest.approx(expected[f"{network} validations"], rel=1e-9)
    assert expected[f"{network} validations"][:, 0].tolist() == list(range(1, 11))
    assert find_distance(expected[f"{network} predicted"], found[f"{network} predicted"]) < 1e-8
    for name, array in select(expected, f"{network} trained").items():
        assert find_distance(array, found[name]) < 1e-8, name


# ---- batches ----


@by_framework
def test_batches_do_not_depend_on_the_number_of_workers_or_on_where_one_begins(collected, framework):
    found, one = collected(framework), select(collected("pytorch"), "workers 0 ")
    assert len(one) == 14 and len({array.tobytes() for array in one.values()}) == 14
    for name, array in select(found, "workers ").items():
        expected = one[f"workers 0 batch {name.split('batch ')[1]}"]
        assert np.array_equal(array.reshape(expected.shape), expected), name
    assert len(select(found, "workers ")) == 14 + 8 + 14 + 8


def test_each_epoch_takes_other_records_in_another_order(records):
    """Of five records, four make two batches; the fifth is another in each epoch."""
    taken, options = [], make_options(iterations=12)

    class Noted(ANSWER.Records):
        def __getitem__(self, place):
            taken.append(place)
            return super().__getitem__(place)

    noted = Noted(records[0]["train"].paths)
    assert ANSWER.count_steps(noted, options) == 2
    for iteration in range(12):
        ANSWER.make_batch(noted, iteration, options)
    counts = [len(offsets) for offsets in noted.offsets]
    expected = [ANSWER.draw_order(counts, options.seed, epoch)[1][:4] for epoch in range(6)]
    assert taken == [record for order in expected for record in order]
    assert len(set(map(tuple, expected))) == 6 and len(set(taken)) == 5


def test_a_sample_is_drawn_by_seed_epoch_and_place_alone(records):
    _, image, classes = records[0]["train"][0, 0]

    def make(seed, *key):
        return ANSWER.make_sample(image, classes, *key, make_options(seed=seed))[0].tobytes()

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    first = [make(*key) for key in keys]
    assert len(set(first)) == 4 and [make(*key) for key in keys[::-1]] == first[::-1]


LEVELS = np.uint8([0, 60, 120, 180, 240])


def test_image_and_labels_are_augmented_alike():
    """Grey levels that stand for classes: away from borders each class has one level afterwards, too."""
    classes = np.random.default_rng(0).integers(1, 5, (6, 12), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    image, kernel = LEVELS[classes][..., None].repeat(3, axis=2), np.ones((5, 5), np.uint8)
    for number in range(40):
        new, labels = ANSWER.augment(image, classes, 96, np.random.default_rng(number))
        assert new.shape == (96, 96, 3) and labels.shape == (96, 96) and new.dtype == labels.dtype == np.uint8
        inner = np.zeros((96, 96), bool)  # what lies beyond the crop may be blended into its outermost pixels
        inner[2:-2, 2:-2] = (cv2.erode(labels, kernel) == cv2.dilate(labels, kernel))[2:-2, 2:-2]
        assert inner.mean() > 0.3
        found = {index: new[inner & (labels == index)] for index in np.unique(labels[inner]).tolist()}
        assert all(np.ptp(levels.astype(int)) <= 1 for levels in found.values())
        means = [found[index].mean() for index in sorted(found) if index != VOID]
        assert means == sorted(means) and np.ptp(means) > 40
        _, labels = ANSWER.augment(
            image, np.where(classes > 2, 4, 1).astype(np.uint8), 96, np.random.default_rng(number)
        )
        assert set(np.unique(labels)) <= {1, 4, VOID}


def test_crops_are_mirrored_at_half_of_the_times_and_scaled_within_bounds():
    """A ramp from left to right tells which way it lies, and how steep it has become."""
    classes = np.zeros((128, 256), np.uint8)
    image = np.arange(256, dtype=np.uint8)[None, :, None].repeat(128, axis=0).repeat(3, axis=2)
    scales, rights = [], []
    for number in range(300):
        rng, other = np.random.default_rng(number), np.random.default_rng(number)
        new, labels = ANSWER.augment(image, classes, 64, rng)
        scale = other.uniform(*ANSWER.SCALES)
        assert not (labels == VOID).any()  # a picture of 96 x 192, its smallest, holds a crop of 64 x 64
        slope = np.polyfit(np.arange(64), new[32, :, 0].astype(float), 1)[0]
        if 5 < new[32].min() and new[32].max() < 250:
            scales.append(abs(slope) * scale)  # the contrast is left, from 0.7 to 1.3
            rights.append(slope > 0)
    assert 0.35 < np.mean(rights) < 0.65 and len(scales) > 100
    assert 0.65 < min(scales) < 0.8 and 1.2 < max(scales) < 1.35


def test_what_lies_beyond_a_small_picture_is_void_and_a_crop_is_no_repetition():
    image, classes = np.full((32, 32, 3), 200, np.uint8), np.ones((32, 32), np.uint8)
    new, labels = ANSWER.augment(image, classes, 64, np.random.default_rng(0))
    assert 0 < (labels == 1).sum() < 64 * 64 and set(np.unique(labels)) == {1, VOID}
    assert new[labels == 1].mean() > new[labels == VOID].mean() + 50


# ---- the loss ----


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("weights", [np.ones(7), np.arange(1.0, 8.0)], ids=["none", "classes"])
def test_the_loss_is_a_weighted_mean_over_what_is_not_void(double, weights):
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(0, 3, (2, 7, 5, 6)), rng.integers(0, 7, (2, 5, 6), np.uint8)
    classes[0, :3], classes[1, :, 4:] = VOID, VOID
    total = count = 0
    for n, y, x in np.argwhere(classes != VOID):
        each, target = logits[n, :, y, x], classes[n, y, x]
        total += weights[target] * (np.log(np.exp(each).sum()) - each[target])
        count += weights[target]
    for noise in (0, 50):
        changed = np.where((classes == VOID)[:, None], logits + noise * rng.normal(size=logits.shape), logits)
        tensor = torch.from_numpy(changed).requires_grad_()
        loss = ANSWER.compute_loss(tensor, torch.from_numpy(classes), torch.from_numpy(weights))
        assert loss.item() == pytest.approx(total / count, rel=1e-12)
        loss.backward()
        size = tensor.grad.abs().sum(dim=1).numpy()
        assert not size[classes == VOID].any() and size[classes != VOID].all()
    alone = torch.full((2, 5, 6), VOID, dtype=torch.uint8)
    assert ANSWER.compute_loss(torch.from_numpy(logits), alone, torch.from_numpy(weights)).item() == 0


def test_class_weights_by_hand(monkeypatch):
    """And how they fade: half of their logarithm by the middle of a training, all of it by its end."""
    metrics = {"classes": ["a", "b", "c"], "pixels": {"a": 700, "b": 250, "c": 50, "void": 9000}}
    options, expected = make_options(weighting="classes"), np.array([1 / math.log(each) for each in (1.72, 1.27, 1.07)])
    assert ANSWER.weigh_classes(metrics, 0, options) == pytest.approx(expected, rel=1e-6)
    assert ANSWER.weigh_classes(metrics, 6, options) == pytest.approx(expected ** (1 - ANSWER.FADE), rel=1e-6)
    monkeypatch.setattr(ANSWER, "FADE", 1)
    assert ANSWER.weigh_classes(metrics, 3, options) == pytest.approx(expected**0.5, rel=1e-6)
    assert ANSWER.weigh_classes(metrics, 6, options).tolist() == [1, 1, 1]
    for iteration in (0, 3):
        assert ANSWER.weigh_classes(metrics, iteration, make_options()).tolist() == [1, 1, 1]


@pytest.mark.parametrize("iterations", [1, 2, 13, 400])
def test_the_learning_rate_is_that_of_the_exercises_on_newts(iterations):
    options = make_options(iterations=iterations, lr=0.1)
    rates = [ANSWER.learning_rate(i, options) for i in range(iterations)]
    assert rates == [pytorch("unetlike").learning_rate(i, options) for i in range(iterations)]


# ---- validation, what is kept ----


def test_the_best_weights_are_kept(records, tmp_path, monkeypatch):
    """By validation mIoU: those of the third epoch of five."""
    states, mious = [], [0.2, 0.1, 0.5, 0.3, 0.5 - 1e-9]

    def validate(network, *_):
        states.append({name: each.clone() for name, each in network.state_dict().items()})
        return {"miou": mious[len(states) - 1], "pixel_accuracy": 0.5}, {}

    monkeypatch.setattr(ANSWER, "validate", validate)
    options = make_options(iterations=9, out=tmp_path)
    network = ANSWER.build_network(np.random.default_rng(0), 7, options)
    losses, validations = ANSWER.train(network, *records, options)
    assert len(losses) == 9 and [each["iteration"] for each in validations] == [2, 4, 6, 8, 9]
    kept = torch.load(tmp_path / ANSWER.WEIGHTS, weights_only=True)
    assert all(torch.equal(kept[name], states[2][name]) for name in kept)
    assert not all(torch.equal(kept[name], states[3][name]) for name in kept)


def test_validation_measures_whole_pictures_and_leaves_void_out(records, monkeypatch):
    """A network that predicts the truth, but for one class in place of another."""
    everything, metrics = records
    truths = [everything["val"][place][2] for place in ANSWER.take_turns([1, 1, 1, 0], range(4))]
    given = iter(np.where(truth == 0, 1, np.where(truth == VOID, 2, truth)) for truth in truths)

    def predict(network, images, options):
        assert images.shape[1:] == (32, 64, 3)
        return np.eye(7)[np.stack([next(given) for _ in images])]

    monkeypatch.setattr(ANSWER, "predict", predict)
    measures, shown = ANSWER.validate(None, everything["val"], metrics["classes"], make_options(pictures=2))
    truth = np.stack(truths)
    valid, wrong = truth != VOID, (truth == 0).sum()
    assert valid.mean() < 1 and measures["pixel_accuracy"] == pytest.approx(1 - wrong / valid.sum())
    first, second, third = list(measures["iou"].values())[:3]
    assert (first, third) == (0, 1) and second == pytest.approx((truth == 1).sum() / ((truth == 1).sum() + wrong))
    assert measures["miou"] == pytest.approx(np.mean(list(measures["iou"].values()))) and len(shown) == 2


# ---- going on after a stop ----


def read_files(out):
    return {name: (out / name).read_bytes() for name in ("loss.csv", "validation.csv", "metrics.json")}


# In the child, before the answer: kill it as soon as there is a new checkpoint, or some time after that.
KILL = """
import os, pathlib, threading, time

def times():
    return [path.stat().st_mtime_ns for path in pathlib.Path("out").glob("checkpoint*")]

def watch(before=times()):
    while times() == before:
        time.sleep(0.001)
    time.sleep({delay})
    os.kill(os.getpid(), 9)

threading.Thread(target=watch, daemon=True).start()
"""


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory, street_stages, fork):
    """Return a function of a framework: a folder with out/ of a run that was killed twice, whole/ of one that was not.

    And killed/, as the first kill left out/.
    """
    done = {}

    def find(framework):
        if framework not in done:
            top, script = tmp_path_factory.mktemp("止めて も"), ANSWERS["street_train", framework]
            arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 7]
            result = fork(script, *arguments, "--out", "whole", cwd=top)
            assert result.returncode == 0, result.stderr
            for number, delay in enumerate((0, 0.03)):
                result = fork(script, *arguments, "--resume", "--out", "out", cwd=top, before=KILL.format(delay=delay))
                assert result.returncode == -9, result.stderr
                if not number:
                    shutil.copytree(top / "out", top / "killed")
            result = fork(script, *arguments, "--resume", "--out", "out", cwd=top)
            assert result.returncode == 0, result.stderr
            done[framework] = top, arguments
        return done[framework]

    return find


@by_framework
def test_a_run_that_was_killed_twice_ends_as_if_it_had_not_been(stopped_runs, framework):
    top, _ = stopped_runs(framework)
    whole, out = (read_files(top / name) for name in ("whole", "out"))
    assert whole["loss.csv"] == out["loss.csv"] and whole["validation.csv"] == out["validation.csv"]
    one, other = (json.loads(files["metrics.json"]) for files in (whole, out))
    assert one["miou"] == other["miou"] and one["iou"] == other["iou"] and one["best"] == other["best"]
    assert not list((top / "out").glob("checkpoint*")) and not list((top / "out").glob(".part*"))


@by_framework
def test_a_finished_run_is_not_resumed_but_left_as_it_is(stopped_runs, fork, framework):
    top, arguments = stopped_runs(framework)
    before = read_files(top / "out")
    assert_one_line(
        fork(ANSWERS["street_train", framework], *arguments, "--resume", "--out", "out", cwd=top), "finished"
    )
    assert read_files(top / "out") == before


def assert_one_line(result, *named):
    """The answer stopped: status 2, and one line beside its progress bars that names all of these."""
    lines = [line for line in result.stderr.splitlines() if line.strip() and "%|" not in line]
    assert result.returncode == 2 and len(lines) == 1, result.stderr
    assert all(name in lines[0] for name in named), lines[0]


@by_framework
def test_checkpoints_that_are_damaged_or_of_other_options_end_in_one_line(stopped_runs, fork, tmp_path, framework):
    top, arguments = stopped_runs(framework)
    script = ANSWERS["street_train", framework]
    shutil.copytree(top / "killed", tmp_path / "out")
    given = [*arguments, "--resume", "--out", "out"]
    result = fork(script, *given, "--lr", 0.07, cwd=tmp_path)
    assert_one_line(result, "--resume", " is of a run with --lr 0.1, and this one has --lr 0.07: give the same")
    for path in (tmp_path / "out").glob("checkpoint*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-100])
    assert_one_line(fork(script, *given, cwd=tmp_path), "checkpoint")


def read_events(folder):
    """Return {tag: {step: value}} of TensorBoard's logs, what was logged later instead of what was before."""
    numbers = {}
    paths = sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
    for path in paths:
        payloads = ANSWER.read_shard(path)
        while True:
            try:
                event = Event.FromString(next(payloads))
            except (StopIteration, ANSWER.Damaged):  # the last of a run that was killed
                break
            for value in event.summary.value:
                tensor = value.tensor
                number = value.simple_value or (
                    np.frombuffer(tensor.tensor_content, np.float32)[0]
                    if tensor.tensor_content
                    else [*tensor.float_val, *tensor.double_val, 0.0][0]
                )
                numbers.setdefault(value.tag, {})[event.step] = number
    return numbers


@by_framework
def test_tensorboard_shows_what_the_tables_say(stopped_runs, framework):
    top, _ = stopped_runs(framework)
    for name in ("whole", "out"):
        events = read_events(top / name / "logs")
        for table, tags in (("loss.csv", {"train/loss": "loss"}), ("validation.csv", {"val/miou": "miou"})):
            with open(top / name / table, newline="") as file:
                rows = list(csv.DictReader(file))
            for tag, column in tags.items():
                expected = {int(row["iteration"]): float(row[column]) for row in rows}
                found = {step: events[tag][step] for step in expected if step in events[tag]}
                assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-6)
                assert len(found) == len(expected) or name == "out" and len(found) >= len(expected) - 1
        assert events["train/learning_rate"][1] == pytest.approx(0.1)


# Runs in a process of its own, which forks a child for each run, so that PyTorch is imported once.
TWENTY = """
import json, os, random, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from exercises import load_answer
answer, out, data = load_answer(sys.argv[2]), Path("out"), sys.argv[3]
answer.torch.set_num_threads(1)
answer.tqdm.monitor_interval = 0
answer.tqdm.set_lock(threading.RLock())
answer.CHANNELS = (2, 2, 2, 2, 2)
null = os.open(os.devnull, os.O_WRONLY)
options = sys.argv[4:]


def start(out, *more):
    child = os.fork()
    if not child:
        os.dup2(null, 1), os.dup2(null, 2)
        sys.argv = [sys.argv[2], "--data", data, "--out", str(out), *options, *more]
        answer.main()
        os._exit(0)
    return child


begin = time.time()
os.waitpid(start("whole"), 0)
length, kills, runs = time.time() - begin, 0, 0
draw, whole = random.Random(0), [Path("whole", name).read_bytes() for name in ("loss.csv", "validation.csv")]
while kills < 20:
    child = start("out", "--resume")
    time.sleep(draw.uniform(0, 0.7 * length))
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kills += status == -9
    assert status in (0, -9), status
    if Path("out", "metrics.json").exists():  # killed when all was done
        status = 0
    if status == 0 or kills == 20:
        if status:
            assert os.waitpid(start("out", "--resume"), 0)[1] == 0
        runs += 1
        assert [Path("out", name).read_bytes() for name in ("loss.csv", "validation.csv")] == whole
        os.system("rm -r out")
print(json.dumps([kills, runs]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has computed, which macOS does not allow")
def test_killed_at_twenty_moments_the_curve_is_the_same(tmp_path, street_stages):
    arguments = [ROOT / "tools", ANSWERS["street_train", "pytorch"], street_stages["street_records"]]
    result = run_python("-c", TWENTY, *arguments, *SMALL, "--iterations", 24, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    kills, runs = json.loads(result.stdout.splitlines()[-1])
    assert kills == 20 and runs >= 1


def test_a_wrong_batch_or_records_of_an_odd_size_are_told(street_stages, tmp_path, monkeypatch, capsys):
    given = ["--data", street_stages["street_records"], "--out", tmp_path / "out", *SMALL]
    monkeypatch.setattr(sys, "argv", list(map(str, ["answer", *given, "--batch", 6])))
    assert "--batch 6: more than the images in " in stopped(capsys, ANSWER.main)
    folder = shutil.copytree(street_stages["street_records"], tmp_path / "records")
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    (folder / "metrics.json").write_text(json.dumps(metrics | {"size": [33, 64]}))
    monkeypatch.setattr(sys, "argv", list(map(str, ["answer", *given, "--data", folder])))
    assert "make them of sides that are multiples of 16" in stopped(capsys, ANSWER.main)
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_is_told_in_one_line_whatever_the_worker(records, tmp_path, monkeypatch):
    """Main reads all first; this is of one that is damaged meanwhile."""
    monkeypatch.setitem(sys.modules, ANSWER.Damaged.__module__, ANSWER)  # where a worker's error finds its class
    paths = [Path(shutil.copy(path, tmp_path)) for path in records[0]["train"].paths]
    broken = ANSWER.Records(paths)
    data = bytearray(paths[0].read_bytes())
    data[200] ^= 4
    paths[0].write_bytes(data)
    for workers in (0, 2):
        with pytest.raises(ANSWER.Damaged, match=r"\.tfrecord: the record at byte 0 is damaged or cut off") as error:
            list(ANSWER.draw_batches(broken, 0, make_options(workers=workers, iterations=20)))
        assert "\n" not in str(error.value)
        del error  # and with it what holds on to the workers
        gc.collect()
