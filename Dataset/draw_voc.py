"""Draws pictures in the layout of Pascal VOC 2012, with masks: thirteen of its classes, the same for the same seed.

Nothing is downloaded, and no photograph goes into them. Each object is some dozens of flat shapes, the farther ones
first, each rounded off at its rim and lit by the picture's one lamp; its outline is the mask. So the programs that read
VOC can be tried before its 2 GB are fetched (download_voc.py), on files of the same names, sizes and colour map:

    DIR/VOCdevkit/VOC2012/JPEGImages/2012_000001.jpg
    DIR/VOCdevkit/VOC2012/SegmentationClass/2012_000001.png      palette; 0 background, 1 to 20 classes, 255 void
    DIR/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt       also val.txt and trainval.txt

    python Dataset/draw_voc.py                                        draws 200 and 50 into Dataset/voc
    python Dataset/draw_voc.py --out more --train 1000 --val 200      draws more
"""

import argparse
import io
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("draw_voc.py: interrupted", file=sys.stderr) or 130))

import cv2
import numpy as np
from draw_newts import (
    blend,
    colour,
    encoded,
    in_processes,
    lit,
    ramp,
    rough_noise,
    smooth_noise,
    threefold,
    write_whole,
)
from PIL import Image
from tqdm import tqdm

CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
VOID = 255
VOID_WIDTH = 5  # pixels, as along the objects of VOC
FIRST_NUMBER = {"train": 1, "val": 100001}  # so that drawing more of one leaves the others as they were
MOST = 100000  # pictures of a split, so that the numbers keep their six digits
FOLDER = Path("VOCdevkit", "VOC2012")
LISTS = Path("ImageSets", "Segmentation")
MARK = "drawn_by_draw_voc.txt"  # in VOC2012: what tells a drawn set from the real one


def make_colour_map():
    """VOC's colour of each class, (256, 3) uint8 RGB: the bits of the class number, dealt to red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):  # bits 0, 1, 2 are the highest of red, green, blue, bits 3, 4, 5 the next lower ones
        for channel in range(3):
            colours[:, channel] |= ((numbers >> bit & 1) << (7 - bit // 3)).astype(np.uint8) * (bit % 3 == channel)
    return colours


COLOUR_MAP = make_colour_map()


# ---------------------------------------------------------------------------------------------------------- shapes
# Lengths are in metres; x goes to the right, y up, and an object stands on y = 0 and looks to the right.


def curve(points, rounds=3):
    """A closed polygon (n, 2), its corners cut off again and again: smooth, but sharp where a point stands twice."""
    points = np.asarray(points, float)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


def bend(points, count=16):
    """A smooth open line of count points from the first of the points (n, 2) to the last, close by those between."""
    points = np.repeat(np.asarray(points, float)[:, None], count, axis=1)
    share = np.linspace(0, 1, count)[:, None]
    while len(points) > 1:  # a Bezier curve, by De Casteljau's rule
        points = points[:-1] * (1 - share) + points[1:] * share
    return points[0]


def band(points, widths):
    """The outline of a line (n, 2) as wide as widths, spread evenly along it, with round ends."""
    points = np.asarray(points, float)
    half = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, np.size(widths)), np.ravel(widths)) / 2
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.stack([-along[:, 1], along[:, 0]], axis=1)
    turn = np.linspace(np.pi / 2, -np.pi / 2, 7)[:, None]
    end = points[-1] + half[-1] * (np.sin(turn) * side[-1] + np.cos(turn) * along[-1])
    start = points[0] + half[0] * (-np.sin(turn) * side[0] - np.cos(turn) * along[0])
    return np.concatenate([points + side * half[:, None], end, (points - side * half[:, None])[::-1], start])


def oval(x, y, width, height, angle=0.0, count=28):
    """An ellipse about (x, y) with these radii, turned by an angle in radians."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([width * np.cos(turn), height * np.sin(turn)], axis=1)
    return points @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]] + (x, y)


def box(left, bottom, right, top, corner=0.0):
    """A rectangle, its corners rounded with this radius."""
    if not corner:
        return np.array([(left, bottom), (right, bottom), (right, top), (left, top)], float)
    turn = np.linspace(0, np.pi / 2, 5)
    centres = (right - corner, top - corner), (left + corner, top - corner), (left + corner, bottom + corner)
    centres = (*centres, (right - corner, bottom + corner))
    arcs = [
        np.stack([np.cos(turn + quarter * np.pi / 2), np.sin(turn + quarter * np.pi / 2)], axis=1) * corner + centre
        for quarter, centre in enumerate(centres)
    ]
    return np.concatenate(arcs)


def bumpy(points, generator, size):
    """A closed outline (n, 2) with bumps of about this size, as of wool and leaves."""
    points = np.asarray(points, float)
    middle = points.mean(axis=0)
    length = np.linalg.norm(np.diff(points, axis=0, append=points[:1]), axis=1).sum()
    count = max(int(length / size), 5)
    place = np.linspace(0, len(points), 8 * count, endpoint=False)
    dense = np.stack([np.interp(place, range(len(points) + 1), np.r_[axis, axis[0]]) for axis in points.T], axis=1)
    bumps = np.abs(np.sin(np.linspace(0, np.pi * count, len(dense)) + 0.4 * generator.standard_normal())) * size * 0.35
    out = (dense - middle) / (np.linalg.norm(dense - middle, axis=1, keepdims=True) + 1e-9)
    return dense + out * bumps[:, None]


def to_quad(source, target):
    """The projection (3, 3) that takes the corners source (4, 2) to target (4, 2)."""
    return cv2.getPerspectiveTransform(np.float32(source), np.float32(target)).astype(float)


class Pen:
    """Draws the parts of one thing, the farther ones first, on a layer of its own.

    matrix (3, 3) takes a place in metres to pixels, light (3,) points to the lamp (x right, y down, z to the camera);
    pose is one of VIEWS, facing 1 where the thing looks to the right and -1 where the matrix mirrors it.
    What comes of it: colours (height, width, 3) and alpha (height, width), from 0 to 1.
    """

    def __init__(self, generator, shape, matrix, light, pose="", facing=1):
        self.generator, self.matrix, self.light = generator, matrix, light
        self.pose, self.facing = pose, facing
        self.colours = np.zeros((*shape, 3), np.float32)
        self.alpha = np.zeros(shape, np.float32)
        self.grains = smooth_noise(generator, shape, 3) * 0.7 + smooth_noise(generator, shape, 20) * 0.4
        self.unit = self.scale_at((0, 0.5))

    def scale_at(self, point):
        """Pixels per metre around a point."""
        ends = self.to_pixels(np.array([point, point], float) + [(0, 0), (0, 0.01)])
        return np.linalg.norm(ends[1] - ends[0]) / 0.01

    def to_pixels(self, points):
        """Where places (n, 2) in metres lie in the picture."""
        points = np.asarray(points, float)
        x, y, w = self.matrix @ np.stack([points[:, 0], points[:, 1], np.ones(len(points))])
        return np.stack([x, y], axis=1) / w[:, None]

    def through(self, matrix, point=(0, 0)):
        """A pen for the same layer whose places a projection (3, 3) takes to those of this one: for a face of a box."""
        pen = object.__new__(Pen)
        pen.__dict__.update(self.__dict__)
        pen.matrix = self.matrix @ matrix
        pen.unit = pen.scale_at(point)
        return pen

    def fill(self, points, tint, bulge=0.0, gloss=0.08, grain=0.03, within=None, opacity=1.0, ambient=0.45):
        """Fill an outline (n, 2) with a colour (3,); bulge is how far from its rim it's round, in metres.

        within: what an earlier call returned, to draw inside of that part only. Returns (window, cover).
        """
        pixels = self.to_pixels(points).clip(-2000, 3000)
        height, width = self.alpha.shape
        left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 2, 0)
        right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 3, (width, height))
        if left >= right or top >= bottom:
            return np.s_[0:0, 0:0], np.zeros((0, 0), np.float32)
        window = np.s_[top:bottom, left:right]
        drawn = np.zeros((bottom - top, right - left), np.uint8)
        outline = np.round((pixels - (left, top)) * 16).astype(np.int32)
        cv2.fillPoly(drawn, [outline], 255, cv2.LINE_AA, 4)
        cover = drawn.astype(np.float32) / 255
        if within is not None:
            (rows, columns), inner = within
            whole = np.zeros(self.alpha.shape, np.float32)
            whole[rows, columns] = inner
            cover = cover * whole[window]
        colours = np.empty((*cover.shape, 3), np.float32)
        colours[:] = tint
        if grain:
            colours *= threefold(1 + grain * self.grains[window])
        radius = float(bulge * self.unit)
        if radius > 1:
            # The distance to the rim makes the height: a quarter of a circle, then flat.
            inside = cv2.copyMakeBorder((drawn > 127).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            if top == 0:
                inside[0] = inside[1]  # what the picture cuts off goes on beyond it
            if bottom == height:
                inside[-1] = inside[-2]
            if left == 0:
                inside[:, 0] = inside[:, 1]
            if right == width:
                inside[:, -1] = inside[:, -2]
            distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
            rise = radius * np.sqrt(1 - (1 - np.minimum(distance / radius, 1)) ** 2)
            rise = cv2.GaussianBlur(rise, (0, 0), 0.16 * radius + 0.6)
            slope_x, slope_y = (cv2.Sobel(rise, cv2.CV_32F, *order) / 8 for order in ((1, 0), (0, 1)))
            normal = np.stack([-slope_x, -slope_y, np.ones_like(rise)])
            normal /= np.sqrt((normal * normal).sum(axis=0))
        else:
            normal = np.zeros((3, *cover.shape), np.float32)
            normal[2] = 1
        colours = lit(colours, normal, self.light, gloss, ambient).astype(np.float32)
        cover = cover * np.float32(opacity)
        self.colours[window] = blend(self.colours[window], colours, cover)
        self.alpha[window] = np.maximum(self.alpha[window], cover)
        return window, cover

    def line(self, points, widths, tint, **settings):
        """Fill a line (n, 2) of these widths."""
        return self.fill(band(points, widths), tint, **settings)


def near(tint, generator, spread=0.06):
    """A colour a little lighter or darker than another."""
    return np.clip(tint * generator.normal(1, spread), 0, 1).astype(np.float32)


BLACK, WHITE = np.float32((0.05, 0.05, 0.06)), np.float32((0.93, 0.93, 0.92))
GLASS = ((46, 62, 76), (60, 78, 92), (34, 42, 50), (86, 104, 118))
PAINTS = (
    (176, 30, 34), (28, 62, 128), (226, 226, 224), (40, 42, 46), (150, 154, 158), (30, 96, 66), (222, 176, 44),
    (96, 120, 150), (112, 30, 44), (196, 106, 40), (180, 172, 150), (52, 128, 150),
)  # fmt: skip
CLOTHES = (
    (160, 40, 44), (40, 64, 120), (230, 228, 222), (36, 36, 40), (70, 110, 70), (214, 170, 70), (120, 80, 130),
    (90, 130, 170), (140, 110, 90), (200, 110, 120), (88, 92, 100), (60, 130, 130),
)  # fmt: skip
TROUSERS = ((44, 56, 88), (34, 34, 38), (110, 96, 76), (84, 86, 92), (66, 82, 112), (150, 138, 116))
SKINS = ((236, 196, 170), (222, 176, 146), (196, 146, 112), (150, 104, 76), (104, 70, 52), (244, 208, 186))
HAIRS = ((40, 30, 26), (78, 52, 36), (124, 86, 52), (188, 150, 92), (24, 22, 24), (150, 146, 142), (120, 58, 34))
WOODS = ((150, 102, 62), (110, 70, 44), (186, 142, 94), (84, 54, 38), (206, 176, 134), (128, 84, 58))
LEAVES = ((58, 104, 46), (84, 132, 58), (44, 84, 50), (112, 146, 70), (66, 112, 84))


# ---------------------------------------------------------------------------------------------------------- vehicles
# Formatted by hand: the formatter would put each point of an outline on a line of its own.
# fmt: off


def glass(pen, outline, tint, within=None):
    """A pane with the sky in it: lighter above, and a slanted reflection."""
    pane = pen.fill(outline, tint, bulge=0.02, gloss=0.25, grain=0.02, within=within)
    (left, bottom), (right, top) = np.min(outline, axis=0), np.max(outline, axis=0)
    wide, tall = right - left, top - bottom
    pen.fill(box(left, bottom + 0.55 * tall, right, top), tint * 1.5 + 0.06, within=pane, opacity=0.5, grain=0.08)
    start = left + wide * pen.generator.uniform(0.1, 0.6)
    slant = [(start, bottom), (start + 0.22 * wide, bottom), (start + 0.42 * wide, top), (start + 0.2 * wide, top)]
    pen.fill(slant, WHITE, within=pane, opacity=0.22)
    return pane


def wheel(pen, x, y, radius, rim, body=None):
    """A tyre on a rim with spokes, in the dark of its arch where it has one."""
    if body is not None:
        pen.fill(oval(x, y + 0.03 * radius, 1.22 * radius, 1.22 * radius), BLACK * 0.6, within=body)
    pen.fill(oval(x, y, radius, radius), (0.09, 0.09, 0.1), bulge=0.16 * radius, grain=0.1)
    pen.fill(oval(x, y, 0.66 * radius, 0.66 * radius), rim, bulge=0.1 * radius, gloss=0.3)
    phase, count = pen.generator.uniform(0, 1), pen.generator.integers(5, 8)
    for turn in np.arange(count) * 2 * np.pi / count + phase:
        hole = oval(x + 0.42 * radius * np.cos(turn), y + 0.42 * radius * np.sin(turn), 0.11 * radius, 0.11 * radius)
        pen.fill(hole, rim * 0.25)
    pen.fill(oval(x, y, 0.14 * radius, 0.14 * radius), rim * 0.7, gloss=0.3)


def draw_car(pen, under):
    """A saloon, a hatchback, an estate or a van from the side, or any car from the front or from behind."""
    generator = pen.generator
    paint, pane = colour(generator, *PAINTS), colour(generator, *GLASS)
    rim = colour(generator, (176, 178, 182), (140, 142, 148), (90, 92, 96))
    if generator.random() < 0.28:
        return draw_car_front(pen, paint, pane, generator.random() < 0.4)
    kind = generator.integers(4)
    roof = (1.43, 1.48, 1.46, 1.74)[kind] + generator.normal(0, 0.02)
    back = ((-1.62, -1.0), (-2.02, -1.62), (-2.12, -1.92), (-2.05, -1.86))[kind]  # lower and upper end of the cabin
    radius = 0.33 if kind < 3 else 0.38
    pen.fill(box(-1.95, 0.2, 1.95, 0.6, 0.1), BLACK)
    for x in (-1.22, 1.38):
        pen.fill(oval(x, radius, radius, radius), BLACK * 0.8)
    tail = 0.94 if kind == 0 else 1.0
    nose = 0.86 if kind < 3 else 0.98
    cabin_outline = curve([(back[0], 0.85), (back[0], 0.88), (back[1], roof - 0.03), (back[1] + 0.3, roof),
                           (0.1, roof), (0.42, roof - 0.05), (1.2, 0.93), (1.2, 0.85)])
    pen.fill(cabin_outline, paint, bulge=0.16, gloss=0.3)
    body = pen.fill(curve([(-2.1, 0.3), (-2.18, 0.45), (-2.16, 0.8), (-2.1, tail), (-1.5, tail + 0.02), (0.9, 0.98),
                           (1.6, nose + 0.04), (2.1, nose - 0.1), (2.2, 0.55), (2.14, 0.3), (2.0, 0.24),
                           (-2.0, 0.24)]), paint, bulge=0.3, gloss=0.35)
    pillar, low = -0.3 + generator.normal(0, 0.05), 0.98
    slope = (roof - low - 0.08) / (1.02 - 0.36)
    high = roof - 0.09
    front = [(pillar + 0.06, low), (0.98, low), (0.98 - (high - low) / slope, high), (pillar + 0.06, high)]
    lower = back[0] + 0.24 if kind else back[0] + 0.3
    rear = [(lower, low), (pillar - 0.06, low), (pillar - 0.06, high), (back[1] + 0.14, high)]
    for outline in (front, rear):
        pen.fill(np.array(outline) * 1.0, BLACK)
        middle = np.mean(outline, axis=0)
        glass(pen, middle + (np.array(outline) - middle) * 0.93, pane)
    if kind > 1:
        pen.line([(-1.25, low), (-1.25, high)], 0.06, paint)
    dark = paint * 0.45
    for x in (pillar, 0.82, -1.2 if kind else -1.05):
        pen.line([(x, 0.95), (x - 0.02, 0.4)], 0.018, dark, within=body)
    pen.line([(-1.9, 0.78), (1.9, 0.74)], 0.02, paint * 1.25 + 0.04, within=body, opacity=0.7)
    pen.line([(-1.0, 0.33), (1.0, 0.33)], 0.07, dark, within=body)
    for x in (pillar - 0.28, 0.42):
        pen.line([(x, 0.84), (x + 0.16, 0.84)], 0.035, near(paint * 0.6, generator), gloss=0.3)
    pen.fill(oval(2.06, nose - 0.16, 0.13, 0.075, -0.3), (0.95, 0.95, 0.85), bulge=0.03, gloss=0.5, within=body)
    pen.fill(oval(-2.12, tail - 0.14, 0.09, 0.11), (0.75, 0.06, 0.06), bulge=0.03, gloss=0.3, within=body)
    pen.fill(curve([(0.92, 0.95), (1.02, 1.1), (0.86, 1.1), (0.82, 0.97)]), paint * 0.8, bulge=0.03)
    for x in (-1.32, 1.3):
        wheel(pen, x, radius, radius, rim, body)


def draw_car_front(pen, paint, pane, is_rear):
    """A car from the front or from behind."""
    generator = pen.generator
    for side in (-1, 1):
        pen.fill(box(side * 0.74 - 0.13, 0, side * 0.74 + 0.13, 0.5, 0.05), BLACK, grain=0.1)
    pen.fill(box(-0.8, 0.2, 0.8, 0.5), BLACK)
    tall = generator.uniform(1.38, 1.6)
    pen.fill(curve([(-0.8, 0.8), (-0.74, 0.95), (-0.56, tall), (0.56, tall), (0.74, 0.95), (0.8, 0.8)], 2), paint, 0.12)
    screen = [(-0.68, 0.93), (-0.53, tall - 0.1), (0.53, tall - 0.1), (0.68, 0.93)]
    glass(pen, np.array(screen), pane)
    for side in (-1, 1):
        pen.fill(curve([(side * 0.2 - 0.14, 0.93), (side * 0.2 - 0.1, 1.16), (side * 0.2 + 0.1, 1.16),
                        (side * 0.2 + 0.14, 0.93)]),
                 pane * 0.45, opacity=0.7)  # the seats behind the pane
        pen.fill(oval(side * 0.88, 0.98, 0.1, 0.07), paint * 0.85, bulge=0.04)
    body = pen.fill(curve([(-0.9, 0.28), (-0.92, 0.6), (-0.88, 0.86), (-0.7, 0.96), (0.7, 0.96), (0.88, 0.86),
                           (0.92, 0.6), (0.9, 0.28)]), paint, bulge=0.2, gloss=0.35)
    if is_rear:
        pen.line([(-0.66, 0.84), (0.66, 0.84)], 0.02, paint * 0.5)
        pen.line([(-0.62, 0.52), (0.62, 0.52)], 0.02, paint * 0.5)
    else:
        grille = pen.fill(box(-0.42, 0.52, 0.42, 0.72, 0.06), BLACK)
        for y in (0.57, 0.62, 0.67):
            pen.line([(-0.4, y), (0.4, y)], 0.016, (0.6, 0.6, 0.62), within=grille)
        pen.fill(oval(0, 0.63, 0.06, 0.06), (0.8, 0.8, 0.82), bulge=0.02, gloss=0.5)
        pen.line([(-0.75, 0.88), (-0.45, 0.8), (0.45, 0.8), (0.75, 0.88)], 0.016, paint * 0.6)
    lamp = (0.75, 0.06, 0.06) if is_rear else (0.96, 0.96, 0.88)
    for side in (-1, 1):
        pen.fill(oval(side * 0.67, 0.68, 0.17, 0.095, side * 0.25), BLACK, within=body)
        pen.fill(oval(side * 0.67, 0.68, 0.14, 0.075, side * 0.25), lamp, bulge=0.03, gloss=0.5)
        pen.fill(oval(side * 0.7, 0.4, 0.07, 0.045), (0.9, 0.6, 0.2) if is_rear else (0.85, 0.85, 0.8), gloss=0.3)
    pen.line([(-0.82, 0.34), (0.82, 0.34)], 0.1, paint * 0.4, within=body)
    pen.fill(box(-0.26, 0.33, 0.26, 0.45), WHITE)
    for x in np.linspace(-0.18, 0.18, 6):
        pen.line([(x, 0.365), (x, 0.415)], 0.03, BLACK)


def corner_view(pen, length, width, height, turn, shrink):
    """Pens for the side and the front of a box that looks to the right and shows its front by a share turn.

    The side's places are (0..length, 0..height), the front's (0..width, 0..height); what is farther is smaller.
    """
    eye = 0.5 * height
    side, front = length * (1 - 0.55 * turn), width * 1.5 * turn
    edge = (side - front) / 2  # where the two meet; the middle of both is at 0

    def at(x, y, scale):
        return x, eye + (y - eye) * scale

    flank = to_quad([(0, 0), (length, 0), (length, height), (0, height)],
                    [at(edge - side, 0, shrink), at(edge, 0, 1), at(edge, height, 1), at(edge - side, height, shrink)])
    face = to_quad([(0, 0), (width, 0), (width, height), (0, height)],
                   [at(edge, 0, 1), at(edge + front, 0, 0.96), at(edge + front, height, 0.96), at(edge, height, 1)])
    return pen.through(flank, (length / 2, 1)), pen.through(face, (width / 2, 1))


def draw_bus(pen, under):
    """A bus, of one storey or two, showing its side and its front."""
    generator = pen.generator
    paint = colour(generator, (190, 32, 36), (222, 170, 34), (36, 84, 150), (40, 120, 80), (230, 230, 226),
                   (206, 98, 36))
    second = colour(generator, (240, 240, 236), (40, 44, 52), (220, 180, 60), (60, 110, 170))
    pane, rim = colour(generator, *GLASS), np.float32((0.6, 0.6, 0.62))
    double = generator.random() < 0.25
    length, width, height = generator.uniform(7.5, 10), 2.5, 4.2 if double else 3.0
    turn = generator.uniform(0.35, 0.9)
    side, front = corner_view(pen, length, width, height, turn, 1 - 0.38 * turn)
    side.fill(box(0.2, 0.12, length - 0.05, 0.6), BLACK)
    front.fill(box(0.05, 0.12, width - 0.1, 0.6), BLACK)
    body = side.fill(box(0, 0.32, length, height, 0.12), paint, bulge=0.1, gloss=0.2, ambient=0.55)
    side.fill(box(0, 0.32, length, 0.85), second, within=body, grain=0.06)
    side.fill(box(0, height - 0.22, length, height), paint * 1.2 + 0.05, within=body, opacity=0.6)
    floors = [1.35, 2.75] if double else [1.4]
    for floor in floors:
        count = int(length / 1.35)
        for index in range(count):
            left = 0.3 + index * (length - 0.5) / count
            right = left + (length - 0.5) / count - 0.14
            if floor == floors[0] and right > length - 1.5:
                continue
            outline = box(left, floor, right, floor + 1.05, 0.08)
            glass(side, outline, near(pane, generator, 0.15))
    door = box(length - 1.35, 0.45, length - 0.35, 2.45, 0.06)
    side.fill(door, BLACK)
    for left in (length - 1.3, length - 0.83):
        glass(side, box(left, 0.55, left + 0.42, 2.4, 0.05), pane)
    for x in (1.7, length - 2.3):
        wheel(side, x, 0.48, 0.48, rim, body)
    side.line([(0.3, 1.1), (length - 1.6, 1.1)], 0.06, second, within=body)
    side.fill(oval(0.12, 1.0, 0.08, 0.16), (0.8, 0.1, 0.1), within=body)
    face = front.fill(box(0, 0.32, width, height, 0.15), paint * 0.93, bulge=0.18, gloss=0.25)
    front.fill(box(0, 0.32, width, 0.85), second * 0.93, within=face)
    top = height - 0.62
    front.fill(box(0.12, 1.2, width - 0.12, top if not double else 2.5, 0.12), BLACK, within=face)
    glass(front, box(0.17, 1.25, width - 0.17, (top if not double else 2.5) - 0.05, 0.1), pane * 1.1, within=face)
    if double:
        glass(front, box(0.2, 2.95, width - 0.2, top + 0.2, 0.1), pane * 1.1, within=face)
    sign = front.fill(box(0.35, height - 0.52, width - 0.35, height - 0.14, 0.05), BLACK, within=face)
    place = 0.5
    while place < width - 0.6:
        wide = generator.uniform(0.06, 0.16)
        front.fill(box(place, height - 0.42, place + wide, height - 0.23), (1.0, 0.72, 0.2), within=sign)
        place += wide + 0.07
    for x in (0.35, width - 0.35):
        front.fill(oval(x, 0.72, 0.2, 0.13), (0.97, 0.97, 0.88), bulge=0.05, gloss=0.5)
        front.line([(x, 1.3), (width / 2, 1.42)], 0.035, BLACK)
    front.fill(box(width / 2 - 0.3, 0.42, width / 2 + 0.3, 0.58), WHITE)
    front.line([(width / 2, 1.25), (width / 2, min(top, 2.4))], 0.04, BLACK)
    for x in (-0.1, width + 0.1):
        front.fill(box(x - 0.1, 1.7, x + 0.1, 2.2, 0.06), BLACK, bulge=0.04)


def draw_train(pen, under):
    """A railcar with its coaches behind, on rails."""
    generator = pen.generator
    paint = colour(generator, (170, 34, 40), (36, 76, 140), (34, 104, 82), (210, 150, 40), (196, 200, 204),
                   (90, 50, 100))
    second = colour(generator, (238, 236, 228), (226, 186, 60), (52, 56, 64), (200, 204, 208))
    pane = colour(generator, *GLASS)
    length, width, height = 26.0, 2.9, 3.9
    turn = generator.uniform(0.55, 0.95)
    pen = pen.through(np.diag([0.5, 1, 1]))  # foreshortened
    side, front = corner_view(pen, length, width * 1.7, height, turn, 0.62 - 0.34 * turn)
    width *= 1.7
    draw_track(under.through(np.diag([0.5, 1, 1])), length, width, height, turn, 0.62 - 0.34 * turn)
    for begin, end in ((0, 8.2), (8.6, 17.0), (17.4, length)):
        side.fill(box(begin + 0.3, 0.35, end - 0.3, 0.9), BLACK)
        for x in (begin + 1.2, begin + 2.4, end - 2.4, end - 1.2):
            side.fill(oval(x, 0.42, 0.4, 0.42), (0.16, 0.15, 0.15), bulge=0.08)
        body = side.fill(box(begin, 0.75, end, height, 0.15), paint, bulge=0.1, gloss=0.2, ambient=0.55)
        side.fill(box(begin, 1.5, end, 1.95), second, within=body)
        side.fill(box(begin, height - 0.35, end, height), (0.5, 0.5, 0.52), within=body, grain=0.06)
        doors = (begin + 1.2, end - 1.2)
        for x in np.arange(begin + 0.5, end - 0.9, 1.15):
            if all(abs(x + 0.4 - door) > 0.95 for door in doors):
                glass(side, box(x, 2.15, x + 0.9, 3.1, 0.1), near(pane, generator, 0.15), within=body)
        for x in doors:
            side.fill(box(x - 0.6, 0.85, x + 0.6, 3.2, 0.08), second * 0.8, within=body)
            for left in (x - 0.5, x + 0.06):
                glass(side, box(left, 1.9, left + 0.44, 3.05, 0.06), pane, within=body)
            side.line([(x, 0.9), (x, 3.2)], 0.05, BLACK, within=body)
    front.fill(box(0.35, 0.25, width - 0.35, 0.9), BLACK)
    outline = curve([(0, 0.7), (0, 0.7), (0, 2.6), (0.25, height - 0.1), (1.2, height + 0.1),
                     (width - 1.2, height + 0.1),
                     (width - 0.25, height - 0.1), (width, 2.6), (width, 0.7), (width, 0.7)])
    face = front.fill(outline, paint * 0.95, bulge=0.45, gloss=0.3)
    warning = colour(generator, (232, 188, 40), (200, 40, 40), (236, 236, 230))
    front.fill(box(0, 0.7, width, 1.95), warning, within=face, bulge=0.1)
    screen = curve([(0.4, 2.0), (0.4, 2.0), (0.5, 3.3), (width - 0.5, 3.3), (width - 0.4, 2.0), (width - 0.4, 2.0)], 2)
    front.fill(screen, BLACK, within=face)
    middle = width / 2
    for left, right in ((0.6, middle - 0.1), (middle + 0.1, width - 0.6)):
        glass(front, box(left, 2.1, right, 3.15, 0.1), pane * 1.15, within=face)
    front.fill(box(middle - 0.8, 3.4, middle + 0.8, 3.75, 0.06), BLACK, within=face)
    for x in np.linspace(middle - 0.6, middle + 0.5, 6):
        front.fill(box(x, 3.48, x + 0.14, 3.67), (1.0, 0.72, 0.2), within=face)
    for x in (0.65, width - 0.65):
        front.fill(oval(x, 1.5, 0.36, 0.26), BLACK)
        front.fill(oval(x, 1.5, 0.26, 0.18), (1, 1, 0.9), bulge=0.06, gloss=0.6)
        front.fill(oval(x, 0.98, 0.24, 0.13), (0.14, 0.14, 0.15), bulge=0.05)  # buffers
    front.fill(box(middle - 0.25, 0.45, middle + 0.25, 0.95, 0.08), (0.15, 0.15, 0.16), bulge=0.06)


def draw_track(pen, length, width, height, turn, shrink):
    """Rails under a train that corner_view shows, and on towards the camera."""
    side, front, eye = length * (1 - 0.55 * turn), width * 1.5 * turn, 0.5 * height
    edge, far, beyond = (side - front) / 2, eye * (1 - shrink), front * shrink
    ground = to_quad([(0, 0), (length, 0), (length, width), (0, width)],
                     [(edge - side, far), (edge, 0), (edge + front, 0.04 * eye),
                      (edge - side + beyond, far + 0.04 * eye * shrink)])
    bed = pen.through(ground, (length, 1))
    start, end = -3, length + 8.5
    bed.fill([(start, -1.6), (end, -1.6), (end, width + 1.2), (start, width + 1.2)], (0.4, 0.37, 0.35), gloss=0,
             grain=0.25)
    for x in np.arange(start, end, 1.3):
        sleeper = [(x, -0.6), (x + 0.5, -0.6), (x + 0.5, width + 0.6), (x, width + 0.6)]
        bed.fill(sleeper, (0.27, 0.22, 0.19), gloss=0, grain=0.15)
    for z in (0.5, width - 0.5):
        bed.fill([(start, z), (end, z), (end, z + 0.22), (start, z + 0.22)], (0.32, 0.25, 0.22), gloss=0)
        bed.fill([(start, z), (end, z), (end, z + 0.1), (start, z + 0.1)], (0.72, 0.72, 0.74), gloss=0.3)


def draw_aeroplane(pen, under):
    """An airliner from the side, flying or on its wheels, or from below."""
    generator = pen.generator
    paint = colour(generator, (236, 238, 240), (236, 238, 240), (206, 212, 218), (228, 222, 206))
    second = colour(generator, (28, 62, 140), (186, 34, 40), (30, 110, 90), (226, 140, 40), (60, 64, 72))
    metal = colour(generator, (150, 156, 164), (176, 180, 186), (128, 134, 142))
    if pen.pose == "below":
        return draw_aeroplane_below(pen, paint, second, metal)
    pen.fill([(1.5, 4.4), (-2.2, 4.4), (-7.4, 7.6), (-5.8, 7.6)], metal * 0.8, bulge=0.2)  # what is farther first
    pen.fill([(-11.8, 5.0), (-14.4, 5.2), (-16.4, 6.4), (-15.2, 6.4)], metal * 0.8)
    if pen.pose == "ground":
        for x in (11.2, 0.2, -1.6):
            pen.line([(x, 2.6), (x, 0.7)], 0.35, metal * 0.7)
            pen.fill(oval(x, 0.62, 0.62, 0.62), BLACK, bulge=0.15)
            pen.fill(oval(x, 0.62, 0.25, 0.25), metal)
    fin = pen.fill([(-10.2, 5.6), (-13.4, 10.4), (-15.6, 10.4), (-14.6, 5.3)], second, bulge=0.25, gloss=0.2)
    pen.fill(oval(-13.9, 8.2, 0.9, 0.9), paint, within=fin)
    body = pen.fill(curve([(-15.8, 5.0), (-14.5, 5.7), (-10, 5.95), (9, 6.0), (12.6, 5.8), (14.4, 4.9), (15.6, 3.9),
                           (14.6, 2.9), (11.5, 2.2), (-5, 2.1), (-10, 2.9)]), paint, bulge=1.7, gloss=0.3)
    pen.line(bend([(-16, 4.6), (-6, 3.4), (4, 3.4), (15.6, 3.7)]), generator.uniform(0.25, 0.7), second, within=body)
    if generator.random() < 0.5:
        pen.fill([(-17, 2), (-9, 2), (-7, 7), (-17, 7)], second, within=body, bulge=0.2)
    for x in np.arange(-9.5, 10.6, 0.85):
        pen.fill(oval(x, 4.7, 0.24, 0.3, count=12), (0.12, 0.14, 0.18))
    for x in (-10.4, 11.2):
        pen.line(box(x - 0.45, 3.5, x + 0.45, 5.3, 0.2), 0.08, paint * 0.6)
    pen.fill([(12.7, 4.75), (12.9, 5.4), (13.7, 5.1), (14.4, 4.6)], (0.1, 0.12, 0.16), gloss=0.4)
    for x, y in ((2.6, 1.75),) if generator.random() < 0.7 else ((4.2, 1.9), (0.4, 1.2)):
        pen.line([(x - 1.9, y - 0.05), (x - 0.4, y + 0.05), (x + 1.1, y)], (0.8, 1.9, 1.75), paint * 0.9, bulge=0.6,
                 gloss=0.3)
        pen.fill(oval(x + 1.6, y, 0.5, 0.9), (0.14, 0.15, 0.17))
        pen.fill(oval(x + 1.6, y, 0.18, 0.3), metal)
    pen.fill([(4.0, 3.1), (-3.2, 2.9), (-8.6, 0.7), (-7.0, 0.5), (0.5, 2.0)], metal, bulge=0.35, gloss=0.2)
    pen.line([(-8.6, 0.7), (-9.2, 1.6)], (0.5, 0.2), second)
    pen.fill([(-11.6, 4.9), (-14.6, 4.7), (-17.2, 3.6), (-15.9, 3.4)], metal, bulge=0.2)


def draw_aeroplane_below(pen, paint, second, metal):
    """An airliner as one who stands under it sees it, its nose up."""
    jets = (4.4, 8.0) if pen.generator.random() < 0.4 else (4.8,)
    for side in (-1, 1):
        for x in jets:
            y = 3.6 - 0.62 * (x - 2)
            pen.line([(side * x, y + 1.5), (side * x, y - 1.2)], (1.5, 1.4, 0.9), paint * 0.75, bulge=0.5)
            pen.fill(oval(side * x, y + 1.9, 0.7, 0.3), (0.12, 0.12, 0.14))
        wing = pen.fill([(0, 5.2), (side * 1.6, 4.8), (side * 15.4, -3.6), (side * 15.6, -5.2), (side * 5.2, -1.2),
                         (0, -1.6)], metal, bulge=0.5)
        pen.line([(side * 2, -0.2), (side * 15, -4.4)], 0.12, metal * 0.6, within=wing)
        pen.fill([(side * 15.0, -3.4), (side * 15.6, -5.2), (side * 14.6, -4.9), (side * 14.2, -3)], second,
                 within=wing)
        pen.fill([(0, -10.6), (side * 0.6, -10.8), (side * 5.6, -14.2), (side * 5.6, -15.2), (0, -13.8)], metal,
                 bulge=0.3)
    body = pen.fill(curve([(0, 15.6), (0.9, 14.8), (1.75, 11), (1.85, 0), (1.7, -8), (0.5, -15), (-0.5, -15),
                           (-1.7, -8), (-1.85, 0), (-1.75, 11), (-0.9, 14.8)]), paint * 0.92, bulge=1.7, gloss=0.2)
    pen.fill(curve([(-1.5, 4.5), (1.5, 4.5), (1.7, -1.8), (-1.7, -1.8)]), metal * 0.9, bulge=0.5, within=body)
    pen.fill([(-0.12, -9), (0.12, -9), (0.3, -15.6), (-0.3, -15.6)], second)


def draw_boat(pen, under):
    """A sailing boat, a motor boat, a fishing boat or a rowing boat."""
    generator = pen.generator
    paint = colour(generator, (236, 236, 232), (30, 60, 112), (170, 40, 40), (40, 96, 84), (220, 180, 80), (50, 52, 58))
    second = colour(generator, (180, 40, 40), (36, 70, 130), (240, 240, 236), (224, 170, 60), (40, 44, 50))
    wood, pane = colour(generator, *WOODS), colour(generator, *GLASS)
    kind = pen.pose

    def hull(points, deck=True):
        body = pen.fill(curve(points, 2), paint, bulge=0.4, gloss=0.2)
        pen.fill(box(-6, -0.3, 6, 0.28), second, within=body)
        top = np.array(points)
        pen.line([(top[0, 0], top[0, 1] - 0.18), (top[1, 0], top[1, 1] - 0.18)], 0.09, second, within=body)
        return body

    if kind == "sail":
        cloth = colour(generator, (244, 242, 234), (244, 242, 234), (228, 214, 180), (190, 70, 50), (90, 120, 170))
        tall = generator.uniform(7.4, 9.4)
        pen.line([(0.3, 0.8), (0.3, tall)], 0.14, wood)
        jib = curve([(0.55, tall - 0.6), (0.55, tall - 0.6), (1.5, 4.2), (3.5, 1.35), (3.5, 1.35), (0.8, 1.7),
                     (0.8, 1.7)], 2)
        jib = pen.fill(jib, cloth * 0.97, bulge=0.4, gloss=0)
        main = curve([(0.2, tall - 0.15), (0.2, tall - 0.15), (-1.6, 5.0), (-3.1, 1.75), (-3.1, 1.75), (0.15, 1.75),
                      (0.15, 1.75)], 2)
        main = pen.fill(main, cloth, bulge=0.5, gloss=0)
        for height in np.linspace(2.8, tall - 2, 4):
            pen.line([(-4, height - 0.3), (0.4, height)], 0.045, cloth * 0.7, within=main)
        if generator.random() < 0.5:
            pen.fill(box(-4, 3.4, 0.4, 4.2), second, within=main, grain=0.03)
            pen.fill(box(0, 2.4, 4, 3.0), second, within=jib, grain=0.03)
        pen.line([(0.3, 1.6), (-3.2, 1.55)], 0.12, wood)
        pen.fill(curve([(-1.4, 0.9), (-1.2, 1.45), (1.3, 1.4), (2.0, 1.0)], 2), WHITE * 0.9, bulge=0.15)
        pen.fill(box(-0.8, 1.1, 0.6, 1.28, 0.05), pane)
        hull([(-3.3, 1.05), (-3.3, 1.05), (3.7, 1.15), (3.7, 1.15), (2.7, -0.1), (-2.9, -0.1)])
    elif kind == "motor":
        pen.fill(curve([(-2.0, 1.2), (-1.7, 2.2), (0.6, 2.2), (1.7, 1.3), (1.7, 1.2)], 1), WHITE * 0.95, bulge=0.2,
                 gloss=0.2)
        glass(pen, np.array([(-1.4, 1.5), (-1.3, 2.0), (-0.5, 2.0), (-0.5, 1.5)]), pane)
        glass(pen, np.array([(-0.35, 1.5), (-0.35, 2.0), (0.45, 2.0), (1.1, 1.5)]), pane)
        pen.line([(-1.9, 2.3), (0.7, 2.3)], 0.14, second, bulge=0.05)
        pen.line([(-1.2, 2.3), (-1.3, 3.2)], 0.06, BLACK)
        for x in np.linspace(1.3, 3.6, 5):
            pen.line([(x, 1.3 + 0.06 * x), (x, 1.7 + 0.06 * x)], 0.05, (0.75, 0.76, 0.78))
        pen.line([(1.2, 1.75), (3.7, 1.95)], 0.05, (0.8, 0.8, 0.82))
        body = hull([(-3.4, 1.3), (-3.4, 1.3), (4.0, 1.65), (4.0, 1.65), (2.7, -0.1), (-3.2, -0.1)])
        for x in (-2.2, -1.2, -0.2):
            pen.fill(oval(x, 0.72, 0.17, 0.12), pane, within=body)
    elif kind == "fishing":
        pen.line([(-0.2, 1.4), (-0.2, 5.4)], 0.14, wood)
        for end in ((3.6, 1.9), (-3.2, 1.5)):
            pen.line([(-0.2, 5.3), end], 0.04, BLACK)
        pen.line([(-0.2, 2.4), (-2.6, 4.2)], 0.1, wood)
        pen.fill(box(-1.0, 1.1, 1.3, 3.1, 0.1), WHITE * 0.92, bulge=0.15)
        pen.fill(box(-1.2, 3.0, 1.6, 3.25, 0.08), second, bulge=0.05)
        for left in (-0.75, 0.0, 0.75):
            glass(pen, box(left, 2.2, left + 0.5, 2.8, 0.05), pane)
        pen.fill(box(-0.7, 1.15, -0.2, 2.0, 0.04), wood * 0.8)
        hull([(-3.4, 1.5), (-3.4, 1.5), (-1.0, 1.0), (1.6, 1.1), (4.1, 2.2), (4.1, 2.2), (3.1, -0.1), (-2.9, -0.1)])
        for x in (-2.2, -0.6, 1.0):
            pen.line(oval(x, 0.6, 0.22, 0.22), 0.14, BLACK)
    else:
        inside = pen.fill(curve([(-2.2, 0.62), (-1.4, 0.98), (1.5, 1.0), (2.6, 0.8), (1.5, 0.55), (-1.4, 0.5)]),
                          wood * 0.55)
        for x in (-1.1, 0.1, 1.2):
            pen.line([(x, 0.5), (x + 0.15, 1.0)], 0.2, wood * 0.9, within=inside)
        for x in (-0.4, 0.5):
            pen.line([(x, 1.0), (x - 1.9, 0.1)], (0.08, 0.08, 0.08, 0.22), wood * 1.2)
        body = pen.fill(curve([(-2.4, 0.75), (-2.4, 0.75), (-1.3, 0.55), (1.4, 0.55), (2.9, 0.95), (2.9, 0.95),
                               (2.1, -0.15), (-1.9, -0.15)], 2), paint, bulge=0.25)
        for height in (0.1, 0.3):
            pen.line(bend([(-2.6, height + 0.15), (0, height - 0.1), (3, height + 0.3)]), 0.03, paint * 0.6,
                     within=body)
        pen.line(bend([(-2.4, 0.74), (-1.4, 0.48), (1.4, 0.46), (2.9, 0.94)]), 0.1, second)


# ---------------------------------------------------------------------------------------------------------- animals


def eye_of(pen, x, y, radius, iris=None):
    """An eye with a light in it."""
    if iris is not None:
        pen.fill(oval(x, y, radius * 1.5, radius * 1.4), iris, bulge=radius * 0.4, gloss=0.3)
    pen.fill(oval(x, y, radius, radius), BLACK, gloss=0.4)
    pen.fill(oval(x - 0.3 * radius, y + 0.35 * radius, 0.35 * radius, 0.35 * radius), WHITE)


def draw_bird(pen, under):
    """A songbird, a crow or a parrot on a branch or on the ground, a duck on the water, or a gull in flight."""
    generator = pen.generator
    kinds = {  # back, belly, beak
        "sparrow": ((122, 88, 62), (206, 190, 166), (90, 80, 70)),
        "robin": ((112, 96, 80), (206, 96, 48), (70, 60, 54)), "tit": ((86, 110, 140), (226, 206, 90), (50, 50, 56)),
        "crow": ((40, 42, 50), (50, 52, 60), (40, 40, 44)), "parrot": ((50, 140, 70), (210, 60, 50), (60, 54, 50)),
        "pigeon": ((120, 126, 140), (150, 150, 164), (120, 100, 96)),
    }
    if pen.pose == "swim":
        return draw_duck(pen)
    if pen.pose == "fly":
        return draw_flying_bird(pen)
    name = list(kinds)[generator.integers(len(kinds))]
    back, belly, beak = (colour(generator, choice, spread=0.08) for choice in kinds[name])
    long = 1.7 if name == "parrot" else 1.0
    if pen.pose == "branch":
        wood = colour(generator, *WOODS)
        slope = generator.normal(0, 0.12)
        under.line([(-1.5, -0.005 - 1.5 * slope), (0, -0.01), (1.5, 0.005 + 1.5 * slope)], (0.06, 0.045, 0.03), wood,
                   bulge=0.02, grain=0.15)
        for _ in range(5):
            x = generator.uniform(-0.5, 0.5)
            tip = generator.uniform((-0.12, -0.2), (0.12, -0.05))
            start = np.array((x, slope * x))
            under.line([start, start + tip * 0.5, start + tip], (0.006, 0.06, 0.003), colour(generator, *LEAVES),
                       bulge=0.01)
    legs = colour(generator, (150, 100, 70), (60, 54, 50))
    for x in (-0.012, 0.03):
        pen.line([(x, 0.07), (x + 0.008, 0.004)], 0.011, legs)
        for toe in (0.035, 0.022, -0.02):
            pen.line([(x + 0.008, 0.006), (x + 0.008 + toe, 0.0)], 0.009, legs)
    pen.line(bend([(-0.06, 0.1), (-0.16, 0.05), (-0.16 - 0.11 * long, 0.05 - 0.07 * long)]), (0.05, 0.045, 0.05),
             back * 0.8, bulge=0.015)
    body = pen.fill(curve([(-0.17, 0.035), (-0.13, 0.11), (-0.05, 0.165), (0.02, 0.2), (0.055, 0.245), (0.1, 0.245),
                           (0.125, 0.21), (0.115, 0.16), (0.115, 0.11), (0.07, 0.05), (0.0, 0.03), (-0.08, 0.035)]),
                           back, bulge=0.06, gloss=0.05, grain=0.07)
    pen.fill(curve([(0.03, 0.02), (0.13, 0.06), (0.15, 0.2), (0.10, 0.2), (0.05, 0.14), (-0.06, 0.08), (-0.1, 0.02)]),
             belly, bulge=0.04, within=body, grain=0.1)
    if name == "tit":
        pen.fill(oval(0.075, 0.235, 0.05, 0.022, 0.1), BLACK, within=body)
        pen.fill(oval(0.08, 0.195, 0.03, 0.016), WHITE, within=body)
    if name == "pigeon":
        pen.fill(oval(0.06, 0.18, 0.05, 0.03, 0.4), (0.35, 0.5, 0.42), within=body, opacity=0.7)
    wing = pen.fill(curve([(-0.21, 0.055), (-0.21, 0.055), (-0.09, 0.14), (0.02, 0.17), (0.06, 0.14), (0.045, 0.095),
                           (-0.04, 0.075)]), back * 0.82, bulge=0.02, grain=0.1)
    for step in np.linspace(0, 1, 5):
        start = np.array((0.03 - 0.06 * step, 0.09 + 0.05 * (1 - step)))
        pen.line(bend([start, start - (0.1, 0.03), (-0.21, 0.055)]), 0.006, back * 0.5, within=wing)
    pen.line([(0.02, 0.15), (-0.02, 0.09)], 0.012, belly, within=wing, opacity=0.8)
    if name == "parrot":
        pen.fill(curve([(0.11, 0.235), (0.165, 0.225), (0.15, 0.16), (0.135, 0.2), (0.11, 0.2)]), beak, bulge=0.01,
                 gloss=0.3)
    else:
        reach = 0.21 if name == "crow" else 0.175
        pen.fill([(0.118, 0.232), (reach, 0.205), (0.118, 0.198)], beak, bulge=0.008, gloss=0.3)
        pen.line([(0.118, 0.212), (reach, 0.205)], 0.004, beak * 0.4)
    eye_of(pen, 0.092, 0.222, 0.0095)


def draw_duck(pen):
    """A duck, a swan or a gull that swims."""
    generator = pen.generator
    kind = generator.integers(3)
    back = colour(generator, ((128, 108, 88), (240, 240, 236), (170, 174, 180))[kind], spread=0.06)
    head = colour(generator, ((30, 92, 64), (242, 242, 238), (240, 240, 236))[kind], spread=0.06)
    beak = colour(generator, ((222, 180, 60), (224, 120, 40), (226, 180, 60))[kind])
    high = 0.16 if kind == 1 else 0.0
    body = pen.fill(curve([(-0.3, 0.12), (-0.3, 0.12), (-0.2, 0.13), (-0.02, 0.17), (0.12, 0.13), (0.2, 0.09),
                           (0.19, -0.02), (0.1, -0.05), (-0.15, -0.05), (-0.26, 0.02)]), back, bulge=0.07, grain=0.12)
    neck = bend([(0.15, 0.06), (0.24 + high, 0.12), (0.06 + 0.3 * high, 0.2 + high), (0.19, 0.24 + high)])
    pen.line(neck, (0.11, 0.075, 0.06), head, bulge=0.035, grain=0.08)
    pen.line([(0.16, 0.25 + high), (0.2, 0.245 + high)], 0.085, head, bulge=0.04, grain=0.08)
    if kind == 0:
        pen.line([(0.105, 0.13), (0.19, 0.12)], 0.022, WHITE)
        pen.fill(curve([(0.2, 0.1), (0.12, 0.12), (0.1, 0.0), (0.17, -0.03)]), (0.4, 0.22, 0.15), within=body,
                 bulge=0.02)
    pen.fill(curve([(0.22, 0.265 + high), (0.3, 0.24 + high), (0.3, 0.222 + high), (0.22, 0.225 + high)], 2), beak,
             bulge=0.01, gloss=0.3)
    wing = pen.fill(curve([(-0.27, 0.13), (-0.27, 0.13), (-0.08, 0.165), (0.07, 0.13), (0.06, 0.05), (-0.08, 0.03),
                           (-0.18, 0.06)]), back * 0.85, bulge=0.03, grain=0.12)
    for step in (0.06, 0.085, 0.11):
        pen.line(bend([(0.05, step), (-0.08, step - 0.02), (-0.26, 0.12)]), 0.006, back * 0.55, within=wing)
    eye_of(pen, 0.195, 0.262 + high, 0.009)


def draw_flying_bird(pen):
    """A bird in flight, its wings up, down or spread out."""
    generator = pen.generator
    back = colour(generator, (226, 228, 230), (70, 66, 64), (130, 100, 74), (172, 178, 186))
    tips = colour(generator, (40, 40, 44), (90, 84, 80))
    beak = colour(generator, (226, 170, 50), (60, 56, 54))
    lift = generator.uniform(0.65, 1.05)

    def wing(root, span, shade, lean):
        rise = lift * span
        wrist = np.array((root + 0.05 + lean * 0.5, 0.12 + 0.5 * rise))
        tip = np.array((root - 0.2 + lean, 0.12 + rise))
        front = bend([(root + 0.08, 0.12), wrist + (0.06, 0.02), wrist + (0.03, 0.3 * rise), tip])
        trailing = bend([tip, tip - (0.0, 0.25 * rise), (root - 0.13 + lean * 0.4, 0.12 + 0.42 * rise),
                         (root - 0.1, 0.11)])
        cover = pen.fill(np.concatenate([front, trailing]), back * shade, bulge=0.02, grain=0.06)
        middle = tip * 0.72 + wrist * 0.28
        pen.fill(np.array([tip + (0.1, 0.1), tip - (0.2, -0.1), middle - (0.2, 0.03), middle + (0.2, 0.02)]), tips,
                 within=cover)
        for share in np.linspace(0.1, 0.95, 9):
            start, end = front[int(share * 15)], trailing[15 - int(share * 15)]
            pen.line([start * 0.65 + end * 0.35, end], 0.005, back * shade * 0.6, within=cover)

    wing(0.01, 0.36, 0.78, 0.12)
    pen.fill([(-0.12, 0.13), (-0.27, 0.16), (-0.29, 0.1), (-0.27, 0.06), (-0.12, 0.09)], back * 0.8, bulge=0.01)
    pen.fill(curve([(-0.18, 0.11), (-0.08, 0.145), (0.05, 0.155), (0.12, 0.16), (0.17, 0.16), (0.19, 0.135),
                    (0.16, 0.105), (0.08, 0.075), (-0.08, 0.075)]), back, bulge=0.04, grain=0.08)
    pen.fill([(0.175, 0.15), (0.235, 0.122), (0.175, 0.118)], beak, bulge=0.006)
    eye_of(pen, 0.158, 0.142, 0.008)
    wing(-0.01, 0.4, 1.0, 0.0)


COATS = ((196, 128, 70), (120, 108, 98), (50, 48, 48), (170, 160, 148), (226, 220, 210), (150, 110, 80), (108, 84, 66))


def draw_cat(pen, under):
    """A cat that sits and looks at you, or that walks by."""
    generator = pen.generator
    coat = colour(generator, *COATS)
    dark, pale = coat * 0.5, coat * 0.4 + 0.55
    striped, white = generator.random() < 0.6, generator.random() < 0.5
    iris = colour(generator, (150, 170, 60), (210, 170, 50), (110, 160, 190), (120, 170, 90))
    if pen.pose == "walk":
        body = draw_walking_body(pen, coat, striped, white)
        head = (0.29, 0.29)
    else:
        tail = bend([(0.09, 0.03), (0.24, -0.01), (0.26, 0.1), (0.18, 0.16)] if generator.random() < 0.5
                    else [(0.08, 0.03), (0.2, 0.0), (0.22, 0.25), (0.3, 0.3)])
        pen.line(tail, (0.045, 0.045, 0.035), coat * 0.9, bulge=0.02, grain=0.12)
        body = pen.fill(curve([(-0.1, -0.005), (-0.165, 0.03), (-0.14, 0.12), (-0.075, 0.22), (-0.05, 0.27),
                               (0.05, 0.27), (0.075, 0.22), (0.14, 0.12), (0.165, 0.03), (0.1, -0.005)]), coat,
                               bulge=0.07, grain=0.14)
        if striped:
            for y in np.linspace(0.04, 0.2, 6):
                for side in (-1, 1):
                    pen.line(bend([(side * 0.17, y - 0.02), (side * 0.1, y + 0.02), (side * 0.055, y + 0.005)]),
                             (0.018, 0.014, 0.004), dark, within=body, opacity=0.8)
        for side in (-1, 1):
            pen.fill(oval(side * 0.115, 0.035, 0.052, 0.04), coat * 0.93, bulge=0.03, grain=0.12)
        pen.fill(curve([(-0.055, 0.25), (0.055, 0.25), (0.05, 0.13), (0, 0.09), (-0.05, 0.13)]),
                 pale if white else coat * 1.06, bulge=0.04, grain=0.14)
        for side in (-1, 1):
            pen.line([(side * 0.045, 0.18), (side * 0.042, 0.02)], (0.06, 0.05, 0.045), coat * 1.03, bulge=0.025,
                     grain=0.12)
            if striped:
                for y in (0.07, 0.1, 0.13):
                    pen.line([(side * 0.042 - 0.022, y), (side * 0.042 + 0.022, y)], 0.009, dark, opacity=0.6)
            pen.fill(oval(side * 0.042, 0.012, 0.034, 0.02), pale if white else coat, bulge=0.015)
        head = (generator.normal(0, 0.012), 0.3)
    x0, y0 = head
    look = generator.normal(0, 0.006)
    for side in (-1, 1):
        ear = [(x0 + side * 0.088, y0 + 0.02), (x0 + side * 0.082, y0 + 0.115), (x0 + side * 0.02, y0 + 0.066)]
        pen.fill(ear, coat * 0.95, bulge=0.012)
        middle = np.mean(ear, axis=0)
        pen.fill(middle + (np.array(ear) - middle) * 0.6 - (0, 0.004), (0.75, 0.5, 0.47))
    face = pen.fill(curve([(x0 - 0.075, y0 - 0.05), (x0 - 0.115, y0 - 0.01), (x0 - 0.085, y0 + 0.06), (x0, y0 + 0.085),
                           (x0 + 0.085, y0 + 0.06), (x0 + 0.115, y0 - 0.01), (x0 + 0.075, y0 - 0.05),
                           (x0, y0 - 0.085)]), coat, bulge=0.05, grain=0.12)
    if striped:
        for dx in (-0.028, 0, 0.028):
            pen.line([(x0 + dx, y0 + 0.08), (x0 + dx * 0.7, y0 + 0.045)], (0.012, 0.006), dark, within=face,
                     opacity=0.85)
        for side in (-1, 1):
            for dy in (-0.005, -0.025):
                pen.line([(x0 + side * 0.1, y0 + dy), (x0 + side * 0.065, y0 + dy - 0.004)], 0.009, dark, within=face,
                         opacity=0.85)
    for side in (-1, 1):
        pen.fill(oval(x0 + side * 0.021 + look, y0 - 0.034, 0.028, 0.023), pale if white else coat * 1.12, bulge=0.015,
                 within=face)
    pen.fill(oval(x0 + look, y0 - 0.058, 0.02, 0.014), pale if white else coat, bulge=0.01, within=face)
    for side in (-1, 1):
        x = x0 + side * 0.038 + look
        pen.fill(oval(x, y0 + 0.012, 0.024, 0.021, side * 0.25), BLACK)
        pen.fill(oval(x, y0 + 0.012, 0.02, 0.0175, side * 0.25), iris, bulge=0.006, gloss=0.3)
        pen.fill(oval(x, y0 + 0.012, 0.007, 0.016), BLACK)
        pen.fill(oval(x - 0.005, y0 + 0.018, 0.004, 0.004), WHITE)
    nose = (x0 + look, y0 - 0.018)
    pen.fill([(nose[0] - 0.013, nose[1] + 0.006), (nose[0] + 0.013, nose[1] + 0.006), (nose[0], nose[1] - 0.009)],
             (0.8, 0.45, 0.45))
    for side in (-1, 1):
        pen.line(bend([(nose[0], nose[1] - 0.008), (nose[0] + side * 0.002, nose[1] - 0.028),
                       (nose[0] + side * 0.022, nose[1] - 0.022)]), 0.004, BLACK)
        for dy in (0.006, -0.006, -0.018):
            pen.line([(nose[0] + side * 0.03, nose[1] - 0.012 + dy * 0.4),
                      (nose[0] + side * 0.125, nose[1] - 0.01 + 1.6 * dy)], 0.0035, WHITE, within=face, opacity=0.8)


def draw_walking_body(pen, coat, striped, white):
    """The body of a cat that walks to the right, its tail up."""
    generator = pen.generator
    stride = generator.uniform(-0.05, 0.05)
    for x, step in ((-0.15, -stride), (0.19, stride)):
        pen.line([(x, 0.16), (x + step * 0.5, 0.08), (x + step, 0.01)], (0.06, 0.04, 0.036), coat * 0.7, bulge=0.015)
    pen.line(bend([(-0.2, 0.2), (-0.34, 0.22), (-0.3, 0.42), (-0.36, 0.46)]), (0.045, 0.04, 0.032), coat * 0.9,
             bulge=0.018, grain=0.12)
    body = pen.fill(curve([(-0.23, 0.2), (-0.2, 0.25), (-0.05, 0.25), (0.14, 0.25), (0.26, 0.3), (0.3, 0.22),
                           (0.22, 0.13), (0.05, 0.125), (-0.1, 0.13), (-0.23, 0.11)]), coat, bulge=0.06, grain=0.14)
    if striped:
        for x in np.linspace(-0.18, 0.16, 8):
            pen.line(bend([(x, 0.27), (x - 0.02, 0.2), (x + 0.01, 0.16)]), (0.018, 0.012, 0.003), coat * 0.5,
                     within=body, opacity=0.8)
    for x, step in ((-0.18, stride), (0.22, -stride)):
        pen.line([(x, 0.17), (x + step * 0.5, 0.09), (x + step, 0.012)], (0.085, 0.045, 0.038), coat, bulge=0.02,
                 grain=0.12)
        pen.fill(oval(x + step + 0.01, 0.012, 0.03, 0.017), coat * 0.4 + 0.55 if white else coat, bulge=0.012)
    return body


def draw_sheep(pen, under):
    """A sheep in its wool, looking up or grazing."""
    generator = pen.generator
    wool = colour(generator, (232, 224, 206), (216, 206, 186), (240, 236, 226), (120, 100, 84), spread=0.05)
    face = colour(generator, (50, 44, 42), (226, 212, 192), (88, 72, 62), (36, 34, 36))
    for x in (-0.3, 0.24):
        pen.line([(x, 0.4), (x + 0.02, 0.02)], (0.09, 0.07), face * 0.7, bulge=0.02)
    shorn = generator.uniform(0.85, 1.05)
    outline = bumpy(curve([(-0.56, 0.5), (-0.52, 0.82), (-0.2, 0.93), (0.2, 0.93), (0.5, 0.85), (0.56, 0.55),
                           (0.4, 0.3), (0.0, 0.26), (-0.42, 0.3)]) * (1, shorn), generator, 0.09)
    body = pen.fill(outline, wool * 0.9, bulge=0.2, gloss=0, grain=0.12)
    for _ in range(80):  # locks of wool, lower ones darker
        turn, reach = generator.uniform(0, 6.3), np.sqrt(generator.uniform(0, 0.9))
        x, y = 0.54 * reach * np.cos(turn), (0.6 + 0.3 * reach * np.sin(turn)) * shorn
        shade = 0.74 + 0.34 * (y / shorn - 0.3) / 0.6 + generator.normal(0, 0.05)
        size = generator.uniform(0.045, 0.085)
        pen.fill(bumpy(oval(x, y, size, size * 0.85, count=14), generator, 0.05), wool * shade, bulge=0.05, gloss=0,
                 within=body, grain=0.1, opacity=0.75)
    for x in (-0.36, 0.34):
        pen.line([(x, 0.42), (x, 0.24), (x + generator.normal(0, 0.02), 0.02)], (0.12, 0.08, 0.075), face, bulge=0.03)
        pen.fill(box(x - 0.045, 0, x + 0.055, 0.05, 0.02), BLACK)
    down = pen.pose == "graze"
    crown, muzzle = (
        (np.array((0.62, 0.5)), np.array((0.74, 0.14))) if down else (np.array((0.6, 0.96)), np.array((0.84, 0.78)))
    )
    neck = [(0.4, 0.68), (0.52, 0.6), crown] if down else [(0.4, 0.7), (0.5, 0.84), crown]
    pen.fill(bumpy(band(bend(neck), (0.36, 0.3, 0.24)), generator, 0.07), wool * 0.96, bulge=0.1, gloss=0, grain=0.12)
    along = (muzzle - crown) / np.linalg.norm(muzzle - crown)
    across = np.array((-along[1], along[0]))
    ear = crown + along * 0.04 + across * 0.04
    pen.line([ear, ear + across * 0.1 - along * 0.1], (0.03, 0.07, 0.02), face * 0.75, bulge=0.02)
    pen.fill(curve([crown + across * 0.11, crown + along * 0.14 + across * 0.1, muzzle + across * 0.06,
                    muzzle + along * 0.06, muzzle - across * 0.07, crown + along * 0.14 - across * 0.11,
                    crown - across * 0.1]), face, bulge=0.06)
    pen.line([crown + along * 0.03 - across * 0.03, crown - along * 0.06 - across * 0.18], (0.04, 0.085, 0.02), face,
             bulge=0.025)
    pen.fill(bumpy(oval(*(crown - along * 0.05 + across * 0.02), 0.11, 0.09), generator, 0.06), wool, bulge=0.05,
             gloss=0, grain=0.12)
    eye_of(pen, *(crown + along * 0.12 + across * 0.035), 0.02, np.float32((0.75, 0.6, 0.25)))
    pen.line([muzzle + along * 0.035 + across * 0.02, muzzle - along * 0.01 - across * 0.0], 0.012, face * 0.3)
    pen.fill(oval(*(muzzle + along * 0.03 + across * 0.035), 0.013, 0.009), face * 0.3)


def draw_person(pen, under):
    """Someone who stands or walks, from the front."""
    generator = pen.generator
    skin, hair = colour(generator, *SKINS, spread=0.04), colour(generator, *HAIRS)
    shirt, trousers = colour(generator, *CLOTHES), colour(generator, *TROUSERS)
    shoes = colour(generator, (40, 36, 36), (120, 70, 44), (226, 226, 224), (150, 40, 44))
    woman, turn = generator.random() < 0.5, generator.uniform(-1, 1)
    long_hair = woman and generator.random() < 0.75
    skirt, short = woman and generator.random() < 0.4, generator.random() < 0.3
    wide = 0.9 if woman else 1.0
    if long_hair:
        pen.fill(curve([(-0.11, 1.7), (-0.14, 1.5), (-0.13, 1.33), (0.13, 1.33), (0.14, 1.5), (0.11, 1.7)]), hair * 0.8,
                 bulge=0.04, grain=0.15)
    step = generator.uniform(0, 0.14) * generator.choice([-1, 1])
    for side in (-1, 1):
        hip, knee = (side * 0.09, 0.9), (side * 0.11 + step * side * 0.5, 0.48)
        foot = (side * 0.12 + step * side * 1.1, 0.05 + 0.04 * (side * step > 0.06))
        cloth = skin if skirt or short else trousers
        leg = pen.line(bend([hip, knee, knee, foot]), (0.17, 0.15, 0.115, 0.1), cloth, bulge=0.05)
        if not skirt:
            pen.line([hip, knee] if short else [hip, knee, foot], (0.19, 0.16) if short else (0.18, 0.15, 0.12),
                     trousers, bulge=0.05)
            if not short:
                pen.line([knee + np.array((-0.05, 0.02)), knee + np.array((0.06, -0.01))], 0.012, trousers * 0.7,
                         within=leg)
        pen.fill(oval(foot[0] + 0.03 * turn, foot[1] - 0.015, 0.07, 0.045), shoes, bulge=0.03)
        pen.line([(foot[0] - 0.06 + 0.03 * turn, foot[1] - 0.05), (foot[0] + 0.06 + 0.03 * turn, foot[1] - 0.05)], 0.02,
                 shoes * 0.4)
    if skirt:
        pen.fill(curve([(-0.14, 1.05), (-0.24, 0.58), (-0.24, 0.55), (0.24, 0.55), (0.24, 0.58), (0.14, 1.05)], 2),
                 near(trousers, generator, 0.2), bulge=0.06)
    else:
        pen.fill(curve([(-0.17, 1.02), (-0.185, 0.8), (0, 0.78), (0.185, 0.8), (0.17, 1.02)], 2), trousers, bulge=0.06)
    torso = np.array([(-0.07, 1.5), (-0.2, 1.45), (-0.235, 1.38), (-0.18, 1.2), (-0.16, 1.05), (-0.185, 0.88),
                      (-0.1, 0.86),
                      (0.1, 0.86), (0.185, 0.88), (0.16, 1.05), (0.18, 1.2), (0.235, 1.38), (0.2, 1.45), (0.07, 1.5)])
    pen.line([(0.0, 1.62), (0.0, 1.42)], 0.105, skin * 0.88, bulge=0.03)
    chest = pen.fill(curve(torso * (wide, 1), 2), shirt, bulge=0.1)
    look = generator.integers(4)
    second = colour(generator, *CLOTHES)
    if look == 0:
        for y in np.arange(0.9, 1.5, 0.075):
            pen.line([(-0.3, y), (0.3, y)], 0.035, second, within=chest)
    elif look == 1:  # a jacket that is open
        pen.fill([(-0.06, 1.52), (0.06, 1.52), (0.05, 0.8), (-0.05, 0.8)], second, within=chest, bulge=0.02)
        for side in (-1, 1):
            pen.line([(side * 0.065, 1.5), (side * 0.055, 0.85)], 0.02, shirt * 0.6, within=chest)
    elif look == 2:
        pen.fill(box(-0.1, 1.15, 0.1, 1.32, 0.02), second, within=chest)
    pen.fill(curve([(-0.06, 1.52), (0.06, 1.52), (0.0, 1.4)], 1), skin * 0.95, within=chest)
    for x, y in ((-0.1, 1.0), (0.09, 1.04)):
        pen.line([(x, y), (x + 0.08, y + 0.03)], 0.01, shirt * 0.72, within=chest)
    sleeves = generator.random() < 0.5
    poses = [((0.3, 1.15), (0.3, 0.88)), ((0.36, 1.16), (0.2, 1.0)), ((0.34, 1.28), (0.4, 1.6)),
             ((0.31, 1.14), (0.12, 1.12))]
    for side in (-1, 1):
        elbow, hand = (np.array(place) for place in poses[generator.choice(4, p=(0.6, 0.15, 0.1, 0.15))])
        shoulder, elbow, hand = (np.array(place) * (side, 1) * (wide, 1) for place in ((0.205, 1.41), elbow, hand))
        pen.fill(oval(*(hand + (hand - elbow) * 0.12), 0.048, 0.058), skin, bulge=0.025)
        pen.line([elbow, hand], (0.085, 0.065), skin if sleeves else shirt, bulge=0.03)
        pen.line([shoulder, shoulder * 0.3 + elbow * 0.7] if sleeves else [shoulder, elbow, hand * 0.92 + elbow * 0.08],
                 (0.115, 0.105) if sleeves else (0.115, 0.1, 0.085), shirt * 0.95, bulge=0.045)
    x = 0.02 * turn
    for side in (-1, 1):
        pen.fill(oval(x + side * 0.088, 1.63, 0.016, 0.03), skin * 0.85)
    head = pen.fill(curve([(x - 0.062, 1.53), (x - 0.098, 1.6), (x - 0.098, 1.71), (x - 0.05, 1.765),
                           (x + 0.05, 1.765), (x + 0.098, 1.71), (x + 0.098, 1.6), (x + 0.062, 1.53), (x, 1.495)]),
                           skin, bulge=0.05)
    face = x + 0.02 * turn
    for side in (-1, 1):
        pen.fill(oval(face + side * 0.036, 1.645, 0.016, 0.01), WHITE, within=head)
        pen.fill(oval(face + side * 0.036, 1.645, 0.009, 0.01), (0.16, 0.12, 0.1), within=head)
        pen.line(bend([(face + side * 0.017, 1.667), (face + side * 0.036, 1.676), (face + side * 0.056, 1.665)]),
                 0.008, hair * 0.8, within=head)
    pen.line(bend([(face + 0.002, 1.64), (face + 0.014, 1.6), (face - 0.006, 1.594)]), 0.008, skin * 0.72, within=head)
    pen.line(bend([(face - 0.028, 1.562), (face, 1.55), (face + 0.028, 1.562)]), (0.006, 0.013, 0.006),
             skin * (0.8, 0.5, 0.5), within=head)
    if not woman and generator.random() < 0.3:
        pen.fill(curve([(x - 0.1, 1.6), (x - 0.07, 1.5), (x + 0.07, 1.5), (x + 0.1, 1.6), (x + 0.05, 1.575),
                        (x - 0.05, 1.575)]), hair, within=head, opacity=0.8, grain=0.2)
        pen.line(bend([(face - 0.022, 1.56), (face, 1.553), (face + 0.022, 1.56)]), 0.009, skin * (0.7, 0.45, 0.45),
                 within=head)
    if generator.random() < 0.18:
        hat = colour(generator, *CLOTHES)
        pen.fill(curve([(x - 0.1, 1.7), (x - 0.1, 1.8), (x, 1.85), (x + 0.1, 1.8), (x + 0.1, 1.7)]), hat, bulge=0.04)
        pen.line([(x - 0.1, 1.71), (x + 0.1 + 0.06 * turn, 1.71)], 0.03, hat * 0.7)
    else:
        fringe = generator.uniform(1.69, 1.73)
        pen.fill(curve([(x - 0.108, 1.62), (x - 0.118, 1.74), (x - 0.06, 1.81), (x + 0.06, 1.81), (x + 0.118, 1.74),
                        (x + 0.108, 1.62), (x + 0.088, 1.7), (x + 0.03, fringe + 0.02), (x - 0.05, fringe),
                        (x - 0.088, 1.69)]), hair, bulge=0.035, grain=0.15, gloss=0.15)
        if long_hair:
            for side in (-1, 1):
                pen.line(bend([(x + side * 0.1, 1.71), (x + side * 0.125, 1.55), (x + side * 0.11, 1.37)]),
                         (0.035, 0.05, 0.03), hair, bulge=0.02, grain=0.15)
    if generator.random() < 0.2:
        for side in (-1, 1):
            pen.line(oval(face + side * 0.037, 1.645, 0.026, 0.02), 0.004, BLACK, opacity=0.8)
        pen.line([(face - 0.012, 1.65), (face + 0.012, 1.65)], 0.004, BLACK, opacity=0.8)


# ---------------------------------------------------------------------------------------------------------- indoors


def draw_bottle(pen, under):
    """A bottle of wine, beer, water or milk."""
    generator = pen.generator
    kind = generator.integers(4)
    profile = (  # how wide it is at which height
        [(0.0, 0.036), (0.005, 0.038), (0.19, 0.038), (0.215, 0.030), (0.235, 0.0155), (0.30, 0.0145), (0.302, 0.017),
         (0.312, 0.017)],
        [(0.0, 0.029), (0.004, 0.031), (0.13, 0.031), (0.16, 0.022), (0.2, 0.0145), (0.228, 0.0135), (0.23, 0.016),
         (0.24, 0.016)],
        [(0.0, 0.028), (0.006, 0.033), (0.03, 0.034), (0.06, 0.031), (0.1, 0.034), (0.17, 0.034), (0.2, 0.025),
         (0.215, 0.015), (0.24, 0.015)],
        [(0.0, 0.036), (0.004, 0.04), (0.13, 0.04), (0.16, 0.034), (0.18, 0.022), (0.2, 0.02), (0.205, 0.025),
         (0.215, 0.025)],
    )[kind]
    tint = colour(generator, *(((34, 62, 40), (24, 30, 26), (88, 100, 60)), ((104, 58, 26), (50, 90, 52)),
                               ((168, 200, 214), (140, 190, 200)), ((238, 238, 232), (226, 210, 190)))[kind])
    height, radius = np.array(profile).T * np.array([[generator.uniform(0.92, 1.1)], [generator.uniform(0.95, 1.2)]])
    outline = np.concatenate([np.stack([radius, height], 1), np.stack([-radius, height], 1)[::-1]])
    wide, tall = radius.max(), height.max()
    bowl = bend([(-radius[0], 0), (-0.4 * wide, -0.008), (0.4 * wide, -0.008), (radius[0], 0)], 8)
    body = pen.fill(np.concatenate([outline, bowl]), tint, bulge=wide * 0.95, gloss=0.5, grain=0.02, ambient=0.35)

    def around(low, high, tint, share=1.0, **settings):  # what goes round it: its edges bow as seen from a little above
        dip = 0.10 * wide
        lower = bend([(-wide * share, low), (-wide * 0.5, low - dip), (wide * 0.5, low - dip), (wide * share, low)], 10)
        upper = bend([(wide * share, high), (wide * 0.5, high - dip), (-wide * 0.5, high - dip),
                      (-wide * share, high)], 10)
        return pen.fill(np.concatenate([lower, upper]), tint, within=body, **settings)

    if kind == 2:
        around(0, 0.62 * tall, tint * 0.85, bulge=wide * 0.9, gloss=0.4)
        for y in (0.2, 0.28, 0.36):
            around(y * tall, y * tall + 0.003, tint * 1.25, opacity=0.5)
    paper = colour(generator, (236, 228, 206), (240, 240, 238), (176, 40, 44), (40, 70, 120), (220, 180, 70),
                   (50, 110, 70))
    ink = BLACK if paper.mean() > 0.5 else WHITE
    low, high = (0.16, 0.44) if kind != 2 else (0.42, 0.64)
    if kind != 3 or generator.random() < 0.5:
        around(low * tall, high * tall, paper, bulge=wide * 0.9, gloss=0.05, ambient=0.4)
        around((high - 0.045) * tall, (high - 0.03) * tall, colour(generator, (190, 150, 60), (160, 30, 40)))
        for share, size in ((0.62, 0.008), (0.42, 0.003), (0.32, 0.003), (0.22, 0.003)):
            y = (low + (high - low) * share) * tall
            reach = wide * generator.uniform(0.35, 0.65)
            pen.line(bend([(-reach, y), (0, y - 0.08 * wide), (reach, y)]), size * tall / 0.3, ink * 0.9 + 0.05,
                     within=body, opacity=0.85)
    cap = colour(generator, (120, 24, 34), (196, 160, 70), (40, 80, 150), (200, 200, 200), (40, 40, 44))
    neck = float(np.interp(tall * 0.97, height, radius))
    start = 0.8 if kind == 0 else 0.93
    pen.fill(box(-neck * 1.12, start * tall, neck * 1.12, tall * 1.012, 0.003), cap, bulge=neck, gloss=0.3)
    side = -1 if pen.light[0] * pen.facing < 0 else 1
    shine = [(side * wide * 0.62, 0.03 * tall), (side * wide * 0.62, 0.6 * tall), (side * neck * 0.5, 0.8 * tall)]
    pen.line(shine, (0.006, 0.010, 0.003), WHITE, within=body, opacity=0.5)


def draw_pottedplant(pen, under):
    """A pot with broad leaves, blades, or a bush that may be in flower."""
    generator = pen.generator
    clay = colour(generator, (176, 98, 64), (190, 116, 80), (226, 224, 218), (70, 90, 120), (60, 60, 64),
                  (150, 130, 100))
    leaf_tint = colour(generator, *LEAVES)
    kind = generator.integers(4)
    stems = []
    tall = generator.uniform(0.55, 0.95)

    def leaf(start, tip, sag, width):
        start, tip = np.array(start), np.array(tip)
        middle = (start + tip) / 2 + (0, sag)
        rib = bend([start, middle, tip], 12)
        tint = near(leaf_tint, generator, 0.16)
        blade = pen.fill(band(rib, np.array([0.1, 0.6, 0.95, 1.0, 0.8, 0.45, 0.05]) * width), tint, bulge=0.3 * width,
                         gloss=0.15, grain=0.06)
        pen.line(rib, 0.04 * width + 0.002, tint * 1.35 + 0.03, within=blade, opacity=0.8)

    if kind == 0:  # blades from the ground
        for lean in generator.permutation(np.linspace(-1, 1, 22)):
            reach = generator.uniform(0.75, 1.1) * tall
            tip = (lean * 0.42 + generator.normal(0, 0.04), 0.32 + reach * (1 - 0.5 * abs(lean)))
            leaf((lean * 0.08, 0.3), tip, 0.16 * abs(lean), 0.055)
    elif kind == 1:  # broad leaves on stalks
        for lean in generator.permutation(np.linspace(-1, 1, 13)):
            turn = lean * 1.35 + generator.normal(0, 0.1)
            reach = generator.uniform(0.25, 0.75) * tall
            end = np.array((np.sin(turn) * reach * 0.75, 0.38 + np.cos(turn) * reach * 0.9))
            pen.line(bend([(0, 0.3), (0, 0.45), end]), 0.014, leaf_tint * 0.8)
            stems.append((end, turn))
        for end, turn in stems:
            size = generator.uniform(0.2, 0.32)
            leaf(end, end + np.array((np.sin(turn * 1.2), np.cos(turn * 1.2) * 0.6)) * size, 0.04, size * 0.6)
    else:  # a bush
        bloom = colour(generator, (214, 60, 80), (236, 190, 70), (230, 220, 230), (160, 80, 170), (236, 120, 60))
        radius = generator.uniform(0.24, 0.36)
        centre = 0.36 + radius * 0.9
        pen.fill(bumpy(oval(0, centre, radius, radius * 0.85), generator, 0.07), leaf_tint * 0.5, bulge=0.1, gloss=0)
        pen.line([(0, 0.3), (0, centre)], 0.04, (0.35, 0.25, 0.17))
        for order in np.linspace(0, 1, 90):
            turn, reach = generator.uniform(0, 6.3), np.sqrt(generator.uniform(0.02, 1.05)) * (1.05 - 0.25 * order)
            start = np.array((np.cos(turn) * reach * radius, centre + np.sin(turn) * reach * radius * 0.88))
            way = start - (0, centre - 0.1) + generator.normal(0, 0.08, 2)
            way *= 0.1 / (np.linalg.norm(way) + 1e-6)
            tint = leaf_tint * (0.6 + 0.5 * order) * generator.normal(1, 0.1)
            pen.line([start - way * 0.5, start, start + way * 0.5], (0.006, 0.05, 0.004), tint, bulge=0.015, gloss=0.1)
        for _ in range(14 if kind == 3 else 0):
            turn, reach = generator.uniform(0, 6.3), np.sqrt(generator.uniform(0, 0.85))
            x, y = np.cos(turn) * reach * radius, centre + np.sin(turn) * reach * radius * 0.85
            for petal in np.arange(5) * 1.2566 + turn:
                pen.fill(oval(x + 0.024 * np.cos(petal), y + 0.024 * np.sin(petal), 0.02, 0.02, count=12),
                         near(bloom, generator), bulge=0.008)
            pen.fill(oval(x, y, 0.014, 0.014, count=10), (0.92, 0.76, 0.25))
    pen.fill(oval(0, 0.33, 0.165, 0.035), (0.2, 0.14, 0.1), grain=0.3)
    body = pen.fill(curve([(-0.16, 0.31), (-0.16, 0.31), (-0.125, 0.0), (-0.11, -0.015), (0.11, -0.015), (0.125, 0.0),
                           (0.16, 0.31), (0.16, 0.31)], 2), clay, bulge=0.13, gloss=0.12)
    pattern = generator.integers(3)
    if pattern == 1:
        pen.fill(box(-0.2, 0.1, 0.2, 0.16), clay * 0.55, within=body)
    elif pattern == 2:
        for x in np.linspace(-0.12, 0.12, 6):
            pen.fill([(x - 0.02, 0.16), (x, 0.19), (x + 0.02, 0.16), (x, 0.13)], clay * 1.4 + 0.1, within=body)
    pen.fill(box(-0.185, 0.26, 0.185, 0.34, 0.012), clay * 1.04, bulge=0.1, gloss=0.12)
    pen.line([(-0.16, 0.25), (0.16, 0.25)], 0.016, clay * 0.5, within=body)
    if kind == 0:  # some blades hang over the rim
        for lean in (-0.9, -0.5, 0.6, 0.95):
            leaf((lean * 0.1, 0.34), (lean * 0.38, 0.42 - 0.22 * abs(lean)), 0.3, 0.05)


def draw_chair(pen, under):
    """A chair of wood, padded, or of plastic on thin legs, from any side."""
    generator = pen.generator
    frame = colour(generator, *WOODS)
    kind = generator.integers(4)  # slats, padded, plastic shell, ladder
    cloth = colour(generator, *CLOTHES)
    if kind == 2:
        frame = colour(generator, (170, 172, 176), (60, 60, 64), (200, 170, 120))
    yaw = generator.uniform(0.25, 0.75) if generator.random() < 0.7 else generator.uniform(2.3, 2.9)  # or from behind
    tilt = generator.uniform(0.25, 0.45)
    wide, deep, high, back = 0.22, 0.21, 0.46, generator.uniform(0.92, 1.05)
    thick = 0.055 if kind != 2 else 0.032

    def seen(x, y, z):
        turned_x, turned_z = x * np.cos(yaw) + z * np.sin(yaw), -x * np.sin(yaw) + z * np.cos(yaw)
        return np.array((turned_x, y * np.cos(tilt) + turned_z * np.sin(tilt) + 0.1))

    def farness(x, z):
        return -x * np.sin(yaw) + z * np.cos(yaw)

    # z is where it looks from: its back is at z = +deep, which is behind unless the chair is turned away
    seat_tint = cloth if kind in (1, 2) else frame
    lean = 0.07

    def draw_back():
        posts = [[(x, high - 0.06, deep), (x, high, deep), (x, back, deep + lean)] for x in (-wide, wide)]
        if kind in (0, 3):
            if kind == 0:
                for x in np.linspace(-wide * 0.66, wide * 0.66, 4):
                    pen.line([seen(x, high, deep), seen(x, back - 0.04, deep + lean)], 0.036, frame * 0.92, bulge=0.012,
                             grain=0.12)
            else:
                for share in (0.3, 0.58):
                    y, z = high + (back - high) * share, deep + lean * share
                    pen.line([seen(-wide, y, z), seen(wide, y, z)], 0.06, frame * 0.92, bulge=0.015, grain=0.12)
            pen.line([seen(-wide, back - 0.02, deep + lean), seen(wide, back - 0.02, deep + lean)], 0.1, frame,
                     bulge=0.02, grain=0.12)
        else:
            low = high + (0.12 if kind == 1 else 0.06)
            corners = [seen(-wide, low, deep), seen(wide, low, deep), seen(wide, back, deep + lean),
                       seen(-wide, back, deep + lean)]
            pane = pen.through(to_quad([(0, 0), (1, 0), (1, 1), (0, 1)], corners), (0.5, 0.5))
            pane.fill(box(0, 0, 1, 1, 0.2), cloth * 0.95, bulge=0.14, gloss=0.1 if kind == 1 else 0.35, grain=0.1)
            if kind == 1 and generator.random() < 0.6:
                for x, y in np.ndindex(3, 3):
                    pane.fill(oval(0.2 + 0.3 * x, 0.2 + 0.3 * y, 0.03, 0.03), cloth * 0.5)
        if kind != 2:
            for post in posts:
                pen.line([seen(*place) for place in post], thick, frame, bulge=0.016, grain=0.12)
        else:
            for x in (-wide * 0.6, wide * 0.6):
                pen.line([seen(x, high, deep), seen(x, high + 0.12, deep)], thick, frame, bulge=0.01)

    def draw_leg(x, z):
        splay = 1.18 if kind == 2 else 1.04
        shade = 0.8 if farness(x, z) > 0 else 1.0
        pen.line([seen(x * 0.92, high, z * 0.92), seen(x * splay, 0, z * splay)], (thick * 1.1, thick * 0.8),
                 frame * shade, bulge=0.016, grain=0.12)

    legs = sorted(((x, z) for x in (-wide, wide) for z in (-deep, deep)), key=lambda place: -farness(*place))
    is_behind = farness(0, deep) > 0
    for place in legs[:3]:
        draw_leg(*place)
    if kind in (0, 3):
        for x in (-wide, wide):
            pen.line([seen(x, 0.18, -deep), seen(x, 0.18, deep)], 0.028, frame * 0.75, bulge=0.01)
    if is_behind:
        draw_back()
    draw_leg(*legs[3])
    rim = [seen(x, high - dy, z) for dy in (0, 0.055) for x, z in ((-wide, -deep), (wide, -deep), (wide, deep),
                                                                   (-wide, deep))]
    hull = cv2.convexHull(np.float32(rim))[:, 0]
    pen.fill(hull, seat_tint * 0.62, grain=0.1)
    corners = [seen(x, high, z) for x, z in ((-wide, -deep), (wide, -deep), (wide, deep), (-wide, deep))]
    seat = pen.through(to_quad([(0, 0), (1, 0), (1, 1), (0, 1)], corners), (0.5, 0.5))
    seat.fill(box(0, 0, 1, 1, 0.1), seat_tint * 1.08, bulge=0.16 if kind in (1, 2) else 0.04, grain=0.1, gloss=0.15)
    if not is_behind:
        draw_back()


def draw_tvmonitor(pen, under):
    """A flat screen on its foot or an old television, switched on or off."""
    generator = pen.generator
    case = colour(generator, (26, 26, 28), (40, 40, 44), (186, 188, 190), (60, 58, 56))
    old = generator.random() < 0.3
    wide, tall = (0.62, 0.5) if old else (generator.uniform(0.8, 0.95), generator.uniform(0.48, 0.56))
    base = 0.03 if old else generator.uniform(0.07, 0.12)
    if old:
        case = colour(generator, (120, 84, 56), (60, 58, 58), (150, 150, 148))
        for end in (-0.2, 0.22):
            pen.line([(0, base + tall), (end, base + tall + 0.26)], (0.016, 0.01), (0.6, 0.6, 0.62))
        for x in (-wide * 0.36, wide * 0.36):
            pen.line([(x, base + 0.01), (x, 0.0)], 0.05, BLACK)
    else:
        pen.fill(oval(0, 0.012, 0.17, 0.026), case * 0.9, bulge=0.01, gloss=0.2)
        pen.fill(box(-0.045, 0.015, 0.045, base + 0.1), case * 0.75, bulge=0.03, gloss=0.2)
        if generator.random() < 0.35:  # a keyboard before it
            under.fill([(-0.26, -0.1), (0.24, -0.1), (0.22, -0.03), (-0.24, -0.03)], case * 0.9 + 0.04, gloss=0.1)
            for row in range(4):
                for key in range(12):
                    x, y = -0.235 + 0.039 * key + 0.002 * row, -0.088 + 0.015 * row
                    under.fill(box(x, y, x + 0.03, y + 0.01), case * 0.5 + 0.3)
    slant = generator.uniform(-0.09, 0.09)
    half = wide / 2 * (1 - 1.5 * abs(slant))
    corners = [(-half, base - tall * max(slant, 0) * 0.0), (half, base), (half, base + tall), (-half, base + tall)]
    corners = [(x, y + (tall * slant * (0.5 if y > base else -0.5)) * np.sign(x)) for x, y in corners]
    face = pen.through(to_quad([(0, 0), (wide, 0), (wide, tall), (0, tall)], corners), (wide / 2, tall / 2))
    face.fill(box(0, 0, wide, tall, 0.015), case, bulge=0.02, gloss=0.25)
    rim = 0.05 if old else generator.uniform(0.018, 0.03)
    right = wide - (0.16 if old else rim)
    area = (rim, rim * 1.3, right, tall - rim)
    corner = 0.06 if old else 0.004
    if old:
        for y in (0.12, 0.22):
            face.fill(oval(wide - 0.08, tall - y, 0.035, 0.035), case * 1.6 + 0.1, bulge=0.015, gloss=0.3)
        for y in np.arange(0.05, 0.2, 0.025):
            face.line([(wide - 0.13, y), (wide - 0.03, y)], 0.01, case * 0.4)
    else:
        face.fill(oval(wide / 2, rim * 0.6, 0.008, 0.008), (0.3, 0.7, 0.95))
    draw_screen(face, area, corner)


def draw_screen(face, area, corner):
    """What a screen shows in its area (left, bottom, right, top): a landscape, a page, a desktop, a game or nothing."""
    generator = face.generator
    left, bottom, right, top = area
    wide, tall = right - left, top - bottom
    outline = box(*area, corner)
    show = generator.choice(5, p=(0.3, 0.2, 0.2, 0.15, 0.15))

    def at(x, y):
        return left + wide * np.asarray(x), bottom + tall * np.asarray(y)

    def patch(points, tint, **settings):
        x, y = at(*np.array(points, float).T)
        return face.fill(np.stack([x, y], 1), tint, within=screen, grain=0.02, ambient=0.9, **settings)

    plain = (colour(generator, (90, 160, 220), (240, 170, 110), (120, 130, 190)), np.float32((0.95, 0.95, 0.95)),
             colour(generator, (30, 90, 140), (90, 50, 110), (40, 110, 100)), np.float32((0.06, 0.08, 0.2)),
             np.float32((0.05, 0.055, 0.06)))[show]
    screen = face.fill(outline, plain, grain=0.02, ambient=0.9, gloss=0.1)
    if show == 0:
        patch(oval(0.75, 0.72, 0.08, 0.12), (1, 0.95, 0.7))
        patch(curve([(-0.1, 0.4), (0.15, 0.75), (0.3, 0.5), (0.5, 0.8), (0.75, 0.45), (1.1, 0.6), (1.1, -0.1),
                     (-0.1, -0.1)], 1), colour(generator, (80, 90, 110), (110, 90, 90)))
        patch(curve([(-0.1, 0.3), (0.4, 0.4), (1.1, 0.25), (1.1, -0.1), (-0.1, -0.1)]), colour(generator, *LEAVES))
    elif show == 1:
        patch(box(0, 0.88, 1, 1), (0.25, 0.4, 0.65))
        for y in np.arange(0.12, 0.8, 0.09):
            patch(box(0.08, y, generator.uniform(0.45, 0.62), y + 0.03), (0.35, 0.35, 0.38))
        patch(box(0.68, 0.35, 0.93, 0.78), colour(generator, *CLOTHES))
    elif show == 2:
        patch(box(0, 0, 1, 0.08), (0.15, 0.16, 0.2))
        for x, y in ((0.12, 0.25), (0.4, 0.4)):
            patch(box(x, y, x + 0.45, y + 0.45), (0.93, 0.93, 0.94))
            patch(box(x, y + 0.38, x + 0.45, y + 0.45), colour(generator, *CLOTHES))
            for row in (0.08, 0.16, 0.24):
                patch(box(x + 0.04, y + row, x + generator.uniform(0.2, 0.4), y + row + 0.03), (0.5, 0.5, 0.55))
    elif show == 3:
        for index in range(7):
            tint = np.array([index >> 2 & 1, index >> 1 & 1, index & 1], np.float32) * 0.75 + 0.15
            patch(box(index / 7, 0.25, (index + 1) / 7, 1), tint)
    start = generator.uniform(0.05, 0.5)
    patch([(start, 0), (start + 0.18, 0), (start + 0.45, 1), (start + 0.27, 1)], WHITE, opacity=0.1)


DRAW = {"aeroplane": draw_aeroplane, "bird": draw_bird, "boat": draw_boat, "bottle": draw_bottle, "bus": draw_bus,
        "car": draw_car, "cat": draw_cat, "chair": draw_chair, "person": draw_person, "pottedplant": draw_pottedplant,
        "sheep": draw_sheep, "train": draw_train, "tvmonitor": draw_tvmonitor}


# ---------------------------------------------------------------------------------------------------------- scenes


class Scene:
    """A place to put things: picture (height, width, 3), and where in it the ground is.

    horizon is the row of the eye's height, edge the row where the ground begins, ground one of land, floor, water, air.
    """

    def __init__(self, picture, horizon, edge, light, ground):
        self.picture, self.horizon, self.edge, self.light, self.ground = picture, horizon, edge, light, ground


def scene_pen(generator, shape, light):
    """A pen whose places are pixels, y upwards from the lower edge; for what belongs to no class."""
    return Pen(generator, shape, np.array([[1.0, 0, 0], [0, -1, shape[0]], [0, 0, 1]]), light)


def put(picture, pen):
    """Lay what a pen has drawn on a picture, in place."""
    rows, columns = np.nonzero(pen.alpha.any(axis=1))[0], np.nonzero(pen.alpha.any(axis=0))[0]
    if len(rows):
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        picture[window] = blend(picture[window], pen.colours[window], pen.alpha[window])


def on_ground(texture, shape, horizon, edge, near):
    """A texture (n, n, 3) laid on the ground from the row edge down; near is texels per pixel at the lower edge."""
    height, width = shape
    rows = np.arange(int(edge), height, dtype=np.float32)[:, None]
    depth = (height - horizon) / np.maximum(rows + 0.5 - horizon, 1)
    across = near * depth * (np.arange(width, dtype=np.float32) - width / 2)
    along = np.broadcast_to(near * depth * width, across.shape)
    size = len(texture)
    maps = [np.abs((place + 0.37 * size) % (2 * size) - size).clip(0, size - 1) for place in (across, along)]
    maps = [np.ascontiguousarray(place, np.float32) for place in maps]
    finer, coarser = (cv2.remap(level, *maps, cv2.INTER_LINEAR) for level in (texture,
                                                                              cv2.GaussianBlur(texture, (0, 0), 3)))
    far = np.broadcast_to(depth * near, across.shape)
    ground = blend(finer, coarser, np.ascontiguousarray(ramp(far, 1, 4), np.float32))
    mean = texture.mean(axis=(0, 1))
    return blend(ground, mean, np.ascontiguousarray(ramp(far, 3, 14), np.float32))


def draw_sky(generator, shape, horizon):
    """Blue, grey or evening sky with clouds: (height, width, 3)."""
    height, width = shape
    kinds = (((70, 130, 205), (178, 210, 235)), ((96, 150, 210), (205, 222, 235)), ((150, 160, 172), (205, 208, 210)),
             ((70, 90, 150), (240, 180, 130)), ((120, 175, 225), (220, 232, 240)))
    above, below = (colour(generator, choice, spread=0.05) for choice in kinds[generator.integers(len(kinds))])
    fall = np.clip(np.arange(height, dtype=np.float32) / max(horizon, 1), 0, 1) ** 1.2
    picture = blend(np.tile(above, (height, width, 1)), below, np.repeat(fall[:, None], width, 1))
    size = generator.uniform(40, 110)
    clouds = rough_noise(generator, shape, (size, size * generator.uniform(1.3, 3)), 5).astype(np.float32)
    level = generator.uniform(-0.2, 1.3)
    cover = ramp(clouds, level, level + 0.9) * generator.uniform(0.5, 1)
    lower = ramp(clouds - np.roll(clouds, int(size * 0.25), axis=0), -0.9, 0.7)
    white = threefold(0.72 + 0.26 * lower) * np.float32((1.0, 1.0, 1.01))
    return blend(picture, white, cover.astype(np.float32))


def add_hills(generator, picture, horizon, light):
    """Hills or mountains along the horizon, the farther ones paler."""
    height, width = picture.shape[:2]
    haze = picture[max(int(horizon) - 3, 0)].mean(axis=0)
    x = np.arange(-10, width + 11, 5)
    for nearness in (0.3, 0.6)[: generator.integers(0, 3)]:
        tall = generator.uniform(0.04, 0.16) * height * (1.3 - nearness)
        ridge = sum(
            np.sin(x / width * generator.uniform(2, 5) * 2**k + generator.uniform(0, 6.3)) * 0.55**k for k in range(5)
        )
        tops = height - horizon + tall * (1 + 0.5 * ridge) * 0.8
        pen = scene_pen(generator, (height, width), light)
        shade = colour(generator, (60, 80, 60), (70, 84, 100), (84, 90, 70))
        tint = blend(haze[None], shade, np.float32([nearness]))[0]
        pen.fill(np.concatenate([np.stack([x, tops], 1), [(width + 10, 0), (-10, 0)]]), tint, gloss=0, grain=0.06,
                 ambient=0.6)
        put(picture, pen)


def add_trees(generator, picture, base, light, count, tall):
    """Trees that stand on the row base, and bushes."""
    height, width = picture.shape[:2]
    pen = scene_pen(generator, (height, width), light)
    for _ in range(count):
        x, size = generator.uniform(-20, width + 20), tall * generator.uniform(0.5, 1.2)
        foot = height - base - generator.uniform(0, 0.06) * size
        tint = colour(generator, *LEAVES) * 0.8
        if generator.random() < 0.3:  # a conifer
            for level in np.linspace(0.15, 0.75, 4):
                reach = size * 0.28 * (1.1 - level)
                tier = [(x - reach, foot + level * size), (x + reach, foot + level * size),
                        (x, foot + size * (level + 0.35))]
                pen.fill(bumpy(tier, generator, size * 0.08), tint * 0.75, bulge=0.06 * size, gloss=0, grain=0.2)
        else:
            pen.line([(x, foot), (x, foot + 0.5 * size)], size * 0.07, (0.3, 0.22, 0.16), grain=0.2)
            for _ in range(5):
                at = (x + generator.normal(0, 0.16) * size, foot + size * generator.uniform(0.45, 0.85))
                blob = bumpy(oval(*at, size * generator.uniform(0.16, 0.3), size * generator.uniform(0.14, 0.24),
                                  count=16), generator, size * 0.1)
                pen.fill(blob, near(tint, generator, 0.12), bulge=0.12 * size, gloss=0, grain=0.22)
    put(picture, pen)


def add_buildings(generator, picture, base, light):
    """A row of houses whose feet are on the row base."""
    height, width = picture.shape[:2]
    pen = scene_pen(generator, (height, width), light)
    foot, x = height - base, -generator.uniform(0, 60)
    storey = generator.uniform(22, 40)
    while x < width:
        wide, floors = generator.uniform(60, 150), generator.integers(1, 5)
        top = foot + storey * floors + 8
        wall = colour(generator, (196, 180, 156), (160, 90, 70), (210, 208, 200), (150, 150, 150), (204, 170, 130),
                      (120, 130, 146))
        pen.fill(box(x, foot - 2, x + wide, top), wall, gloss=0, grain=0.08)
        if floors < 4 and generator.random() < 0.6:
            roof = [(x - 4, top), (x + wide + 4, top), (x + wide * 0.8, top + storey * 0.9),
                    (x + wide * 0.2, top + storey * 0.9)]
            pen.fill(roof, colour(generator, (130, 70, 54), (90, 84, 84), (110, 60, 50)), gloss=0, grain=0.15)
        count = max(int(wide / 22), 1)
        pane = colour(generator, *GLASS)
        for floor in range(floors):
            for index in range(count):
                left, low = x + (index + 0.28) * wide / count, foot + 7 + floor * storey
                pen.fill(box(left - 1.5, low - 1.5, left + 0.45 * wide / count + 1.5, low + storey * 0.55 + 1.5),
                         wall * 1.15 + 0.03, grain=0)
                pen.fill(box(left, low, left + 0.45 * wide / count, low + storey * 0.55), near(pane, generator, 0.25),
                         grain=0)
        x += wide + (generator.uniform(6, 30) if generator.random() < 0.3 else 0)
    put(picture, pen)


def noisy(generator, tint, *parts):
    """A texture (512, 512, 3) of a colour, lighter and darker by noises (size, strength)."""
    texture = 1 + sum(strength * smooth_noise(generator, (512, 512), size) for size, strength in parts)
    return tint * threefold(texture.astype(np.float32))


def planks(generator, tint, across):
    """A texture (512, 512, 3) of boards."""
    texture = noisy(generator, tint, ((60, 6), 0.08), ((200, 18), 0.06))
    x = np.arange(512)
    board = x // across
    shades = generator.normal(1, 0.09, 512 // across + 1)[board]
    shades = np.where(x % across < 3, 0.45, shades).astype(np.float32)
    return texture * threefold(np.tile(shades, (512, 1)))


def tiles(generator, tint, second, size):
    """A texture (512, 512, 3) of square tiles in two colours."""
    texture = noisy(generator, tint, (6, 0.04), (60, 0.06))
    y, x = np.mgrid[:512, :512]
    odd = ((x // size + y // size) % 2).astype(np.float32)
    texture = blend(texture, noisy(generator, second, (6, 0.04), (60, 0.06)), odd)
    joint = ((x % size < 3) | (y % size < 3)).astype(np.float32)
    return blend(texture, tint * 0.5, 0.8 * joint)


def add_blades(generator, picture, edge, tint, pens=None):
    """Blades of grass, longer towards the lower edge of the picture, in place."""
    height, width = picture.shape[:2]
    count = 900
    depth = np.sort(generator.random(count) ** 0.6)
    drawn = np.clip(picture * 255, 0, 255).astype(np.uint8)
    roots = np.stack([generator.uniform(0, width, count), edge + depth * (height * 1.04 - edge)], axis=1)
    tall = 2 + 17 * depth**1.5 * generator.uniform(0.5, 1.3, count)
    tips = roots + np.stack([generator.normal(0, 0.35, count) * tall, -tall], axis=1)
    shades = np.clip(tint * generator.normal(1, 0.2, (count, 1)) * 255 * generator.normal(1, 0.05, (count, 3)), 0, 255)
    for ends, shade in zip((np.stack([roots, tips], 1) * 16).astype(np.int32), shades.tolist(), strict=True):
        cv2.line(drawn, ends[0].tolist(), ends[1].tolist(), shade, 1, cv2.LINE_AA, 4)
    picture[int(edge) :] = drawn[int(edge) :].astype(np.float32) / 255


GRASSES = ((104, 138, 62), (88, 122, 58), (136, 150, 82), (124, 140, 60), (160, 150, 96))


def air(generator, shape, light):
    """Only sky, or sky above a strip of land."""
    height, width = shape
    horizon = height * (generator.uniform(0.82, 1.0) if generator.random() < 0.35 else 1.6)
    picture = draw_sky(generator, shape, horizon)
    if horizon < height:
        add_hills(generator, picture, horizon, light)
        picture[int(horizon) :] = colour(generator, *GRASSES) * 0.6
        add_trees(generator, picture, horizon + 4, light, 14, 0.1 * height)
    return Scene(picture, horizon, height, light, "air")


def leafy(generator, shape, light):
    """Leaves, sky and branches out of focus, as behind a bird on its branch."""
    height, width = shape
    picture = draw_sky(generator, shape, height)
    pen = scene_pen(generator, shape, light)
    for _ in range(generator.integers(15, 60)):
        x, y = generator.uniform((0, 0), (width, height))
        size = generator.uniform(20, 70)
        pen.fill(bumpy(oval(x, y, size, size * 0.8, count=12), generator, 14), colour(generator, *LEAVES), bulge=10,
                 gloss=0, grain=0.2)
    for _ in range(generator.integers(0, 4)):
        x, lean = generator.uniform(0, width), generator.normal(0, 80)
        pen.line([(x, 0), (x + lean, height)], (22, 8), colour(generator, *WOODS) * 0.7, bulge=6, grain=0.2)
    put(picture, pen)
    return Scene(cv2.GaussianBlur(picture, (0, 0), generator.uniform(4, 9)), height * 1.6, height, light, "air")


def field(generator, shape, light):
    """Grass with hills, trees, a fence or houses behind."""
    height, width = shape
    horizon = height * generator.uniform(0.22, 0.5)
    picture = draw_sky(generator, shape, horizon)
    add_hills(generator, picture, horizon, light)
    if generator.random() < 0.2:
        add_buildings(generator, picture, horizon + 4, light)
    add_trees(generator, picture, horizon + 4, light, generator.integers(2, 14), generator.uniform(0.12, 0.4) * height)
    grass = colour(generator, *GRASSES)
    texture = noisy(generator, grass, (4, 0.10), (14, 0.09), (70, 0.12))
    dry = ramp(smooth_noise(generator, (512, 512), 90), 0.2, 1.5) * generator.uniform(0, 0.8)
    texture = blend(texture, colour(generator, (170, 150, 96), (120, 96, 66)), dry.astype(np.float32))
    picture[int(horizon) :] = on_ground(texture, shape, horizon, horizon, 1.2)
    add_blades(generator, picture, horizon + 6, grass * 1.05)
    if generator.random() < 0.3:
        pen, y = scene_pen(generator, shape, light), height - horizon - generator.uniform(6, 22)
        wood = colour(generator, *WOODS)
        for x in np.arange(generator.uniform(-40, 0), width, 46):
            pen.line([(x, y - 3), (x, y + 34)], 5, wood, bulge=2)
        for rail in (10, 24):
            pen.line([(0, y + rail), (width, y + rail)], 3.5, near(wood, generator), bulge=1)
        put(picture, pen)
    return Scene(picture, horizon, horizon + 12, light, "land")


def road(generator, shape, light):
    """A street with a pavement and houses, or a road through the country."""
    height, width = shape
    horizon = height * generator.uniform(0.3, 0.48)
    picture = draw_sky(generator, shape, horizon)
    town = generator.random() < 0.65
    edge = horizon + 0.1 * height
    if town:
        picture[int(horizon) :] = 0.5
        add_buildings(generator, picture, edge - 0.05 * height, light)
    else:
        add_hills(generator, picture, horizon, light)
        picture[int(horizon) :] = colour(generator, *GRASSES) * 0.8
    add_trees(generator, picture, edge - 0.04 * height, light, generator.integers(0, 7),
              generator.uniform(0.2, 0.45) * height)
    asphalt = noisy(generator, colour(generator, (104, 104, 108), (84, 86, 90), (128, 124, 118)), (2, 0.12), (9, 0.06),
                    (120, 0.06))
    picture[int(edge) :] = on_ground(asphalt, shape, horizon, edge, 1.6)
    kerb = height - edge
    pen = scene_pen(generator, shape, light)
    if town:
        stone = colour(generator, (168, 164, 158), (150, 146, 144), (176, 160, 140))
        pen.fill(box(-5, kerb, width + 5, kerb + 0.06 * height), stone, gloss=0, grain=0.1)
        for x in np.arange(0, width, 34):
            pen.line([(x, kerb), (x + 4, kerb + 0.06 * height)], 1.2, stone * 0.7)
        pen.fill(box(-5, kerb - 4, width + 5, kerb + 1), stone * 1.15, gloss=0)
        for _ in range(generator.integers(0, 3)):
            x = generator.uniform(0, width)
            pen.line([(x, kerb), (x, kerb + 0.45 * height)], 4, (0.25, 0.26, 0.28), bulge=2)
            if generator.random() < 0.5:
                pen.fill(oval(x, kerb + 0.45 * height, 12, 12),
                         colour(generator, (190, 40, 44), (40, 80, 160), (230, 180, 50)), gloss=0.1)
                pen.fill(oval(x, kerb + 0.45 * height, 8, 8), WHITE)
            else:
                pen.line([(x, kerb + 0.45 * height), (x + 18, kerb + 0.47 * height)], 4, (0.25, 0.26, 0.28))
    lane = kerb * generator.uniform(0.35, 0.6)
    for x in np.arange(generator.uniform(-80, 0), width, 110):
        pen.fill([(x, lane), (x + 55, lane), (x + 56, lane - 6), (x - 3, lane - 6)], WHITE * 0.95, gloss=0, grain=0.15,
                 opacity=0.85)
    put(picture, pen)
    return Scene(picture, horizon, edge + 4, light, "land")


def runway(generator, shape, light):
    """The apron of an airport: concrete, grass and trees far away."""
    height, width = shape
    horizon = height * generator.uniform(0.5, 0.62)
    picture = draw_sky(generator, shape, horizon)
    add_hills(generator, picture, horizon, light)
    picture[int(horizon) :] = colour(generator, *GRASSES) * 0.9
    if generator.random() < 0.5:
        add_buildings(generator, picture, horizon + 4, light)
    add_trees(generator, picture, horizon + 4, light, 12, 0.1 * height)
    edge = horizon + 0.06 * height
    concrete = tiles(generator, *(colour(generator, (160, 158, 152), (140, 140, 138), spread=0.04) for _ in range(2)),
                     256)
    picture[int(edge) :] = on_ground(concrete, shape, horizon, edge, 1.5)
    return Scene(picture, horizon, edge + 10, light, "land")


def track(generator, shape, light):
    """Land along a railway: grass, ballast, trees or houses, poles."""
    height, width = shape
    horizon = height * generator.uniform(0.38, 0.5)
    picture = draw_sky(generator, shape, horizon)
    add_hills(generator, picture, horizon, light)
    if generator.random() < 0.35:
        add_buildings(generator, picture, horizon + 4, light)
    add_trees(generator, picture, horizon + 5, light, generator.integers(4, 16), generator.uniform(0.15, 0.4) * height)
    grass = colour(generator, *GRASSES)
    texture = noisy(generator, grass, (4, 0.12), (30, 0.14))
    stones = ramp(smooth_noise(generator, (512, 512), 120), -0.5, 0.5).astype(np.float32)
    texture = blend(texture, noisy(generator, colour(generator, (130, 120, 112), (110, 104, 100)), (3, 0.25)), stones)
    picture[int(horizon) :] = on_ground(texture, shape, horizon, horizon, 1.2)
    add_blades(generator, picture, horizon + 6, grass)
    pen = scene_pen(generator, shape, light)
    for x in np.arange(generator.uniform(0, 120), width, 190):
        pen.line([(x, height - horizon - 10), (x, height + 10)], 5, (0.35, 0.36, 0.36), bulge=2)
        pen.line([(x, height - 40), (x + 60, height - 52)], 3, (0.35, 0.36, 0.36))
    pen.line([(-5, height - 36), (width + 5, height - 44)], 1.5, BLACK)
    put(picture, pen)
    return Scene(picture, horizon, horizon + 30, light, "land")


def water(generator, shape, light):
    """Sea, lake or river under the sky, with or without a shore beyond."""
    height, width = shape
    horizon = height * generator.uniform(0.3, 0.6)
    picture = draw_sky(generator, shape, horizon)
    add_hills(generator, picture, horizon, light)
    if generator.random() < 0.5:
        add_trees(generator, picture, horizon + 1, light, generator.integers(6, 20),
                  generator.uniform(0.06, 0.16) * height)
    elif generator.random() < 0.3:
        add_buildings(generator, picture, horizon + 1, light)
    row = int(horizon)
    mirrored = cv2.GaussianBlur(picture[:row][::-1], (0, 0), sigmaX=3, sigmaY=8)
    mirrored = cv2.resize(mirrored, (width, height - row))
    deep = colour(generator, (40, 84, 110), (50, 100, 100), (70, 90, 96), (36, 66, 100))
    surface = mirrored * 0.5 + deep * 0.5
    size = generator.uniform(8, 20)
    swell = smooth_noise(generator, (512, 512), (size, 4 * size)) + 0.6 * smooth_noise(
        generator, (512, 512), (size / 3, size * 1.5)
    )
    waves = on_ground(threefold(swell.astype(np.float32)), shape, horizon, row, 1.3)[..., 0]
    strength = generator.uniform(0.06, 0.16)
    surface = surface * threefold((1 + strength * waves).astype(np.float32))
    surface = blend(surface, (0.9, 0.95, 0.97), (0.5 * ramp(waves, 1.3, 2.6)).astype(np.float32))
    picture[row:] = surface
    return Scene(picture, horizon, horizon + 14, light, "water")


def draw_wall(generator, shape, light):
    """A wall with paint, stripes, dots, tiles or bricks, lit from a side: (height, width, 3)."""
    height, width = shape
    tint = colour(generator, (206, 196, 176), (176, 190, 196), (196, 176, 160), (150, 164, 150), (226, 222, 214),
                  (160, 110, 96), (120, 136, 156))
    kind = generator.integers(6)
    picture = np.tile(tint, (height, width, 1))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    second = near(tint, generator, 0.15) if generator.random() < 0.6 else colour(generator, *CLOTHES)
    size = generator.integers(18, 46)
    if kind == 1:
        picture = blend(picture, second, ((x // size) % 2) * 0.8)
    elif kind == 2:
        odd = (x // size + y // size) % 2
        dots = np.hypot(x % size - size / 2, y % size - size / 2) < size * 0.22
        picture = blend(picture, second, (dots * odd).astype(np.float32))
    elif kind == 3:
        joint = (x % size < 2) | (y % size < 2)
        picture = blend(picture, tint * 0.7, joint.astype(np.float32))
    elif kind == 4:
        low, long = size // 2, size
        shift = (y // low % 2) * (long // 2)
        joint = (y % low < 2) | ((x + shift) % long < 2)
        brick = np.sin((y // low) * 12.9 + ((x + shift) // long) * 78.2) * 0.1 + 1
        picture = blend(tint * (0.9, 0.75, 0.68) * threefold(brick), (0.72, 0.7, 0.66), joint.astype(np.float32))
    noise = rough_noise(generator, shape, 60, 5)
    side = np.linspace(-1, 1, width)[None] * light[0]
    shade = (0.95 + 0.18 * side + 0.05 * noise) * np.linspace(1.05, 0.88, height)[:, None]
    return picture.astype(np.float32) * threefold(shade.astype(np.float32))


def add_window(generator, pen, left, low, wide, tall):
    """A window with the sky in it."""
    frame = colour(generator, (236, 234, 228), *WOODS)
    pen.fill(box(left - 7, low - 7, left + wide + 7, low + tall + 7), frame, bulge=3)
    pane = pen.fill(box(left, low, left + wide, low + tall), colour(generator, (190, 215, 235), (225, 232, 236)),
                    ambient=1.0)
    pen.fill(bumpy(oval(left + wide * 0.3, low, wide * 0.6, tall * 0.4), pen.generator, 12),
             colour(generator, *LEAVES) * 1.3, within=pane, ambient=0.9)
    pen.line([(left + wide / 2, low), (left + wide / 2, low + tall)], 5, frame)
    pen.line([(left, low + tall / 2), (left + wide, low + tall / 2)], 4, frame)


def add_pictures(generator, pen, height, width, floor):
    """What hangs on a wall: framed pictures, a window, a shelf with books, a clock."""
    space = height - floor
    for place in generator.permutation(3)[: generator.integers(0, 3)]:
        x, low = width * (0.08 + 0.32 * place), floor + space * generator.uniform(0.35, 0.5)
        kind = generator.integers(4)
        if kind == 0:
            add_window(generator, pen, x, low, width * 0.2, space * 0.42)
        elif kind == 1:
            wide, tall = width * generator.uniform(0.1, 0.2), space * generator.uniform(0.2, 0.35)
            pen.fill(box(x - 4, low - 4, x + wide + 4, low + tall + 4), colour(generator, *WOODS, (40, 40, 42)),
                     bulge=3)
            art = pen.fill(box(x, low, x + wide, low + tall), colour(generator, (230, 226, 214), *CLOTHES))
            for _ in range(4):
                at = generator.uniform((x, low), (x + wide, low + tall))
                pen.fill(curve(at + generator.normal(0, 0.25, (5, 2)) * (wide, tall)), colour(generator, *CLOTHES),
                         within=art, opacity=0.8)
        elif kind == 2:
            pen.fill(box(x, low, x + width * 0.24, low + 6), colour(generator, *WOODS), bulge=2)
            place_x = x + 4
            while place_x < x + width * 0.22:
                wide, tall = generator.uniform(5, 12), space * generator.uniform(0.12, 0.2)
                pen.fill(box(place_x, low + 6, place_x + wide, low + 6 + tall), colour(generator, *CLOTHES), bulge=2)
                place_x += wide + 1
        else:
            radius = space * 0.1
            at = (x + width * 0.1, low + space * 0.2)
            pen.fill(oval(*at, radius, radius), colour(generator, *CLOTHES, (40, 40, 42)), bulge=3)
            pen.fill(oval(*at, radius * 0.85, radius * 0.85), WHITE)
            for turn, reach in ((generator.uniform(0, 6.3), 0.5), (generator.uniform(0, 6.3), 0.75)):
                pen.line([at, (at[0] + radius * reach * np.sin(turn), at[1] + radius * reach * np.cos(turn))], 3, BLACK)


def draw_floor(generator, outdoors=False):
    """A texture of boards, tiles, carpet or stone."""
    kind = generator.integers(1 if outdoors else 0, 4)
    if kind == 0:
        return planks(generator, colour(generator, *WOODS), int(generator.integers(50, 90)))
    if kind == 1:
        tint = colour(generator, (176, 160, 140), (150, 148, 146), (190, 184, 172), (120, 110, 104))
        second = tint if generator.random() < 0.5 else colour(generator, (90, 86, 84), (200, 196, 188), (150, 110, 90))
        return tiles(generator, tint, second, int(generator.choice([64, 128])))
    if kind == 2:
        return noisy(generator, colour(generator, *CLOTHES[:2], *TROUSERS, (170, 150, 120)), (3, 0.14), (40, 0.05),
                     (120, 0.05))
    return noisy(generator, colour(generator, (150, 140, 130), (180, 172, 160), (110, 112, 116)), (4, 0.06), (18, 0.1),
                 (90, 0.1))


def room(generator, shape, light):
    """A room: wall, skirting board, floor, things on the wall, a box or a rug."""
    height, width = shape
    edge = height * generator.uniform(0.5, 0.7)
    horizon = edge - height * generator.uniform(0.15, 0.3)
    picture = draw_wall(generator, shape, light)
    pen = scene_pen(generator, shape, light)
    add_pictures(generator, pen, height, width, height - edge)
    pen.fill(box(-5, height - edge, width + 5, height - edge + generator.uniform(8, 16)),
             colour(generator, (232, 230, 224), *WOODS), bulge=2)
    put(picture, pen)
    picture[int(edge) :] = on_ground(draw_floor(generator), shape, horizon, edge, generator.uniform(0.9, 1.6))
    pen = scene_pen(generator, shape, light)
    if generator.random() < 0.3:
        pen.fill(oval(width / 2, (height - edge) * 0.4, width * 0.4, (height - edge) * 0.3),
                 colour(generator, *CLOTHES), gloss=0, grain=0.12)
    if generator.random() < 0.35:  # a cupboard or a box by the wall
        x, wide, tall = generator.uniform(0, width), generator.uniform(60, 130), generator.uniform(60, 140)
        tint = colour(generator, *WOODS, (220, 218, 210))
        low = height - edge - 5
        pen.fill(box(x, low, x + wide, low + tall), tint, bulge=3, grain=0.1)
        for level in (0.33, 0.66):
            pen.line([(x, low + tall * level), (x + wide, low + tall * level)], 2, tint * 0.5)
            pen.fill(oval(x + wide / 2, low + tall * (level - 0.16), 4, 3), tint * 0.4)
    put(picture, pen)
    return Scene(picture, horizon, edge + 6, light, "floor")


def counter(generator, shape, light):
    """The top of a sideboard or a kitchen unit, close to the camera, with cups, fruit, books and boxes at its back."""
    height, width = shape
    edge = height * generator.uniform(0.55, 0.72)
    horizon = edge - height * generator.uniform(0.2, 0.4)
    picture = draw_wall(generator, shape, light)
    pen = scene_pen(generator, shape, light)
    add_pictures(generator, pen, height, width, height - edge)
    put(picture, pen)
    picture = cv2.GaussianBlur(picture, (0, 0), generator.uniform(1.0, 4))
    picture[int(edge) :] = on_ground(draw_floor(generator), shape, horizon, edge, generator.uniform(0.6, 1.0))
    pen, low = scene_pen(generator, shape, light), height - edge
    for _ in range(generator.integers(0, 5)):
        x, y, size = generator.uniform(0, width), low - generator.uniform(2, 26), generator.uniform(0.08, 0.17) * height
        tint, kind = colour(generator, *CLOTHES, (236, 232, 224)), generator.integers(4)
        picture *= 1 - 0.3 * np.exp(
            -(((np.arange(width)[None, :, None] - x) / size) ** 2)
            - ((np.arange(height)[:, None, None] - height + y) / (0.2 * size)) ** 2
        ).astype(np.float32)
        if kind == 0:  # a cup
            pen.line(oval(x + size * 0.42, y + size * 0.42, size * 0.2, size * 0.24), size * 0.1, tint,
                     bulge=size * 0.05)
            pen.fill(curve([(x - size * 0.4, y + size * 0.85), (x - size * 0.4, y + size * 0.85), (x - size * 0.34, y),
                            (x + size * 0.34, y), (x + size * 0.4, y + size * 0.85),
                            (x + size * 0.4, y + size * 0.85)], 2), tint, bulge=size * 0.35, gloss=0.3)
            pen.fill(oval(x, y + size * 0.84, size * 0.39, size * 0.09), tint * 0.5)
        elif kind == 1:  # fruit
            tint = colour(generator, (190, 40, 40), (230, 140, 40), (150, 170, 60))
            for dx in (0.0, size * 0.62):
                pen.fill(oval(x + dx, y + size * 0.3, size * 0.32, size * 0.3), tint, bulge=size * 0.3, gloss=0.25)
                pen.line([(x + dx, y + size * 0.55), (x + dx + 2, y + size * 0.7)], 3, (0.3, 0.2, 0.12))
        elif kind == 2:  # books
            for level in range(generator.integers(1, 4)):
                shift = generator.uniform(-0.1, 0.1) * size
                pen.fill(box(x - size * 0.7 + shift, y + level * size * 0.2, x + size * 0.7 + shift,
                             y + (level + 1) * size * 0.2 - 1), colour(generator, *CLOTHES), bulge=2, gloss=0.1)
        else:
            pen.fill(box(x - size * 0.4, y, x + size * 0.4, y + size * 1.2), tint, bulge=2)
            pen.fill(box(x - size * 0.3, y + size * 0.5, x + size * 0.3, y + size * 0.9), colour(generator, *CLOTHES),
                     grain=0.05)
    put(picture, pen)
    return Scene(picture, horizon, edge + 14, light, "floor")


def terrace(generator, shape, light):
    """Paving or a lawn before a hedge, a fence or a wall."""
    height, width = shape
    edge = height * generator.uniform(0.42, 0.62)
    horizon = edge - height * generator.uniform(0.1, 0.25)
    kind = generator.integers(3)
    if kind == 0:
        picture = draw_wall(generator, shape, light)
    else:
        picture = draw_sky(generator, shape, horizon)
        add_trees(generator, picture, edge, light, generator.integers(2, 8), 0.5 * height)
        pen, low = scene_pen(generator, shape, light), height - edge
        top = low + height * generator.uniform(0.18, 0.4)
        if kind == 1:
            tint = colour(generator, *LEAVES) * 0.75
            hedge = np.array([(-20, low - 5), (width + 20, low - 5), (width + 20, top), (width / 2, top + 6),
                              (-20, top)])
            pen.fill(bumpy(hedge, generator, 24), tint, bulge=20, gloss=0, grain=0.3)
            for _ in range(160):
                x, y = generator.uniform((0, low), (width, top))
                pen.line([(x, y), (x + generator.normal(0, 6), y + 8)], (1, 6, 1), near(tint, generator, 0.3), gloss=0)
        else:
            wood = colour(generator, *WOODS, (226, 224, 216))
            for x in np.arange(-10, width + 10, 24):
                pen.fill([(x, low - 5), (x + 20, low - 5), (x + 20, top), (x + 10, top + 10), (x, top)],
                         near(wood, generator, 0.07), bulge=3, gloss=0, grain=0.12)
        put(picture, pen)
    lawn = generator.random() < 0.4
    grass = colour(generator, *GRASSES)
    texture = noisy(generator, grass, (4, 0.12), (30, 0.1)) if lawn else draw_floor(generator, outdoors=True)
    picture[int(edge) :] = on_ground(texture, shape, horizon, edge, 1.2)
    if lawn:
        add_blades(generator, picture, edge, grass)
    return Scene(picture, horizon, edge + 6, light, "land")


# fmt: on
# ---------------------------------------------------------------------------------------------------------- pictures

# class: [(scene, pose, (width, height) in metres)], each as likely as the others
VIEWS = {
    "aeroplane": [
        (air, "fly", (34, 10)),
        (air, "fly", (34, 10)),
        (air, "below", (32, 31)),
        (runway, "ground", (34, 11)),
    ],
    "bird": [
        (leafy, "branch", (0.55, 0.3)),
        (leafy, "branch", (0.55, 0.3)),
        (field, "ground", (0.55, 0.28)),
        (air, "fly", (0.55, 0.56)),
        (water, "swim", (0.66, 0.45)),
    ],
    "boat": [
        (water, "sail", (7.5, 9.2)),
        (water, "sail", (7.5, 9.2)),
        (water, "motor", (8, 3.3)),
        (water, "fishing", (8, 5.5)),
        (water, "row", (6, 1.6)),
    ],
    "bottle": [(counter, "", (0.12, 0.34))],
    "bus": [(road, "", (8.6, 3.6))],
    "car": [(road, "", (4.5, 1.7)), (road, "", (4.5, 1.7)), (road, "", (4.5, 1.7)), (field, "", (4.5, 1.7))],
    "cat": [
        (room, "sit", (0.5, 0.42)),
        (room, "walk", (0.78, 0.48)),
        (terrace, "sit", (0.5, 0.42)),
        (field, "walk", (0.78, 0.48)),
    ],
    "chair": [(room, "", (0.7, 1.2)), (room, "", (0.7, 1.2)), (terrace, "", (0.7, 1.2))],
    "person": [(road, "", (0.85, 1.9)), (field, "", (0.85, 1.9)), (room, "", (0.85, 1.9)), (terrace, "", (0.85, 1.9))],
    "pottedplant": [(room, "", (0.9, 1.15)), (terrace, "", (0.9, 1.15)), (counter, "", (0.9, 1.15))],
    "sheep": [(field, "up", (1.6, 1.1)), (field, "graze", (1.6, 1.0))],
    "train": [(track, "", (9.5, 4.2))],
    "tvmonitor": [(counter, "", (1.05, 0.8))],
}
COMPANIONS = {  # what may stand beside it
    "aeroplane": {air: ["aeroplane"], runway: ["aeroplane", "bus"]},
    "bird": {field: ["bird", "bird", "sheep"], air: ["bird"], water: ["bird", "boat"], leafy: []},
    "boat": {water: ["boat"]},
    "bottle": {counter: ["bottle", "bottle", "pottedplant"]},
    "bus": {road: ["person", "car", "person"]},
    "car": {road: ["person", "car", "bus"], field: ["person", "car"]},
    "cat": {room: ["chair", "cat", "pottedplant"], terrace: ["pottedplant", "cat", "chair"], field: ["cat", "person"]},
    "chair": {room: ["chair", "pottedplant", "cat", "person"], terrace: ["chair", "pottedplant", "person"]},
    "person": {
        road: ["person", "car", "bus"],
        field: ["person", "sheep"],
        room: ["chair", "person", "pottedplant"],
        terrace: ["person", "chair", "pottedplant"],
    },
    "pottedplant": {
        room: ["pottedplant", "chair", "cat"],
        terrace: ["pottedplant", "cat", "chair"],
        counter: ["bottle"],
    },
    "sheep": {field: ["sheep", "sheep", "person"]},
    "train": {track: ["person"]},
    "tvmonitor": {counter: ["bottle", "pottedplant", "tvmonitor"]},
}
PORTRAIT = {"person": 0.5, "bottle": 0.5, "pottedplant": 0.45, "chair": 0.45, "cat": 0.35, "bird": 0.2, "boat": 0.25}


def draw_thing(generator, scene, name, pose, foot, scale, facing):
    """Draw something on the scene, with its shadow or reflection; return where it is: (height, width) bool.

    foot (x, y) is the pixel where its middle meets the ground, scale pixels per metre, facing 1 (right) or -1.
    """
    shape = scene.picture.shape[:2]
    turn = 0.0
    if scene.ground == "air" and pose != "branch":
        turn = generator.uniform(-0.9, 0.9) if pose == "below" else generator.normal(0.12, 0.12)
    elif name in ("boat", "bottle", "chair"):
        turn = generator.normal(0, 0.02)
    middle = {"fly": 4.0 if name == "aeroplane" else 0.28, "below": 0.0, "branch": 0.13}.get(pose, 0.0)
    stretch = 0.75 if pose == "below" else 1.0
    matrix = np.array([[1, 0, foot[0]], [0, -1, foot[1]], [0, 0, 1.0]])
    matrix = matrix @ np.diag([facing * scale, scale * stretch, 1])
    matrix = matrix @ [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    matrix = matrix @ [[1, 0, 0], [0, 1, -middle], [0, 0, 1]]
    pen, under = (Pen(generator, shape, matrix, scene.light, pose, facing) for _ in range(2))
    DRAW[name](pen, under)
    picture, y = scene.picture, foot[1]
    put(picture, under)
    height, width = shape
    if scene.ground == "water":
        ripple = 2.5 * smooth_noise(generator, shape, (6, 30))
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        source = y - (rows - y) * 1.25  # the mirror image, a little shorter
        maps = (columns + ripple * np.clip((rows - y) / 20, 0, 2.5)).astype(np.float32), source.astype(np.float32)
        mirrored = [cv2.remap(layer, *maps, cv2.INTER_LINEAR) for layer in (pen.colours, pen.alpha)]
        fade = np.where(rows > y, 0.5, 0) * np.exp(-np.clip(rows - y, 0, None) / (0.5 * height))
        scene.picture = picture = blend(picture, mirrored[0] * 0.85, (mirrored[1] * fade).astype(np.float32))
        waterline = np.ones(shape, np.float32)
        waterline[int(max(y, 0)) :] = 0
        pen.alpha *= waterline
        foam = (
            np.exp(-(((rows - y) / max(0.012 * height, 1.5)) ** 2))
            * cv2.GaussianBlur(pen.alpha, (0, 0), 4).max(axis=0)[None]
        )
        foam *= 0.4 + 0.2 * ripple / 2.5
    elif scene.ground != "air":
        length, fall = (
            -scene.light[0] * (0.9 if scene.ground == "land" else 0.4),
            0.16 if scene.ground == "land" else 0.08,
        )
        cast = cv2.warpAffine(
            pen.alpha, np.float32([[1, -length, length * y], [0, -fall, y * (1 + fall)]]), (width, height)
        )
        flat = cv2.warpAffine(pen.alpha, np.float32([[1, 0, 0], [0, 0.08, y * 0.92]]), (width, height))
        sharp = 0.012 * scale if name not in ("bottle", "cat", "bird") else 0.01 * height / 3
        shadow = np.maximum(0.75 * cv2.GaussianBlur(cast, (0, 0), 2 + sharp), cv2.GaussianBlur(flat, (0, 0), 3 + sharp))
        shadow[: int(max(scene.edge - 6, 0))] = 0
        picture *= threefold(1 - 0.55 * shadow)
    put(picture, pen)
    if scene.ground == "water":
        scene.picture = blend(picture, (0.92, 0.95, 0.96), np.clip(foam, 0, 0.7).astype(np.float32))
    return pen.alpha >= 0.5


def arrange(generator, scene, make_scene, name, pose, size):
    """Where things stand: a list of (class, pose, foot (x, y), pixels per metre), the farther ones first."""
    height, width = scene.picture.shape[:2]
    wide, tall = size
    fit = min(width / wide, height / tall)
    share = generator.uniform(0.55, 0.98) if generator.random() < 0.75 else generator.uniform(0.98, 1.5)
    if name == "person" and generator.random() < 0.4:
        share = generator.uniform(1.3, 2.6)  # from the waist up, or the head and shoulders
    scale = share * fit
    half = min(wide * scale / 2, width * 0.45)
    x = generator.uniform(half * 0.8, width - half * 0.8)
    if scene.ground == "air":
        y = generator.uniform(0.42, 0.58) * height
        things = [(name, pose, (x, y), scale)]
    else:
        lowest = height * generator.uniform(0.86, 0.98)
        y = max(generator.uniform(scene.edge + 0.05 * height, lowest), min(tall * scale * 0.96, lowest))
        if tall * scale > height:
            y = tall * scale * (1.03 if name == "person" else generator.uniform(0.8, 1.0))
        things = [(name, pose, (x, y), scale)]
    others = COMPANIONS[name][make_scene]
    for _ in range(generator.choice(3, p=(0.45, 0.35, 0.2)) if others else 0):
        other = others[generator.integers(len(others))]
        choices = [view for view in VIEWS[other] if view[0] is make_scene] or VIEWS[other][:1]
        _, other_pose, (other_wide, other_tall) = choices[generator.integers(len(choices))]
        if scene.ground == "air":
            other_scale = scale * generator.uniform(0.25, 0.6)
            place = generator.uniform((0, 0.1 * height), (width, 0.9 * height))
        else:
            # The eye is so high above the ground; so a place on it has its scale.
            eye = (y - scene.horizon) / scale
            far = generator.uniform(0.35, 1.0)
            place_y = max(scene.horizon + (min(y, height) - scene.horizon) * far, scene.edge + 4)
            other_scale = (place_y - scene.horizon) / eye
            if make_scene is counter and other == "pottedplant":
                other_scale *= 0.4  # a small one
            biggest = 1.1 * min(width / other_wide, height / other_tall)
            if other_scale > biggest or other_tall * other_scale < 24:
                continue
            away = max(width * generator.uniform(0.22, 0.6), 0.45 * wide * scale) * generator.choice([-1, 1])
            place = np.array((np.clip(x + away, 0.02 * width, 0.98 * width), place_y))
        things.append((other, other_pose, tuple(place), other_scale))
    return sorted(things, key=lambda thing: (thing[2][1], thing[3]) if scene.ground != "air" else (thing[3],))


def draw_picture(generator, number):
    """The picture of this number, from 0: (height, width, 3) uint8 RGB and its mask (height, width) uint8."""
    name = list(DRAW)[number % len(DRAW)]
    views = VIEWS[name]
    make_scene, pose, size = views[generator.integers(len(views))]
    shape = (375, 500) if generator.random() < 0.7 else (333, 500)
    if generator.random() < PORTRAIT.get(name, 0.06):
        shape = shape[::-1]
    light = np.array([generator.choice([-1, 1]) * generator.uniform(0.3, 0.75), -generator.uniform(0.35, 0.7), 0.8])
    scene = make_scene(generator, shape, (light / np.linalg.norm(light)).astype(np.float32))
    instances = np.zeros(shape, np.uint8)
    classes = [0]
    for other, other_pose, foot, scale in arrange(generator, scene, make_scene, name, pose, size):
        seen = draw_thing(generator, scene, other, other_pose, foot, scale, generator.choice([-1, 1]))
        if seen.any():
            classes.append(CLASSES.index(other))
            instances[seen] = len(classes) - 1
    return photograph(generator, scene.picture), add_void(np.array(classes, np.uint8)[instances], instances)


def add_void(mask, instances):
    """The mask (height, width) with void along the border of each of the instances (height, width), as VOC has it."""
    rim = instances > cv2.erode(instances, np.ones((3, 3), np.uint8))
    border = cv2.dilate(rim.astype(np.uint8), np.ones((VOID_WIDTH, VOID_WIDTH), np.uint8))
    return np.where(border > 0, np.uint8(VOID), mask)


def photograph(generator, picture):
    """What a camera makes of it: focus, exposure, a colour cast, darker corners, noise."""
    height, width = picture.shape[:2]
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), generator.uniform(0.35, 0.8))
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    corners = (1 - generator.uniform(0, 0.2) * (x * x + y * y) / 2).astype(np.float32)
    picture = (
        picture * threefold(corners) * (generator.normal(1, 0.03, 3) * generator.uniform(0.85, 1.15)).astype(np.float32)
    )
    picture = np.clip(picture, 0, None) ** np.float32(generator.uniform(0.85, 1.1))
    grain = generator.standard_normal((height, width, 3), np.float32) * np.float32(generator.uniform(0.006, 0.02))
    grain += threefold(generator.standard_normal((height, width), np.float32) * np.float32(0.008))
    return np.clip((picture + grain) * 255 + 0.5, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------- files


class DrawError(Exception):
    """What went wrong and what to do, in one line for the user."""


def draw_pair(seed, split, index):
    """A picture (height, width, 3) uint8 RGB and its mask (height, width) uint8, with a generator of its own."""
    return draw_picture(np.random.default_rng([seed, list(FIRST_NUMBER).index(split), index]), index)


def encode_mask(mask):
    """The bytes of a palette PNG of a mask (height, width) uint8."""
    image = Image.fromarray(mask)
    image.putpalette(COLOUR_MAP.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_files(seed, split, index, image, mask):
    """Draws one pair and writes it to the paths image and mask."""
    picture, classes = draw_pair(seed, split, index)
    write_whole(image, encoded(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 75))
    write_whole(mask, encode_mask(classes))


def find_others(out):
    """What a folder holds that this script didn't write: a path, or None."""
    folder = out / FOLDER
    if (folder / MARK).is_file():
        return None
    for place, expected in ((out, FOLDER.parts[0]), (out / FOLDER.parts[0], FOLDER.parts[1]), (folder, None)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.name != expected and not path.name.startswith("."):
                return path
    return None


def draw_voc(out, train=200, val=50, seed=0):
    """Draws a set into the folder out; returns the folder VOC2012 in it, which holds the pictures, masks and lists.

    Raises: DrawError where out holds the real VOC or anything else, and OSError where it cannot be written
    """
    out = Path(out)
    others = find_others(out)
    if others:
        raise DrawError(f"--out {out}: {others} isn't drawn by this script: give another folder, or an empty one")
    folder = out / FOLDER
    images, masks, lists = (folder / part for part in ("JPEGImages", "SegmentationClass", LISTS))
    folder.mkdir(parents=True, exist_ok=True)
    note = (
        f"Drawn by draw_voc.py with seed {seed}, {train} to train on and {val} to validate. No photograph is in it.\n"
    )
    write_whole(folder / MARK, note.encode())  # first, so that the rest is known as drawn whenever it ends
    for path in (images, masks, lists):
        path.mkdir(parents=True, exist_ok=True)
    names = {
        split: [f"2012_{FIRST_NUMBER[split] + index:06d}" for index in range(count)]
        for split, count in (("train", train), ("val", val))
    }
    for name in ("train", "val", "trainval"):
        (lists / f"{name}.txt").unlink(missing_ok=True)  # the lists come last: with them the set is complete
    tasks = [
        (seed, split, index, images / f"{name}.jpg", masks / f"{name}.png")
        for split in names
        for index, name in enumerate(names[split])
    ]
    with tqdm(total=len(tasks), unit="picture", disable=None) as bar:
        for _ in in_processes(draw_files, tasks):
            bar.update()
    for name, listed in (*names.items(), ("trainval", names["train"] + names["val"])):
        write_whole(lists / f"{name}.txt", "".join(f"{line}\n" for line in listed).encode())
    return folder


def stop(message):
    """Ends the program with one line and exit status 2."""
    print(f"draw_voc.py: {message}", file=sys.stderr)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description="Draws pictures and masks in the layout of Pascal VOC 2012.")
    parser.error = stop  # one line instead of the whole usage
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent / "voc",
        metavar="DIR",
        help="where VOCdevkit/ goes (default: voc/ beside this script)",
    )
    parser.add_argument("--train", type=int, default=200, metavar="N", help="pictures to train on (default: 200)")
    parser.add_argument("--val", type=int, default=50, metavar="N", help="pictures to validate on (default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other pictures (default: 0)")
    options = parser.parse_args()
    for name, least, most in (("train", 1, MOST), ("val", 1, MOST), ("seed", 0, None)):
        number = getattr(options, name)
        if number < least or (most and number > most):
            stop(f"--{name} is {number}: give {f'{least} to {most}' if most else f'{least} or more'}")
    try:
        folder = draw_voc(options.out, options.train, options.val, options.seed)
    except DrawError as error:
        stop(error)
    except OSError as error:
        reason = error.strerror or error
        stop(f"cannot write {error.filename or options.out}: {reason}; give a folder to write in with --out")
    except BrokenProcessPool:
        stop("a process that drew pictures was ended from outside, perhaps since memory ran out; start it again")
    except KeyboardInterrupt:
        print("draw_voc.py: stopped before all pictures were drawn: start it again", file=sys.stderr)
        sys.exit(130)
    print(f"{options.train + options.val} pictures and their masks are in {folder}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    main()
