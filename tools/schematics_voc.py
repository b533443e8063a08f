"""Draw the figures about DeepLabV3 on Pascal VOC: Question_voc/assets/<name>.svg, and <name>.ja.svg in Japanese.

    python tools/schematics_voc.py [names]

As in schematics.py every number is computed here, by the answers in PyTorch: shapes come from running their networks.
The image is one that Dataset/draw_voc.py draws. A second run writes the same bytes.
"""

import sys
from unittest import mock

import numpy as np
import torch
from matplotlib import colormaps
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
    YELLOW,
    arrow,
    box,
    heading,
    in_both,
    load_answer,
    main,
    new_card,
    new_chart,
    show,
    swatch,
    write,
)

sys.path.insert(0, str(REPOSITORY / "Dataset"))
import draw_voc  # noqa: E402

ASSETS = REPOSITORY / "Question_voc/assets"
SIZE = 513  # of the images whose shapes are shown: the side of the paper's crops
JAPANESE = {
    "image": "画像",
    "mask, in VOC's colours": "VOC の色のマスク",
    "class indices": "クラスのインデックス",
    "index": "番号",
    "bits": "ビット",
    "void": "void（対象外）",
    "red": "赤",
    "green": "緑",
    "blue": "青",
    "input as it is": "入力をそのまま足す",
    "input brought to the new shape": "入力の形を合わせて足す",
    "stride 2, ": "ストライド 2, ",
    "weights": "重み",
    "two 3 × 3 at full width": "全チャンネルの 3 × 3 を二つ",
    "rates": "膨張率",
    "{} pixels of {} × {}": "{2} × {1} のうち {0} 画素",
    "ways from a pixel to the feature": "画素から特徴までの経路の数",
    "ResNet, to classify": "分類用の ResNet",
    "in DeepLabV3": "DeepLabV3 の中",
    "output stride": "出力ストライド",
    "dilation": "膨張率",
    "max pooling": "最大プーリング",
    "rate {}": "膨張率 {}",
    "mean of the image": "画像全体の平均",
    "concatenated": "連結",
    "{} × {} pixels": "{} × {} 画素",
    "{} × {} features": "特徴マップ {} × {}",
    "on a feature": "特徴の上",
    "on padding": "パディングの上",
    "rate {}: {} of 9": "膨張率 {}：9 個中 {} 個",
    "backbone": "バックボーン",
    "head": "ヘッド",
    "auxiliary head": "補助ヘッド",
    "upsampling": "アップサンプリング",
    "logits": "ロジット",
    "loss: {} + {} × {}": "損失：{} + {} × {}",
    "dropout": "ドロップアウト",
    "parameters": "パラメーター",
    "half the classes": "半分のクラスで学習",
    "the other half": "残りの半分で学習",
    "kept: learns at a tenth": "引き継ぐ：学習率は十分の一",
    "drawn anew: learns in full": "初期化し直す：学習率はそのまま",
    "batch norm: frozen": "バッチ正規化：固定",
    "iteration": "イテレーション",
    "learning rate": "学習率",
    "new layers": "新しい層",
    "kept layers": "引き継いだ層",
    "input": "入力",
    "below: channels": "下：チャンネルの数",
    "stages that differ": "違いのあるステージ",
}
BIT_COLOURS = (RED, GREEN, BLUE)


def block(axes, x, y, width, text, colour=PALE_BLUE, height=26, size=13, **style):
    """Put a box with a line of text in it around (x, y)."""
    box(axes, x - width / 2, y - height / 2, width, height, colour, line=0.9, **style)
    write(axes, x, y, text, size, **style)


def mark(axes, x, y, marker, text, colour=INK):
    """Explain a marker: draw it at (x, y), and a text beside it."""
    axes.plot(x, y, marker, color=colour, markersize=8, markeredgewidth=2)
    write(axes, x + 14, y, text, 14, ha="left")


def ink_on(colour):
    """Return the colour of letters that can be read on a colour (3,) uint8."""
    return WHITE if np.dot(colour, (0.299, 0.587, 0.114)) < 140 else INK


def draw_palette(say):
    """Draw an image, its mask, the indices along an outline, and how an index becomes a colour."""
    answer = load_answer("voc_dataset_pytorch")
    image, mask = draw_voc.draw_pair(0, "val", 0)
    figure, axes = new_card(500)
    width, scale = 240, 240 / mask.shape[1]
    height = mask.shape[0] * scale
    for y, text, panel in ((48, "image", image), (292, "mask, in VOC's colours", answer.COLOURS[mask])):
        heading(axes, 24 + width / 2, y - 20, say(text))
        show(axes, panel[::2, ::2], 24, y, width, height)
    side, cell, left, top = 9, 26, 300, 48
    row, column = 324, 346  # along the tail: aeroplane, outline, background
    piece = mask[row : row + side, column : column + side]
    heading(axes, left + side * cell / 2, top - 20, say("class indices"))
    for (i, j), index in np.ndenumerate(piece):
        colour = answer.COLOURS[index]
        box(axes, left + j * cell, top + i * cell, cell, cell, colour / 255, GREY, 0.6)
        write(axes, left + (j + 0.5) * cell, top + (i + 0.5) * cell, f"{index}", 12, ink_on(colour))
    box(axes, left, top, side * cell, side * cell)
    at = 24 + column * scale, 292 + row * scale
    box(axes, at[0] - 2, at[1] - 2, side * scale + 4, side * scale + 4, edge=YELLOW, line=2)
    arrow(axes, (at[0] + side * scale + 4, at[1]), (left - 4, top + side * cell), SOFT, 1.2)
    x, rows = 584, (0, 1, 2, 7, 15, answer.VOID)
    write(axes, x, 28, say("index"), 14, SOFT, ha="right")
    write(axes, x + 84, 28, say("bits"), 14, SOFT)
    for i, index in enumerate(rows):
        y = 62 + 32 * i
        write(axes, x, y, f"{index}", 15, ha="right")
        for bit in range(8):
            place, on = x + 12 + 18 * (7 - bit), index >> bit & 1
            box(axes, place, y - 11, 18, 22, BIT_COLOURS[bit % 3] if on else WHITE, RULE, 0.8)
            write(axes, place + 9, y, f"{on}", 12, WHITE if on else SOFT)
        box(axes, x + 168, y - 11, 22, 22, answer.COLOURS[index] / 255, line=0.8)
        name = say("void") if index == answer.VOID else answer.CLASSES[index]
        y = 330 + 28 * i
        box(axes, left, y - 11, 22, 22, answer.COLOURS[index] / 255, line=0.8)
        write(axes, left + 34, y, f"{index}  {name}", 14, ha="left")
        write(axes, left + 190, y, "({}, {}, {})".format(*answer.COLOURS[index]), 14, SOFT, ha="left")
    for i, name in enumerate(("red", "green", "blue")):
        bits = ", ".join(str(bit) for bit in range(i, 8, 3))
        write(axes, x + 20, 254 + 22 * i, f"{bits}  →  {say(name)}", 14, BIT_COLOURS[i], ha="left")
    return figure


def draw_residual(say):
    """Draw the two kinds of residual block, and what one weighs beside two plain convolutions."""
    answer = load_answer("deeplab_pytorch")
    _, width, _ = answer.RESNETS["50"]
    channels = 4 * width  # after the first stage
    figure, axes = new_card(500)
    for left, title, name, stride in (
        (40, "input as it is", "layer1", 1),
        (420, "input brought to the new shape", "layer2", 2),
    ):
        wide = answer.STAGES[name][0] * width
        layer = answer.Bottleneck(channels, wide, answer.STAGES[name][1], 1)
        assert layer.conv2.stride[0] == stride and isinstance(layer.downsample, torch.nn.Identity) == (stride == 1)
        middle, side = left + 112, left + 296
        heading(axes, left + 170, 28, say(title))
        write(axes, middle, 66, f"{channels}", 15, weight="bold")
        y = 66
        for i, conv in enumerate((layer.conv1, layer.conv2, layer.conv3)):
            kernel = conv.kernel_size[0]
            arrow(axes, (middle, y + 12), (middle, y + 36))
            y += 56
            steps = "BN" if i == 2 else "BN, ReLU"
            text = f"{kernel} × {kernel}, {say('stride 2, ') if conv.stride[0] == 2 else ''}{steps}"
            block(axes, middle, y, 222, text, PALE_ORANGE, 32, 14)
            arrow(axes, (middle, y + 18), (middle, y + 34))
            y += 48
            write(axes, middle, y, f"{conv.out_channels}", 15, weight="bold")
        y += 40
        arrow(axes, (middle, y - 28), (middle, y - 14))
        axes.plot(middle, y, "o", markersize=17, color=WHITE, markeredgecolor=INK, markeredgewidth=1.2, zorder=3)
        write(axes, middle, y, "+", 18, zorder=4)
        write(axes, left + 222, 52, say("input"), 14, BLUE)
        axes.plot([middle + 26, side, side], [66, 66, y], color=BLUE, linewidth=2, solid_capstyle="projecting")
        arrow(axes, (side, y), (middle + 14, y), BLUE, 2)
        if stride == 2:
            block(axes, side, 218, 110, "1 × 1, BN", PALE_BLUE, 32, 14, zorder=3)
            write(axes, side - 8, 256, say("stride 2, ").rstrip(", "), 13, SOFT, ha="right")
        arrow(axes, (middle, y + 13), (middle, y + 26))
        write(axes, middle, y + 40, "ReLU", 14)
    kept = sum(weight.numel() for weight in answer.Bottleneck(channels, width, 1, 1).parameters() if weight.ndim == 4)
    plain = 2 * 9 * channels * channels
    write(axes, 40, 482, f"{say('weights')}: {kept:,}", 14, SOFT, ha="left")
    write(axes, 420, 482, f"{say('two 3 × 3 at full width')}: {plain:,}", 14, SOFT, ha="left")
    return figure


def colour_ways(ways):
    """Return a colour (..., 3) uint8 for 1 to 49 ways: the more, the darker."""
    return np.uint8(255 * np.array(colormaps["YlGnBu"](0.15 + 0.8 * np.log(ways) / np.log(49)))[..., :3])


def draw_dilation(say):
    """Draw the pixels that one feature depends on, after three 3 x 3 convolutions at several rates."""
    answer, side, cell = load_answer("atrous_pytorch"), 17, 14
    figure, axes = new_card(352)
    kernels = 3 * [answer.to_kernel(np.ones((1, 1, 3, 3), np.float32), "cpu")]
    for i, rates in enumerate(answer.STACKS):
        field, extent = answer.find_field(kernels, (1, 1, 1), rates, (side, side, 1), "cpu")
        left = 26 + 256 * i
        heading(axes, left + side * cell / 2, 28, f"{say('rates')} {', '.join(map(str, rates))}")
        colours = colour_ways(np.maximum(field, 1))
        show(axes, np.where(field[..., None] > 0, colours, 255).astype(np.uint8), left, 52, side * cell, side * cell)
        for line in range(1, side):
            axes.plot([left, left + side * cell], [52 + line * cell] * 2, color=GREY, linewidth=0.5)
            axes.plot([left + line * cell] * 2, [52, 52 + side * cell], color=GREY, linewidth=0.5)
        text = say("{} pixels of {} × {}").format(np.count_nonzero(field), extent, extent)
        write(axes, left + side * cell / 2, 310, text, 14)
    for i, ways in enumerate((1, 7, 49)):
        x = 250 + 60 * i
        box(axes, x, 328, 16, 16, colour_ways(ways) / 255, line=0.6)
        write(axes, x + 24, 336, f"{ways}", 13, ha="left")
    write(axes, 430, 336, say("ways from a pixel to the feature"), 13, SOFT, ha="left")
    return figure


def record_shapes(stages):
    """Return [(channels, side)] of an image and what a ResNet-101 makes of it: conv1, pooling, each of the stages."""
    answer = load_answer("deeplab_pytorch")
    shapes = [(3, SIZE)]
    with mock.patch.object(answer, "STAGES", stages), torch.device("meta"):
        network = answer.ResNet(*answer.RESNETS["101"][:2]).eval()
    for name in ("conv1", *stages):
        getattr(network, name).register_forward_hook(lambda _, __, result: shapes.append(tuple(result.shape[1:3])))
    pool = answer.functional.max_pool2d

    def note(x, *arguments, **named):
        result = pool(x, *arguments, **named)
        shapes.append(tuple(result.shape[1:3]))
        return result

    with mock.patch.object(answer.functional, "max_pool2d", note), torch.inference_mode():
        network(torch.zeros(1, 3, SIZE, SIZE, device="meta"))
    return shapes


def draw_stages(say):
    """Draw the features after each stage of a ResNet-101, as published first and with dilation in place of strides."""
    answer = load_answer("deeplab_pytorch")
    dilated = answer.STAGES
    plain = {name: (wide, 1 if name == "layer1" else 2, 1, 1) for name, (wide, *_) in dilated.items()}
    blocks = answer.RESNETS["101"][0]
    names = ["image", "conv1", "max pooling", *dilated]
    figure, axes = new_card(560)
    for y, title, stages in ((150, "ResNet, to classify", plain), (408, "in DeepLabV3", dilated)):
        write(axes, 24, y - 122, say(title), 17, weight="bold", ha="left")
        stride = 1
        for i, (name, (channels, side)) in enumerate(zip(names, record_shapes(stages), strict=True)):
            x, size = 68 + 110 * i, 4.2 * np.sqrt(side)
            colour = GREY if i == 0 else PALE_BLUE if i < 5 else PALE_ORANGE
            box(axes, x - size / 2, y - size / 2, size, size, colour)
            write(axes, x, y, f"{side}", 14)
            times = f" × {blocks[i - 3]}" if i > 2 else ""
            write(axes, x, y - 84, (say(name) if i in (0, 2) else name) + times, 13)
            write(axes, x, y + 64, f"{channels}", 13, SOFT)
            stride *= (1, 2, 2)[i] if i < 3 else stages[name][1]
            write(axes, x, y + 84, f"/ {stride}", 14, weight="bold")
            if i > 2:
                _, _, first, others = stages[name]
                rate = f"{first}, {others}" if first != others else f"{first}"
                write(axes, x, y + 104, rate, 14, ORANGE if others > 1 else SOFT)
        write(axes, 24, y + 104, say("dilation"), 13, SOFT, ha="left")
    write(axes, 24, 542, f"/ 8: {say('output stride')}", 13, SOFT, ha="left")
    write(axes, 240, 542, say("below: channels"), 13, SOFT, ha="left")
    swatch(axes, 540, 542, say("stages that differ"), PALE_ORANGE)
    return figure


def draw_aspp(say):
    """Draw the five branches of ASPP with their taps to scale, on the features of an image of 513 x 513."""
    answer = load_answer("deeplab_pytorch")
    blocks, width, rates = answer.RESNETS["101"]
    length, wide = -(-SIZE // 8), 4 * width
    side, middle = 76, (-(-SIZE // 8)) // 2
    figure, axes = new_card(560)
    texts = ["1 × 1", *(f"3 × 3, {say('rate {}').format(rate)}" for rate in rates), say("mean of the image")]
    centre = 40 + 104 * 2 + side / 2 + 4
    box(axes, 34, centre - 70, 26, 140, PALE_BLUE)
    write(axes, 47, centre - 84, f"{32 * width}", 14, weight="bold")
    write(axes, 47, centre + 84, f"{length} × {length}", 13, SOFT)
    for i, text in enumerate(texts):
        y = 44 + 104 * i
        arrow(axes, (64, centre), (118, y + side / 2), SOFT, 1.2)
        box(axes, 132, y, side, side, WHITE if i < 4 else PALE_GREEN)
        rate = 0 if i == 0 else rates[i - 1] if i < 4 else None
        steps = (0,) if rate == 0 else (-1, 0, 1) if rate else ()
        for down in steps:
            for right in steps:
                x, tap = (
                    132 + side * (middle + 0.5 + (rate or 0) * right) / length,
                    y + side * (middle + 0.5 + (rate or 0) * down) / length,
                )
                inside = 132 <= x <= 132 + side and y <= tap <= y + side
                axes.plot(
                    x, tap, "o" if inside else "x", color=ORANGE if inside else RED, markersize=4.5, markeredgewidth=1.5
                )
        write(axes, 254, y + 18, text, 14, ha="left", weight="bold")
        write(axes, 254, y + 42, "1 × 1, BN, ReLU" if i == 4 else "BN, ReLU", 13, SOFT, ha="left")
        arrow(axes, (420, y + side / 2), (462, y + side / 2))
        box(axes, 468, y, 20, side, PALE_ORANGE if i < 4 else PALE_GREEN)
        write(axes, 500, y + side / 2, f"{wide}", 14, weight="bold", ha="left")
        box(axes, 588, 100 + 72 * i, 26, 72, PALE_ORANGE if i < 4 else PALE_GREEN, line=0.8)
        arrow(axes, (534, y + side / 2), (584, 136 + 72 * i), SOFT, 1.2)
    write(axes, 601, 84, f"{len(texts) * wide}", 14, weight="bold")
    write(axes, 601, 480, say("concatenated"), 13, SOFT)
    mark(axes, 650, 514, "o", say("on a feature"), ORANGE)
    mark(axes, 650, 538, "x", say("on padding"), RED)
    arrow(axes, (620, centre), (712, centre))
    write(axes, 666, centre - 34, "1 × 1", 13, SOFT)
    write(axes, 666, centre - 16, "BN, ReLU", 13, SOFT)
    box(axes, 718, centre - 70, 26, 140, PALE_PURPLE)
    write(axes, 731, centre - 84, f"{wide}", 14, weight="bold")
    write(axes, 731, centre + 84, f"{length} × {length}", 13, SOFT)
    return figure


def draw_taps(say):
    """Draw the taps of ASPP around the feature in the middle, for crops of 128 and of 513 pixels."""
    answer, deeplab = load_answer("atrous_pytorch"), load_answer("deeplab_pytorch")
    image, mask = draw_voc.draw_pair(0, "val", 0)
    rates = deeplab.RESNETS["101"][2]
    figure, axes = new_card(540)
    span, colours = 2 * (rates[-1] + 4), (GREEN, BLUE, RED)
    for left, size in ((30, 128), (424, SIZE)):
        length, scale = -(-size // 8), 346 / span
        heading(axes, left + 173, 28, say("{} × {} pixels").format(size, size))
        box(axes, left, 50, 346, 346, GREY, line=0.8, zorder=-1)
        middle, counts = length // 2, {}
        corner = left + 173 - (middle + 0.5) * scale, 223 - (middle + 0.5) * scale
        small = answer.centre_crop(image, mask, 256 if size > 256 else size)[0]
        show(axes, small, *corner, length * scale, length * scale)
        for rate, colour in zip(rates, colours, strict=True):
            taps, _ = answer.count_taps(length, rate, "cpu")
            counts[rate] = int(taps[middle, middle])
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    inside = all(0 <= middle + rate * step < length for step in (down, right))
                    style = {"markersize": 8, "markeredgewidth": 2 if not inside else 1, "color": colour}
                    style |= {"markeredgecolor": WHITE} if inside else {}
                    axes.plot(
                        left + 173 + rate * right * scale, 223 + rate * down * scale, "o" if inside else "x", **style
                    )
        write(axes, left + 173, 416, say("{} × {} features").format(length, length), 14, SOFT)
        for i, (rate, colour) in enumerate(zip(rates, colours, strict=True)):
            axes.plot(left + 92, 444 + 24 * i, "s", color=colour, markersize=7)
            write(axes, left + 108, 444 + 24 * i, say("rate {}: {} of 9").format(rate, counts[rate]), 14, ha="left")
    mark(axes, 260, 522, "o", say("on a feature"))
    mark(axes, 424, 522, "x", say("on padding"))
    return figure


def draw_network(say):
    """Draw DeepLabV3 with both heads: shapes, parameters, and the loss of training."""
    answer, training = load_answer("deeplab_pytorch"), load_answer("deeplab_finetune_pytorch")
    with torch.device("meta"):
        network = answer.DeepLabV3("101")
    numbers = {name: sum(weight.numel() for weight in part.parameters()) for name, part in network.named_children()}
    _, width, _ = answer.RESNETS["101"]
    length, classes = -(-SIZE // 8), len(answer.CLASSES)
    figure, axes = new_card(452)
    upper, lower = 140, 316
    for x, y, wide, colour, name, text in (
        (100, 76, 296, PALE_BLUE, "backbone", "backbone"),
        (414, 76, 264, PALE_ORANGE, "classifier", "head"),
        (414, 252, 264, PALE_PURPLE, "aux_classifier", "auxiliary head"),
    ):
        box(axes, x, y, wide, 124, colour, RULE)
        write(axes, x + wide / 2, y - 36, say(text), 16, weight="bold")
        write(axes, x + wide / 2, y - 15, f"{numbers[name]:,} {say('parameters')}", 13, SOFT)
    show(axes, draw_voc.draw_pair(0, "val", 0)[0][::8, 40:-40:8], 24, upper - 24, 54, 48)
    write(axes, 51, upper + 38, f"{SIZE}", 13, SOFT)
    xs, last = [132, 190, 248, 306, 364], 82
    for x, name, side in zip(xs, ("conv1", *answer.STAGES), (257, 129, length, length, length), strict=True):
        arrow(axes, (last, upper), (x - 25, upper), line=1.2)
        block(axes, x, upper, 50, name, WHITE, 44, 12)
        write(axes, x, upper + 38, f"{side}", 13, SOFT)
        last = x + 26
    # The main head drops what ASPP finds, the auxiliary one what goes into its last layer.
    for y, start, dropped, conv, drop in ((upper, 364, 0.5, 603, 523), (lower, 306, 0.1, 500, 580)):
        if y == upper:
            arrow(axes, (last, y), (419, y), line=1.2)
            block(axes, 443, y, 46, "ASPP", WHITE, 44, 13)
            arrow(axes, (467, y), (476, y), line=1.2)
        else:
            axes.plot([start, start, 440], [upper + 54, y, y], color=PURPLE, linewidth=2, solid_joinstyle="miter")
            arrow(axes, (440, y), (476, y), PURPLE, 2)
        block(axes, conv, y, 46, "3 × 3", WHITE, 44, 13)
        write(axes, conv, y - 38, f"{4 * width}", 13, weight="bold")
        block(axes, drop, y, 92, say("dropout"), WHITE, 44, 12)
        write(axes, drop, y + 38, f"{dropped}", 13, SOFT)
        end = max(conv - 24, drop - 47)
        arrow(axes, (end - 9, y), (end, y), line=1.2)
        arrow(axes, (627, y), (633, y), line=1.2)
        block(axes, 653, y, 38, "1 × 1", WHITE, 44, 12)
        arrow(axes, (673, y), (692, y), line=1.2)
        block(axes, 708, y, 30, "↑", WHITE, 44, 18)
        arrow(axes, (724, y), (738, y), line=1.2)
        box(axes, 742, y - 27, 40, 54, PALE_GREEN)
        write(axes, 762, y, f"{classes}", 15, weight="bold")
        write(axes, 762, y + 38, f"{SIZE}", 13, SOFT)
        write(axes, 762, y - 40, say("logits"), 13)
    write(axes, 364, upper - 38, f"{32 * width}", 13, weight="bold")
    write(axes, 306, upper - 38, f"{16 * width}", 13, weight="bold")
    write(axes, 24, 424, f"↑  {say('upsampling')}", 14, SOFT, ha="left")
    loss = say("loss: {} + {} × {}").format(say("head"), training.AUX_WEIGHT, say("auxiliary head"))
    write(axes, 414, 424, loss, 15, ha="left")
    return figure


def draw_finetune(say):
    """Draw what fine-tuning keeps of a trained network, what it draws anew, and how fast each learns."""
    answer = load_answer("deeplab_finetune_pytorch")
    figure, axes = new_card(560)
    for left, title, last in ((40, "half the classes", PALE_BLUE), (450, "the other half", PALE_ORANGE)):
        heading(axes, left + 155, 28, say(title))
        box(axes, left, 56, 116, 170, PALE_BLUE)
        write(axes, left + 58, 80, say("backbone"), 14)
        for y in (106, 140, 174):
            if left > 40:
                box(axes, left + 14, y, 88, 20, WHITE, RULE, 0, hatch="////")
            box(axes, left + 14, y, 88, 20, "none" if left > 40 else WHITE, line=0.7)
            write(axes, left + 58, y + 10, "BN", 12)
        for y, text in ((86, "ASPP, 3 × 3"), (196, "3 × 3")):
            arrow(axes, (left + 118, y), (left + 146, y))
            block(axes, left + 200, y, 104, text, PALE_BLUE, 60, 14)
            arrow(axes, (left + 254, y), (left + 268, y))
            block(axes, left + 294, y, 48, "1 × 1", last, 60, 14)
    arrow(axes, (372, 141), (440, 141), BLUE, 2.5)
    write(axes, 404, 112, ".pth", 15, BLUE, weight="bold")
    box(axes, 590, 259, 16, 16, WHITE, RULE, 0, hatch="////")
    for x, colour, text in (
        (40, PALE_BLUE, "kept: learns at a tenth"),
        (290, PALE_ORANGE, "drawn anew: learns in full"),
        (590, "none", "batch norm: frozen"),
    ):
        swatch(axes, x, 267, say(text), colour)
    number, rate = answer.NUMBERS["iterations"][0], answer.LEARNING_RATE
    chart = new_chart(figure, 110, 310, 650, 180, xlabel=say("iteration"), ylabel=say("learning rate"))
    steps = np.arange(number)
    rates = np.array([answer.learning_rate(step, number, rate) for step in steps])
    for scale, text, colour in ((1, "new layers", ORANGE), (0.1, "kept layers", BLUE)):
        chart.plot(steps, scale * rates, color=colour, linewidth=2.5)
        chart.text(
            0.3 * number, scale * rates[int(0.3 * number)] + 0.04 * rate, say(text), fontsize=0.75 * 14, color=colour
        )
    chart.set(xlim=(0, number), ylim=(0, 1.05 * rate))
    return figure


DRAWN = {
    "palette": draw_palette,
    "residual": draw_residual,
    "dilation": draw_dilation,
    "stages": draw_stages,
    "aspp": draw_aspp,
    "taps": draw_taps,
    "deeplab": draw_network,
    "finetune": draw_finetune,
}
FIGURES = in_both(DRAWN, JAPANESE)


if __name__ == "__main__":
    main(__doc__, ASSETS, FIGURES)
