"""deeplab: the network and the files of weights as published, its logits, photographs.

The four frameworks read and predict in processes of their own (collect_deeplab.py). What uses no framework is
equal in all four answers (tools/copies.py), so where a function is tested by itself it is PyTorch's.
"""

import collections
import functools
import hashlib
import importlib.util
import io
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ANSWERS, FRAMEWORKS, pytorch, run_python, stopped
from PIL import Image

DEEPLAB, VOC_TEST = (pytorch(name) for name in ("deeplab", "voc_test"))
OTHERS = [framework for framework in FRAMEWORKS if framework != "pytorch"]
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
TORCHVISION = Path(__file__).with_name("torchvision_logits.json")


def make_options(**changes):
    return SimpleNamespace(**{"depth": "14", "device": "cpu", "size": 32, "batch": 2, "seed": 0} | changes)


def make_network(seed=0, depth="14"):
    """Return PyTorch's network with a float32 of everything, in test mode."""
    torch.set_default_dtype(torch.float32)
    return DEEPLAB.build_network(np.random.default_rng(seed), make_options(depth=depth)).eval()


# ---- the published names and shapes ----


def list_published(blocks):
    """Yield (name, shape) of each entry of DeepLabV3 on a ResNet of so many blocks a stage, as torchvision has them."""

    def convolve(name, out, into, kernel):
        yield f"{name}.weight", (out, into, kernel, kernel)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (channels,)
        yield f"{name}.num_batches_tracked", ()

    yield from convolve("backbone.conv1", 64, 3, 7)
    yield from norm("backbone.bn1", 64)
    into = 64
    for stage, number in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(number):
            name = f"backbone.layer{stage}.{block}"
            for i, (a, b, kernel) in enumerate(((width, into, 1), (width, width, 3), (4 * width, width, 1)), start=1):
                yield from convolve(f"{name}.conv{i}", a, b, kernel)
                yield from norm(f"{name}.bn{i}", a)
            if block == 0:
                yield from convolve(f"{name}.downsample.0", 4 * width, into, 1)
                yield from norm(f"{name}.downsample.1", 4 * width)
            into = 4 * width
    for branch, (kernel, first) in enumerate([(1, 0), (3, 0), (3, 0), (3, 0), (1, 1)]):  # the last begins with a mean
        yield from convolve(f"classifier.0.convs.{branch}.{first}", 256, 2048, kernel)
        yield from norm(f"classifier.0.convs.{branch}.{first + 1}", 256)
    yield from convolve("classifier.0.project.0", 256, 5 * 256, 1)
    yield from norm("classifier.0.project.1", 256)
    for head, into in (("classifier", 256), ("aux_classifier", 1024)):
        first = 1 if head == "classifier" else 0
        yield from convolve(f"{head}.{first}", 256, into, 3)
        yield from norm(f"{head}.{first + 1}", 256)
        yield f"{head}.4.weight", (21, 256, 1, 1)
        yield f"{head}.4.bias", (21,)


PUBLISHED = {  # depth: blocks, entries, parameters, and the SHA-256 of the names and shapes in the published file
    "50": ((3, 4, 6, 3), 370, 42_004_074, "f008324ccadaea08e46b7556a7d57f1994c1cd231cc469e4ade4a658c5f1be8e"),
    "101": ((3, 4, 23, 3), 676, 60_996_202, "94cd287277eab3868ec8afe4d684d7a3c6ebfc392074b7ee19858ed2e121b264"),
}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_entries_are_those_of_the_published_weights(depth):
    blocks, number, parameters, checksum = PUBLISHED[depth]
    expected = list(list_published(blocks))
    lines = "".join(f"{name} {shape}\n" for name, shape in expected)
    assert len(expected) == number and hashlib.sha256(lines.encode()).hexdigest() == checksum
    with torch.device("meta"):
        network = DEEPLAB.DeepLabV3(depth)
    entries = {name: tuple(entry.shape) for name, entry in network.state_dict().items()}
    assert list(entries.items()) == expected
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("depth", PUBLISHED)
def test_strides_and_dilations_are_those_of_the_published_network(depth):
    """In stages 3 and 4 dilation takes the place of stride; a stage's first block keeps that of the stage before."""
    with torch.device("meta"):
        network = DEEPLAB.DeepLabV3(depth)
    kernels = {name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    found = {name: (kernel.stride[0], kernel.dilation[0]) for name, kernel in kernels.items()}
    expected = dict.fromkeys(found, (1, 1))
    for name in ("conv1", "layer2.0.conv2", "layer2.0.downsample.0"):
        expected[f"backbone.{name}"] = (2, 1)
    for stage, blocks in zip((3, 4), PUBLISHED[depth][0][2:], strict=True):
        for block in range(blocks):
            expected[f"backbone.layer{stage}.{block}.conv2"] = (1, 2 ** (stage - 2) // (1 if block else 2))
    for branch, rate in enumerate((12, 24, 36), start=1):
        expected[f"classifier.0.convs.{branch}.0"] = (1, rate)
    assert found == expected


def test_the_small_network_is_of_the_same_pattern():
    names = [name for name, _ in list_published((1, 1, 1, 1)) if not name.endswith("num_batches_tracked")]
    entries = DEEPLAB.list_entries(make_network())
    assert list(entries) == names
    assert sum(entry.size for name, entry in entries.items() if "running" not in name) == 1_665_210


# ---- files, right and wrong ----


def make_weights(depth):
    """Return a well-conditioned network: biases, scales and shifts at random, running averages those of some images."""
    network, rng = make_network(seed=3, depth=depth), np.random.default_rng(4)
    for name, weight in network.named_parameters():
        if weight.ndim == 1:
            change = (
                rng.uniform(0.9, 1.1, weight.shape) if name.endswith("weight") else rng.normal(0, 0.1, weight.shape)
            )
            scale = 0.2 if name.endswith("bn3.weight") else 1
            weight.data.copy_(torch.from_numpy(change * scale))
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()
    with torch.inference_mode():
        network(torch.from_numpy(rng.normal(0, 1, (2, 3, 97, 97)).astype(np.float32)))
    return network.eval()


class Storage:
    """Stands for the numbers of a tensor in a pickle, as torch.save names them."""

    def __init__(self, dtype="FloatStorage", key="0", length=4):
        self.identifier = ("storage", Name("torch", dtype) if isinstance(dtype, str) else dtype[0], key, "cpu", length)


class Name:
    """Stands for a name of a module, which a pickle may call."""

    def __init__(self, module, name):
        self.code = f"c{module}\n{name}\n".encode()


class Call:
    """Stands for the call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


def encode(value, legacy):
    """Return the codes of pickle's machine that make a value."""
    if isinstance(value, Storage):
        return encode((*value.identifier, *([None] if legacy else [])), legacy) + b"Q"
    if isinstance(value, Name):
        return value.code
    if isinstance(value, Call):
        return encode(value.function, legacy) + encode(value.arguments, legacy) + b"R"
    if isinstance(value, tuple):
        return b"(" + b"".join(encode(part, legacy) for part in value) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(encode(part, legacy) for pair in value.items() for part in pair) + b"u"
    return pickle.dumps(value, 2)[2:-1]  # without its head and its stop


def pack(value, numbers, legacy=False, storages=None):
    """Return a file of torch.save, of the value and storages {key: bytes}."""
    data = b"\x80\x02" + encode(value, legacy) + b"."
    storages = storages or {"0": numbers}
    if legacy:
        head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        lengths = {key: struct.pack("<q", len(content) // 4) for key, content in storages.items()}
        return b"".join(
            [*head, data, pickle.dumps(list(storages), 2), *(lengths[key] + storages[key] for key in storages)]
        )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, each in storages.items():
            archive.writestr(f"archive/data/{key}", each)
        archive.writestr("archive/version", "3\n")
    return content.getvalue()


def tensor(storage=None, offset=0, shape=(4,), strides=(1,)):
    """Return what stands for a tensor in a pickle."""
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage or Storage(), offset, shape, strides, False, Call(Name("collections", "OrderedDict")))


def list_hostile(folder):
    """Return {name: value}: what would make FOLDER/hacked if it were run."""
    path = str(folder / "hacked")
    commands = {
        "system": Call(Name("os", "system"), f"touch '{path}'"),
        "posix": Call(Name("posix", "system"), f"touch '{path}'"),
        "eval": Call(Name("builtins", "eval"), f"open({path!r}, 'w')"),
        "open": Call(Name("io", "open"), path, "w"),
        "numpy": Call(Name("numpy", "save"), path, 1),
        "run": Call(Name("subprocess", "run"), ("touch", path)),
        "dotted": Call(Name("torch._utils", "warnings.warn"), path),
    }
    hostile = {name: {"x": call} for name, call in commands.items()}
    hostile["inside"] = {"x": tensor(shape=(commands["open"],))}
    hostile["as storage"] = {"x": tensor(Storage(dtype=[commands["open"]]))}
    return hostile


# Tensors that would reach beyond their 4 numbers, or whose numbers would be pointers.
BEYOND = {
    "offset": tensor(offset=1),
    "offset below": tensor(offset=-1),
    "shape": tensor(shape=(5,)),
    "shape below": tensor(shape=(-1,)),
    "stride": tensor(shape=(2,), strides=(4,)),
    "stride below": tensor(offset=3, strides=(-1,)),
    "strides lack": tensor(shape=(2, 2), strides=(1,)),
    "length": tensor(Storage(length=2**62), shape=(2**40,)),
    "length below": tensor(Storage(length=-1)),
    "no storage": tensor(7),
    "a tensor as storage": tensor(tensor(shape=(2, 2), strides=(2, 1)), shape=(4,)),
    "objects": tensor(Storage(dtype=["O"])),
    "a class": tensor(Storage(dtype=[Name("collections", "OrderedDict")])),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of weights, images, right and wrong files that collect_deeplab.py reads."""
    folder, rng = tmp_path_factory.mktemp("重み の deeplab"), np.random.default_rng(0)
    sizes = {"128": (128, 128), "129": (129, 161)}
    images = {name: rng.normal(0, 1, (1, *size, 3)).astype(np.float32) for name, size in sizes.items()}
    np.savez(folder / "images.npz", **images)
    for depth in ("101", "14"):
        state = make_weights(depth).state_dict()
        torch.save(state, folder / f"weights_{depth}.pth")
    for name in ("right", "wrong"):
        (folder / name).mkdir()
    torch.save(state, folder / "right/zip.pth")
    torch.save(collections.OrderedDict(state), folder / "right/legacy.pth", _use_new_zipfile_serialization=False)
    half = {name: entry.half() if entry.is_floating_point() else entry for name, entry in state.items()}
    torch.save(half, folder / "right/half.pth")
    double = {name: entry.double() if entry.is_floating_point() else entry for name, entry in state.items()}
    torch.save(double, folder / "right/double.pth", _use_new_zipfile_serialization=False)
    torch.save(
        {name: torch.nn.Parameter(e) for name, e in state.items() if e.is_floating_point()}, folder / "right/p.pth"
    )

    wrong = {
        "text": b"<html>404 Not Found</html>\n" * 50,
        "empty": b"",
        "short": b"\x80\x02",
        "png": b"\x89PNG\r\n\x1a\n",
    }
    for kind in ("zip", "legacy"):
        data = (folder / f"right/{kind}.pth").read_bytes()
        for place in (1, 60, 300, 2000, len(data) // 3, len(data) // 2, len(data) - 70_000, len(data) - 1):
            wrong[f"{kind} cut at {place}"] = data[:place]
    flipped = bytearray((folder / "right/zip.pth").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    wrong["flipped"] = bytes(flipped)
    other = {
        "lacking": {name: entry for name, entry in state.items() if name != "classifier.4.bias"},
        "more": state | {"classifier.5.bias": state["classifier.4.bias"]},
        "other shape": state | {"classifier.4.bias": state["classifier.4.bias"][:-1]},
        "numbers": {"lr": 0.1, "momentum": 0.9},
        "nested": {"model": dict(state), "epoch": 3},
        "list": list(state.values()),
        "nothing": {},
        "nan": state | {"classifier.4.bias": torch.full((21,), torch.nan)},
        "infinite": state | {"backbone.bn1.running_var": torch.full((16,), torch.inf)},
    }
    for name, value in other.items():
        torch.save(value, folder / f"wrong/{name}.pth")
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    for name, value in {**list_hostile(folder), **{name: {"x": part} for name, part in BEYOND.items()}}.items():
        wrong[f"{name} zip"], wrong[f"{name} legacy"] = (pack(value, numbers, legacy) for legacy in (False, True))
    both = {"x": tensor(), "y": tensor(Storage(key="1"))}
    wrong["numbers lack legacy"] = pack(both, numbers, legacy=True)  # of storage 1, which would be whatever was there
    for name, data in wrong.items():
        (folder / f"wrong/{name}.pth").write_bytes(data)
    (folder / "wrong/folder.pth").mkdir()
    os.link(folder / "weights_101.pth", folder / "wrong/deeper.pth")
    return folder


def collect(folder, framework, exercise):
    done = run_python(
        Path(__file__).with_name("collect_deeplab.py"), framework, folder, exercise, cwd=folder, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    name = folder / f"{exercise}_{framework}"
    return dict(np.load(f"{name}.npz")), json.loads(Path(f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def predicted(folder):
    """Return a function of a framework: the arrays and the texts of exercise 3, collected once."""
    done = {}

    def find(framework):
        if framework not in done:
            done[framework] = collect(folder, framework, "deeplab")
        return done[framework]

    return find


def test_a_made_file_is_one_that_pytorch_reads(tmp_path):
    """So what is refused below is refused for what is wrong in it."""
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pth"
        path.write_bytes(pack({"x": tensor(offset=1, shape=(3,))}, numbers, legacy))
        assert torch.load(path, weights_only=True)["x"].tolist() == [2, 3, 4]
        assert DEEPLAB.read_pth(path)["x"].tolist() == [2, 3, 4]


@by_framework
def test_files_of_each_kind_are_read_to_the_last_bit(folder, predicted, framework):
    arrays, told = predicted(framework)
    for path in sorted((folder / "right").iterdir()):
        assert told[path.name] == [None, []]
        for name, entry in torch.load(path, weights_only=True).items():
            if not name.endswith("num_batches_tracked"):
                found = arrays[f"{path.stem} {name}"]
                assert found.dtype == np.float32 and np.array_equal(found, entry.float().detach().numpy()), name


@by_framework
def test_wrong_files_end_in_one_line_and_nothing_is_run(folder, predicted, framework):
    _, told = predicted(framework)
    wrong = {path.name for path in (folder / "wrong").iterdir()}
    ended = {name: told[name] for name in wrong}
    assert len(wrong) > 60
    assert {name: end for name, end in ended.items() if end[0] != 2 or len(end[1]) != 1} == {}
    for name, (_, (line,)) in ended.items():
        assert str(folder / "wrong" / name) in line and len(line) < 400, line
    assert told["changed"] == [] and not (folder / "hacked").exists()
    for name in ("deeper", "lacking", "more", "other shape", "nothing"):
        assert "not the weights of DeepLabV3 of --depth 14" in ended[f"{name}.pth"][1][0]
    assert "classifier.4.bias is missing, not (21,)" in ended["lacking.pth"][1][0]
    assert "classifier.5.bias is (21,), not there" in ended["more.pth"][1][0]
    for name in ("classifier.4.bias", "backbone.bn1.running_var"):
        assert f"{name} holds NaN or infinity" in ended["nan.pth" if name[0] == "c" else "infinite.pth"][1][0]
    assert "(it lacks the numbers of some tensors)" in ended["numbers lack legacy.pth"][1][0]
    made = [f"{name} {kind}" for name in (*list_hostile(folder), *BEYOND) for kind in ("zip", "legacy")]
    for name in ("text", "zip cut at 2000", "flipped", *made):
        assert "not a whole file of weights in PyTorch's format" in ended[f"{name}.pth"][1][0], name


def test_the_readers_without_pytorch_say_the_same(predicted):
    texts = [
        {
            name: str(end).replace(ANSWERS["deeplab", framework].name, "")
            for name, end in predicted(framework)[1].items()
        }
        for framework in OTHERS
    ]
    for text in texts:
        text.update({name: "" for name in text if name.startswith("seconds")})
    assert texts[0] == texts[1] == texts[2]
    assert "it names os.system, which is no tensor" in texts[0]["system zip.pth"]
    assert "beyond its storage" in texts[0]["stride zip.pth"] and "beyond its storage" in texts[0]["shape legacy.pth"]


# ---- the same network in all frameworks ----


@pytest.fixture(scope="module")
def exact(folder):
    """{depth and size: logits} of PyTorch in double precision, computed from the float32 weights."""
    images, logits = dict(np.load(folder / "images.npz")), {}
    for depth in ("14", "101"):
        network = DEEPLAB.DeepLabV3(depth).double().eval()
        network.load_state_dict(torch.load(folder / f"weights_{depth}.pth", weights_only=True))
        with torch.inference_mode():
            for size, image in images.items():
                if depth == "14" or size == "128":
                    x = torch.from_numpy(image).double().permute(0, 3, 1, 2)
                    logits[depth, size] = network(x)[0].permute(0, 2, 3, 1).numpy()
    return logits


@by_framework
def test_logits_are_those_of_double_precision(predicted, exact, framework):
    arrays, told = predicted(framework)
    for (depth, size), expected in exact.items():
        assert 0.3 < expected.std() < 10 and expected.shape[3] == 21
        found = arrays[f"{depth} float32 {size}"]
        assert found.dtype == np.float32 and found.shape == expected.shape
        apart = np.abs(found - expected).max()
        print(framework, depth, size, f"{apart:.1e}", {k: round(v, 1) for k, v in told.items() if "seconds" in k})
        assert apart < 1e-4  # at most 9.3e-5 is measured
    for size in ("128", "129"):
        found = arrays[f"14 float64 {size}"]
        assert found.dtype == np.float64 and np.abs(found - exact["14", size]).max() < 1e-10


@pytest.mark.parametrize("framework", OTHERS)
def test_first_weights_are_equal_bit_for_bit(predicted, framework):
    first, other = (
        {name: array for name, array in predicted(each)[0].items() if name.startswith("drawn ")}
        for each in ("pytorch", framework)
    )
    assert list(first) == list(other) and len(first) > 100
    assert all(np.array_equal(first[name], other[name]) and first[name].dtype == other[name].dtype for name in first)


@functools.cache
def import_torchvision():
    """Return torchvision's DeepLabV3; skip the test where it cannot be imported.

    PyPI's torchvision lacks its operators beside a CPU build of PyTorch, and stops at the first; none is called here.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("no torchvision")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(20):
        try:
            from torchvision.models.segmentation import deeplabv3_resnet50

            return deeplabv3_resnet50, library
        except (ImportError, RuntimeError, AttributeError) as error:
            lacking = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not lacking:
                pytest.skip(f"torchvision cannot be imported: {error}")
            library.define(f"{lacking[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
    pytest.skip("torchvision lacks operators without end")


# Sides of 8 k + 1 would hide padding that is wrong: there all ways to pad agree.
SIZES = [(65, 97), (64, 98)]
KEPT = np.s_[0, ::4, ::21, ::32]  # of logits (1, 21, height, width): what torchvision_logits.json has of them


@functools.cache
def make_fifty():
    return make_weights("50").double()


def find_logits(network, size):
    """Return the logits of both heads for a drawn image."""
    images = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 3, *size)))
    with torch.inference_mode():
        logits = network(images)
    return list(logits.values()) if isinstance(logits, dict) else list(logits)


def write_torchvision_logits():
    """Write torchvision_logits.json: python tests/test_deeplab.py, where torchvision can be imported."""
    deeplabv3_resnet50, library = import_torchvision()
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).double().eval()
    network.load_state_dict(make_fifty().state_dict(), strict=True)
    kept = {str(size): [logits[KEPT].tolist() for logits in find_logits(network, size)] for size in SIZES}
    TORCHVISION.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    del library


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_are_those_that_torchvision_computed(size):
    """Of torchvision 0.28.0's own network, given the same weights.

    Running averages among these are computed in float32, each time with another rounding.
    """
    kept = json.loads(TORCHVISION.read_text(encoding="utf-8"))[str(size)]
    for found, expected in zip(find_logits(make_fifty(), size), kept, strict=True):
        assert np.std(expected) > 0.3 and np.abs(found[KEPT].numpy() - np.array(expected)).max() < 1e-2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_are_those_of_torchvision(size):
    """Of the one that is installed, whatever its version."""
    deeplabv3_resnet50, library = import_torchvision()
    network = make_fifty()
    other = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).double().eval()
    other.load_state_dict(network.state_dict(), strict=True)
    for found, expected in zip(find_logits(network, size), find_logits(other, size), strict=True):
        assert expected.std() > 0.3 and (found - expected).abs().max() < 1e-9
    del library


def test_a_photograph_is_segmented_at_its_own_size(voc, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 131, 3), np.uint8)).save(tmp_path / "庭 1.jpg")
    calls, predict = [], DEEPLAB.predict

    def watched(network, images, options):
        calls.append(images.shape)
        return predict(network, images, options)

    monkeypatch.setattr(DEEPLAB, "predict", watched)
    for size, seen in ((64, (1, 64, 120, 3)), (520, (1, 70, 131, 3))):
        arguments = ["--image", tmp_path / "庭 1.jpg", "--depth", 14, "--size", size, "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", list(map(str, ["answer", *arguments, "--out", tmp_path / "out"])))
        DEEPLAB.main()
        assert calls.pop() == seen and "1,665,210 parameters" in capsys.readouterr().out
        shown = np.array(Image.open(tmp_path / "out/pictures/庭 1.png"))
        assert shown.shape[0] >= 70 and shown.shape[1] > 2 * 131
        metrics = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
        assert sum(metrics["share"].values()) == pytest.approx(1) and metrics["parameters"] == 1_665_210


@pytest.mark.parametrize("name", ["nothing", "folder"])
@pytest.mark.parametrize("answer, option", [(DEEPLAB, "image"), (DEEPLAB, "weights"), (VOC_TEST, "weights")])
def test_a_file_that_is_not_there_is_told_with_its_option(tmp_path, monkeypatch, capsys, answer, option, name):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(sys, "argv", ["answer", f"--{option}", str(tmp_path / name)])
    assert f"--{option} {tmp_path / name}: no such file: " in stopped(capsys, answer.read_options)


def test_logits_are_resized_not_classes(monkeypatch):
    """By PyTorch's bilinear interpolation, pixels at their centres; a nearest class would be another at a fifth."""
    logits = np.random.default_rng(6).normal(0, 1, (1, 20, 30, 21)).astype(np.float32)
    monkeypatch.setattr(DEEPLAB, "predict", lambda network, images, options: logits)
    found = DEEPLAB.segment(None, np.zeros((47, 71, 3), np.uint8), make_options(size=20))
    large = torch.nn.functional.interpolate(
        torch.from_numpy(logits).permute(0, 3, 1, 2), (47, 71), mode="bilinear", align_corners=False
    )
    assert found.dtype == np.uint8 and (found == large[0].argmax(dim=0).numpy()).mean() > 0.995


@pytest.mark.parametrize("answer", [DEEPLAB, VOC_TEST], ids=["deeplab", "voc_test"])
@pytest.mark.parametrize("height, number", [(20, 1), (33, 21), (375, 21), (700, 3)])
def test_the_legend_names_every_class_that_was_found(answer, height, number):
    image, prediction = np.full((height, 50, 3), 90, np.uint8), np.zeros((height, 50), np.uint8)
    prediction[:, :number] = np.arange(number)[None]
    shown = answer.paint(image, prediction)
    assert np.array_equal(shown[:height, :50], image)
    expected = np.where(prediction[..., None] > 0, (90 // 2 + answer.COLOURS[prediction] // 2), image)
    assert np.array_equal(shown[:height, 50:100], expected)
    legend = shown[:, 100:]
    for index in range(number):
        assert (legend == answer.COLOURS[index]).all(axis=2).sum() > 50, index


if __name__ == "__main__":
    write_torchvision_logits()
