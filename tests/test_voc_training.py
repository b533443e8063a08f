"""deeplab_finetune and voc_test: learning rates, frozen batch norm, void, going on after a kill; measures and faults.

Steps are taken in a process of each framework (collect_deeplab.py), and compared with those that PyTorch's gradients
give by hand. The functions that use no framework are equal in all four answers (tools/copies.py), so what is tested of
them by itself is PyTorch's.
"""

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ANSWERS, FRAMEWORKS, ROOT, VOC_SIZES, encode_mask, pytorch, run_python, stopped
from PIL import Image

FINETUNE, VOC_TEST = pytorch("deeplab_finetune"), pytorch("voc_test")
VOID, HEADS = 255, ("classifier.4.", "aux_classifier.4.")
RATE, SIZE, BATCH = 0.01, 32, 2
WAYS = ("scratch", "finetuned running", "finetuned frozen", "finetuned void")
SMALL = ["--depth", 14, "--size", 32, "--batch", 2, "--workers", 0, "--device", "cpu"]
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


def make_options(**changes):
    options = {"depth": "14", "device": "cpu", "size": SIZE, "batch": BATCH, "seed": 0, "workers": 0, "lr": RATE}
    options |= {"norm": "running", "crop": "random", "resume": False, "pictures": 0, "weights": None}
    return SimpleNamespace(**options | changes)


def make_network(seed=1):
    return VOC_TEST.build_network(np.random.default_rng(seed), make_options())


def copy_entries(network):
    """Return {name: array}, in double precision."""
    return {name: entry.astype(np.float64) for name, entry in FINETUNE.list_entries(network).items()}


@pytest.fixture
def double(monkeypatch):
    """Let PyTorch's answers compute in double precision."""
    for answer in (FINETUNE, VOC_TEST):
        monkeypatch.setattr(answer, "FLOAT", "float64")
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Given:
    """Samples that are given: images (number, size, size, 3) and masks (number, size, size)."""

    def __init__(self, images, masks):
        self.images, self.masks, self.first = images, masks, 0

    def __len__(self):
        return len(self.images) - self.first

    def __getitem__(self, number):
        return self.images[self.first + number].astype(np.float64), self.masks[self.first + number]


# ---- steps ----


@pytest.fixture(scope="module")
def given():
    """Images and masks for three steps, part of which is void, and logits for the loss alone."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 21, (3 * BATCH, SIZE // 8, SIZE // 8), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    masks[:, :5], masks[1, :, 20:] = VOID, VOID
    part = masks[:BATCH]
    logits = rng.normal(0, 2, (2, BATCH, SIZE, SIZE, 21))
    other = np.where((part == VOID)[None, ..., None], rng.normal(0, 50, logits.shape), logits)
    images = rng.normal(0, 1, (3 * BATCH, SIZE, SIZE, 3))
    arrays = {"images": images, "masks": masks, "logits": logits, "other_logits": other}
    return arrays | {"part_void": part, "all_void": np.full_like(part, VOID)}


@pytest.fixture(scope="module")
def stepped(tmp_path_factory, given):
    """Return a function of a framework: the folder, and all that collect_deeplab.py has found, once."""
    folder, done = tmp_path_factory.mktemp("一 歩"), {}
    np.savez(folder / "training.npz", **given)

    def find(framework):
        if framework not in done:
            collect = Path(__file__).with_name("collect_deeplab.py")
            result = run_python(collect, framework, folder, "deeplab_finetune", cwd=folder)
            assert result.returncode == 0, result.stderr[-3000:]
            done[framework] = dict(np.load(folder / f"deeplab_finetune_{framework}.npz"))
        return folder, done[framework]

    return find


def take_steps(given, phase, norm, number):
    """Return the losses, and what a number of steps change, by PyTorch's gradients and the formula of SGD by hand."""
    network, options = make_network(), make_options()
    before, velocities, losses = copy_entries(network), {}, []
    fine = phase == "finetuned"
    for step in range(number):
        network.train()
        norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        for layer in norms if fine and norm == "frozen" else ():
            layer.eval()
        batch = slice(step * BATCH, (step + 1) * BATCH)
        images = torch.from_numpy(given["images"][batch]).permute(0, 3, 1, 2)
        masks = torch.from_numpy(given["masks"][batch]).long()
        factors = FINETUNE.draw_dropout(step, SIZE, BATCH, options)
        logits = network(images, [torch.from_numpy(each).permute(0, 3, 1, 2) for each in factors])
        loss = sum(
            weight * torch.nn.functional.cross_entropy(x, masks, ignore_index=VOID)
            for weight, x in zip((1, 0.4), logits, strict=True)
        )
        network.zero_grad()
        loss.backward()
        losses.append(loss.item())
        rate = RATE * (1 - step / number) ** 0.9
        for name, weight in network.named_parameters():
            is_norm = weight.ndim == 1 and not name.startswith(HEADS)
            if fine and norm == "frozen" and is_norm:
                continue
            own = rate if not fine or name.startswith(HEADS) else rate / 10
            velocities[name] = 0.9 * velocities.get(name, 0) - own * weight.grad
            weight.data += velocities[name]
    return losses, {name: entry - before[name] for name, entry in copy_entries(network).items()}


@pytest.mark.parametrize("way", WAYS[:3])
def test_steps_are_those_by_hand(given, double, tmp_path, way):
    """Three of them, so that momentum, the schedule and the two learning rates all count."""
    phase, norm = (way.split() + ["running"])[:2]
    losses, changes = take_steps(given, phase, norm, 3)
    network = make_network()
    before = copy_entries(network)
    options = make_options(norm=norm, out=tmp_path)
    found = FINETUNE.train(network, Given(given["images"], given["masks"]), phase, options)
    assert found == pytest.approx(losses, rel=1e-10) and np.ptp(losses) > 1e-3
    for name, entry in copy_entries(network).items():
        assert np.abs(entry - before[name] - changes[name]).max() < 1e-11, name


@by_framework
@pytest.mark.parametrize("way", WAYS[:3])
def test_first_step_is_the_one_by_hand_in_each_framework(stepped, given, double, framework, way):
    losses, changes = take_steps(given, *(way.split() + ["running"])[:2], 1)
    found = stepped(framework)[1]
    assert found[f"{way} losses"] == pytest.approx(losses, rel=1e-10)
    for name, change in changes.items():
        assert np.abs(found[f"{way} {name}"] - change).max() < 1e-10, name


@by_framework
def test_first_update_of_what_is_not_new_is_a_tenth(stepped, framework):
    found, kernels = stepped(framework)[1], 0
    for name in [name.removeprefix("scratch ") for name in found if name.startswith("scratch ")]:
        one, two = (found[f"{way} {name}"] for way in WAYS[:2])
        if name != "losses" and "running" not in name:
            scale = 1 if name.startswith(HEADS) else 0.1
            largest = np.abs(one).max()
            assert np.abs(two - scale * one).max() < 1e-6 * largest and largest > 1e-6, name
            kernels += 1
    assert kernels > 60


@by_framework
def test_frozen_batch_norm_stays_as_it_was(stepped, framework):
    found = stepped(framework)[1]
    norms = [name.split()[-1] for name in found if name.startswith("scratch ") and ("bn" in name or "running" in name)]
    norms += [name.replace("running_mean", part) for name in norms for part in ("weight", "bias") if "_mean" in name]
    assert len(set(norms)) > 90
    for name in norms:
        assert not found[f"finetuned frozen {name}"].any(), name
        assert found[f"finetuned running {name}"].any(), name
    moved = [name for name in found if name.startswith("finetuned frozen ") and found[name].any()]
    assert len(moved) - 1 == len(make_kernels())  # and the losses


def make_kernels():
    """Return the names of all weights that are not of a batch norm."""
    network = make_network()
    return [name for name, weight in network.named_parameters() if weight.ndim == 4 or name.startswith(HEADS)]


@by_framework
def test_void_counts_for_nothing_and_alone_makes_no_loss(stepped, given, framework):
    found = stepped(framework)[1]
    expected = 0
    for weight, logits in zip((1, 0.4), given["logits"], strict=True):
        valid = given["part_void"] != VOID
        chosen = logits[valid]
        right = chosen[np.arange(len(chosen)), given["part_void"][valid]]
        expected += weight * np.mean(np.log(np.exp(chosen).sum(axis=1)) - right)
    for logits in ("logits", "other_logits"):
        assert found[f"loss {logits} part_void"] == pytest.approx(expected, rel=1e-6)
        assert found[f"loss {logits} all_void"] == 0
    assert found["finetuned void losses"].tolist() == [0]
    changes = {name: found[name] for name in found if name.startswith("finetuned void ")}
    assert len(changes) > 100 and not any(change.any() for change in changes.values())  # a NaN is none of these


def test_void_has_no_gradient(given, double):
    logits = [torch.from_numpy(each).permute(0, 3, 1, 2).requires_grad_() for each in given["logits"]]
    FINETUNE.compute_loss(logits, torch.from_numpy(given["part_void"])).backward()
    for each in logits:
        size = each.grad.abs().sum(dim=1).numpy()
        assert not size[given["part_void"] == VOID].any() and size[given["part_void"] != VOID].all()


def test_the_learning_rate_falls_to_the_power_of_nine_tenths():
    rates = [FINETUNE.learning_rate(i, 100, 0.1) for i in range(100)]
    assert [rates[i] for i in (0, 50, 90, 99)] == pytest.approx([0.1, 0.0535887, 0.0125893, 0.00158489], rel=1e-5)
    assert sorted(rates, reverse=True) == rates


def test_dropout_keeps_a_half_and_nine_tenths_and_differs_each_step():
    options = make_options(size=129, batch=4)
    for keep, factors, others in zip(
        (0.5, 0.9), FINETUNE.draw_dropout(3, 129, 4, options), FINETUNE.draw_dropout(4, 129, 4, options), strict=True
    ):
        assert factors.shape == (4, 17, 17, 64) and not np.array_equal(factors, others)
        assert set(np.unique(factors)) == {0, np.float32(1) / np.float32(keep)}
        assert (factors > 0).mean() == pytest.approx(keep, abs=0.01)


# ---- weights to begin with ----


@by_framework
def test_heads_are_drawn_anew_within_bounds(stepped, framework):
    found = stepped(framework)[1]
    for name in [name.removeprefix("written ") for name in found if name.startswith("written ")]:
        before, after = found[f"written {name}"], found[f"heads {name}"]
        if not name.startswith(HEADS):
            assert np.array_equal(before, after), name
        elif name.endswith("bias"):
            assert after.shape == (21,) and (after == np.float32(0.01)).all(), name
        else:
            limit = np.sqrt(6 / (64 + 21))
            assert 0.98 * limit < np.abs(after).max() <= limit and abs(after.mean()) < 0.03, name
            assert after.std() == pytest.approx(limit / np.sqrt(3), rel=0.05), name
            assert np.array_equal(after, stepped("pytorch")[1][f"heads {name}"])


@by_framework
def test_written_weights_are_read_by_pytorch_and_predict_the_same(stepped, framework):
    folder, found = stepped(framework)
    path = folder / f"written_{framework}.pth"
    state = torch.load(path, weights_only=True)
    network = make_network()
    assert list(state) == list(network.state_dict())  # num_batches_tracked too, which PyTorch's strict reader wants
    network.load_state_dict(state, strict=True)
    other = make_network(seed=9)
    FINETUNE.load_weights(other, path, "14")
    images = np.random.default_rng(3).normal(0, 1, (1, 40, 56, 3)).astype(np.float32)
    logits = FINETUNE.predict(make_network(), images, make_options())
    for read in (network, other):
        assert np.array_equal(FINETUNE.predict(read, images, make_options()), logits) and np.ptp(logits) > 0.1
    for name, entry in FINETUNE.list_entries(other).items():
        assert np.array_equal(entry, found[f"written {name}"]), name


@pytest.fixture(scope="module")
def weights(tmp_path_factory, voc):
    """A file of weights: drawn at random, the running averages those of the images; its heads tell classes apart."""
    path, network = tmp_path_factory.mktemp("重み") / "weights.pth", make_network(seed=3)
    names = VOC_TEST.read_names(VOC_TEST.find_voc(voc), "val")
    pairs = [VOC_TEST.read_pair(VOC_TEST.find_voc(voc), name) for name in names]
    images = np.stack([VOC_TEST.normalise(VOC_TEST.centre_crop(*pair, 128)[0]) for pair in pairs])
    for weight in network.parameters():
        if weight.ndim == 1:
            weight.data += 0.03  # 0 would move with a learning rate however small
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()
    with torch.inference_mode():
        network(torch.from_numpy(images).permute(0, 3, 1, 2))
    VOC_TEST.write_pth(path, network)
    return path


def run_main(answer, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", list(map(str, [answer.__file__, *arguments])))
    answer.main()


@pytest.mark.parametrize("heads, norm", [("new", "frozen"), ("kept", "frozen"), ("kept", "running")])
def test_training_begins_with_the_weights_that_are_given(voc, weights, tmp_path, monkeypatch, heads, norm):
    """A learning rate next to nothing leaves them as they are."""
    arguments = ["--weights", weights, "--heads", heads, "--norm", norm, "--lr", 1e-30, "--iterations", 1]
    run_main(FINETUNE, monkeypatch, *arguments, *SMALL, "--data", voc, "--out", tmp_path, "--pictures", 1)
    before, after = (torch.load(path, weights_only=True) for path in (weights, tmp_path / "finetuned.pth"))
    for name, entry in before.items():
        if "num_batches" in name:
            continue
        changes = (heads == "new" and name.startswith(HEADS)) or (norm == "running" and "running" in name)
        assert torch.equal(entry, after[name]) != changes, name
    assert (after["classifier.4.bias"] == np.float32(0.01)).all() == (heads == "new")
    assert len(list((tmp_path / "pictures").iterdir())) == 1 and not list(tmp_path.glob("*.checkpoint"))


def test_phases_learn_from_their_own_images_and_begin_where_they_should(voc, weights, tmp_path, monkeypatch):
    """Of the four images to train on, each with person and another of the classes 7 to 10, and the three of val."""
    train, val = (list(VOC_SIZES[split]) for split in ("train", "val"))
    classes = {"pretrained": range(8, 11), "scratch": range(7, 10), "finetuned": range(7, 10)}
    phases = {phase: (classes[phase], start) for phase, (_, start) in FINETUNE.PHASES.items()}
    monkeypatch.setattr(FINETUNE, "PHASES", phases)
    monkeypatch.setattr(FINETUNE, "FEW", 2)
    calls = []

    def watch(name, tell):
        function = getattr(FINETUNE, name)
        monkeypatch.setattr(FINETUNE, name, lambda *given: [calls.append(tell(*given)), function(*given)][1])

    watch("load_weights", lambda network, path, depth: path)
    watch("train", lambda network, samples, phase, options: (phase, sorted({*samples.names})))
    watch("evaluate", lambda network, voc, names, classes, options: (names, classes))
    arguments = [*SMALL, "--iterations", 3, "--pretraining", 3, "--data", voc, "--out", tmp_path, "--pictures", 0]
    run_main(FINETUNE, monkeypatch, *arguments)
    few = train[:2], (val, range(7, 10))
    assert calls == [
        ("pretrained", train[1:]),
        (val[1:], range(8, 11)),
        ("scratch", few[0]),
        few[1],
        tmp_path / "pretrained.pth",
        ("finetuned", few[0]),
        few[1],
    ]
    kept = json.loads((tmp_path / "metrics.json").read_text("utf-8"))["phases"]
    assert {phase: kept[phase]["images"] for phase in phases} == {"pretrained": 3, "scratch": 2, "finetuned": 2}
    calls.clear()
    run_main(FINETUNE, monkeypatch, *arguments, "--weights", weights)
    assert calls == [weights, ("finetuned", train), (val, range(1, 21))]  # all images of all classes


def test_mixed_precision_computes_in_bfloat16_and_keeps_the_weights_in_float32(voc, weights, tmp_path, monkeypatch):
    assert not FINETUNE.MIXED  # or its curve would not be that of the others
    compute_loss, losses, types = FINETUNE.compute_loss, {}, set()

    def note(logits, masks):
        types.update(each.dtype for each in logits)
        return compute_loss(logits, masks)

    monkeypatch.setattr(FINETUNE, "compute_loss", note)
    arguments = [
        "--weights",
        weights,
        "--heads",
        "kept",
        "--lr",
        1e-4,
        "--iterations",
        2,
        *SMALL,
        "--data",
        voc,
        "--pictures",
        0,
    ]
    for mixed in (False, True):
        monkeypatch.setattr(FINETUNE, "MIXED", mixed)
        types.clear()
        run_main(FINETUNE, monkeypatch, *arguments, "--out", tmp_path / str(mixed))
        assert types == {torch.bfloat16 if mixed else torch.float32}
        losses[mixed] = np.loadtxt(tmp_path / str(mixed) / "loss.csv", delimiter=",", skiprows=1)[:, 1]
    entries = torch.load(tmp_path / "True" / "finetuned.pth", weights_only=True)
    assert {entry.dtype for entry in entries.values()} == {torch.float32, torch.int64}
    assert (losses[True] != losses[False]).all() and np.allclose(losses[True], losses[False], rtol=0.02)


# ---- going on after a kill ----

# In the child, before the answer: kill it at the n-th checkpoint, before it has its name, or some time afterwards.
KILL = """
import os, threading
count, replace = 0, os.replace
def counted(source, target, **more):
    global count
    if not str(target).endswith(".checkpoint"):
        return replace(source, target, **more)
    count += 1
    if (count, {delay}) == ({number}, None):
        os.kill(os.getpid(), 9)
    replace(source, target, **more)
    with open("saves.txt", "a") as file:
        print(os.path.basename(target), file=file)
    if count == {number}:
        threading.Timer({delay}, os.kill, (os.getpid(), 9)).start()
os.replace = counted
"""


def copy_answer(exercise, framework, folder, **changes):
    """Copy an answer to a folder with other constants; return its path."""
    text = ANSWERS[exercise, framework].read_text("utf-8")
    for name, (old, new) in changes.items():
        assert text.count(f"\n{name} = {old} ") == 1
        text = text.replace(f"\n{name} = {old} ", f"\n{name} = {new} ")
    path = folder / ANSWERS[exercise, framework].name
    path.write_text(text, "utf-8")
    return path


def list_losses(folder):
    return {path.name: path.read_bytes() for path in folder.glob("loss*.csv")}


def test_a_run_that_was_killed_goes_on_to_the_same_losses(voc, tmp_path, fork):
    script = copy_answer("deeplab_finetune", "pytorch", tmp_path, SAVE_EVERY=(50, 2))
    arguments = [*SMALL, "--iterations", 9, "--pretraining", 10, "--data", voc, "--pictures", 0]
    whole = fork(script, *arguments, "--out", "whole", cwd=tmp_path, before=KILL.format(number=99, delay=0))
    assert whole.returncode == 0, whole.stderr
    saves = (tmp_path / "saves.txt").read_text().split()
    assert saves == [f"{phase}.checkpoint" for phase in FINETUNE.PHASES for _ in range(5)]
    (tmp_path / "saves.txt").unlink()
    delays = np.random.default_rng(2).uniform(0, 0.05, 3).tolist()
    for number, delay in [(1, None), (1, delays[0]), (3, delays[1]), (2, None), (1, delays[2])]:
        killed = fork(script, *arguments, "--resume", cwd=tmp_path, before=KILL.format(number=number, delay=delay))
        assert killed.returncode not in (0, 1, 2), killed.stderr
    last = fork(script, *arguments, "--resume", cwd=tmp_path, before=KILL.format(number=99, delay=0))
    assert last.returncode == 0, last.stderr
    out = tmp_path / "outputs" / script.stem
    assert list_losses(out) == list_losses(tmp_path / "whole") and len(list_losses(out)) == 3
    weights, expected = (
        torch.load(folder / "finetuned.pth", weights_only=True) for folder in (out, tmp_path / "whole")
    )
    assert all(torch.equal(weights[name], entry) for name, entry in expected.items())
    # Had a run begun anew, more would have been saved; a kill can cost what was just saved its line.
    assert len(saves) - 5 <= len((tmp_path / "saves.txt").read_text().split()) <= len(saves) + 5
    left = [path.name for path in out.iterdir() if ".checkpoint" in path.name]
    # The two kills amid a checkpoint leave a part of one each, and one of the other three may have come amid one too.
    assert 2 <= len(left) <= 5 and all(name.startswith(".part-") for name in left)


@by_framework
def test_each_framework_goes_on_or_says_why_not(voc, weights, tmp_path, fork, framework):
    script = copy_answer("deeplab_finetune", framework, tmp_path, SAVE_EVERY=(50, 2))
    given = Path(shutil.copy(weights, tmp_path / "given.pth"))
    arguments = [*SMALL, "--weights", given, "--iterations", 5, "--data", voc, "--norm", "running"]
    whole = fork(script, *arguments, "--resume", "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert "--resume: no checkpoint in whole/: training begins from the start" in whole.stdout
    before = KILL.format(number=1, delay=0.02)
    killed = fork(script, *arguments, "--out", "out", cwd=tmp_path, before=before)
    assert killed.returncode not in (0, 1, 2), killed.stderr
    path = tmp_path / "out" / "finetuned.checkpoint"
    kept = path.read_bytes()

    other, damaged = "is of a run with other options", "not a whole checkpoint: remove it, and train from the start"
    cases = [
        (None, ["--lr", 0.2], other),
        (len(kept) // 2, [], damaged),
        (None, ["--seed", 1], other),
        (0, [], damaged),
    ]
    for cut, change, said in cases if framework == "pytorch" else cases[:2]:
        path.write_bytes(kept[:cut])
        refused = fork(script, *arguments, *change, "--resume", "--out", "out", cwd=tmp_path)
        lines = [line for line in refused.stderr.splitlines() if line and "%|" not in line]
        assert refused.returncode == 2 and len(lines) == 1, refused.stderr
        assert lines[0].startswith(f"{script.name}: ") and said in lines[0] and "finetuned.checkpoint" in lines[0]
        assert path.read_bytes() == kept[:cut]

    path.write_bytes(kept)
    if framework == "pytorch":  # other weights under the same name
        VOC_TEST.write_pth(given, make_network(seed=4))
        refused = fork(script, *arguments, "--resume", "--out", "out", cwd=tmp_path)
        assert refused.returncode == 2 and other in refused.stderr and "(weights of CRC-32 " in refused.stderr
        shutil.copy(weights, given)
    last = fork(script, *arguments, "--resume", "--out", "out", cwd=tmp_path)
    assert last.returncode == 0 and "no checkpoint" not in last.stdout, last.stderr
    losses = [dict(csv.reader((tmp_path / name / "loss.csv").open())) for name in ("whole", "out")]
    assert losses[0] == losses[1] and list(losses[0]) == ["iteration", *"12345"]
    again = fork(script, *arguments, "--resume", "--out", "out", cwd=tmp_path)
    assert again.returncode == 2 and "--resume: the training in out is finished" in again.stderr, again.stderr
    assert (tmp_path / "out" / "metrics.json").exists()
    # What it wrote, PyTorch reads, and finds the same classes.
    network, wrong = make_network(seed=7), 0
    FINETUNE.load_weights(network, tmp_path / "out" / "finetuned.pth", "14")
    for name in VOC_SIZES["val"]:
        image, _ = FINETUNE.centre_crop(*FINETUNE.read_pair(FINETUNE.find_voc(voc), name), SIZE)
        classes = FINETUNE.predict(network, FINETUNE.normalise(image)[None], make_options())[0].argmax(axis=2)
        shown = np.array(Image.open(tmp_path / "out" / "predictions" / f"{name}.png"))
        wrong += (shown != FINETUNE.COLOURS[classes]).any(axis=2).sum()
    assert wrong <= 3  # of 3072, where rounding decides


# ---- measures ----


def measure_by_sets(masks, predictions, void_is_wrong=False):
    """Return mIoU, IoU by class and pixel accuracy by sets of pixels: another way than the answers'."""
    truth, found, right, number = {}, {}, 0, 0
    for picture, (mask, prediction) in enumerate(zip(masks, predictions, strict=True)):
        for (y, x), index in np.ndenumerate(mask):
            if index == VOID and not void_is_wrong:
                continue
            truth.setdefault(index, set()).add((picture, y, x))
            found.setdefault(prediction[y, x], set()).add((picture, y, x))
            right += index == prediction[y, x]
            number += 1
    iou = {}
    for index, name in enumerate(VOC_TEST.CLASSES):
        one, two = truth.get(index, set()), found.get(index, set())
        iou[name] = len(one & two) / len(one | two) if one | two else None
    there = [value for value in iou.values() if value is not None]
    return {"miou": sum(there) / len(there), "iou": iou, "pixel_accuracy": right / number}


def assert_measures(found, expected):
    assert found["miou"] == pytest.approx(expected["miou"], rel=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], rel=1e-12)
    for name, value in expected["iou"].items():
        assert found["iou"][name] == (value if value is None else pytest.approx(value, rel=1e-12)), name


@pytest.mark.parametrize("void_is_wrong", [False, True])
def test_measures_are_those_of_sets_of_pixels(void_is_wrong):
    rng = np.random.default_rng(4)
    masks = [rng.choice(np.uint8([0, 0, 3, 15, 20, VOID]), size) for size in ((17, 23), (9, 30), (5, 5))]
    predictions = [np.where(rng.random(m.shape) < 0.6, m, 7) for m in masks]
    predictions = [np.where(p == VOID, rng.choice([0, 3], p.shape), p).astype(np.uint8) for p in predictions]
    pairs = sum(VOC_TEST.count_pairs(mask, p) for mask, p in zip(masks, predictions, strict=True))
    void = sum(np.bincount(p[m == VOID], minlength=21) for m, p in zip(masks, predictions, strict=True))
    found = VOC_TEST.measure(pairs, void) if void_is_wrong else VOC_TEST.measure(pairs)
    expected = measure_by_sets(masks, predictions, void_is_wrong)
    assert_measures(found, expected)
    assert expected["iou"]["cat"] is None and expected["iou"]["car"] == 0 and 0.2 < expected["miou"] < 0.8
    if not void_is_wrong:
        assert_measures(FINETUNE.measure(pairs), expected)


def test_measures_by_hand():
    """Of 2 x 4 pixels: two of background right, one taken for a bird; two birds right, one missed; two void."""
    mask = np.uint8([[0, 0, 0, VOID], [3, 3, 3, VOID]])
    prediction = np.uint8([[0, 0, 3, 0], [3, 3, 0, 15]])
    pairs = VOC_TEST.count_pairs(mask, prediction)
    assert (pairs[0, 0], pairs[0, 3], pairs[3, 3], pairs[3, 0], pairs.sum()) == (2, 1, 2, 1, 6)
    found = VOC_TEST.measure(pairs)
    assert found["iou"]["background"] == found["iou"]["bird"] == 2 / 4 == found["miou"]
    assert found["pixel_accuracy"] == 4 / 6 and found["iou"]["person"] is None
    wrong = VOC_TEST.measure(pairs, np.bincount(prediction[mask == VOID], minlength=21))
    assert (wrong["iou"]["background"], wrong["iou"]["bird"], wrong["iou"]["person"]) == (2 / 5, 2 / 4, 0)
    assert wrong["pixel_accuracy"] == 4 / 8 and wrong["miou"] == pytest.approx((0.4 + 0.5) / 3)


def test_measures_leave_out_the_classes_of_another_phase(voc):
    """A class that is not learnt is void in the truth, and no part of the mean where it is predicted."""
    folder = FINETUNE.find_voc(voc)
    names, classes = list(VOC_SIZES["val"]), range(11, 21)
    network, options = make_network(), make_options(pictures=len(names))
    found, predictions = FINETUNE.evaluate(network, folder, names, classes, options)
    same, few = FINETUNE.evaluate(network, folder, names, classes, make_options(pictures=1))
    assert same == found and list(few) == names[:1]  # what no picture is written of is not kept
    masks = [FINETUNE.centre_crop(*FINETUNE.read_pair(folder, name), SIZE)[1] for name in names]
    masks = [np.where(np.isin(mask, [0, *classes]), mask, VOID) for mask in masks]
    expected = measure_by_sets(masks, predictions.values())
    learnt = {VOC_TEST.CLASSES[index] for index in (0, *classes)}
    iou = {name: value for name, value in expected["iou"].items() if name in learnt and value is not None}
    assert found["iou"] == pytest.approx(iou) and found["miou"] == pytest.approx(np.mean(list(iou.values())))
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"])
    assert {name for name, value in expected["iou"].items() if value is not None} - learnt


# ---- what voc_test writes and tells ----


@pytest.fixture(scope="module")
def tested(voc, weights, tmp_path_factory, fork):
    """Return a function of a framework: the folder that voc_test has written for the same weights, once."""
    done = {}

    def find(framework):
        if framework not in done:
            folder = tmp_path_factory.mktemp("測る")
            script = copy_answer("voc_test", framework, folder, FAULTS_SIZE=(128, 64))
            arguments = ["--weights", weights, *SMALL, "--size", 48, "--data", voc, "--out", "out"]
            result = fork(script, *arguments, cwd=folder)
            assert result.returncode == 0, result.stderr
            done[framework] = folder / "out", result.stdout
        return done[framework]

    return find


def test_results_are_palette_images_of_whole_images(voc, weights, tested):
    out, _ = tested("pytorch")
    network, folder, masks, found = make_network(), VOC_TEST.find_voc(voc), [], []
    VOC_TEST.load_weights(network, weights, "14")
    colours = [[sum((i >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)] for i in range(256)]
    results = out / "results" / "VOC2012" / "Segmentation" / "comp6_val_cls"
    assert {path.stem for path in results.iterdir()} == set(VOC_SIZES["val"])
    for name, size in VOC_SIZES["val"].items():
        result = Image.open(results / f"{name}.png")
        assert result.mode == "P" and result.format == "PNG"
        assert np.array_equal(np.reshape(result.getpalette(), (-1, 3)), colours)
        assert colours[:3] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]] and colours[255] == [224, 224, 192]
        image, mask = VOC_TEST.read_pair(folder, name)
        expected = VOC_TEST.segment(network, image, make_options(size=48))
        assert np.array(result).shape == size and np.array_equal(result, expected) and len(np.unique(result)) > 2
        masks.append(mask)
        found.append(np.array(result))
        shown = np.array(Image.open(out / "pictures" / f"{name}.png"))
        height, width = size
        assert np.array_equal(shown[:height, :width], VOC_TEST.COLOURS[mask])
        assert np.array_equal(shown[:height, width : 2 * width], image)
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert_measures(metrics, measure_by_sets(masks, found))


@by_framework
def test_faults_cost_the_same_in_each_framework(tested, framework):
    out, printed = tested(framework)
    metrics, expected = (
        json.loads((tested(each)[0] / "metrics.json").read_text("utf-8")) for each in (framework, "pytorch")
    )
    faults = metrics["faults"]
    assert list(faults) == list(VOC_TEST.FAULTS) == list(expected["faults"])
    for fault, row in faults.items():
        for name in ("loss", "miou", "pixel_accuracy"):
            assert row[name] == pytest.approx(expected["faults"][fault][name], abs=1e-4), (fault, name)
        assert f"{fault:27} {row['loss']:6.3f} {row['pixel_accuracy']:6.3f} {row['miou']:6.3f}" in printed
    none, full, training, raw, void, everything = faults.values()
    assert full["loss"] > none["loss"] and full["miou"] == none["miou"]
    assert void["loss"] == none["loss"] and void["pixel_accuracy"] < none["pixel_accuracy"]
    assert void["miou"] < none["miou"] and training["loss"] != none["loss"] != raw["loss"]
    assert everything["loss"] not in (training["loss"], raw["loss"])
    assert metrics["miou"] == pytest.approx(expected["miou"], abs=1e-3)


def test_faults_by_hand_and_weights_stay_as_they_were(voc, weights, monkeypatch):
    """Of three images there is one batch; its rows are computed here from the network itself."""
    monkeypatch.setattr(VOC_TEST, "FAULTS_SIZE", 64)
    folder, network, names = VOC_TEST.find_voc(voc), make_network(), list(VOC_SIZES["val"])
    VOC_TEST.load_weights(network, weights, "14")
    before = VOC_TEST.list_entries(network)
    rows = VOC_TEST.test_faults(network, folder, names, make_options())
    after = VOC_TEST.list_entries(network)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    crops = [VOC_TEST.centre_crop(*VOC_TEST.read_pair(folder, name), 64) for name in names]
    masks = np.stack([mask for _, mask in crops])
    dropout = [
        torch.from_numpy(each).permute(0, 3, 1, 2) for each in VOC_TEST.draw_dropout(0, 64, 3, make_options(size=64))
    ]
    for fault, (training, raw, weight, void) in {
        "none": (False, False, 0.4, False),
        "the auxiliary loss in full": (False, False, 1, False),
        "in training mode": (True, False, 0.4, False),
        "without normalisation": (False, True, 0.4, False),
        "void counted": (False, False, 0.4, True),
        "all of them": (True, True, 1, True),
    }.items():
        images = [image / 255 if raw else (image / 255 - VOC_TEST.MEAN) / VOC_TEST.STD for image, _ in crops]
        x = torch.from_numpy(np.float32(images)).permute(0, 3, 1, 2)
        network.train(training)
        VOC_TEST.set_entries(network, before)
        with torch.inference_mode():
            logits = network(x, dropout if training else (1, 1))
            losses = [
                torch.nn.functional.cross_entropy(each, torch.from_numpy(masks).long(), ignore_index=VOID).item()
                for each in logits
            ]
        assert rows[fault]["loss"] == pytest.approx(losses[0] + weight * losses[1], rel=1e-5), fault
        assert_measures(rows[fault], measure_by_sets(masks, logits[0].argmax(dim=1).numpy(), void))
    assert rows.keys() == VOC_TEST.FAULTS.keys()


def test_a_batch_of_the_last_images_is_no_single_one(voc, monkeypatch):
    """In training mode one image alone has no statistics after the mean of an image."""
    seen = []

    def run(network, images, masks, *rest):
        seen.append(len(images))
        return np.zeros_like(masks), [1.0, 1.0]

    monkeypatch.setattr(VOC_TEST, "FAULTS_SIZE", 32)
    monkeypatch.setattr(VOC_TEST, "run", run)
    VOC_TEST.test_faults(make_network(), VOC_TEST.find_voc(voc), list(VOC_SIZES["val"]), make_options(batch=2))
    assert seen == [3] * 4


def test_a_val_of_nothing_but_void_is_told_before_training(voc, tmp_path, monkeypatch, capsys):
    shutil.copytree(voc, tmp_path / "voc")
    folder = tmp_path / "voc/VOCdevkit/VOC2012/SegmentationClass"
    for name, size in VOC_SIZES["val"].items():
        (folder / f"{name}.png").write_bytes(encode_mask(np.full(size, VOID)))
    arguments = [*SMALL, "--iterations", 1, "--data", tmp_path / "voc", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, ["answer", *arguments])))
    line = stopped(capsys, VOC_TEST.main)
    assert "--data: every pixel of val that is to be measured is void" in line and not os.path.exists(tmp_path / "out")


def test_one_image_to_validate_on_is_too_few(voc, tmp_path, monkeypatch, capsys):
    shutil.copytree(voc, tmp_path / "voc")
    path = tmp_path / "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    path.write_text("2007_000033\n")
    arguments = [*SMALL, "--data", tmp_path / "voc", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, ["answer", *arguments])))
    line = stopped(capsys, VOC_TEST.main)
    assert "val.txt names one image" in line and not os.path.exists(tmp_path / "out")


@pytest.mark.parametrize("language, pattern", [("", r"(\d+) s "), (".ja", r"(\d+) 秒")])
def test_seconds_in_the_page_are_those_that_were_measured(language, pattern):
    page = (ROOT / f"Question_voc/lesson/04_deeplab_finetune{language}.md").read_text("utf-8")
    answers = json.loads((ROOT / "Question_voc/assets/results.json").read_text("utf-8"))["answers"]
    sentence = page[page.index("`make lesson-figures EXERCISE=deeplab_finetune`") :][:200]
    measured = [round(answers[f"deeplab_finetune_{framework}"]["seconds"]) for framework in FRAMEWORKS]
    assert [int(number) for number in re.findall(pattern, sentence)] == measured
