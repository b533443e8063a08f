"""benchmarks/scaling.py: the model on small numbers by hand, and the sizes it starts from against a real step's.

Nothing is timed here: what is measured is left to the benchmark.
"""

import itertools
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import EXERCISES, ROOT, pytorch, stopped

sys.path.insert(0, str(ROOT / "benchmarks"))
import scaling  # noqa: E402
from scaling import ITEM, TRAFFIC, Link, Traffic, join_links, list_sizes, predict, time_all_reduce  # noqa: E402

ANSWER = pytorch("street_parallel")
LINK = Link(start=1.0, latency=10.0, bandwidth=4.0)
SIZES = {"gradients": [8, 4], "norm": [4], "loss": [4, 4]}


# ---- the model ----


@pytest.mark.parametrize(
    "size, processes, seconds",
    [
        (12, 1, 0),
        (0, 2, 1 + 2 * 10),
        (8, 2, 1 + 2 * 10 + 8 / 4),  # each sends half, and then the sum of the other half
        (12, 3, 1 + 4 * 10 + (4 + 4 + 4 + 4) / 4),  # four hops, of a third each
        (8, 4, 1 + 6 * 10 + 6 * 2 / 4),
    ],
)
def test_an_all_reduce_takes_what_a_ring_does(size, processes, seconds):
    assert time_all_reduce(size, processes, LINK) == seconds


def test_each_process_sends_all_but_twice_what_is_summed_up_however_many_they_are():
    sent = [scaling.count_sent(60, processes) for processes in (1, 2, 3, 4, 6, 1000)]
    assert sent == [0, 60, 80, 90, 100, pytest.approx(119.88)]


def test_a_step_is_computing_and_all_reduces():
    parts = predict(2, 100.0, SIZES, LINK)
    assert parts == {"compute": 100, "gradients": 23 + 22, "norm": 22, "loss": 44, "step": 211}


def test_one_process_only_computes():
    for overlap, sizes in itertools.product((0, 0.5), (SIZES, {"gradients": []})):
        parts = predict(1, 7.0, sizes, LINK, overlap)
        assert parts.pop("step") == parts.pop("compute") == 7 and not any(parts.values())


def test_of_the_gradients_alone_a_part_overlaps_with_computing():
    whole, half, none = (predict(2, 100.0, SIZES, LINK, overlap) for overlap in (0, 0.5, 1))
    assert [each["gradients"] for each in (whole, half, none)] == [45, 22.5, 0]
    assert whole["norm"] == half["norm"] == none["norm"] and none["step"] == 211 - 45


def test_more_of_anything_takes_longer():
    def step(processes=4, size=8, **changes):
        return predict(processes, 1.0, SIZES | {"norm": [size]}, LINK._replace(**changes))["step"]

    for name, values in {
        "processes": (1, 2, 3, 8, 64),
        "size": (0, 4, 400),
        "start": (0.0, 1.0, 2.0),
        "latency": (0.0, 1.0, 20.0),
    }.items():
        steps = [step(**{name: value}) for value in values]
        assert steps == sorted(set(steps)), name
    assert step(bandwidth=5.0) < step(bandwidth=4.0)


def test_a_ring_through_machines_leaves_each_of_them_once():
    inside, between = Link(1.0, 2.0, 100.0), Link(0.0, 10.0, 30.0)
    assert join_links(1, 8, inside, between) == join_links(8, 8, inside, between) == inside
    assert join_links(16, 8, inside, between) == Link(1.0, (14 * 2 + 2 * 10) / 16, 30.0)
    assert join_links(9, 8, inside, between) == Link(1.0, (7 * 2 + 2 * 10) / 9, 30.0)  # the second has one alone
    assert join_links(3, 1, inside, between) == Link(1.0, 10.0, 30.0)


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_a_link_that_is_fitted_to_two_all_reduces_gives_their_times_back(processes):
    link = scaling.fit_link([100, 1000], [0.25, 3.5], processes)
    assert time_all_reduce(100, processes, link) == pytest.approx(0.25)
    assert time_all_reduce(1000, processes, link) == pytest.approx(3.5)


def test_where_noise_makes_the_larger_all_reduce_the_faster_the_bandwidth_is_infinite():
    assert scaling.fit_link([100, 1000], [0.25, 0.2], 2).bandwidth == math.inf


# ---- what a step sends ----


def make_options(**changes):
    options = {"norm": "all", "device": "cpu", "processes": 1, "rank": 0, "accumulate": 1} | changes
    return SimpleNamespace(**options)


@pytest.mark.parametrize("classes", [7, 19])
def test_the_numbers_that_are_counted_are_those_of_the_network(classes):
    network = ANSWER.build_network(np.random.default_rng(0), classes, make_options())
    arrays = list(network.parameters())
    assert scaling.count_parameters(ANSWER.CHANNELS, classes) == sum(array.numel() for array in arrays)
    norms = [layer.num_features for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert scaling.list_norms(ANSWER.CHANNELS) == norms and len(norms) == 22
    assert TRAFFIC["chainer"].gradients == len(arrays)  # which it sums up one by one
    if classes == 7:
        assert scaling.count_parameters(ANSWER.CHANNELS, 7) == EXERCISES["street_train"].parameters


@pytest.mark.parametrize("parts", [1, 2, 72])
def test_the_gradients_are_all_sent_in_however_many_parts(parts):
    sizes = list_sizes(Traffic(parts, ((2, 1),), (1, 3)), (16, 32), 7)
    assert len(sizes["gradients"]) == parts and sum(sizes["gradients"]) == ITEM * scaling.count_parameters((16, 32), 7)
    assert max(sizes["gradients"]) - min(sizes["gradients"]) <= ITEM
    assert sizes["norm"] == [ITEM * (2 * each + 1) for each in (16, 16, 32, 32, 16, 16, 16)]
    assert sizes["loss"] == [ITEM, 3 * ITEM]


@pytest.mark.parametrize("norm", ["all", "own", "none"])
def test_a_step_of_the_answer_sums_up_what_is_counted(monkeypatch, norm):
    """A group of one process makes the same all-reduces."""
    options, calls = make_options(norm=norm), []
    monkeypatch.delenv("RANK", raising=False)
    for place, name in ((ANSWER.distributed, "all_reduce"), (ANSWER, "DistributedDataParallel")):
        monkeypatch.setattr(place, name, getattr(place, name))  # what watch_pytorch puts there goes with the test
    ANSWER.join(options)
    try:
        scaling.watch_pytorch(ANSWER, calls)
        network = ANSWER.build_network(np.random.default_rng(0), 7, options).train(norm != "none")
        parallel, marks = ANSWER.DistributedDataParallel(network, broadcast_buffers=False), []
        images, classes = torch.zeros(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8)
        for _ in range(3):  # the first fills buckets by the order of the layers, others by that of the gradients
            marks.append(len(calls))
            ANSWER.add_gradients(parallel, images, classes, torch.ones(7), options)
        sizes, seconds = scaling.split_calls(calls, marks)
    finally:
        ANSWER.distributed.destroy_process_group()
    expected = list_sizes(TRAFFIC["pytorch"], ANSWER.CHANNELS, 7, norm)
    assert sum(sizes[-1]["gradients"]) == sum(expected["gradients"])
    assert len(sizes[-1]["gradients"]) == len(expected["gradients"])
    assert sorted(sizes[-1]["other"]) == sorted(expected["norm"] + expected["loss"])
    assert all(each > 0 for each in seconds)


def test_the_time_of_all_reduces_that_go_on_beside_backward_counts_from_its_end():
    step = [("other", 4, 0.0, 1.0), ("gradients", 8, 2.0, None), ("gradients", 8, 6.0, None), ("other", 4, 9.0, 9.5)]
    sizes, seconds = scaling.split_calls([("other", 4, -9.0, -1.0), *step, *step[:1]], [1, 5, 6])
    assert sizes == [{"gradients": [8, 8], "other": [4, 4]}, {"gradients": [], "other": [4]}]
    assert seconds == [1 + 3 + 0.5, 1]  # from 6, when all gradients are known, to 9


# ---- what follows ----


def read_options(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["scaling.py", *arguments])
    return scaling.read_options()


def make_measured(**changes):
    link = {"sizes": [100, 1100], "seconds": [0.0011, 0.0021], "loopback": [1250.0, 3750.0]}  # 0.001 + a us a byte
    cases = ("one", "strong", "strong, share alone", "weak", "weak, share alone")
    steps = dict(zip(cases, (0.2, 0.15, 0.1, 0.3, 0.2), strict=True)) | changes
    return {"steps": steps, "link": link, "channels": [16, 32, 64, 128, 256], "classes": 7}


@pytest.mark.parametrize("framework", TRAFFIC)
def test_a_measurement_that_the_model_explains_has_ratio_1(monkeypatch, framework):
    options = read_options(monkeypatch, "--frameworks", "pytorch")
    found = scaling.evaluate(framework, make_measured(), options)
    assert found["strong"]["communication"] == pytest.approx(0.05)
    small = len(found["sizes"]["norm"] + found["sizes"]["loss"]) + TRAFFIC[framework].gradients
    assert found["all_reduces"] == small
    parts = found["strong"]["predicted"]
    assert parts["step"] == pytest.approx(0.1 + small * 1e-3 + found["sent"] * 1e-6)
    explained = scaling.evaluate(framework, make_measured(strong=parts["step"]), options)
    assert explained["strong"]["ratio"] == 1 and explained["weak"]["ratio"] == found["weak"]["ratio"] != 1
    assert found["loopback_model"] == pytest.approx(small * 1000 + 2.5 * found["sent"])


def test_the_predictions_for_gpus_begin_at_one_that_only_computes(monkeypatch):
    options = read_options(monkeypatch, "--frameworks", "pytorch", "--gpu-factor", "10", "--gpu-least", "1")
    rows = scaling.evaluate("pytorch", make_measured(), options)["gpus"]
    assert [(row["gpus"], row["batch"]) for row in rows] == [(1, 64), (8, 64), (64, 64), (8, 512), (64, 4096)]
    one, *others = rows
    assert one["step"] == one["compute"] == pytest.approx(64 * 0.05 / 10) and one["gain"] == 1
    assert [one["compute"] / row["compute"] for row in others] == pytest.approx([8, 64, 1, 1])
    for eight, many in (others[:2], others[2:]):
        assert 1 < eight["gain"] < 8 and eight["gain"] < many["gain"] < 64
        assert not one["norm"] and 0 < eight["norm"] < many["norm"]
    options = read_options(monkeypatch, "--frameworks", "pytorch", "--gpu-factor", "1e9", "--gpu-least", "2")
    rows = scaling.evaluate("pytorch", make_measured(), options)["gpus"]
    assert {row["compute"] for row in rows} == {0.002}


@pytest.mark.parametrize("through_memory", [False, True])
def test_what_was_not_measured_is_no_number(monkeypatch, capsys, through_memory):
    """Neither a step that noise has made shorter than its share alone, nor bytes that do not go through loopback."""
    options, measured = read_options(monkeypatch, "--frameworks", "chainer"), make_measured(strong=0.05)
    if through_memory:
        measured["link"]["loopback"] = [3.0, 7.0]
    measured |= {"in_all_reduces": {}, "seen": None, "loopback": 4321, "namespace": True}
    scaling.print_measured("Chainer", measured | scaling.evaluate("chainer", measured, options), options)
    out = capsys.readouterr().out
    assert "| too noisy " in out and "| 33.3% " in out and "-100" not in out
    assert ("4,321" in out) != through_memory and ("through memory" in out) == through_memory


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--frameworks", "caffe"), "--frameworks caffe"),
        (("--batch", "2"), "--batch 2"),
        (("--batch", "5"), "--batch 5"),
        (("--size", "40"), "--size 40"),
        (("--iterations", "0"), "--iterations"),
        (("--gpu-batch", "63"), "--gpu-batch 63"),
        (("--gpu-factor", "0"), "--gpu-factor"),
        (("--link-latency", str(math.nan)), "--link-latency"),
        (("--overlap", "1.5"), "--overlap 1.5"),
        (("--norm", "some"), "--norm"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(monkeypatch, capsys, arguments, words):
    assert words in stopped(capsys, read_options, monkeypatch, *arguments)
