"""street_test: measures equal to those of Cityscapes' own scripts, averages that are not, and the report.

What uses no framework is equal in all four answers (tools/copies.py), so PyTorch's is tested.
"""

import base64
import copy
import json
import math
import re
import shutil
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers import labels as official_labels
from conftest import ANSWERS, FRAMEWORKS, pytorch, stopped
from PIL import Image

ANSWER = pytorch("street_test")
MEASURES = ("iou", "precision", "recall", "f1")
VALID = [label.id for label in official_labels.labels if not label.ignoreInEval]
CATEGORY = {label.id: label.category for label in official_labels.labels if label.id >= 0}
NAME = {label.id: label.name for label in official_labels.labels}


def draw_maps(truth_ids, predicted_ids, seed, number=3, right=0.6):
    """Return label ids, true and predicted, of pictures of different sizes; a share of the pixels is right."""
    rng = np.random.default_rng(seed)
    truths = [rng.choice(truth_ids, (20 + 3 * i, 41 - 2 * i)).astype(np.uint8) for i in range(number)]
    predictions = [
        np.where(
            (rng.random(truth.shape) < right) & np.isin(truth, predicted_ids),
            truth,
            rng.choice(predicted_ids, truth.shape),
        )
        for truth in truths
    ]
    return truths, [prediction.astype(np.uint8) for prediction in predictions]


ALL = range(34)
MAPS = {  # true and predicted label ids
    "all": (ALL, ALL),
    "absent": ([7, 8, 11, 21, 26], [7, 11, 21, 23]),
    "ignored": ([0, 1, 4, 9, 10, 15, 18, 29, 30, 7, 24], [7, 24, 26]),
    "void predicted": ([7, 11, 17, 23, 24, 26], [0, 4, 9, 18, 7, 11, 17, 23, 24, 26]),
    "leading": (ALL, [7, 11, 17, 21, 23, 24, 26]),
    "one": ([23], [23]),
    "all void": ([0, 1, 9], [7, 11]),
}


def count(truths, predictions):
    return np.stack([ANSWER.count_pairs(*pair) for pair in zip(truths, predictions, strict=True)])


def run_official(folder, truths, predictions):
    """Return what Cityscapes' own script finds of label ids, from files as it reads them."""
    paths = [[], []]
    for part, pictures in enumerate((truths, predictions)):
        for number, picture in enumerate(pictures):
            paths[part].append(str(folder / f"{part}_{number}.png"))
            Image.fromarray(picture).save(paths[part][-1])
    return evaluate(*paths)


def evaluate(truth_paths, predicted_paths):
    arguments = copy.copy(official.args)
    arguments.evalInstLevelScore = arguments.JSONOutput = False  # the former needs a function that NumPy has no more
    arguments.quiet = True
    return official.evaluateImgLists(predicted_paths, truth_paths, arguments)


def assert_official(rows, mean, scores, average):
    """Compare IoU to all digits; NaN there is None here, or no row at all."""
    known = {name: score for name, score in scores.items() if not math.isnan(score)}
    assert {name: row["iou"] for name, row in rows.items() if row["iou"] is not None} == known
    assert mean["iou"] == (None if math.isnan(average) else average)


# ---- measures ----


@pytest.mark.parametrize("ids", MAPS.values(), ids=MAPS)
def test_measures_are_those_of_cityscapes_own_script_to_all_digits(tmp_path, ids):
    for seed in range(5):
        truths, predictions = draw_maps(*ids, seed)
        expected = run_official(tmp_path, truths, predictions)
        pairs = count(truths, predictions).sum(axis=0)
        assert pairs.tolist() == expected["confMatrix"]
        for level, scores, average in (
            ("category", "categoryScores", "averageScoreCategories"),
            ("class", "classScores", "averageScoreClasses"),
        ):
            rows = ANSWER.measure(pairs, ANSWER.find_groups(level))
            assert len(rows) == {"category": 7, "class": 19}[level]
            assert_official(rows, ANSWER.average(rows), expected[scores], expected[average])


def measure_by_loops(truths, predictions, name_of):
    """Return the four measures by going through all pixels; name_of: {label id: group} of those that count."""
    counts = {name: [0, 0, 0] for name in dict.fromkeys(name_of.values())}  # right, predicted, true
    for truth, prediction in zip(truths, predictions, strict=True):
        for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if true not in name_of:
                continue
            one, other = name_of[true], name_of.get(predicted)
            counts[one][2] += 1
            if other is not None:
                counts[other][1] += 1
                counts[one][0] += one == other
    rows = {}
    for name, (right, predicted, true) in counts.items():
        precision, recall = right / predicted if predicted else 0, right / true if true else 0
        f1 = 2 * precision * recall / (precision + recall) if right else 0
        row = (right / (predicted + true - right), precision, recall, f1) if predicted + true else (None,) * 4
        rows[name] = dict(zip(MEASURES, row, strict=True))
    return rows


def assert_rows(found, expected):
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert found[name] == {
            key: value if value is None else pytest.approx(value, rel=1e-12) for key, value in row.items()
        }, name


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("ids", MAPS.values(), ids=MAPS)
def test_measures_are_those_counted_by_loops(ids, void):
    truths, predictions = draw_maps(*ids, seed=9)
    pairs = count(truths, predictions).sum(axis=0)
    name_of = {id: CATEGORY[id] for id in (ALL if void else VALID) if id >= 0}
    assert_rows(
        ANSWER.measure(pairs, ANSWER.find_groups("category", void)), measure_by_loops(truths, predictions, name_of)
    )
    if not void:
        name_of = {id: NAME[id] for id in VALID}
        assert_rows(ANSWER.measure(pairs, ANSWER.find_groups("class")), measure_by_loops(truths, predictions, name_of))


def test_measures_by_hand():
    """Road: 3 right, 1 taken for car, 1 for void; a car taken for road; a parking place and the own bonnet ignored."""
    truth = np.uint8([[7, 7, 7, 7, 7], [26, 26, 9, 1, 8]])
    prediction = np.uint8([[7, 7, 7, 26, 0], [7, 26, 26, 7, 7]])
    rows = ANSWER.measure(ANSWER.count_pairs(truth, prediction), ANSWER.find_groups("class"))
    assert rows["road"] == {"iou": 3 / 7, "precision": 3 / 5, "recall": 3 / 5, "f1": 6 / 10}
    assert rows["car"] == {"iou": 1 / 3, "precision": 1 / 2, "recall": 1 / 2, "f1": 2 / 4}
    assert rows["sidewalk"] == dict.fromkeys(MEASURES, 0) and rows["sky"] == dict.fromkeys(MEASURES)
    assert ANSWER.average(rows)["iou"] == (3 / 7 + 0 + 1 / 3) / 3
    rows = ANSWER.measure(ANSWER.count_pairs(truth, prediction), ANSWER.find_groups("category"))
    assert rows["flat"] == {
        "iou": 4 / 7,
        "precision": 4 / 5,
        "recall": 4 / 6,
        "f1": 8 / 11,
    }  # pavement for road is right


# ---- label ids of what is predicted ----


def test_a_category_stands_for_the_label_that_leads_it_and_a_class_for_its_own():
    ids = ANSWER.find_ids("category")
    assert ids.dtype == np.uint8 and ids.shape == (256,) and not ids[7:].any()
    assert [CATEGORY[id] for id in ids[:7].tolist()] == list(ANSWER.CATEGORIES)
    assert [NAME[id] for id in ids[:7].tolist()] == list(ANSWER.LEADING)
    ids = ANSWER.find_ids("class")
    assert ids[:19].tolist() == [official_labels.trainId2label[i].id for i in range(19)] and not ids[19:].any()


# ---- averages ----


def average_by_hand(parts, name_of):
    """Return the means of what loops count, by part; parts are lists of true and predicted label ids."""
    each = [measure_by_loops(truths, predictions, name_of) for truths, predictions in parts]
    rows = {}
    for name in each[0]:
        iou, precision, recall = (sum(part[name][key] or 0 for part in each) / len(each) for key in MEASURES[:3])
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        rows[name] = dict(zip(MEASURES, (iou, precision, recall, f1), strict=True))
    return rows


@pytest.mark.parametrize("number", [3, 8, 18])
def test_averages_are_means_over_pictures_and_whole_batches(number):
    """Of 18 pictures two are in no batch of 8; three are a batch of their own."""
    rng = np.random.default_rng(number)
    truths, predictions = [], []
    for i in range(number):
        ids = rng.choice(34, 9, replace=False)  # so that images lack categories, and are predicted to
        for maps, more in zip((truths, predictions), draw_maps(ids, [0, *ids[:5]], seed=i, number=1), strict=True):
            maps += more
    ways = ANSWER.measure_ways(count(truths, predictions))
    batches = [slice(0, 8), slice(8, 16)][: max(number // 8, 1)]
    assert len(ways) == 6
    for more, ids in (("", VALID), (", void too", ALL)):
        name_of = {id: CATEGORY[id] for id in ids if id >= 0}
        assert_rows(ways[f"over the set{more}"], measure_by_loops(truths, predictions, name_of))
        pictures = [([truth], [prediction]) for truth, prediction in zip(truths, predictions, strict=True)]
        assert_rows(ways[f"by image{more}"], average_by_hand(pictures, name_of))
        parts = [(truths[batch], predictions[batch]) for batch in batches]
        assert_rows(ways[f"by batch of 8{more}"], average_by_hand(parts, name_of))
    assert list(ways)[0] == "over the set"


def test_the_equation_holds_over_a_set_and_not_in_averages():
    """Of two pictures the second has no sky: 0 there halves IoU, precision and recall."""
    truths = [np.uint8([[23, 23, 23, 7]]), np.uint8([[7, 7, 7, 7]])]
    predictions = [np.uint8([[23, 23, 23, 7]]), np.uint8([[7, 7, 7, 26]])]
    ways = ANSWER.measure_ways(count(truths, predictions))
    for name, row in ways["over the set"].items():
        if row["iou"]:
            assert ANSWER.imply_iou(row) == pytest.approx(row["iou"], rel=1e-12), name
        else:
            assert ANSWER.imply_iou(row) == row["iou"], name
    assert ways["over the set"]["sky"]["iou"] == 1 and ways["by image"]["sky"] == dict.fromkeys(MEASURES, 0.5)
    assert ANSWER.imply_iou(ways["by image"]["sky"]) == 1 / 3
    found = ANSWER.compare_ways(ways)
    assert (found["over the set"]["gap"], found["over the set"]["change"]) == (0, 0)
    assert found["by image"]["most"] == "sky" and found["by image"]["gap"] == pytest.approx(1 / 2 - 1 / 3)
    means = [np.mean([row["iou"] for row in ways[way].values() if row["iou"] is not None]) for way in ways]
    assert [row["mean"]["iou"] for row in found.values()] == pytest.approx(means)
    assert [row["change"] for row in found.values()] == pytest.approx(np.array(means) - means[0])


def test_the_equation_holds_over_any_set():
    for seed in range(20):
        truths, predictions = draw_maps(ALL, ALL, seed, right=seed / 20)
        ways = ANSWER.measure_ways(count(truths, predictions))
        for way in ("over the set", "over the set, void too"):
            for row in ways[way].values():
                assert ANSWER.imply_iou(row) == pytest.approx(row["iou"], rel=1e-12)
            assert abs(ANSWER.compare_ways(ways)["over the set"]["gap"]) < 1e-12


# ---- the report ----


def test_sentences_say_what_is_best_and_worst_and_confused():
    rows = {name: dict.fromkeys(MEASURES, iou) for name, iou in zip("abcd", (0.8, 0.25, 0.9, None), strict=True)}
    confusion = np.array([[90, 3, 7, 0], [20, 10, 1, 0], [2000, 4, 9000, 0], [0, 0, 0, 0]])
    text = ANSWER.summarise(rows, confusion)
    assert text.startswith("Best, with an IoU of 0.900: c. Worst, with 0.250: b. ")
    assert "Confused most are c and a: 2,000 pixels of c were taken for a, and 7 the other way round" in text
    assert f"{2007 / 2035:.1%} of all wrong pixels" in text
    assert f"{20 / 31:.1%} of the pixels of b were taken for a." in text and text.endswith("so not measured: d.")
    # As many the other way round, and nothing wrong, and all measured.
    assert "Confused most are a and c: 2,000 pixels of a " in ANSWER.summarise(rows, confusion.T)
    text = ANSWER.summarise({"a": rows["a"], "c": rows["c"]}, np.diag([4, 5]))
    assert text == "Best, with an IoU of 0.900: c. Worst, with 0.800: a."
    rows["a"] = rows["d"] = rows["b"]
    text = ANSWER.summarise(rows, confusion)
    assert text.startswith("Best, with an IoU of 0.900: c. Worst, with 0.250: a, b, d. ")


def test_merged_counts_are_of_groups_that_count():
    truths, predictions = draw_maps(ALL, ALL, seed=1)
    pairs, groups = count(truths, predictions).sum(axis=0), ANSWER.find_groups("category")
    names, merged = list(groups), ANSWER.merge(pairs, groups)
    expected = np.zeros((7, 7), int)
    for truth, prediction in zip(truths, predictions, strict=True):
        for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if true in VALID and predicted in VALID:
                expected[names.index(CATEGORY[true]), names.index(CATEGORY[predicted])] += 1
    assert np.array_equal(merged, expected)


def test_the_confusion_matrix_is_drawn_as_shares_of_rows(tmp_path, monkeypatch):
    figures = []

    class Kept(ANSWER.Figure):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            figures.append(self)

    monkeypatch.setattr(ANSWER, "Figure", Kept)
    confusion = np.array([[90, 0, 10], [1, 2, 1], [0, 0, 0]])
    ANSWER.draw_confusion(tmp_path / "new" / "matrix.png", confusion, ["sky", "human", "object"])
    axes = figures[0].axes[0]
    shown = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "90.0", (0, 2): "10.0", (1, 0): "25.0", (1, 1): "50.0", (1, 2): "25.0"}
    assert [text.get_text() for text in axes.get_yticklabels()] == ["sky", "human", "object"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["sky", "human", "object"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert axes.images[0].get_array().tolist() == [[90, 0, 10], [25, 50, 25], [0, 0, 0]]
    image = Image.open(tmp_path / "new" / "matrix.png")
    assert image.format == "PNG" and min(image.size) > 300


def read_tables(markdown):
    """Return the tables of a text in Markdown: lists of rows of cells."""
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block] for block in blocks]


class Page(HTMLParser):
    """What a page of HTML shows: tables, lists of rows of cells; paragraphs; what it loads; its errors."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.paragraphs, self.loads, self.title, self.open = [], [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("img", "meta", "br", "hr"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "p":
            self.paragraphs.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        elif "p" in self.open:
            self.paragraphs[-1] += data
        elif "title" in self.open:
            self.title += data


def show(value):
    return "–" if value is None else f"{value:.3f}"


# ---- a run ----

NAMES = {"train": ["aland_000000_000019", "bstadt_000001_000019"]}
NAMES["val"] = [f"{'xdorf' if i % 2 else 'ystad'}_{i:06}_000019" for i in range(17)]  # two batches of 8 and a rest
WIDE, HIGH = 128, 64
SMALL = ["--size", 32, "--workers", 0, "--pictures", 0]  # for street_preprocess


def write_raw(folder):
    """Make raw pictures in Cityscapes' layout, 64 x 128: a sky, a road, the own car, and blocks of all label ids."""
    rng = np.random.default_rng(7)
    for split, names in NAMES.items():
        for number, name in enumerate(names):
            ids = np.full((HIGH, WIDE), 7, np.uint8)
            ids[:20] = 23 if number % 3 else 11
            ids[-4:] = 1
            for id in rng.permutation(34)[:14]:
                y, x, height, width = (int(rng.integers(*ends)) for ends in ((0, 56), (0, 110), (3, 20), (2, 30)))
                ids[y : y + height, x : x + width] = id
            image = (ids[..., None] * np.uint8([7, 5, 3]) + rng.integers(0, 40, (HIGH, WIDE, 3))).clip(0, 255)
            city = name.split("_")[0]
            for kind, end, pixels in (("leftImg8bit", ANSWER.IMAGE, image), ("gtFine", ANSWER.IDS, ids)):
                path = folder / kind / split / city / f"{name}{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def run_main(answer, *arguments):
    """Run an answer here, in an environment as it expects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, [answer.__file__, *arguments, "--device", "cpu"])))
        answer.main()


def write_void(folder):
    """Make raw pictures on which nothing counts: the own car, and a tunnel."""
    for split in NAMES:
        for kind, end, pixels in (
            ("leftImg8bit", ANSWER.IMAGE, np.full((HIGH, WIDE, 3), 90)),
            ("gtFine", ANSWER.IDS, np.full((HIGH, WIDE), 1) + 15 * (np.arange(WIDE) < 40)),
        ):
            path = folder / kind / split / "ystad" / f"ystad_000000_000019{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("通り の raw"))


@pytest.fixture(scope="module")
def given(raw, tmp_path_factory):
    """Return a function of a level: the folders of what street_preprocess and street_records wrote, and weights."""
    done = {}

    def make(level):
        if level not in done:
            folder = tmp_path_factory.mktemp(f"下ごしらえ {level}")
            run_main(pytorch("street_preprocess"), "--data", raw, "--out", folder / "small", *SMALL, "--level", level)
            run_main(
                pytorch("street_records"),
                "--data",
                folder / "small",
                "--out",
                folder / "records",
                "--shards",
                2,
                "--flips",
                2,
            )
            network = make_network(level)
            torch.save(network.state_dict(), folder / "best.pt")
            done[level] = SimpleNamespace(
                small=folder / "small", records=folder / "records", weights=folder / "best.pt"
            )
        return done[level]

    return make


def make_network(level):
    """Return a network whose weights are drawn; the last bias spreads what it predicts over many classes."""
    options, number = SimpleNamespace(network="unet", device="cpu"), {"category": 7, "class": 19}[level]
    network = ANSWER.build_network(np.random.default_rng(3), number, options)
    network.classifier.weight.data *= 20
    network.classifier.weight.data -= network.classifier.weight.data.mean(dim=1, keepdim=True)
    return network


@pytest.fixture(scope="module")
def tested(raw, given, tmp_path_factory):
    """Return a function of a level: the folder that street_test wrote to, and its metrics."""
    done = {}

    def run(level):
        if level not in done:
            out = tmp_path_factory.mktemp("報告") / "out"
            arguments = ["--data", given(level).records, "--weights", given(level).weights, "--truth", raw]
            run_main(ANSWER, *arguments, "--out", out, "--batch", 4, "--pictures", 3)
            done[level] = out, json.loads((out / "metrics.json").read_text("utf-8"))
        return done[level]

    return run


def read_truth(raw):
    return {
        name: np.array(Image.open(raw / "gtFine" / "val" / name.split("_")[0] / f"{name}{ANSWER.IDS}"))
        for name in NAMES["val"]
    }


by_level = pytest.mark.parametrize("level", ["category", "class"])


@by_level
def test_results_give_the_same_measures_to_cityscapes_own_script(raw, tested, level):
    out, metrics = tested(level)
    results = {path.name: path for path in (out / "results").iterdir()}
    assert sorted(results) == sorted(f"{name}_pred_labelIds.png" for name in NAMES["val"])
    truths = sorted(str(path) for path in raw.glob(f"gtFine/val/*/*{ANSWER.IDS}"))
    arguments = copy.copy(official.args)
    arguments.predictionPath, arguments.predictionWalk = str(out / "results"), None
    predicted = [official.getPrediction(arguments, path) for path in truths]  # it finds them by their names
    expected = evaluate(truths, predicted)
    found = metrics["levels"]["category"]
    assert_official(found["rows"], found["mean"], expected["categoryScores"], expected["averageScoreCategories"])
    assert list(metrics["levels"]) == list(dict.fromkeys(["category", level]))
    if level == "class":
        found = metrics["levels"]["class"]
        assert_official(found["rows"], found["mean"], expected["classScores"], expected["averageScoreClasses"])
    assert metrics["miou"] == found["mean"]["iou"]
    assert metrics["iou"] == {name: row["iou"] for name, row in found["rows"].items()}
    assert metrics["tested"] == 17 and metrics["size"] == [32, 64] and metrics["level"] == level
    assert len({row["iou"] for row in found["rows"].values()}) > 5  # no network that finds one thing everywhere


def segment(given, level):
    """Return the logits, (class, 32, 64), of each image, from what street_preprocess wrote, by PyTorch alone."""
    network, logits = make_network(level).eval(), {}
    for name in NAMES["val"]:
        image = np.array(Image.open(given(level).small / "val" / "images" / f"{name}.png")) / 255
        image = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.inference_mode():
            logits[name] = network(torch.from_numpy(np.float32(image)).permute(2, 0, 1)[None])[0]
    return logits


def to_ids(level, classes):
    """Return label ids of class indices, by Cityscapes' own table."""
    if level == "class":
        return np.vectorize(lambda index: official_labels.trainId2label[index].id if index < 19 else 0)(classes)
    known = {CATEGORY[id]: id for id in map(official_labels.name2label.get, ANSWER.LEADING) for id in [id.id]}
    return np.vectorize(lambda index: known[ANSWER.CATEGORIES[index]] if index < 7 else 0)(classes)


@by_level
def test_results_and_sizes_are_those_of_the_enlarged_logits(raw, given, tested, level):
    out, metrics = tested(level)
    logits, truth = segment(given, level), read_truth(raw)
    pairs = dict.fromkeys(metrics["sizes"], 0)
    for name, ids in truth.items():
        large = torch.nn.functional.interpolate(logits[name][None], ids.shape, mode="bilinear", align_corners=False)
        result = Image.open(out / "results" / f"{name}_pred_labelIds.png")
        assert result.mode == "L" and result.size == (WIDE, HIGH)
        assert np.mean(to_ids(level, large[0].argmax(dim=0).numpy()) != np.array(result)) < 0.002  # rounding decides
        classes = np.array(Image.open(given(level).small / "val" / "labels" / f"{name}.png"))
        enlarged = classes.repeat(2, axis=0).repeat(2, axis=1)
        predicted = to_ids(level, logits[name].argmax(dim=0).numpy())
        for what, maps in zip(
            pairs,
            ((to_ids(level, classes), predicted), (ids, np.array(result)), (ids, to_ids(level, enlarged))),
            strict=True,
        ):
            pairs[what] = pairs[what] + ANSWER.count_pairs(*maps)
    for what, mean in metrics["sizes"].items():
        expected = ANSWER.average(ANSWER.measure(pairs[what], ANSWER.find_groups("category")))
        assert mean == pytest.approx(expected, abs=1e-3 if "size of the records" in what else 1e-12), what
    assert len({mean["iou"] for mean in metrics["sizes"].values()}) == 3


@by_level
def test_the_report_shows_the_metrics_and_the_page_the_report(tested, level):
    out, metrics = tested(level)
    markdown = (out / "report.md").read_text("utf-8")
    tables, ways = read_tables(markdown), ANSWER.compare_ways(metrics["ways"])
    for found, table in zip(metrics["levels"].values(), tables, strict=False):
        rows = [*found["rows"].items(), ("**mean**", found["mean"])]
        assert table[2:] == [[name, *(show(row[key]) for key in MEASURES)] for name, row in rows]
        assert table[0][1:] == ["IoU", "precision", "recall", "F1"] and found["summary"] in markdown
    averages, categories, sizes = tables[-3:]
    assert [[row[0], row[1], row[5]] for row in averages[2:]] == [
        [way, show(found["mean"]["iou"]), f"{found['change']:+.3f}"] for way, found in ways.items()
    ]
    for (way, found), row in zip(ways.items(), averages[2:], strict=True):
        assert row[6] == ("0" if way.startswith("over") else f"{found['gap']:+.3f}, {found['most']}")
    assert categories[0] == ["IoU", "over the set", "by image", "implied", "by batch of 8", "implied"]
    for name, *cells in categories[2:]:
        rows = [metrics["ways"][way][name] for way in categories[0] if way in ways]
        values = [rows[0]["iou"], *(value for row in rows[1:] for value in (row["iou"], ANSWER.imply_iou(row)))]
        assert cells == list(map(show, values))
    assert [row[0] for row in categories[2:]] == list(ANSWER.CATEGORIES)
    over_set, *others = (metrics["ways"][way] for way in ("over the set", "by image", "by batch of 8"))
    change, name, iou = max(
        (abs(rows[name]["iou"] - over_set[name]["iou"]), name, rows[name]["iou"]) for rows in others for name in rows
    )
    way = next(way for way, rows in metrics["ways"].items() if rows[name]["iou"] == iou)
    assert (
        change > 0.003
        and f"Changed most is {name}: {iou:.3f} {way}, {over_set[name]['iou']:.3f} over the set." in markdown
    )
    assert sizes[2:] == [[what, *map(show, mean.values())] for what, mean in metrics["sizes"].items()]

    page = Page((out / "report.html").read_text("utf-8"))
    plain = [[[cell.replace("**", "") for cell in row] for row in [table[0], *table[2:]]] for table in tables]
    assert page.tables == plain and page.title == "17 street scenes, measured"
    for found in metrics["levels"].values():
        assert found["summary"] in page.paragraphs
    pictures = [f"confusion_{each}.png" for each in metrics["levels"]]
    assert re.findall(r"\]\((.*?)\)", markdown) == pictures
    prefix = "data:image/png;base64,"
    assert page.loads == [prefix + base64.b64encode((out / name).read_bytes()).decode() for name in pictures]


def test_pictures_show_image_truth_prediction_and_mistakes(raw, tested, given):
    out, _ = tested("category")
    colours = np.uint8(json.loads((given("category").records / "metrics.json").read_text())["colours"])
    shown = list((out / "pictures").iterdir())
    assert len(shown) == 3
    for path in shown:
        picture, name = np.array(Image.open(path)), path.stem
        assert picture.shape == (2 * HIGH, 2 * WIDE, 3)
        image = np.array(Image.open(raw / "leftImg8bit" / "val" / name.split("_")[0] / f"{name}{ANSWER.IMAGE}"))
        truth, found = read_truth(raw)[name], np.array(Image.open(out / "results" / f"{name}_pred_labelIds.png"))
        categories = [
            np.vectorize(lambda id: (*ANSWER.CATEGORIES, "void").index(CATEGORY[id]))(ids) for ids in (truth, found)
        ]
        painted = [np.vstack([colours, [[0, 0, 0]]])[each] for each in categories]
        assert np.array_equal(picture[:HIGH], np.hstack([image, painted[0]]))
        assert np.array_equal(picture[HIGH:, :WIDE], painted[1])
        wrong = (categories[0] != categories[1]) & (categories[0] < 7)
        assert 0.05 < wrong.mean() < 0.999
        marked = picture[HIGH:, WIDE:]
        assert (marked[wrong] == [255, 0, 0]).all() and np.array_equal(marked[~wrong], image[~wrong] // 2)


def test_the_seed_chooses_what_is_shown_and_the_batch_changes_nothing(raw, given, tested, tmp_path):
    arguments = ["--data", given("category").records, "--weights", given("category").weights, "--truth", raw]
    for number, seed in enumerate((0, 1)):
        more = ["--seed", seed, "--batch", 1 + 8 * number, "--pictures", 3]
        run_main(ANSWER, *arguments, "--out", tmp_path / str(seed), *more)
    names = [
        {path.name for path in (folder / "pictures").iterdir()}
        for folder in (tested("category")[0], tmp_path / "0", tmp_path / "1")
    ]
    assert names[0] == names[1] != names[2] and len(names[2]) == 3
    reports = [(folder / "report.md").read_text("utf-8") for folder in (tmp_path / "0", tmp_path / "1")]
    assert reports[0] == reports[1]


# ---- what is wrong with what it is given ----


def copy_given(raw, given, folder):
    made = given("category")
    shutil.copytree(made.records, folder / "records")
    shutil.copytree(raw, folder / "raw")
    shutil.copy(made.weights, folder / "best.pt")
    return ["--data", folder / "records", "--weights", folder / "best.pt", "--truth", folder / "raw"]


def find_raw(folder, name=NAMES["val"][0]):
    return folder / "raw" / "gtFine" / "val" / name.split("_")[0] / f"{name}{ANSWER.IDS}"


def repaint(folder):
    ids = np.array(Image.open(find_raw(folder)))
    Image.fromarray(np.where(ids == 7, 23, ids).astype(np.uint8)).save(find_raw(folder))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


SHARD = "records/val-00001-of-00002.tfrecord"
FAULTS = {
    "no labels": (lambda folder: find_raw(folder).unlink(), "--truth: has no ystad_000000_000019_gtFine_labelIds.png"),
    "other labels": (repaint, "ystad_000000_000019_gtFine_labelIds.png: the records were not made of it"),
    "damaged labels": (lambda folder: cut(find_raw(folder)), "ystad_000000_000019_gtFine_labelIds.png: "),
    "no raw pictures": (lambda folder: shutil.rmtree(folder / "raw"), "raw: no pair such as leftImg8bit/val/CITY/"),
    "no weights": (lambda folder: (folder / "best.pt").unlink(), "best.pt: no such file: train first"),
    "damaged weights": (lambda folder: cut(folder / "best.pt"), "best.pt: not the weights of this --network"),
    "no records": (lambda folder: shutil.rmtree(folder / "records"), "records: is not there, or not whole: run 02_"),
    "cut-off records": (lambda folder: cut(folder / SHARD), f"{SHARD.split('/')[1]}: "),
    "flipped bit": (lambda folder: flip(folder / SHARD), f"{SHARD.split('/')[1]}: the record at byte "),
}


@pytest.mark.parametrize("spoil, message", FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_told_in_one_line_before_anything_is_written(
    raw, given, tmp_path, monkeypatch, capsys, spoil, message
):
    arguments = [*copy_given(raw, given, tmp_path), "--out", tmp_path / "out", "--device", "cpu"]
    spoil(tmp_path)
    monkeypatch.setattr(sys, "argv", list(map(str, [ANSWER.__file__, *arguments])))
    with pytest.raises((SystemExit, ANSWER.Faulty, ANSWER.Damaged)) as end:
        ANSWER.main()
    # Where it is not stop itself, the last lines of the script give the message to stop.
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "%|" not in line]
    [line] = lines if end.type is SystemExit else [*lines, str(end.value)]
    assert message in line and not (tmp_path / "out").exists()


def test_weights_of_another_network_and_a_flipped_bit_are_told_by_the_script(raw, given, tmp_path, fork):
    arguments = copy_given(raw, given, tmp_path)
    script = ANSWERS["street_test", "pytorch"]
    done = fork(script, *arguments, "--network", "deeplab", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 2 and "best.pt: not the weights of this --network for these records" in done.stderr
    flip(tmp_path / SHARD)
    done = fork(script, *arguments, "--device", "cpu", cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line and "%|" not in line]
    assert (
        done.returncode == 2 and len(lines) == 1 and lines[0].startswith(f"{script.name}: ") and SHARD[8:] in lines[0]
    )


def test_a_truth_that_is_all_void_is_told(raw, given, tmp_path, monkeypatch, capsys):
    made = given("category")
    records = tmp_path / "records"
    write_void(tmp_path / "raw")
    run_main(pytorch("street_preprocess"), "--data", tmp_path / "raw", "--out", tmp_path / "small", *SMALL)
    run_main(pytorch("street_records"), "--data", tmp_path / "small", "--out", records, "--shards", 1, "--flips", 2)
    capsys.readouterr()
    arguments = ["--data", records, "--weights", made.weights, "--truth", tmp_path / "raw", "--out", tmp_path / "out"]
    line = stopped(capsys, run_main, ANSWER, *arguments)
    assert f"{tmp_path / 'raw'}: no pixel of val counts" in line and not (tmp_path / "out" / "metrics.json").exists()


STAND_IN = """
import shutil
shutil.copytree("ready/{folder}", "outputs/{folder}")
"""


def test_by_default_what_is_not_there_is_made_by_the_scripts_before(raw, given, tmp_path, fork):
    """Stand-ins for them write what the fixtures wrote."""
    made, script = given("category"), ANSWERS["street_test", "pytorch"]
    shutil.copy(script, tmp_path)
    shutil.copytree(made.records, tmp_path / "ready" / "02_street_records_pytorch")
    trained = tmp_path / "ready" / "03_street_train_pytorch"
    trained.mkdir()
    shutil.copy(made.weights, trained)
    (trained / "metrics.json").write_text('{"options": {}, "miou": 0.5}')
    arguments = ["--truth", raw, "--device", "cpu", "--pictures", 0]
    alone = fork(tmp_path / script.name, *arguments, cwd=tmp_path)
    assert alone.returncode == 2 and "02_street_records_pytorch: is not there, or not whole" in alone.stderr
    for folder in ("02_street_records_pytorch", "03_street_train_pytorch"):
        (tmp_path / f"{folder}.py").write_text(STAND_IN.format(folder=folder))
    done = fork(tmp_path / script.name, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == [
        "outputs/02_street_records_pytorch",
        "outputs/03_street_train_pytorch",
    ]
    assert (tmp_path / "outputs" / script.stem / "report.html").exists()

    trained = tmp_path / "outputs/03_street_train_pytorch"
    kept = (trained / "best.pt").read_bytes()
    (trained / "metrics.json").unlink()  # as in a training that was stopped
    done = fork(tmp_path / script.name, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best.pt is of a training that has not ended: 03_street_train_pytorch.py --resume" in done.stdout
    assert (trained / "best.pt").read_bytes() == kept and not (trained / "metrics.json").exists()


# ---- all frameworks ----


@pytest.fixture(scope="module")
def measured(raw, given, tmp_path_factory, fork):
    """Return a function of a framework: the folder that it wrote to after two steps of its own, and its metrics."""
    done = {}

    def run(framework):
        if framework not in done:
            folder = tmp_path_factory.mktemp("測る")
            small = ["--iterations", 2, "--batch", 2, "--size", 32, "--workers", 0, "--pictures", 0]
            common = ["--data", given("category").records, "--device", "cpu"]
            result = fork(ANSWERS["street_train", framework], *common, *small, "--out", "trained", cwd=folder)
            assert result.returncode == 0, result.stderr
            [weights] = [path for path in (folder / "trained").glob("best.*") if ".data-" not in path.name]
            arguments = [*common, "--weights", weights, "--truth", raw, "--out", "out"]
            result = fork(ANSWERS["street_test", framework], *arguments, cwd=folder)
            assert result.returncode == 0, result.stderr
            done[framework] = folder / "out", json.loads((folder / "out" / "metrics.json").read_text("utf-8"))
        return done[framework]

    return run


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_framework_measures_what_it_trained_itself(measured, framework):
    """Two steps from the same weights on the same batches: the same measures."""
    (out, found), (other, expected) = measured(framework), measured("pytorch")
    assert found["answer"] == f"04_street_test_{framework}" and found["tested"] == 17
    pairs = [
        [np.array(Image.open(folder / "results" / f"{name}_pred_labelIds.png")) for folder in (out, other)]
        for name in NAMES["val"]
    ]
    assert np.mean([one != two for one, two in pairs]) < 0.02 and len(np.unique(pairs)) > 3
    for way, rows in expected["ways"].items():
        for name, row in rows.items():
            assert found["ways"][way][name]["iou"] == pytest.approx(row["iou"], abs=0.01), (way, name)
    assert found["levels"].keys() == expected["levels"].keys() and found["sizes"].keys() == expected["sizes"].keys()
    assert (out / "report.html").exists()
