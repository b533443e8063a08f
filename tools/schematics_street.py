"""Draw the figures about the pipeline on street scenes: Question_street/assets/<name>.svg, <name>.ja.svg in Japanese.

    python tools/schematics_street.py [names]

As in schematics.py every number is computed here, by the answers in PyTorch: labels, bytes and orders are theirs. A
second run writes the same bytes.
"""

import struct
from types import SimpleNamespace
from unittest import mock

import numpy as np
from schematics import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    PALE_PURPLE,
    PURPLE,
    RED,
    REPOSITORY,
    RULE,
    SOFT,
    WHITE,
    arrow,
    box,
    bracket,
    heading,
    in_both,
    load_answer,
    main,
    new_card,
    swatch,
    write,
)

ASSETS = REPOSITORY / "Question_street/assets"
JAPANESE = {
    "images and labels": "画像とラベル",
    "drawn, or Cityscapes": "描画、または Cityscapes",
    "small images": "縮小した画像",
    "classes": "クラスのインデックス",
    "pixels of each class": "クラスごとの画素数",
    "{} shards of train": "train のシャード {} 個",
    "{} shards of val": "val のシャード {} 個",
    "their bytes": "各シャードのバイト数",
    "the best weights": "最良の重み",
    "a checkpoint": "チェックポイント",
    "losses, logs": "損失、ログ",
    "the report": "レポート",
    "confusion matrix": "混同行列",
    "predicted label ids": "予測したラベル ID",
    "painted pictures": "塗り重ねた画像",
    "best and worst": "最良と最悪の例",
    "ONNX file": "ONNX ファイル",
    "labels at their own size": "元の大きさのラベル",
    "records": "レコード",
    "weights": "重み",
    "id": "ID",
    "label": "ラベル",
    "train id": "学習用 ID",
    "void": "void（対象外）",
    "flat": "flat（路面）",
    "construction": "construction（建造物）",
    "object": "object（ポールや標識）",
    "nature": "nature（草木）",
    "sky": "sky（空）",
    "human": "human（人）",
    "vehicle": "vehicle（乗り物）",
    "no train id: void at class level": "学習用 ID なし（クラスでは void）",
    "train id of a category": "カテゴリーの学習用 ID",
    "shares its colour with others": "ほかのラベルと同じ色",
    "byte": "バイト",
    "length: {}": "長さ：{}",
    "sum of the length": "長さのチェックサム",
    "sum of the payload": "ペイロードのチェックサム",
    "payload": "ペイロード",
    "field and length": "フィールドと長さ",
    "content": "内容",
    "features: field {}, {} bytes": "features：フィールド {}、{} バイト",
    "entry: field {}, {} bytes": "エントリー：フィールド {}、{} バイト",
    "key: field {}, {} bytes": "キー：フィールド {}、{} バイト",
    "feature: field {}, {} bytes": "feature：フィールド {}、{} バイト",
    "list of bytes: field {}, {} bytes": "バイト列のリスト：フィールド {}、{} バイト",
    "list of integers: field {}, {} bytes": "整数のリスト：フィールド {}、{} バイト",
    "value: field {}, {} bytes": "値：フィールド {}、{} バイト",
    "value {}: field {}, {} bytes": "値 {}：フィールド {}、{} バイト",
    "shards as written": "書き込んだシャード",
    "in a drawn order": "乱数で決めた順",
    "shard {}": "シャード {}",
    "read in turn, in blocks of {}": "順番に一つずつ読み、{} 個ずつのブロックに",
    "each block shuffled: epoch {}": "ブロックごとにシャッフル：エポック {}",
    "epoch {}": "エポック {}",
    "process {}": "プロセス {}",
    "a batch of {}, and the share of each": "{} 枚のバッチと、それぞれの分",
    "forward": "順伝播",
    "batch norm: sums over all pixels": "バッチ正規化：全画素の和",
    "in each of {} layers": "{} 層のそれぞれで",
    "own loss / total weight": "自分の損失 / 重みの合計",
    "weights of the pixels that count": "数える画素の重み",
    "one number": "一つの数",
    "backward": "逆伝播",
    "batch norm: sums of gradients": "バッチ正規化：勾配の和",
    "own gradients": "自分の勾配",
    "gradients": "勾配",
    "{} numbers": "{} 個の数",
    "the same step": "同じ更新",
    "the same weights": "同じ重み",
    "nothing to send": "送るものはない",
}
SHARDS, SHADES = (PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PURPLE), (BLUE, ORANGE, GREEN, PURPLE)
RECORD = {"image/format": b"png", "image/height": 128}  # few features, so that all bytes can be shown


def draw_pipeline(say):
    """Draw the five stages, what each writes, and which reads it."""
    shards = load_answer("street_records_pytorch").NUMBERS["shards"][0]
    figure, axes = new_card(560)
    width = 160
    stages = (
        (20, 30, GREY, "", ("images and labels", "drawn, or Cityscapes")),
        (220, 30, PALE_BLUE, "1. preprocess", ("small images", "classes", "pixels of each class")),
        (420, 30, PALE_GREEN, "2. records", ("{} shards of train", "{} shards of val", "their bytes")),
        (620, 30, PALE_ORANGE, "3. train", ("the best weights", "a checkpoint", "losses, logs")),
        (220, 390, PALE_PURPLE, "4. test", ("the report", "confusion matrix", "predicted label ids")),
        (540, 390, PALE_PURPLE, "5. inference", ("painted pictures", "best and worst", "ONNX file")),
    )
    for x, y, colour, name, files in stages:
        if name:
            box(axes, x, y, width, 40, colour)
            write(axes, x + width / 2, y + 20, name, 17, weight="bold")
            arrow(axes, (x + width / 2, y + 41), (x + width / 2, y + 62))
        top, height = (y + 64, 80) if name else (y, 144)
        box(axes, x, top, width, height, WHITE, RULE)
        for i, text in enumerate(files):
            place = top + 17 + 23 * i if name else y + 58 + 26 * i
            write(axes, x + width / 2, place, say(text).format(shards), 13)
    for x in (180, 380, 580):
        if x == 180:
            arrow(axes, (x + 3, 50), (x + 37, 50))
        else:
            axes.plot([x + 2, x + 20, x + 20], [134, 134, 50], color=INK, linewidth=1.5, solid_joinstyle="miter")
            arrow(axes, (x + 20, 50), (x + 37, 50))
    lines = (  # from where, how far down, colour, offset at the stages below, where and what is said
        (100, 250, SOFT, 30, 112, "labels at their own size"),
        (500, 290, BLUE, 80, 392, "records"),
        (700, 330, ORANGE, 130, 710, "weights"),
    )
    for x, over, colour, offset, left, text in lines:
        for stage in (220, 540):
            bracket(axes, (x, 176), over, (stage + offset, 387), colour)
        write(axes, left, over - 14, say(text), 13, colour, ha="left")
    return figure


def draw_labels(say):
    """Draw the table of labels, by category."""
    answer = load_answer("street_preprocess_pytorch")
    colours = [label.colour for label in answer.LABELS]
    figure, axes = new_card(520)
    table = answer.make_table("category")
    columns = (("void", "flat"), ("construction", "object", "nature"), ("sky", "human", "vehicle"))
    for column, categories in enumerate(columns):
        left, y = 20 + 260 * column, 24
        write(axes, left + 52, y, say("id"), 13, SOFT, ha="right")
        write(axes, left + 62, y, say("label"), 13, SOFT, ha="left")
        write(axes, left + 240, y, say("train id"), 13, SOFT, ha="right")
        for category in categories:
            labels = [label for label in answer.LABELS if label.category == category]
            y += 30
            box(axes, left, y - 13, 240, 26, GREY, line=0)
            write(axes, left + 62, y, say(category), 15, weight="bold", ha="left")
            write(axes, left + 52, y, f"{table[labels[0].id]}", 15, BLUE, weight="bold", ha="right")
            for label in labels:
                y += 26
                shared = colours.count(label.colour) > 1
                edge, line = (RED, 2) if shared else (INK, 0.8)
                box(axes, left + 2, y - 8, 20, 16, [value / 255 for value in label.colour], edge, line)
                write(axes, left + 52, y, f"{label.id}".replace("-", "\N{MINUS SIGN}"), 14, ha="right")
                void = label.train_id == answer.VOID
                write(axes, left + 62, y, label.name, 14, SOFT if void else INK, ha="left")
                write(axes, left + 238, y, "–" if void else f"{label.train_id}", 14, SOFT if void else INK, ha="right")
            y += 6
    swatch(axes, 22, 498, say("shares its colour with others"), edge=RED, line=2)
    write(axes, 290, 498, "–", 14, SOFT, ha="right")
    write(axes, 300, 498, say("no train id: void at class level"), 14, ha="left")
    write(axes, 580, 498, say("train id of a category"), 14, BLUE, weight="bold", ha="left")
    return figure


def list_parts(features):
    """Return the parts of a record of features: [(bytes, depth, text, numbers for it, colour, whether it is text)]."""
    answer = load_answer("street_records_pytorch")
    payload = answer.make_example(features)
    length = struct.pack("<Q", len(payload))
    parts = [(length, 0, "length: {}", (len(payload),), PALE_BLUE, 0)]
    parts.append((answer.masked_crc(length), 0, "sum of the length", (), PALE_ORANGE, 0))
    inside = {"features": {1: "entry"}, "entry": {1: "key", 2: "feature"}}
    inside |= {"feature": {1: "list of bytes", 3: "list of integers"}}
    inside |= dict.fromkeys(("list of bytes", "list of integers"), {1: "value"})

    def add(data, fields, depth, above):
        position = 0
        while position < len(data):
            start = position
            tag, position = answer.read_varint(data, position)
            size, position = answer.read_varint(data, position)
            kind, content = fields[tag >> 3], data[position : position + size]
            head, numbers = data[start:position], (tag >> 3, size)
            position += size
            if kind in inside:
                parts.append((head, depth, f"{kind}: field {{}}, {{}} bytes", numbers, WHITE, 0))
                add(content, inside[kind], depth + 1, kind)
            elif above == "list of integers":
                numbers = (answer.read_varint(content, 0)[0], *numbers)
                parts.append((head + content, depth, "value {}: field {}, {} bytes", numbers, PALE_GREEN, 0))
            else:
                text = f"{kind}: field {{}}, {{}} bytes"
                parts.append((head + content, depth, text, numbers, PALE_GREEN, len(content)))

    add(payload, {1: "features"}, 0, "")
    parts.append((answer.masked_crc(payload), 0, "sum of the payload", (), PALE_ORANGE, 0))
    return parts


def draw_record(say):
    """Draw the bytes of a small record, and what each of them is."""
    parts = list_parts(RECORD)
    cell, row = 25, 34
    figure, axes = new_card(96 + row * len(parts))
    write(axes, 46, 26, say("byte"), 13, SOFT, ha="right")
    place = 0
    for i, (data, depth, text, numbers, colour, letters) in enumerate(parts):
        y, left = 56 + row * i, 58 + 18 * depth
        write(axes, 46, y, f"{place}", 13, SOFT, ha="right")
        for j, byte in enumerate(data):
            is_letter = j >= len(data) - letters
            fill = WHITE if colour == PALE_GREEN and j < 2 else colour  # the first two bytes are number and length
            box(axes, left + cell * j, y - 13, cell, 26, fill, RULE, 0.8)
            style = {"weight": "bold"} if is_letter else {}
            write(axes, left + cell * (j + 0.5), y, chr(byte) if is_letter else f"{byte:02x}", 13, INK, **style)
        write(axes, 500, y, say(text).format(*numbers), 14, ha="left")
        place += len(data)
    swatch(axes, 58, 62 + row * len(parts), say("field and length"), WHITE)
    swatch(axes, 258, 62 + row * len(parts), say("content"), PALE_GREEN)
    first, last = 56 + row * 2 - 15, 56 + row * (len(parts) - 2) + 15
    axes.plot([484, 478, 478, 484], [first, first, last, last], color=SOFT, linewidth=1.2)
    style = {"color": SOFT, "rotation": 90, "ha": "right", "va": "center"}
    axes.text(472, (first + last) / 2, say("payload"), fontsize=0.75 * 14, **style)
    return figure


def draw_order(say):
    """Draw how the order of an epoch comes about: shards in a drawn order, turns, and blocks that are shuffled."""
    answer = load_answer("street_records_pytorch")
    counts, seed, block, cell = (5, 5, 5, 5), 0, 8, 36
    with mock.patch.object(answer, "BUFFER", block):
        shards, order = answer.draw_order(counts, seed, 0)
        _, second = answer.draw_order(counts, seed, 1)
    turns = answer.take_turns(counts, shards)
    figure, axes = new_card(524)

    def draw_cell(x, y, record):
        box(axes, x, y, cell - 2, 26, SHARDS[record[0]], INK, 0.8)
        write(axes, x + cell / 2 - 1, y + 13, f"{record[0]}:{record[1]}", 13)

    for x, title, drawn in ((110, "shards as written", range(len(counts))), (480, "in a drawn order", shards)):
        heading(axes, x + 2.5 * cell, 28, say(title))
        for i, shard in enumerate(drawn):
            write(axes, x - 10, 65 + 34 * i, say("shard {}").format(shard), 14, ha="right")
            for number in range(counts[shard]):
                draw_cell(x + cell * number, 52 + 34 * i, (shard, number))
    arrow(axes, (310, 116), (380, 116))
    rows = (
        (242, -24, turns, say("read in turn, in blocks of {}").format(block)),
        (366, 48, order, say("each block shuffled: epoch {}").format(0)),
        (454, 48, second, say("epoch {}").format(1)),
    )

    def find_x(place):
        return 28 + cell * place + 12 * (place // block)

    for y, away, records, title in rows:
        write(axes, 28, y + away, title, 16, ha="left")
        for place, record in enumerate(records):
            draw_cell(find_x(place), y, record)
        for start in range(0, len(records), block):
            end = min(start + block, len(records)) - 1
            box(axes, find_x(start) - 4, y - 5, find_x(end) + cell + 6 - find_x(start), 36, edge=SOFT, line=1.2)
    middles = {"turns": {}, "order": {}}
    for name, records in (("turns", turns), ("order", order)):
        middles[name] = {record: find_x(place) + cell / 2 - 1 for place, record in enumerate(records)}
    for record, x in middles["turns"].items():
        axes.plot([x, middles["order"][record]], [274, 360], color=SHADES[record[0]], linewidth=1.2, zorder=0)
    return figure


def find_shares(batch, processes):
    """Return which places of a batch each process makes, by the answer."""
    answer, shares = load_answer("street_parallel_pytorch"), []
    image = np.zeros((1, 1))
    for rank in range(processes):
        options = SimpleNamespace(batch=batch, processes=processes, rank=rank, seed=0)
        with mock.patch.object(answer, "make_sample", lambda image, classes, epoch, place, options: (place, image)):
            records = mock.MagicMock(offsets=[range(batch)])
            records.__getitem__.return_value = "", image, image
            shares.append(answer.make_batch(records, 0, options)[0].tolist())
    return shares


def draw_parallel(say):
    """Draw a step of two processes: what each does by itself, and what is summed over both."""
    answer = load_answer("street_parallel_pytorch")
    batch, shares = answer.NUMBERS["batch"][0], find_shares(answer.NUMBERS["batch"][0], 2)
    options = SimpleNamespace(norm="all", device="cpu")
    network = answer.build_network(np.random.default_rng(0), 7, options)  # 7 categories
    norms = sum(isinstance(layer, answer.BatchNorm) for layer in network.modules())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    figure, axes = new_card(566)
    width, cell, colours = 210, 44, (PALE_BLUE, PALE_ORANGE)
    columns = (20, 780 - width)
    write(axes, 400, 28, say("a batch of {}, and the share of each").format(batch), 14, SOFT)
    for place in range(batch):
        rank = next(rank for rank, share in enumerate(shares) if place in share)
        x = 400 + cell * (place - batch / 2)
        box(axes, x, 44, cell - 4, 30, colours[rank], INK, 0.8)
        write(axes, x + cell / 2 - 2, 59, f"{place}", 15)
    for rank, (x, share) in enumerate(zip(columns, shares, strict=True)):
        heading(axes, x + width / 2, 28, say("process {}").format(rank))
        for number, place in enumerate(share):
            left = x + width / 2 + cell * (number - len(share) / 2)
            box(axes, left, 104, cell - 4, 30, colours[rank], INK, 0.8)
            write(axes, left + cell / 2 - 2, 119, f"{place}", 15)
            start = 400 + cell * (place - batch / 2 + 0.5) - 2
            axes.plot([start, left + cell / 2 - 2], [76, 102], color=(BLUE, ORANGE)[rank], linewidth=1.5, zorder=0)
    rows = (  # what each does, its colour, what goes over all, and how often
        ("forward", GREY, "batch norm: sums over all pixels", say("in each of {} layers").format(norms)),
        ("own loss / total weight", GREY, "weights of the pixels that count", say("one number")),
        ("backward", GREY, "batch norm: sums of gradients", say("in each of {} layers").format(norms)),
        ("own gradients", PALE_GREEN, "gradients", say("{} numbers").format(f"{parameters:,}")),
        ("the same step", PALE_PURPLE, "", ""),
        ("the same weights", PALE_PURPLE, "nothing to send", ""),
    )
    for i, (text, colour, shared, often) in enumerate(rows):
        y = 164 + 68 * i
        for x in columns:
            box(axes, x, y, width, 42, colour)
            write(axes, x + width / 2, y + 21, say(text), 15)
            arrow(axes, (x + width / 2, y - 26 if i else 138), (x + width / 2, y - 2))
        if often:
            ends = (columns[0] + width + 4, y + 21), (columns[1] - 4, y + 21)
            arrow(axes, *ends, RED, head="<|-|>,head_width=0.3,head_length=0.5")
            weight = "bold" if shared == "gradients" else "normal"
            write(axes, 400, y + 7, say(shared), 14, RED, weight=weight)
            write(axes, 400, y + 36, often, 13, SOFT)
        elif shared:
            write(axes, 400, y - 14, say(shared), 14, SOFT)
    return figure


DRAWN = {"pipeline": draw_pipeline, "labels": draw_labels, "record": draw_record, "order": draw_order}
DRAWN |= {"parallel": draw_parallel}
FIGURES = in_both(DRAWN, JAPANESE)


if __name__ == "__main__":
    main(__doc__, ASSETS, FIGURES)
