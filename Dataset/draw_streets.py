"""Draws street scenes in the layout of Cityscapes, with labels of its ids: the same for the same seed.

Nothing is downloaded, and no photograph goes into them. A street is laid out in metres: strips of ground along a road
that may bend, facades, walls, fences and trees beside it, poles, signs, vehicles and people on it. A camera behind a
windscreen looks along it. Each pixel takes the nearest surface, and that gives its colour, its label and its instance.
So the programs that read Cityscapes can be tried without its 11 GB, on files of the same names and contents:

    DIR/leftImg8bit/train/CITY/CITY_000000_000019_leftImg8bit.png
    DIR/gtFine/train/CITY/CITY_000000_000019_gtFine_labelIds.png       ids 0 to 33; also val in place of train
    DIR/gtFine/train/CITY/CITY_000000_000019_gtFine_instanceIds.png    16 bits; 1000 * id + number for each thing
    DIR/gtFine/train/CITY/CITY_000000_000019_gtFine_color.png          the colours of the ids

    python Dataset/draw_streets.py                                     draws 200 and 50 into Dataset/streets
    python Dataset/draw_streets.py --out more --train 1000 --val 200   draws more
"""

import argparse
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("draw_streets.py: interrupted", file=sys.stderr) or 130))

import cv2
import numpy as np
from draw_newts import (
    blend,
    colour,
    encoded,
    in_processes,
    ramp,
    rough_noise,
    threefold,
    write_whole,
)
from draw_voc import CLOTHES, HAIRS, PAINTS, SKINS, TROUSERS, band, box, curve, oval
from tqdm import tqdm

LABELS = {  # name: colour; their order is that of the ids, from 0
    "unlabeled": (0, 0, 0),
    "ego vehicle": (0, 0, 0),
    "rectification border": (0, 0, 0),
    "out of roi": (0, 0, 0),
    "static": (0, 0, 0),
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "pole": (153, 153, 153),
    "polegroup": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
IDS = {name: number for number, name in enumerate(LABELS)}
COLOURS = np.array(list(LABELS.values()), np.uint8)
THINGS = range(IDS["person"], IDS["bicycle"] + 1)  # ids whose instances are told apart
CITIES = {  # made up; those of train aren't those of val
    "train": "ahornfurt brunnmark dornhafen falkenbruck glimmerstadt haselmoor kupferau nebelstein".split(),
    "val": "quellmark sonnfurt wiesenhafen".split(),
}
MOST = 100000  # pictures of a split, so that the numbers keep their six digits
KINDS = {"leftImg8bit": ("leftImg8bit",), "gtFine": ("gtFine_labelIds", "gtFine_instanceIds", "gtFine_color")}
MARK = "drawn_by_draw_streets.txt"  # comes last: with it the set is complete
UNFINISHED = "unfinished.txt"  # comes first and goes last: tells an incomplete set from files of others
OVERSAMPLING = 2  # drawn twice as large and then reduced, so that edges are smooth
FARTHEST = 240.0  # metres to where the street is laid out
BACKDROP = 2000.0  # metres to what is painted behind it


# ---------------------------------------------------------------------------------------------------------- scene
# Lengths are in metres. A place on the ground is (u, s): u to the right of the road's middle, s along it from the
# camera. In the camera's frame x goes to the right, y up from the ground, z ahead; a place's z is its s.


@cache
def textures():
    """Noise that all pictures share, each at a place of its own: fine, medium, coarse (1024, 1024), deviation 1."""
    generator = np.random.default_rng(2016)
    fine = cv2.GaussianBlur(generator.standard_normal((1024, 1024), np.float32), (0, 0), 0.8)
    medium, coarse = (rough_noise(generator, (1024, 1024), size, 4) for size in (24, 160))
    return tuple((noise / noise.std()).astype(np.float32) for noise in (fine, medium, coarse))


def look_up(texture, rows, columns):
    """A texture (1024, 1024) at whole places: rows (h, w), columns (w,)."""
    return texture[rows.astype(np.int32) & 1023, columns.astype(np.int32)[None] & 1023]


class Scene:
    """A picture under way: colours (h, w, 3) float32, depth (h, w) in metres, labels and instances (h, w)."""

    def __init__(self, generator, shape):
        self.generator, self.shape = generator, shape
        height, width = shape
        self.focal = 1.5 * width  # pixels
        self.centre = width * (0.5 + generator.normal(0, 0.02))
        self.horizon = height * generator.uniform(0.4, 0.48)
        self.eye = generator.uniform(1.2, 1.4)
        self.ground_from = int(np.ceil(self.horizon + self.focal * self.eye / FARTHEST))  # the row of its far end
        self.colours = np.zeros((height, width, 3), np.float32)
        self.depth = np.full((height, width), 1e4, np.float32)
        self.labels = np.full((height, width), IDS["sky"], np.uint8)
        self.instances = np.zeros((height, width), np.int32)
        self.shadow = np.ones((height, width), np.float32)  # how much of its light a place on the ground keeps
        self.tops = {side: np.zeros(int(FARTHEST) + 1, np.float32) for side in (-1, 1)}  # of the houses, by s
        self.count = 0  # things so far
        self.seen_through = []  # see label_what_is_seen_through
        self.depth_of_columns = cache(self.depth_of_columns)

    def middle(self, z):
        """Where the road's middle lies: x."""
        return self.heading * z + self.curvature * z * z / 2 - self.offset

    def to_pixels(self, points):
        """Where points (..., 3) lie in the picture: (..., 2)."""
        points = np.asarray(points, float)
        scale = self.focal / np.maximum(points[..., 2], 0.3)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre + points[..., 0] * scale
        pixels[..., 1] = self.horizon + (self.eye - points[..., 1]) * scale
        return np.minimum(np.maximum(pixels, -4000), 12000)  # np.clip takes thrice as long for a few numbers

    def window(self, pixels, margin=2):
        """The part of the picture around pixels (n, 2): left, top, right, bottom; or None where that's outside."""
        height, width = self.shape
        left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - margin, 0)
        right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + margin, (width, height))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def depth_of_columns(self, u):
        """The distance z (w,) at which each column of the picture meets the line u = const; infinite where none."""
        z = np.geomspace(0.8, FARTHEST, 3000)
        way = -1 if u + self.middle(z[0]) > 0 else 1  # the line runs from the left, or the right, to the middle
        columns = way * (self.centre + self.focal * (u + self.middle(z)) / z)
        seen = np.logical_and.accumulate(columns >= np.maximum.accumulate(columns))  # where a bend turns back it hides
        places = way * (np.arange(self.shape[1]) + 0.5)
        return np.interp(places, columns[seen], z[seen], left=np.inf, right=np.inf)

    def commit(self, window, mask, colours, depth, label, instance=0):
        """Paint colours (h, w, 3) where the mask (h, w) is true and nothing nearer has been painted."""
        seen = mask & (depth < self.depth[window])
        np.copyto(self.colours[window], colours, where=seen[..., None])
        np.copyto(self.depth[window], depth, where=seen)
        np.copyto(self.labels[window], label, where=seen)
        np.copyto(self.instances[window], instance, where=seen)

    def label_what_is_seen_through(self):
        """Between the bars of a fence and the spokes of a wheel the label is theirs, as annotators draw outlines."""
        for window, mask, depth, label, number in self.seen_through:
            seen = mask & (depth < self.depth[window])
            self.labels[window][seen] = label
            self.instances[window][seen] = number

    def light_on(self, normal):
        """How bright a surface with this normal (3,) is: (3,)."""
        facing = max(float(np.dot(normal, self.sun)), 0.0)
        return (self.ambient * (0.8 + 0.2 * normal[1]) + self.sunlight * facing).astype(np.float32)

    def darken(self, outlines, strength, soft):
        """Shade the ground inside outlines, a list of (n, 3) with y = 0, with a soft rim of so many pixels."""
        outlines = [self.to_pixels(points) for points in outlines if np.min(points[:, 2]) > 1]
        place = self.window(np.concatenate(outlines), 3 * soft) if outlines else None
        if place is None:
            return
        left, top, right, bottom = place
        mask = np.zeros((bottom - top, right - left), np.uint8)
        for pixels in outlines:
            cv2.fillPoly(mask, [np.round((pixels - (left, top)) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
        mask = cv2.blur(mask, (2 * soft + 1, 2 * soft + 1)) * np.float32(strength / 255)
        part = self.shadow[top:bottom, left:right]
        np.minimum(part, 1 - mask, out=part)


# share; the sky above and at the horizon, light from all over and from the sun, and how far one sees, in metres
WEATHERS = {
    "clear": (0.36, (86, 132, 196), (206, 220, 232), (0.62, 0.66, 0.74), (0.66, 0.60, 0.50), (700, 1600)),
    "overcast": (0.34, (188, 194, 202), (226, 228, 230), (0.92, 0.94, 0.97), (0.08, 0.08, 0.07), (300, 900)),
    "dusk": (0.11, (70, 84, 124), (236, 172, 122), (0.44, 0.42, 0.50), (0.34, 0.22, 0.12), (300, 700)),
    "rain": (0.10, (140, 146, 154), (182, 186, 190), (0.68, 0.71, 0.76), (0.0, 0.0, 0.0), (110, 260)),
    "fog": (0.09, (196, 200, 204), (206, 209, 212), (0.84, 0.86, 0.88), (0.0, 0.0, 0.0), (40, 100)),
}
CLOUDS = {"clear": 0.75, "overcast": 0.35, "dusk": 0.5, "rain": 0.4, "fog": 0.05}  # how strong they show
LIT_WINDOWS = {"clear": 0.01, "overcast": 0.01, "dusk": 0.35, "rain": 0.08, "fog": 0.06}  # their share


def choose_weather(scene):
    """Sky, light and haze."""
    generator = scene.generator
    scene.weather = str(generator.choice(list(WEATHERS), p=[row[0] for row in WEATHERS.values()]))
    _, above, below, ambient, sunlight, sight = WEATHERS[scene.weather]
    scene.sky_above, scene.sky_below = (colour(generator, tint, spread=0.05) for tint in (above, below))
    scene.ambient = np.float32(ambient) * np.float32(generator.uniform(0.85, 1.1))
    scene.sunlight = np.float32(sunlight) * np.float32(generator.uniform(0.8, 1.2))
    scene.sight = generator.uniform(*sight)
    high = generator.uniform(0.25, 0.5) if scene.weather == "dusk" else generator.uniform(0.55, 1.3)
    sun = np.array([generator.choice([-1, 1]) * generator.uniform(0.3, 1.0), high, generator.uniform(-0.8, 0.6)])
    scene.sun = (sun / np.linalg.norm(sun)).astype(np.float32)  # the direction in which it stands
    scene.haze = scene.sky_below * np.float32(generator.uniform(0.92, 1.02))
    scene.sunny = bool(scene.sunlight.max() > 0.2)
    scene.in_shade = float(np.mean(scene.ambient / scene.light_on((0, 1, 0))))  # what ground keeps without the sun


def draw_sky(scene):
    """The sky with its clouds, and hills, woods or roofs far behind the end of the street."""
    generator, (height, width), end = scene.generator, scene.shape, scene.ground_from
    fine, medium, coarse = textures()
    share = (1 - np.arange(end, dtype=np.float32) / end) ** 0.7
    sky = scene.sky_below + (scene.sky_above - scene.sky_below) * share[:, None]
    y, x = generator.integers(0, 600, 2)
    patch = np.s_[y : y + 120, x : x + 320]
    clouds = cv2.resize(coarse[patch] + 0.25 * medium[patch], (width, end))
    amount = ramp(clouds, *(generator.uniform(-0.5, 1.2) + np.array([0, 1.5]))) * np.float32(CLOUDS[scene.weather])
    tint = scene.sky_below * np.float32(1.06 if scene.weather in ("clear", "dusk") else 0.82)
    scene.colours[:end] = blend(np.repeat(sky[:, None], width, axis=1), tint, amount)
    grain = 1 + 0.1 * cv2.resize(medium[patch], (width, end))
    for label, tall, tint in (
        ("vegetation", generator.uniform(0, 0.14), (92, 112, 92)),
        ("building", generator.uniform(-0.05, 0.12), (128, 122, 120)),
        ("vegetation", generator.uniform(0.01, 0.07), (70, 90, 62)),
    ):
        if label == "building":
            corners = np.sort(generator.uniform(0, width, generator.integers(10, 26)))
            outline = generator.uniform(0.2, 1.1, len(corners) + 1)[np.searchsorted(corners, np.arange(width))]
        else:
            outline = 0.75 + 0.25 * cv2.resize(medium[y, None, x : x + 400], (width, 1))[0]
            outline += 0.08 * cv2.resize(fine[y, None, x : x + 300], (width, 1))[0]
        if tall <= 0:
            continue
        mask = np.arange(end)[:, None] >= scene.horizon - np.maximum(outline, 0.1) * tall * height
        tone = colour(generator, tint, spread=0.15) * (scene.ambient + 0.4 * scene.sunlight)
        tone += (scene.haze - tone) * np.float32(1 - np.exp(-FARTHEST / scene.sight))
        scene.commit(np.s_[:end], mask, tone * threefold(grain), np.float32(BACKDROP), IDS[label])


# ---------------------------------------------------------------------------------------------------------- street

KINDS_OF_STREET = {"city": 0.42, "suburb": 0.24, "avenue": 0.18, "main": 0.16}  # shares
ASPHALTS = ((88, 88, 92), (104, 102, 102), (72, 73, 78), (118, 114, 110), (96, 92, 92))
PAVINGS = ((142, 138, 132), (124, 120, 118), (160, 150, 138), (132, 118, 112), (108, 106, 106))
GRASSES = ((92, 118, 62), (110, 124, 70), (84, 104, 60), (130, 128, 84))
EARTHS = ((128, 112, 92), (146, 134, 116), (110, 98, 84))
ROUGHNESS = {"road": 0.035, "terrain": 0.13}  # others 0.05
GROUND = ("road", "sidewalk", "parking", "terrain", "ground", "rail track")


def choose_plan(scene):
    """The ground plan of a street, a dictionary.

    kind; lanes on each side, lane width of one, half width of the road; strips {side: [(name, from, to)]} from the
    road's middle outwards, tints {name: colour}; line {side: u} where the plots begin, walk {side: (from, to)};
    rails [u] of tracks; lines [(u, dash, gap)], zebras [(from, to)] and stops [s] painted on the road; junctions
    [(from, to, sides)] with side streets.
    """
    generator = scene.generator
    kind = str(generator.choice(list(KINDS_OF_STREET), p=list(KINDS_OF_STREET.values())))
    lanes = int(generator.choice({"city": (1, 1, 2), "suburb": (1,), "avenue": (1, 2), "main": (2, 2, 3)}[kind]))
    lane = generator.uniform(2.9, 3.6)
    half = lanes * lane + generator.uniform(0.2, 0.6)
    scene.curvature = float(generator.choice([0, generator.normal(0, 0.0035)]))
    scene.heading = generator.normal(0, 0.02)
    scene.offset = lane * (lanes - 0.5) + generator.normal(0, 0.15)  # the camera keeps to the right
    plan = {"kind": kind, "lanes": lanes, "lane": lane, "half": half, "rails": []}
    asphalt = colour(generator, *ASPHALTS, spread=0.08)
    plan["tints"] = {
        "road": asphalt,
        "bicycle lane": colour(generator, (150, 84, 72), (132, 96, 88)),
        "rail track": asphalt * np.float32(1.06),
        "parking": colour(generator, *ASPHALTS, *PAVINGS, spread=0.08),
        "sidewalk": colour(generator, *PAVINGS, spread=0.08),
        "terrain": colour(generator, *GRASSES),
        "ground": colour(generator, *EARTHS),
    }
    roadway = [("road", half)]
    if generator.random() < 0.15:
        roadway = [("road", half - 1.5), ("bicycle lane", 1.5)]
    if lanes > 1 and generator.random() < 0.3:
        plan["rails"] = [-1.6, 1.6]
        roadway = [("rail track", 3.0), ("road", roadway[0][1] - 3.0), *roadway[1:]]
    plan["strips"], plan["line"], plan["walk"] = {}, {}, {}
    for side in (-1, 1):
        widths = list(roadway)
        if generator.random() < {"city": 0.55, "suburb": 0.5, "avenue": 0.6, "main": 0.15}[kind]:
            widths.append(("parking", generator.uniform(2.0, 2.4)))
        if kind in ("avenue", "main") and generator.random() < 0.6:
            widths.append(("terrain", generator.uniform(0.8, 3.0)))
        widths.append(("sidewalk", generator.uniform(1.8, 4.5 if kind == "city" else 3.0)))
        if kind != "city" and generator.random() < 0.6:
            widths.append(("terrain", generator.uniform(0.5, 6.0)))
        widths.append(("ground" if kind == "city" and generator.random() < 0.5 else "terrain", 1e4))
        ends = np.cumsum([wide for _, wide in widths])
        strips = [(name, end - wide, end) for (name, wide), end in zip(widths, ends, strict=True)]
        plan["strips"][side], plan["line"][side] = strips, strips[-1][1]
        plan["walk"][side] = next((low, high) for name, low, high in strips if name == "sidewalk")
    plan |= choose_markings(generator, plan)
    return plan


def choose_markings(generator, plan):
    """What is painted on the road, and where side streets begin: a part of the plan."""
    half, lane, lanes, rails = plan["half"], plan["lane"], plan["lanes"], plan["rails"]
    lines, zebras, stops, junctions = [], [], [], []
    if plan["kind"] != "suburb" or generator.random() < 0.4:
        gap = generator.uniform(4, 7)
        if not rails:
            lines.append((0.0, 3, gap if lanes == 1 else 0))
        for number in range(1, lanes):
            if number * lane > (3.2 if rails else 0):
                lines += [(number * lane, 3, gap), (-number * lane, 3, gap)]
        if generator.random() < 0.5:
            lines += [(half - 0.25, 3, 0), (0.25 - half, 3, 0)]
    s = generator.uniform(10, 70)
    while s < 160:
        wide = generator.uniform(6, 11)
        junctions.append((s, s + wide, ((-1, 1), (-1,), (1,))[generator.integers(3)]))
        if generator.random() < 0.45:
            zebras.append((s - 4.5, s - 1.2))
        if generator.random() < 0.3:
            stops.append(s - 5.2)
        s += wide + generator.uniform(35, 90)
    return {"lines": lines, "zebras": zebras, "stops": stops, "junctions": junctions}


def draw_ground(scene, plan):
    """The strips of ground along the street, with textures and markings."""
    generator, (height, width), top = scene.generator, scene.shape, scene.ground_from
    rows = np.arange(top, height, dtype=np.float32)[:, None] + np.float32(0.5)
    z = (scene.focal * scene.eye / (rows - scene.horizon)).astype(np.float32)  # (h, 1)
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5 - scene.centre)) * (z / np.float32(scene.focal))
    u = x - scene.middle(z).astype(np.float32)  # (h, w)
    strips = [(name, -high) for name, _, high in reversed(plan["strips"][-1])]
    strips += [(name, low) for name, low, _ in plan["strips"][1]]
    names = [name for name, _ in strips]
    strip = np.searchsorted(np.array([start for _, start in strips[1:]], np.float32), u, side="right")
    for low, high, sides in plan["junctions"]:
        for side in sides:
            strip[(z >= low) & (z < high) & (u * side > plan["half"])] = names.index("road")
    labels = np.array([IDS[name.replace("bicycle lane", "road")] for name in names], np.uint8)[strip]
    ground = np.array([plan["tints"][name] for name in names])[strip]
    fine, medium, coarse = textures()
    columns = (u * 40 + np.float32(generator.uniform(0, 900))).astype(np.float32)
    rows = np.broadcast_to(z * 40 + np.float32(generator.uniform(0, 900)), u.shape).astype(np.float32)
    near = np.clip(14 / z, 0, 1)  # texture fades where it gets finer than the pixels
    grit, spots, stains = (
        cv2.remap(texture, columns * wide, rows * long, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        for texture, wide, long in ((fine, 1, 1), (medium, 0.5, 0.5), (coarse, 0.6, 0.25))
    )
    spots *= np.sqrt(near)
    value = np.array([ROUGHNESS.get(name, 0.05) for name in names], np.float32)[strip] * (grit * near * near + spots)
    value += 1 + 0.05 * stains
    is_road = labels == IDS["road"]
    tracks = np.cos(u * np.float32(4 * np.pi / plan["lane"]))  # where wheels run it's darker or lighter
    value += np.float32(generator.normal(0.03, 0.03)) * tracks * is_road
    slab = generator.choice([0.4, 0.6, 1.0])
    joints = ((z / slab) % 1 < 0.07) | ((u / np.float32(slab)) % 1 < 0.07)
    value -= joints * (labels == IDS["sidewalk"]) * (0.1 * np.clip(9 / z - 0.2, 0, 1))
    ground *= threefold(value)
    wear = generator.normal(0, 0.7)
    paint = draw_markings(scene, plan, u, z) * is_road * ramp(spots + 0.4 * stains, wear - 2.2, wear - 0.6)
    ground = blend(ground, colour(generator, (226, 226, 222), spread=0.04), paint * np.float32(0.9))
    for middle in plan["rails"]:
        ground[np.abs(np.abs(u - middle) - 0.72) < np.maximum(0.05, 0.6 * z / scene.focal)] = (0.42, 0.40, 0.39)
    ground *= scene.light_on((0, 1, 0))
    scene.commit(np.s_[top:], np.ones(u.shape, bool), ground, np.broadcast_to(z, u.shape), labels)


def draw_markings(scene, plan, u, s):
    """Where the road is painted, u (h, w) and s (h, 1): (h, w) float32, 0 or 1."""
    paint = np.zeros(u.shape, np.float32)
    half, phase = plan["half"], scene.generator.uniform(0, 10)
    for place, dash, gap in plan["lines"]:
        line = np.abs(u - place) < np.maximum(0.06, 0.5 * s / scene.focal)
        paint[line & ((s + phase) % (dash + gap) < dash)] = 1
    for low, high, _ in plan["junctions"]:
        paint[(s > low - 0.3)[:, 0] & (s < high + 0.3)[:, 0]] = 0
    for low, high in plan["zebras"]:
        crossing = (s > low) & (s < high) & (np.abs(u) < half - 0.2)
        paint[crossing] = 0
        paint[crossing & ((u + 0.25) % 1 < 0.5)] = 1
    for place in plan["stops"]:
        paint[(np.abs(s - place) < 0.25) & (u > 0.1) & (u < half - 0.2)] = 1
    return paint


# ---------------------------------------------------------------------------------------------------------- upright
# Walls, fences and fronts stand upright on the ground. A painter (t, h, step, light) gives their colours (h, w, 3) and
# where they have no holes (h, w), or True: t (w,) is the place along them, h (h, w) the height above the ground, step
# (w,) how far one pixel reaches.

WALLS = (
    (196, 178, 150), (170, 120, 92), (150, 86, 70), (206, 198, 184), (164, 160, 154), (188, 160, 110), (140, 132, 126),
    (214, 206, 178), (126, 108, 98), (176, 150, 140), (150, 156, 158), (110, 100, 96),
)  # fmt: skip
ROOFS = ((120, 66, 52), (88, 72, 66), (74, 74, 80), (140, 86, 62), (96, 92, 90))
FRAMES = ((232, 230, 224), (210, 204, 194), (90, 84, 78), (60, 56, 52), (236, 236, 234))
PANES = ((58, 68, 78), (44, 50, 56), (84, 98, 110))
DOORS = ((80, 56, 44), (50, 60, 54), (110, 104, 96))
CONCRETES = ((150, 146, 140), (120, 116, 112), (110, 120, 118), (128, 110, 96))
GREENS = ((74, 98, 48), (92, 112, 54), (62, 86, 50), (110, 122, 60), (84, 104, 70), (128, 112, 56))
WALL, FRAME, PANE, LEDGE, SHOP, SIGN, ROOF, DOOR, PLINTH = range(9)  # parts of a front


def upright(scene, columns, z, t, tall, painter, label, normal):
    """Paint what stands upright at the distances z (w,) in these columns (left, right); tall (w,) or a number."""
    tops = scene.horizon + scene.focal * (scene.eye - tall) / z
    bottoms = scene.horizon + scene.focal * scene.eye / z
    top, bottom = max(int(tops.min()), 0), min(int(bottoms.max()) + 1, scene.shape[0])
    if top >= bottom:
        return
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5)
    h = (scene.eye - (rows - scene.horizon) * (z / scene.focal)).astype(np.float32)
    step = np.abs(np.gradient(t)) if len(t) > 1 else np.ones(1)
    colours, solid = painter(t, h, step, scene.light_on(normal))
    mask = (h >= 0) & (h < tall)
    window, depth = np.s_[top:bottom, slice(*columns)], np.broadcast_to(z.astype(np.float32), mask.shape)
    if label == "fence" and solid is not True:
        scene.seen_through.append((window, mask, depth, IDS[label], 0))
    scene.commit(window, mask & solid, colours, depth, IDS[label])


def along(scene, u, low, high, tall, painter, label):
    """What stands along the street on the line u = const, from s = low to high; tall is a number or a function of s."""
    z = scene.depth_of_columns(u)
    inside = np.nonzero((z >= low) & (z < high))[0]
    if len(inside):  # without gaps, for z grows or shrinks from column to column
        columns = inside[0], inside[-1] + 1
        z = z[slice(*columns)]
        upright(scene, columns, z, z, tall(z) if callable(tall) else tall, painter, label, (-np.sign(u), 0, 0))


def across(scene, s, low, high, tall, painter, label):
    """What stands across the street at the distance s, from u = low to high."""
    ends = (np.array([low, high]) + scene.middle(s)) * scene.focal / s + scene.centre
    columns = max(int(np.ceil(ends[0] - 0.5)), 0), min(int(np.ceil(ends[1] - 0.5)), scene.shape[1])
    if columns[0] < columns[1]:
        t = (np.arange(*columns) + 0.5 - scene.centre) * s / scene.focal - scene.middle(s)
        upright(scene, columns, np.full(len(t), s), t, tall, painter, label, (0, 0, -1))


def plain(tint, joint=0.0):
    """A painter of plaster or concrete, with a joint every so many metres."""

    def painter(t, h, step, light):
        _, medium, coarse = textures()
        value = 1 + 0.08 * look_up(medium, h * 30, t * 30) + 0.05 * look_up(coarse, h * 30, t * 30)
        if joint:
            value = value * np.where((t / joint % 1 < 0.06) & (step < 0.2), np.float32(0.7), np.float32(1))
        return tint * light * threefold(value.astype(np.float32)), True

    return painter


def bars(tint, apart, rails):
    """A painter of a fence of bars, so far apart, with rails at these heights."""

    def painter(t, h, step, light):
        solid = (np.abs(t / apart % 1 - 0.5) * apart < np.maximum(0.025, 0.7 * step)) | (step > apart / 3)
        for rail in rails:
            solid = solid | (np.abs(h - rail) < np.maximum(0.03, 0.5 * step))
        return np.broadcast_to(tint * light, (*h.shape, 3)), solid

    return painter


def boards(tint):
    """A painter of a fence of boards."""

    def painter(t, h, step, light):
        value = np.where(t / 0.14 % 1 < 0.15, 0.6, 1 + 0.1 * np.sin(np.floor(t / 0.14) * 7.1))
        value = 1 + (value - 1) * np.clip(0.14 / step / 3, 0, 1)
        return tint * light * threefold(np.tile(value.astype(np.float32), (len(h), 1))), True

    return painter


def leaves(tint):
    """A painter of a hedge."""

    def painter(t, h, step, light):
        fine, medium, _ = textures()
        value = 0.75 + 0.25 * np.clip(h, 0, 1)
        value += 0.13 * (look_up(fine, h * 60, t * 60) + look_up(medium, h * 60, t * 60))
        return tint * light * threefold(value.clip(0.2)), True

    return painter


def crash_barrier(tint):
    """A painter of a rail on posts."""

    def painter(t, h, step, light):
        solid = (h > 0.42) & (h < 0.75) | (t / 2 % 1 < np.maximum(0.06, step))
        value = np.where(np.abs(h - 0.585) < 0.05, np.float32(0.7), np.float32(1))
        return tint * light * threefold(value), solid

    return painter


def front(scene, house=False):
    """A painter of a building's front, and its height; a house is lower."""
    generator = scene.generator
    wall = colour(generator, *WALLS)
    storey, bay = generator.uniform(2.7, 3.9), generator.uniform(1.6, 3.8)
    wide, high = generator.uniform(0.34, 0.62), generator.uniform(0.42, 0.62)  # of a window, in bays and storeys
    storeys = generator.integers(1, 4) if house else generator.integers(2, 7)
    base = 0.0 if house or generator.random() < 0.4 else generator.uniform(3.2, 4.4)  # of the shops
    if not house and generator.random() < 0.15:  # an office: rows of glass
        wide, high, storeys = generator.uniform(0.8, 0.95), generator.uniform(0.5, 0.85), generator.integers(3, 9)
    eaves = base + storey * storeys + 0.4
    tall = eaves + (generator.uniform(1.5, 4.0) if house or generator.random() < 0.4 else 0.0)
    ledges, brick = generator.random() < 0.4, generator.random() < 0.3
    shown = generator.uniform(0.5, 1.5, (64, 64)).astype(np.float32)  # what each pane mirrors
    lit = generator.random((64, 64)) < LIT_WINDOWS[scene.weather]
    named = generator.random(64) < 0.7  # bays whose shops have a sign
    shift = generator.integers(0, 1024, 2)
    palette = np.float32([
        wall, colour(generator, *FRAMES), colour(generator, *PANES), wall * generator.uniform(0.7, 1.2),
        colour(generator, *PANES), colour(generator, *PAINTS, *WALLS), colour(generator, *ROOFS),
        colour(generator, *DOORS), wall * generator.uniform(0.55, 0.95),
    ])  # fmt: skip

    def painter(t, h, step, light):
        column = np.floor(t / bay).astype(int)
        x = (t / bay - column).astype(np.float32) - np.float32(0.5)  # from the middle of the bay
        row = np.floor((h - base) / storey).astype(np.int32)
        y = (h - base) / np.float32(storey) - row
        across_x, across_y = np.abs(x), np.abs(y - 0.52)
        parts = np.zeros(h.shape, np.uint8)
        upper = (h >= base) & (h < eaves - 0.4)
        if ledges:
            parts[upper & (y < 0.07)] = LEDGE
        parts[upper & (across_x < wide / 2 + 0.1 / bay) & (across_y < high / 2 + 0.1 / storey)] = FRAME
        parts[upper & (across_x < wide / 2) & (across_y < high / 2) & ((across_x > 0.025) | (wide > 0.7))] = PANE
        if base:
            shops = h < base
            parts[shops] = PLINTH
            parts[shops & (across_x < 0.42) & (h > 0.4) & (h < base - 1)] = SHOP
            parts[shops & (h > base - 0.85) & (h < base - 0.15) & named[column % 64]] = SIGN
            parts[shops & (column % 4 == 1) & (across_x < 0.3) & (h < 2.3)] = DOOR
        else:
            parts[h < 0.5] = PLINTH
            parts[(column % 5 == 2) & (across_x < 0.24) & (h < 2.2)] = DOOR
        parts[h > eaves - 0.4] = LEDGE
        parts[h > eaves] = ROOF
        pane = row % 64, column[None] % 64
        value = np.where((parts == PANE) | (parts == SHOP), shown[pane], np.float32(1))
        _, medium, coarse = textures()
        rows, columns = h * 14 + shift[0], t * 14 + shift[1]
        value *= 1 + 0.05 * (look_up(medium, rows, columns) + look_up(coarse, rows, columns))
        if brick:
            value -= 0.12 * ((h / 0.25 % 1 < 0.25) & (parts == WALL))
        value *= 0.86 + 0.14 * np.clip(h / 3, 0, 1)  # less light reaches the foot
        colours = palette[parts] * threefold(value)
        # What is finer than the pixels fades to its mean, or it would shimmer.
        detail = np.clip(bay / step / 6 - 0.35, 0, 1).astype(np.float32)
        mean = palette[WALL] * np.float32(0.68) + palette[PANE] * np.float32(0.32)
        colours = blend(colours, mean, (parts != ROOF) * (1 - detail)) * light
        colours[lit[pane] & (parts == PANE)] = (0.86, 0.70, 0.43)
        return colours, True

    return painter, tall


def draw_building(scene, side, line, u, low, high, house=False):
    """A building whose front is at u, from s = low to high, on a plot that begins at the line."""
    painter, tall = front(scene, house)
    deep = u + scene.generator.uniform(8, 14)
    if high - low < 3:
        return
    along(scene, side * u, low, high, tall, painter, "building")
    if low > 3:
        across(scene, low, min(side * u, side * deep), max(side * u, side * deep), tall, painter, "building")
    # One that stands back throws its shadow less far into the street.
    top = tall - (u - line) * scene.sun[1] / abs(scene.sun[0])
    part = scene.tops[side][max(int(low), 0) : max(int(high), 0)]
    np.maximum(part, top, out=part)


def draw_boundary(scene, u, low, high):
    """What bounds a plot: a wall, bars, boards, a hedge, or nothing."""
    generator = scene.generator
    which = generator.choice(5, p=(0.28, 0.24, 0.18, 0.2, 0.1))
    tall = generator.uniform(0.8, 2.2)
    if which == 0:
        painter = plain(colour(generator, *WALLS), generator.choice([0, 2.5]))
        along(scene, u, low, high, tall, painter, "wall")
    elif which == 1:
        tint = colour(generator, (60, 62, 64), (110, 112, 112), (70, 84, 72), (150, 140, 124))
        along(scene, u, low, high, tall, bars(tint, generator.uniform(0.14, 0.3), (0.12, tall - 0.08)), "fence")
    elif which == 2:
        tint = colour(generator, (140, 110, 78), (110, 92, 72), (156, 148, 134))
        along(scene, u, low, high, tall, boards(tint), "fence")
    elif which == 3:
        phase = generator.uniform(0, 9)

        def bumpy(s):
            return tall + 0.08 * np.sin(s * 3 + phase) + 0.05 * np.sin(s * 11)

        along(scene, u, low, high, bumpy, leaves(colour(generator, *GREENS)), "vegetation")


# shares of buildings on the street, of houses in gardens, and of parks
PLOTS = {"city": (0.86, 0.1, 0.04), "suburb": (0.2, 0.7, 0.1), "avenue": (0.45, 0.25, 0.3), "main": (0.4, 0.3, 0.3)}


def draw_plots(scene, plan, side):
    """All that stands along one side of the street; returns where trees are to be: a list of ("tree", u, s, 0)."""
    generator, line = scene.generator, plan["line"][side]
    gaps = [(low - 0.5, high + 0.5) for low, high, sides in plan["junctions"] if side in sides]
    trees = []
    s = -3.0
    while s < FARTHEST:
        end = s + generator.uniform(9, 26)
        gap = next((gap for gap in gaps if gap[0] < end and gap[1] > s), None)
        if gap:
            end = gap[0]
        if end - s > 1.5:
            what = generator.choice(3, p=PLOTS[plan["kind"]])
            if what == 0:
                draw_building(scene, side, line, line + generator.uniform(0, 0.6), s, end)
            else:
                draw_boundary(scene, side * line, s, end)
                if what == 1:
                    draw_building(scene, side, line, line + generator.uniform(5, 9), s + 1, end - 1, house=True)
                for _ in range(generator.integers(0, 4) if what == 1 else generator.integers(2, 6)):
                    u = line + generator.uniform(1.2, 4 if what == 1 else 14)
                    trees.append(("tree", side * u, generator.uniform(s, end), 0.0))
        s = gap[1] if gap else end
    return trees


def draw_kerb(scene, plan, side):
    """The step up to the pavement, with gaps at side streets."""
    kerb = plain(colour(scene.generator, (150, 148, 144), (130, 128, 124), spread=0.06), 1.0)
    s = 0.8
    for low, high, sides in plan["junctions"]:
        if side in sides:
            along(scene, side * plan["walk"][side][0], s, low, 0.12, kerb, "sidewalk")
            s = high
    along(scene, side * plan["walk"][side][0], s, FARTHEST, 0.12, kerb, "sidewalk")


def draw_bridge(scene, plan, s):
    """A bridge over the street."""
    generator = scene.generator
    low, thick = generator.uniform(4.6, 5.6), generator.uniform(1.2, 2.2)
    concrete = plain(colour(generator, *CONCRETES), 3.0)
    wide = max(plan["line"].values()) + 2

    def painter(t, h, step, light):
        colours, _ = concrete(t, h, step, light)
        colours[h < low + 0.5] *= 0.7
        return colours, (h > low) | (np.abs(np.abs(t) - wide) < 1)

    across(scene, s, -60, 60, low + thick, painter, "bridge")


def draw_tunnel(scene, plan, s):
    """The street goes into a tunnel."""
    generator = scene.generator
    high, wide = generator.uniform(4.8, 6), plan["half"] + generator.uniform(0.8, 3)
    tint = colour(generator, *CONCRETES)

    def portal(t, h, step, light):
        return plain(tint, 2.0)(t, h, step, light)[0], (np.abs(t) > wide) | (h > high)

    def inside(t, h, step, light):
        colours = np.full((*h.shape, 3), 0.07, np.float32) * threefold(1 + h / np.float32(high))
        colours[(np.abs(h - high + 0.6) < 0.12) & (np.abs(np.abs(t) - wide / 2) < 0.5)] = (0.9, 0.8, 0.55)  # lamps
        return colours, True

    across(scene, s, -80, 80, high + generator.uniform(2, 9), portal, "tunnel")
    ceiling = scene.eye + (high - scene.eye) * (s + 22) / s  # what is seen of it below the portal
    across(scene, s + 22, -2 * wide, 2 * wide, ceiling + 1, inside, "tunnel")
    for side in (-1, 1):
        along(scene, side * wide, s, s + 22, 3 * high, plain(tint * np.float32(0.25)), "tunnel")


# ---------------------------------------------------------------------------------------------------------- things


class Thing:
    """One thing made of flat parts, the farther ones first, that is put into the scene at once.

    Its origin stands at (u, s). turn is its heading in radians: 0 looks along the road, away from the camera; None
    turns its x, y plane to the camera. Its own places are (x, y, z): to its right, up, ahead.
    """

    def __init__(self, scene, u, s, turn, label):
        self.scene, self.label = scene, label
        self.origin = np.array([u + scene.middle(s), 0.0, s])
        if turn is None:
            turn = np.arctan2(self.origin[0], s)
        else:
            turn = turn + np.arctan(scene.heading + scene.curvature * s)
        self.axes = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
        self.parts, self.wheels, self.depth = [], [], None
        scene.count += 1
        self.number = scene.count

    def world(self, points):
        """Its own places (n, 3) in the camera's frame."""
        return np.asarray(points, float) @ self.axes + self.origin

    def fill(self, points, tint, label=None, glow=False, both=True):
        """Add an outline (n, 3); unless both, only where its front is seen, from where its corners run clockwise."""
        points = self.world(points)
        (x, y, z), (x1, y1, z1) = points.T, np.concatenate([points[1:], points[:1]]).T
        normal = np.array([(y * z1 - z * y1).sum(), (z * x1 - x * z1).sum(), (x * y1 - y * x1).sum()])
        normal /= np.sqrt(normal @ normal) + 1e-9
        if normal @ ((0, self.scene.eye, 0) - points.mean(axis=0)) < 0:
            if not both:
                return
            normal = -normal
        light = 1 if glow else self.scene.light_on(normal)
        tint = np.minimum(np.float32(tint) * light * 255, 255).tolist()
        self.parts.append((points, tint, IDS[label or self.label]))

    def flat(self, points, tint, label=None, glow=False, z=0.0):
        """Add an outline (n, 2) across its heading, z ahead of its origin."""
        points = np.asarray(points, float)
        self.fill(np.insert(points, 2, z, axis=1), tint, label, glow)

    def lengthwise(self, points, tint, x=0.0):
        """Add an outline (n, 2) of (ahead, up) along its heading, x to the right of its origin."""
        self.fill(np.insert(np.asarray(points, float)[:, ::-1], 0, x, axis=1), tint)

    def put(self, grain):
        """Paint it into the scene, at its depth, or else that of its nearest part; grain is how rough it looks."""
        scene = self.scene
        if self.depth is None:
            self.depth = np.float32(min(points[:, 2].min() for points, _, _ in self.parts) - 0.02)
        pixels = [scene.to_pixels(points) for points, _, _ in self.parts]
        place = scene.window(np.concatenate(pixels))
        if scene.sunny:
            fallen = [points - scene.sun * (points[:, 1:2] / scene.sun[1]) for points, _, _ in self.parts]
            scene.darken(fallen, 1 - scene.in_shade, 2)
        y, x = scene.generator.integers(0, 1024, 2)
        if place is None:
            return
        left, top, right, bottom = place
        labels = np.zeros((bottom - top, right - left), np.uint8)
        colours = np.zeros((*labels.shape, 3), np.uint8)
        for outline, (_, tint, label) in zip(pixels, self.parts, strict=True):
            outline = np.round((outline - (left, top) - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(labels, [outline], label, cv2.LINE_8, 4)
            cv2.fillPoly(colours, [outline], tint, cv2.LINE_8, 4)
        noise = look_up(textures()[1], np.arange(y, y + len(labels))[:, None], np.arange(x, x + labels.shape[1]))
        colours = colours * threefold((1 + np.float32(grain) * noise) * np.float32(1 / 255))
        window = np.s_[top:bottom, left:right]
        scene.commit(window, labels > 0, colours, self.depth, labels, self.number)
        if self.wheels:
            mask = np.zeros_like(labels)
            for wheel in self.wheels:
                outline = np.round((scene.to_pixels(self.world(wheel)) - (left, top) - 0.5) * 16).astype(np.int32)
                cv2.fillPoly(mask, [outline], 1, cv2.LINE_8, 4)
            scene.seen_through.append((window, mask > 0, self.depth, IDS[self.label], self.number))

    def stand(self, wide, long, strength):
        """Darken the ground beneath it, a rectangle of this size."""
        corners = np.insert(box(-wide / 2, -long / 2, wide / 2, long / 2), 1, 0, axis=1)
        self.scene.darken([self.world(corners)], strength, max(2, int(0.1 * self.scene.focal / self.origin[2])))


# Formatted by hand: the formatter would put each point of an outline on a line of its own.
# fmt: off

LAMP, TAIL, BLACK = (0.88, 0.88, 0.86), (0.65, 0.07, 0.06), (0.06, 0.06, 0.065)


class Faces:
    """Paints on the faces of a vehicle, or on parts of it: "left", "right", "front", "back"."""

    def __init__(self, thing, width, back, front, lean=lambda y: 1.0):
        self.thing, self.half, self.ends, self.lean = thing, width / 2, {"back": back, "front": front}, lean

    def solid(self, outline, tint):
        """All faces of a body whose outline (n, 2) of (ahead, up) runs clockwise as seen from its right."""
        for (z0, y0), (z1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
            x0, x1 = self.half * self.lean(y0), self.half * self.lean(y1)
            self.thing.fill([(-x0, y0, z0), (-x1, y1, z1), (x1, y1, z1), (x0, y0, z0)], tint, both=False)
        for side in ("left", "right"):
            self.polygon(side, outline, tint)

    def polygon(self, face, outline, tint, out=1.0):
        """An outline (n, 2) of (ahead, up), clockwise as seen from the right, on the left or the right."""
        way = 1 if face == "right" else -1
        points = [(way * out * self.half * self.lean(y), y, z) for z, y in outline]
        self.thing.fill(points[::way], tint, both=False)

    def slope(self, low, high, tint, wide):
        """A pane between two points (ahead, up) of the outline, as wide as this share of it."""
        points = [(way * wide * self.half * self.lean(y), y, z) for way, (z, y) in
                  ((-1, low), (-1, high), (1, high), (1, low))]
        self.thing.fill(points, tint, both=False)

    def paint(self, face, left, bottom, right, top, tint, glow=False):
        """A rectangle: from left to right it's ahead on the sides, and to the vehicle's right on the ends."""
        if face in ("left", "right"):
            return self.polygon(face, [(left, bottom), (left, top), (right, top), (right, bottom)], tint, 1.005)
        way = 1 if face == "back" else -1
        z = self.ends[face] - 0.01 * way
        points = [(left, bottom, z), (left, top, z), (right, top, z), (right, bottom, z)]
        self.thing.fill(points[::way], tint, glow=glow, both=False)

    def pair(self, face, inner, bottom, outer, top, tint, glow=False):
        """Two rectangles, as lamps are: this far from the middle, on both sides."""
        self.paint(face, inner, bottom, outer, top, tint, glow)
        self.paint(face, -outer, bottom, -inner, top, tint, glow)

    def wheels(self, places, radius):
        """Wheels on both sides."""
        rim = colour(self.thing.scene.generator, (160, 162, 166), (110, 112, 116), (70, 70, 74))
        for place in places:
            for size, tint in ((1.18, (0.02, 0.02, 0.02)), (1.0, BLACK), (0.62, rim), (0.2, rim * 0.5)):
                outline = oval(place, radius, radius * size, radius * size, count=16)[::-1]
                outline[:, 1] = outline[:, 1].clip(0)
                for face in ("left", "right"):
                    self.polygon(face, outline, tint, 1.01)


# length, width and height; how far ahead of the middle windscreen and roof begin, and roof and rear window end; belt
CARS = {
    "hatchback": (4.0, 1.72, 1.48, 0.95, 0.25, -1.55, -1.9, 0.92),
    "saloon": (4.6, 1.80, 1.45, 0.95, 0.20, -1.1, -1.75, 0.92),
    "estate": (4.7, 1.82, 1.48, 1.0, 0.25, -1.85, -2.25, 0.92),
    "off-roader": (4.5, 1.85, 1.70, 1.15, 0.45, -1.75, -2.15, 1.02),
    "van": (5.2, 1.95, 2.05, 1.75, 1.05, -2.45, -2.55, 1.15),
}
CAR_PAINTS = (*PAINTS, (210, 210, 210), (60, 62, 66), (24, 26, 30), (120, 124, 130))


def between(first, second, share):
    """The point this share of the way from the first to the second."""
    return tuple(one + (other - one) * share for one, other in zip(first, second, strict=True))


def draw_car(thing):
    """One of CARS."""
    generator, scene = thing.scene.generator, thing.scene
    kind = str(generator.choice(list(CARS), p=(0.32, 0.24, 0.2, 0.14, 0.1)))
    length, width, high, screen, roof, back, rear, belt = CARS[kind]
    paint = colour(generator, *CAR_PAINTS, spread=0.1)
    pane = colour(generator, (40, 50, 58), (56, 68, 78), (30, 36, 42))
    sky, end, nose = 0.25 * scene.sky_above, length / 2, belt - 0.17
    thing.stand(width * 1.05, length * 1.02, 0.75)
    faces = Faces(thing, width, -end, end, lambda y: 1 - 0.22 * min(max((y - belt) / 0.6, 0), 1))
    for place in (-end + 0.1, end - 0.1):  # the dark underneath
        thing.flat(box(-width * 0.46, 0.14, width * 0.46, 0.36), (0.03, 0.03, 0.03), z=place)
    for side in (-1, 1):
        thing.lengthwise(box(-end + 0.2, 0.12, end - 0.2, 0.4), (0.03, 0.03, 0.03), side * width * 0.4)
        for place in (-end + 0.75, end - 0.75):
            thing.flat(box(side * width * 0.41 - 0.1, 0, side * width * 0.41 + 0.1, 0.5), BLACK, z=place)
    faces.solid([(-end, 0.3), (-end, belt - 0.02), (screen, belt), (end - 0.12, nose), (end, 0.55), (end - 0.05, 0.3)],
                paint)
    faces.solid([(rear, belt), (back, high), (roof, high), (screen, belt)], paint)
    behind, ahead = ((rear, belt), (back, high)), ((roof, high), (screen, belt))
    faces.slope(between(*behind, 0.08), between(*behind, 0.9), pane + sky * 0.6, 0.86)
    faces.slope(between(*ahead, 0.08), between(*ahead, 0.95), pane + sky, 0.9)
    pillar = (roof + back) / 2
    closed = kind == "van" and generator.random() < 0.5
    for first, second in ((pillar, screen),) if closed else ((rear, pillar), (pillar, screen)):
        window = [(first + 0.1, belt + 0.03), (max(first, back) + 0.1, high - 0.1),
                  (min(second, roof) - 0.05, high - 0.1), (second - 0.12, belt + 0.03)]
        for face in ("left", "right"):
            faces.polygon(face, window, pane + sky * 0.4, 1.005)
    lights = scene.weather in ("dusk", "rain", "fog")
    braking = lights or generator.random() < 0.3
    lamp, tail = (1, 0.97, 0.85) if lights else LAMP, (1, 0.12, 0.08) if braking else TAIL
    faces.pair("front", width * 0.33, nose - 0.22, width * 0.5, nose - 0.09, lamp, lights)
    faces.pair("back", width * 0.33, belt - 0.31, width * 0.5, belt - 0.13, tail, braking)
    for face in ("front", "back"):
        faces.paint(face, -0.46 * width, 0.29, 0.46 * width, 0.43, paint * 0.3)
        faces.paint(face, -0.26, 0.465, 0.26, 0.575, (0.85, 0.85, 0.82))
    faces.paint("front", -0.45, 0.58, 0.45, 0.72, paint * 0.25)
    for face in ("left", "right"):
        for place in (pillar, screen - 0.1, max(rear, 1.1 - end)):
            faces.paint(face, place - 0.02, 0.4, place + 0.02, belt, paint * 0.6)
        faces.paint(face, -end + 0.1, 0.3, end - 0.1, 0.4, paint * 0.4)
    for side in (-1, 1):
        thing.flat(box(side * (width / 2 + 0.1) - 0.1, belt, side * (width / 2 + 0.1) + 0.1, belt + 0.13), paint * 0.8,
                   z=screen - 0.25)
    faces.wheels((-end + 0.75, end - 0.8), 0.33 if belt < 1 else 0.36)
    thing.put(0.015)


def draw_bus(thing):
    """A bus, or a tram."""
    generator, is_bus = thing.scene.generator, thing.label == "bus"
    length, width, high = (11.5, 2.5, 3.05) if is_bus else (24.0, 2.4, 3.5)
    paint = colour(generator, (200, 40, 44), (226, 200, 60), (60, 110, 160), (230, 230, 226), (80, 140, 90))
    second, pane, end = colour(generator, *PAINTS), colour(generator, (46, 56, 64), (60, 72, 82)), length / 2
    thing.stand(width, length, 0.75)
    faces = Faces(thing, width, -end, end)
    faces.solid([(-end, 0.35), (-end, high), (end, high), (end, 0.35)], paint)
    for face in ("left", "right"):
        faces.paint(face, -end, 0.35, end, 0.75, second)
        faces.paint(face, -end + 0.2, 1.3, end - 0.1, 2.45, BLACK)
        for place in np.arange(-end + 0.3, end - 1.3, 1.5):
            faces.paint(face, place, 1.38, place + 1.35, 2.38, pane)
    for place in (end - 2.0, 0.0):
        faces.paint("right", place - 0.6, 0.45, place + 0.6, 2.4, pane * 0.8)
    faces.paint("front", -1.12, 1.15, 1.12, 2.5, pane)
    faces.paint("front", -0.9, 2.58, 0.9, 2.85, BLACK)
    faces.paint("front", -0.6, 2.63, 0.5, 2.8, (0.95, 0.65, 0.15), glow=True)
    faces.paint("back", -1.05, 1.5, 1.05, 2.4, pane)
    faces.paint("back", -1.1, 0.4, 1.1, 0.7, second * 0.6)
    faces.pair("front", 0.8, 0.65, 1.05, 0.85, LAMP)
    faces.pair("back", 0.82, 0.8, 1.05, 1.2, TAIL)
    faces.wheels((-end + 2.4, end - 2.7), 0.48 if is_bus else 0.3)
    thing.put(0.02)


def draw_truck(thing):
    """A cab with a box behind it."""
    generator = thing.scene.generator
    paint, load = colour(generator, *PAINTS), colour(generator, (226, 226, 222), *PAINTS, (120, 130, 140))
    pane, width = colour(generator, (46, 56, 64), (60, 72, 82)), 2.45
    end, high = generator.uniform(2.8, 4.2), generator.uniform(2.9, 3.7)
    thing.stand(width, 2 * end, 0.75)

    def draw_cab():
        faces = Faces(thing, width * 0.96, end - 1.9, end)
        faces.solid([(end - 1.9, 0.45), (end - 1.9, 2.75), (end, 2.75), (end, 0.45)], paint)
        faces.paint("front", -1.05, 1.5, 1.05, 2.4, pane)
        faces.paint("front", -0.9, 0.75, 0.9, 1.15, BLACK)
        faces.pair("front", 0.8, 0.55, 1.1, 0.72, LAMP)
        for face in ("left", "right"):
            faces.paint(face, end - 1.2, 1.5, end - 0.3, 2.35, pane)

    def draw_load():
        faces = Faces(thing, width, -end, end - 2)
        faces.solid([(-end, 0.9), (-end, high), (end - 2, high), (end - 2, 0.9)], load)
        faces.paint("back", -1.15, 0.55, 1.15, 0.9, BLACK)
        faces.paint("back", -0.03, 1.0, 0.03, high - 0.1, load * 0.6)
        faces.pair("back", 0.85, 0.6, 1.1, 0.8, TAIL)
        name = colour(generator, *PAINTS)
        for face in ("left", "right"):
            faces.paint(face, -end + 0.6, 1.6, end - 2.8, high - 0.7, name)

    away = thing.axes[2, 2] > 0  # then the load hides the cab
    for draw in (draw_cab, draw_load) if away else (draw_load, draw_cab):
        draw()
    Faces(thing, width, -end, end).wheels((-end + 1.1, end - 1.2), 0.48)
    thing.put(0.03)


def draw_trailer(thing):
    """A caravan or a trailer, without what draws it."""
    generator, is_caravan = thing.scene.generator, thing.label == "caravan"
    paint = colour(generator, *(((232, 230, 224), (206, 204, 198)) if is_caravan else ((120, 124, 126), *PAINTS)))
    end, width, high = (2.4, 2.1, 2.5) if is_caravan else (1.3, 1.5, 1.1)
    thing.stand(width, 2 * end, 0.7)
    faces = Faces(thing, width, -end, end)
    faces.solid([(-end, 0.4), (-end, high), (end, high), (end, 0.4)], paint)
    if is_caravan:
        for face in ("left", "right"):
            faces.paint(face, -1.5, 1.2, 0.2, 1.9, (0.18, 0.2, 0.22))
            faces.paint(face, -end, 0.9, end, 1.0, (0.3, 0.4, 0.5))
        faces.paint("back", -0.8, 1.3, 0.8, 1.95, (0.18, 0.2, 0.22))
    faces.pair("back", width / 2 - 0.3, 0.45, width / 2 - 0.1, 0.62, TAIL)
    faces.wheels((-0.1,), 0.3)
    thing.put(0.03)


def draw_cycle(thing):
    """A bicycle or motorcycle."""
    generator, motor = thing.scene.generator, thing.label == "motorcycle"
    paint = colour(generator, *PAINTS)
    radius, reach, thick = (0.31, 0.68, 0.13) if motor else (0.34, 0.52, 0.045)
    thing.stand(0.5, 1.8, 0.5)
    for place in (-reach, reach):
        outer, inner = (oval(place, radius, wide, wide, count=20) for wide in (radius, radius - thick))
        thing.wheels.append(np.insert(outer[:, ::-1], 0, 0, axis=1))
        thing.lengthwise(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), BLACK)
        if motor:
            thing.lengthwise(inner, (0.3, 0.3, 0.32))
        thing.flat(box(-thick / 2, 0, thick / 2, 2 * radius), BLACK, z=place)
    if motor:
        thing.lengthwise(curve([(-0.6, 0.55), (-0.75, 0.85), (-0.1, 0.8), (0.1, 1.0), (0.4, 0.92), (0.45, 0.6),
                                (0.2, 0.3), (-0.3, 0.28)], 2), paint)
        thing.lengthwise(curve([(-0.75, 0.82), (-0.7, 0.92), (-0.1, 0.86), (-0.1, 0.78)], 2), BLACK)
        thing.lengthwise(band([(reach, radius), (0.42, 1.02)], 0.07), (0.35, 0.35, 0.37))
        if thing.axes[2, 2] > 0:
            thing.flat(box(-0.16, 0.5, 0.16, 0.85, 0.05), paint * 0.9, z=-0.6)
            thing.flat(oval(0, 0.72, 0.08, 0.05), TAIL, z=-0.62)
        else:
            thing.flat(box(-0.18, 0.5, 0.18, 1.0, 0.05), paint * 0.9, z=0.35)
            thing.flat(oval(0, 0.92, 0.09, 0.09), LAMP, z=0.5)
    else:
        hub, crank, seat, head = (-reach, radius), (-0.12, 0.3), (-0.2, 0.74), (0.4, 0.78)
        fork = (reach, radius), (0.38, 0.98)
        for ends in ((hub, crank), (crank, head), (head, seat), (seat, crank), (hub, seat), fork):
            thing.lengthwise(band(ends, 0.05), paint)
        thing.lengthwise(band([(-0.2, 0.72), (-0.23, 0.95)], 0.04), BLACK)
        thing.lengthwise(band([(-0.36, 0.96), (-0.1, 0.95)], 0.08), BLACK)
    high = 1.05 if motor else 1.02
    thing.flat(band([(-0.3, high), (0.3, high)], 0.05), BLACK, z=0.38)
    thing.put(0.03)


def draw_rider(thing, helmet):
    """Who rides a bicycle or motorcycle, from the side; or from the front or behind, where thing faces the camera."""
    generator = thing.scene.generator
    skin, top = colour(generator, *SKINS, spread=0.05), colour(generator, *(PAINTS if helmet else HAIRS))
    shirt, trousers = colour(generator, *SHIRTS), colour(generator, *TROUSERS)
    if abs(thing.axes[2, 0]) > 0.45:
        for pedal in ((-0.12, 0.2), (0.08, 0.4)):
            knee = (0.22, 0.62 + 0.5 * (pedal[1] - 0.3))
            thing.lengthwise(band([(-0.22, 0.98), knee, pedal], (0.2, 0.15, 0.09)), trousers)
        thing.lengthwise(band([(-0.22, 0.95), (-0.1, 1.25), (0.08, 1.46)], (0.26, 0.3, 0.22)), shirt)
        thing.lengthwise(band([(0.05, 1.4), (0.2, 1.16), (0.36, 1.05)], (0.11, 0.09, 0.07)), shirt * 0.85)
        thing.lengthwise(oval(0.14, 1.64, 0.1, 0.125), skin)
        thing.lengthwise(curve([(0.02, 1.6), (0.03, 1.76), (0.14, 1.8), (0.25, 1.72), (0.12, 1.7)], 2), top)
    else:
        for side in (-1, 1):
            thing.flat(band([(side * 0.1, 0.95), (side * 0.17, 0.6), (side * 0.13, 0.25)], (0.19, 0.14, 0.09)),
                       trousers)
            thing.flat(band([(side * 0.2, 1.42), (side * 0.32, 1.2), (side * 0.27, 1.04)], (0.12, 0.1, 0.07)),
                       shirt * 0.85)
        thing.flat(curve([(-0.22, 1.46), (-0.2, 1.15), (-0.18, 0.88), (0.18, 0.88), (0.2, 1.15), (0.22, 1.46),
                          (0, 1.53)], 2), shirt)
        thing.flat(oval(0, 1.65, 0.09, 0.125), skin)
        thing.flat(oval(0, 1.69, 0.105, 0.1), top)
    thing.put(0.06)


def draw_person(thing):
    """Someone who walks or stands: from the side, from the front or from behind."""
    generator = thing.scene.generator
    skin, hair = colour(generator, *SKINS, spread=0.05), colour(generator, *HAIRS)
    shirt, trousers = colour(generator, *SHIRTS), colour(generator, *TROUSERS)
    shoes, bag = colour(generator, (40, 36, 36), (190, 190, 188)), colour(generator, *CLOTHES)
    size = generator.normal(1, 0.05) if generator.random() < 0.9 else generator.uniform(0.6, 0.8)
    view = ("side", "side", "front", "back")[generator.integers(4)]
    way = generator.choice([-1, 1])
    step = generator.uniform(0.05, 0.3)
    thing.stand(0.5, 0.3, 0.5)

    def add(points, tint):
        thing.flat(np.asarray(points, float) * (way * size, size), tint)

    if view == "side":  # towards positive x, then turned to the way it goes
        add(band([(0, 0.92), (-step * 0.4, 0.5), (-step * 1.1, 0.07)], (0.2, 0.14, 0.1)), trousers * 0.8)
        add(oval(0.05 - step * 1.1, 0.05, 0.13, 0.05, count=10), shoes)
        add(band([(0, 1.4), (step * 0.6, 1.12), (step * 0.9 + 0.06, 0.9)], (0.12, 0.1, 0.07)), shirt * 0.75)
        add(band([(0, 0.92), (step * 0.7, 0.5), (step, 0.07)], (0.2, 0.15, 0.1)), trousers)
        add(oval(0.05 + step, 0.05, 0.13, 0.05, count=10), shoes)
        add(curve([(-0.12, 1.47), (-0.17, 1.2), (-0.13, 0.82), (0.13, 0.82), (0.16, 1.2), (0.1, 1.48)], 2), shirt)
        add(band([(0, 1.4), (-step * 0.6, 1.13), (0.06 - step * 0.7, 0.9)], (0.12, 0.1, 0.07)), shirt * 0.88)
        add(oval(0.06 - step * 0.7, 0.86, 0.045, 0.05, count=8), skin)
    else:
        for side in (-1, 1):
            lift, foot = (0.06 if side > 0 else 0), side * (0.1 + step * 0.1)
            add(band([(side * 0.09, 0.9), (side * 0.1, 0.5), (foot, 0.06 + lift)], (0.18, 0.14, 0.1)),
                trousers * (0.85 if lift else 1))
            add(oval(foot * 1.1, 0.04 + lift, 0.06, 0.05, count=10), shoes)
            add(band([(side * 0.22, 1.4), (side * 0.28, 1.12), (side * 0.27, 0.86)], (0.12, 0.1, 0.07)), shirt * 0.85)
            add(oval(side * 0.27, 0.84, 0.045, 0.055, count=8), skin)
        add(curve([(-0.22, 1.46), (-0.2, 1.15), (-0.18, 0.82), (0.18, 0.82), (0.2, 1.15), (0.22, 1.46), (0, 1.53)], 2),
            shirt)
    add(band([(0, 1.42), (0, 1.58)], (0.11, 0.1)), skin * 0.85)
    add(oval(0, 1.65, 0.1 if view == "side" else 0.085, 0.125, count=14), skin)
    add({
        "side": curve([(-0.12, 1.56), (-0.12, 1.76), (0, 1.81), (0.1, 1.74), (0.02, 1.7), (-0.02, 1.6)], 2),
        "front": curve([(-0.1, 1.62), (-0.1, 1.76), (0, 1.81), (0.1, 1.76), (0.1, 1.68), (0.06, 1.71),
                        (-0.05, 1.72)], 2),
        "back": oval(0, 1.66, 0.1, 0.13, count=14),
    }[view], hair)
    if generator.random() < 0.35:
        add(box(-0.16, 1.05, 0.16, 1.42, 0.04) if view == "back" else box(0.18, 0.7, 0.42, 0.98, 0.03), bag)
    thing.put(0.08)


SHIRTS = (  # bright ones, so that a few minutes of training suffice to find people
    (222, 44, 38), (240, 130, 24), (244, 206, 40), (226, 70, 150), (40, 120, 230), (120, 60, 190), (60, 190, 90),
)
SIGNS = ("limit", "limit", "warning", "warning", "yield", "stop", "arrow", "parking", "board", "one way")


def draw_sign(thing, x, y):
    """A traffic sign whose middle is at (x, y)."""
    generator = thing.scene.generator
    kind = SIGNS[generator.integers(len(SIGNS))]
    red, white, blue, yellow = (0.75, 0.1, 0.1), (0.9, 0.9, 0.88), (0.1, 0.28, 0.62), (0.85, 0.7, 0.1)
    triangle = np.array([(-0.4, -0.32), (0.4, -0.32), (0, 0.38)]) * (1, -1 if kind == "yield" else 1)
    parts = {
        "limit": [(oval(0, 0, 0.32, 0.32, count=18), red), (oval(0, 0, 0.24, 0.24, count=18), white),
                  (box(-0.12, -0.1, -0.02, 0.1), BLACK), (box(0.03, -0.1, 0.13, 0.1), BLACK)],
        "warning": [(triangle, red), (triangle * 0.66 - (0, 0.02), white), (box(-0.03, -0.2, 0.03, 0.08), BLACK)],
        "yield": [(triangle, red), (triangle * 0.66 + (0, 0.02), white)],
        "stop": [(oval(0, 0, 0.35, 0.35, np.pi / 8, 8), red), (box(-0.22, -0.07, 0.22, 0.07), white)],
        "arrow": [(oval(0, 0, 0.32, 0.32, count=18), blue), (box(-0.05, -0.18, 0.05, 0.1), white),
                  ([(-0.15, 0.05), (0.15, 0.05), (0, 0.22)], white)],
        "parking": [(box(-0.3, -0.3, 0.3, 0.3, 0.04), blue), (box(-0.12, -0.2, -0.04, 0.2), white),
                    (oval(0.03, 0.09, 0.12, 0.12, count=12), white)],
        "board": [(box(-0.75, -0.35, 0.75, 0.45, 0.04), (blue, yellow, white)[generator.integers(3)]),
                  (box(-0.55, 0.12, 0.4, 0.22), white), (box(-0.55, -0.12, 0.2, -0.02), BLACK)],
        "one way": [(box(-0.45, -0.16, 0.45, 0.16, 0.02), blue), (box(-0.3, -0.04, 0.25, 0.04), white)],
    }
    for outline, tint in parts[kind]:
        thing.flat(np.add(outline, (x, y)), tint, "traffic sign")


def draw_pole(thing, kind, inwards):
    """A lamp, a traffic light, a sign, a bollard or a group of poles; its arm goes inwards, 1 or -1."""
    generator, scene = thing.scene.generator, thing.scene
    metal = colour(generator, (52, 56, 58), (40, 48, 44), (64, 66, 70), (36, 36, 38))
    thin = 3 * thing.origin[2] / scene.focal  # never thinner than the final pixels
    thing.stand(0.3, 0.2, 0.4)

    def mast(x, high, wide, tint=metal):
        wide = max(wide, thin) / 2
        thing.flat(box(x - wide, 0, x, high), tint * 1.1)
        thing.flat(box(x, 0, x + wide, high), tint * 0.75)

    if kind == "lamp":
        high, arm = generator.uniform(5.5, 9), generator.uniform(0.8, 2.2) * inwards
        mast(0, high, 0.14)
        thing.flat(band([(0, high), (arm * 0.5, high + 0.25), (arm, high + 0.3)], max(0.08, thin)), metal)
        thing.flat(band([(arm * 0.8, high + 0.26), (arm * 1.15, high + 0.28)], max(0.16, thin)),
                   metal * (1.9 if scene.weather == "dusk" else 0.8))
    elif kind == "traffic light":
        high, shown = generator.uniform(2.8, 3.4), generator.integers(3)
        places = [(0.0, high)]
        mast(0, high + 0.6, 0.12)
        if generator.random() < 0.35:  # a second one, over the road
            arm = inwards * generator.uniform(2.0, 3.8)
            mast(0, 5.6, 0.16)
            thing.flat(band([(0, 5.4), (arm, 5.6)], max(0.1, thin)), metal)
            places.append((arm, 5.3))
        for x, y in places:
            thing.flat(box(x - 0.17, y - 0.42, x + 0.17, y + 0.5, 0.05), (0.09, 0.1, 0.1), kind)
            for number, tint in enumerate(((0.95, 0.12, 0.1), (0.95, 0.7, 0.1), (0.15, 0.9, 0.45))):
                bright = number == shown
                lamp = oval(x, y + 0.32 - 0.28 * number, 0.1, 0.1, count=12)
                thing.flat(lamp, np.multiply(tint, 1 if bright else 0.22), kind, glow=bright)
    elif kind == "sign":
        high = generator.uniform(2.1, 2.9)
        mast(0, high + 0.3, 0.07)
        draw_sign(thing, 0, high)
        if generator.random() < 0.3:
            draw_sign(thing, 0, high - 0.75)
    elif kind == "bollard":
        mast(0, generator.uniform(0.8, 1.1), 0.13, colour(generator, (90, 92, 94), (150, 40, 36), (60, 60, 60)))
    else:
        for x in np.arange(generator.integers(2, 5)) * 0.28:
            mast(x, generator.uniform(2.5, 4.5), 0.1)
        draw_sign(thing, 0.28, 2.6)
    thing.put(0.03)


def draw_clutter(thing):
    """A bin, a cabinet or a bench, which stay there; or bags put out, which don't."""
    generator = thing.scene.generator
    tint = colour(generator, (70, 78, 72), (120, 124, 122), (60, 84, 66), (150, 120, 60), (96, 74, 58), (190, 60, 40))
    thing.stand(0.8, 0.8, 0.4)

    def draw_box(width, end, low, high, tint):
        Faces(thing, width, -end, end).solid([(-end, low), (-end, high), (end, high), (end, low)], tint)

    which = generator.integers(3)
    if thing.label == "dynamic":
        for _ in range(generator.integers(1, 5)):
            x, wide = generator.normal(0, 0.4), generator.uniform(0.2, 0.4)
            bag = np.array([(-1, 0), (-0.8, 1), (0, 1.9), (0.7, 1), (1, 0)]) * wide + (x, 0)
            thing.flat(curve(bag, 2), colour(generator, (40, 42, 46), (70, 80, 110), (160, 140, 110), (200, 198, 190)))
    elif which == 0:
        draw_box(0.6, 0.3, 0.05, generator.uniform(0.9, 1.2), tint)
    elif which == 1:
        draw_box(0.45, generator.uniform(0.45, 0.8), 0.0, generator.uniform(1.1, 1.6), tint)
    else:
        draw_box(0.45, 0.8, 0.4, 0.48, tint)
        draw_box(0.06, 0.8, 0.48, 0.9, tint * 0.9)
    thing.put(0.08)


# fmt: on


def draw_tree(scene, u, s):
    """A tree, or a bush: a crown of leaves with holes at its rim, on a trunk."""
    generator = scene.generator
    high, radius = generator.uniform(4.5, 11), generator.uniform(1.4, 3.4)
    trunk = max(high - 2 * radius, 1.6) + 0.6
    wood, leaf = colour(generator, (86, 72, 60), (104, 92, 80), (66, 56, 50)), colour(generator, *GREENS)
    stem = Thing(scene, u, s, None, "vegetation")
    stem.stand(0.8, 0.8, 0.5)
    if generator.random() < 0.18:
        radius, trunk = generator.uniform(0.6, 1.3), 0.0
        high = 1.7 * radius
    else:
        wide, lean = generator.uniform(0.2, 0.45), generator.normal(0, 0.2)
        line = [(0, 0), (lean * 0.4, trunk * 0.5), (lean, trunk + radius)]
        stem.flat(band(line, (wide * 1.2, wide, wide * 0.5)), wood)
        stem.put(0.15)
    crown = stem.origin + (0, max(high - radius, trunk * 0.9), 0)
    size = radius * scene.focal / s
    middle = scene.to_pixels(crown)
    place = scene.window(middle + np.array([[-1.25 * size], [1.25 * size]]), 0)
    shift = generator.integers(0, 1024, 4)
    if place:
        left, top, right, bottom = place
        x = ((np.arange(left, right) - middle[0]) / size).astype(np.float32)
        y = ((np.arange(top, bottom) - middle[1]) / size).astype(np.float32)[:, None]
        fine, medium, _ = textures()
        grain = 26 * radius
        boughs = look_up(medium, y * grain + shift[0], x * grain + shift[1])
        twigs = look_up(fine, 2 * y * grain + shift[2], 2 * x * grain + shift[3])
        mask = x * x + y * y + 0.22 * boughs + 0.1 * twigs < 0.92
        value = 0.62 - 0.26 * y + 0.15 * boughs + 0.14 * twigs
        if scene.sunny:
            value += 0.2 * x * np.sign(scene.sun[0])
        light = leaf * (scene.ambient + 0.6 * scene.sunlight)
        colours = light * threefold(value.clip(0.15, 1.4))
        scene.commit(np.s_[top:bottom, left:right], mask, colours, np.float32(s - 0.3), IDS["vegetation"])
    if scene.sunny:
        rim = np.insert(oval(0, 0, 1, 1, count=12), 1, 0, axis=1) * 0.55 * radius
        boughs = crown + generator.normal(0, 0.35, (7, 3)) * radius
        fallen = boughs - scene.sun * (boughs[:, 1:2] / scene.sun[1])
        scene.darken(list(fallen[:, None] + rim), 0.9 * (1 - scene.in_shade), 3)


# ---------------------------------------------------------------------------------------------------------- traffic
# What is on the street is a list of (kind, u, s, turn).

AWAY, TOWARDS = 0.0, np.pi
PARKED = {"car": 0.92, "caravan": 0.01, "trailer": 0.01, "truck": 0.01, "motorcycle": 0.05}  # shares
MOVING = {"car": 0.82, "truck": 0.03, "bus": 0.03, "motorcyclist": 0.05, "cyclist": 0.07}
FURNITURE = {"sign": 0.36, "bollard": 0.14, "polegroup": 0.06, "bicycle": 0.2, "static": 0.16, "dynamic": 0.08}
POLES = ("lamp", "traffic light", "sign", "bollard", "polegroup")
LENGTHS = {"bus": 12, "truck": 9, "train": 24}  # of others 5 or less


def choose(generator, shares):
    """One of the names of a dictionary of shares."""
    return str(generator.choice(list(shares), p=list(shares.values())))


def is_free(plan, s, slack=0.5):
    """Whether no side street begins near s."""
    return all(not low - slack < s < high + slack for low, high, _ in plan["junctions"])


def place_vehicles(generator, plan):
    """Those that are parked, those that drive, and those that cross."""
    half, lane, busy, things = plan["half"], plan["lane"], generator.uniform(0.1, 1.0), []
    for side in (-1, 1):
        for name, low, high in plan["strips"][side]:
            s = generator.uniform(3.5, 12)
            while name == "parking" and s < 110:
                if generator.random() < 0.3 + 0.6 * busy and is_free(plan, s, 3):
                    turn = AWAY if side > 0 or generator.random() < 0.3 else TOWARDS
                    things.append((choose(generator, PARKED), side * (low + high) / 2, s, turn))
                s += generator.uniform(5.3, 7.5)
        for number in range(plan["lanes"]):
            s = generator.uniform(9, 40)
            while s < 150:
                if generator.random() < 0.25 + 0.5 * busy:
                    kind = choose(generator, MOVING)
                    u = half - 0.7 if kind == "cyclist" else (number + 0.5) * lane + generator.normal(0, 0.2)
                    ahead = side > 0 and number == plan["lanes"] - 1  # in the camera's lane, that keeps its distance
                    place = max(s, 8 + LENGTHS.get(kind, 4) / 2) if ahead else s
                    things.append((kind, side * u, place, AWAY if side > 0 else TOWARDS))
                s += generator.uniform(9, 40) / (0.5 + busy)
    for low, high, _ in plan["junctions"]:
        if generator.random() < 0.3:
            turn = generator.choice([-1, 1]) * np.pi / 2
            things.append(("car", generator.uniform(-1.2, 1.2) * half, (low + high) / 2, turn))
    if plan["rails"] and generator.random() < 0.5:
        things.append(("train", generator.choice(plan["rails"]), generator.uniform(20, 70), AWAY))
    return things


def place_people(generator, plan):
    """Those who walk, alone or in pairs, on the pavement or across the road, and those who ride bicycles."""
    half, things = plan["half"], []
    if generator.random() < 0.06:
        return things
    for _ in range(generator.integers(3, 22 if plan["kind"] == "city" else 12)):
        side = generator.choice([-1, 1])
        low, high = plan["walk"][side]
        u, s = side * generator.uniform(low + 0.4, high - 0.3), 6 + 40 * generator.random() ** 1.5
        if generator.random() < 0.15:
            u, s = generator.uniform(-half, half), max(s, 12)
            if plan["zebras"]:
                s = generator.uniform(*plan["zebras"][0])
        things.append(("person", u, s, None))
        if generator.random() < 0.3:
            things.append(("person", u + generator.choice([-0.6, 0.6]), s + generator.normal(0, 0.3), None))
    for _ in range(generator.choice(4, p=(0.45, 0.3, 0.15, 0.1))):
        side = generator.choice([-1, 1])
        u, s = side * (half - generator.uniform(0.5, 1.1)), generator.uniform(7, 50)
        things.append(("cyclist", u, s, AWAY if side > 0 else TOWARDS))
    if generator.random() < 0.3:
        turn = generator.choice([-1, 1]) * np.pi / 2
        things.append(("cyclist", generator.uniform(-half, half), generator.uniform(12, 40), turn))
    return things


def place_furniture(generator, plan):
    """Lamps, traffic lights, signs, bicycles that lean there, bins, and rows of trees."""
    things = []
    for side in (-1, 1):
        low, high = plan["walk"][side]
        s = generator.uniform(4, 25)
        while s < 120:
            things.append(("lamp", side * (low + 0.35), s, None))
            s += generator.uniform(18, 40)
        for _ in range(generator.integers(0, 8)):
            kind, s = choose(generator, FURNITURE), generator.uniform(5, 70)
            turn = generator.normal(0, 0.4) + generator.integers(2) * np.pi / 2
            things.append((kind, side * (low + 0.35 if kind in POLES else high - 0.5), s, turn))
        s = generator.uniform(5, 15)
        rows = plan["kind"] in ("avenue", "main") or generator.random() < 0.25
        while rows and s < 140:
            things.append(("tree", side * (low + 0.7), s, None))
            s += generator.uniform(7, 14)
    things = [thing for thing in things if is_free(plan, thing[2])]
    for side in (-1, 1):
        for start, _, _ in plan["junctions"]:
            if generator.random() < 0.55:
                things.append(("traffic light", side * (plan["walk"][side][0] + 0.35), start - 0.8, None))
            if generator.random() < 0.4:
                things.append(("sign", side * (plan["walk"][side][0] + 0.6), start - 1.2, None))
    return things


def draw_thing(scene, plan, kind, u, s, turn):
    """Draw one thing of the list."""
    s = max(s, LENGTHS.get(kind, 5) / 2 + 2.5)
    if kind == "tree":
        draw_tree(scene, u, s)
    elif kind in POLES:
        draw_pole(Thing(scene, u, s, None, "polegroup" if kind == "polegroup" else "pole"), kind, -np.sign(u))
    elif kind == "person":
        draw_person(Thing(scene, u, s, None, kind))
    elif kind in ("static", "dynamic"):
        draw_clutter(Thing(scene, u, s, turn if kind == "static" else None, kind))
    elif kind in ("bicycle", "motorcycle", "cyclist", "motorcyclist"):
        ridden = kind.endswith("ist")
        cycle = Thing(scene, u, s, turn, {"cyclist": "bicycle", "motorcyclist": "motorcycle"}.get(kind, kind))
        draw_cycle(cycle)
        if ridden:
            sideways = abs(cycle.axes[2, 0]) > 0.45
            rider = Thing(scene, u, s, turn if sideways else None, "rider")
            hidden = not sideways and cycle.axes[2, 2] < 0  # by the handlebar, if they come towards the camera
            rider.depth = cycle.depth + np.float32(0.05 if hidden else -0.05)
            draw_rider(rider, kind == "motorcyclist" or scene.generator.random() < 0.4)
    else:
        thing = Thing(scene, u, s, turn + scene.generator.normal(0, 0.02), kind)
        drawers = {"car": draw_car, "truck": draw_truck, "bus": draw_bus, "train": draw_bus}
        drawers.get(kind, draw_trailer)(thing)


# ---------------------------------------------------------------------------------------------------------- picture


def draw_picture(generator, height, width):
    """Picture (height, width, 3) uint8 RGB, label ids (height, width) uint8, instance ids (height, width) uint16."""
    scene = Scene(generator, (OVERSAMPLING * height, OVERSAMPLING * width))
    choose_weather(scene)
    plan = choose_plan(scene)
    draw_sky(scene)
    draw_ground(scene, plan)
    things = []
    for side in (-1, 1):
        things += draw_plots(scene, plan, side)
        draw_kerb(scene, plan, side)
        if plan["kind"] == "main" and generator.random() < 0.4:
            ends = generator.uniform(3, 20), generator.uniform(40, 160)
            barrier = crash_barrier(colour(generator, (150, 152, 154), (130, 130, 130)))
            along(scene, side * (plan["walk"][side][0] + 0.05), *ends, 0.75, barrier, "guard rail")
    things += place_vehicles(generator, plan) + place_furniture(generator, plan)
    if generator.random() < 0.8:
        things += place_people(generator, plan)
    closed = generator.random()
    if closed < 0.36:  # the street ends at a building; often no sky is left
        end = generator.uniform(45, 120)
        painter, tall = front(scene)
        across(scene, end, -80, 80, tall, painter, "building")
        things = [thing for thing in things if thing[2] < end - 3]
    elif closed < 0.4:
        draw_tunnel(scene, plan, generator.uniform(35, 70))
    elif closed < 0.47:
        draw_bridge(scene, plan, generator.uniform(22, 60))
    for thing in sorted(things, key=lambda thing: -thing[2]):
        draw_thing(scene, plan, *thing)
    light_ground(scene, plan)
    scene.label_what_is_seen_through()
    return photograph(scene, height, width)


def light_ground(scene, plan):
    """Shadows on the ground, those of houses on all that stands in them, and a wet road in the rain."""
    ground = np.isin(scene.labels, [IDS[name] for name in GROUND])
    light = np.where(ground, scene.shadow, np.float32(1))
    if scene.sunny:
        height, width = scene.shape
        z = scene.depth[::2, ::2]
        scale = z / np.float32(scene.focal)
        x = (np.arange(0, width, 2, dtype=np.float32) - np.float32(scene.centre)) * scale
        y = (np.float32(scene.horizon) - np.arange(0, height, 2, dtype=np.float32)[:, None]) * scale
        u = x - scene.middle(z)
        side = 1 if scene.sun[0] > 0 else -1
        way = (side * plan["line"][side] - u) / scene.sun[0]  # how far it is to the fronts, towards the sun
        top = scene.tops[side][(z + way * scene.sun[2]).clip(0, FARTHEST).astype(np.int32)]
        dark = (way > 0.8) & (z < FARTHEST) & (scene.eye + y + way * scene.sun[1] < top)
        dark = cv2.resize(cv2.blur(dark.astype(np.float32), (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
        standing = np.float32(np.mean(scene.ambient / (scene.ambient + 0.5 * scene.sunlight)))
        shade = np.where(ground, np.minimum(scene.in_shade / scene.shadow, 1), standing)
        light *= 1 - dark * (1 - shade).astype(np.float32)
    scene.colours *= threefold(light)
    if scene.weather == "rain":  # the road mirrors what is above it, smeared
        horizon = int(scene.horizon)
        mirrored = cv2.resize(cv2.flip(scene.colours[:horizon], 0), (scene.shape[1], scene.shape[0] - horizon))
        wet = (scene.labels[horizon:] == IDS["road"]) * np.float32(scene.generator.uniform(0.25, 0.5))
        scene.colours[horizon:] = blend(scene.colours[horizon:], cv2.blur(mirrored, (9, 61)), wet)


def draw_bonnet(scene, picture):
    """The camera's own car, at the lower edge: void."""
    generator, (height, width) = scene.generator, scene.shape
    x = np.linspace(-1, 1, width) - generator.normal(0, 0.05)
    edge = height * (generator.uniform(0.86, 0.93) + generator.uniform(0.03, 0.08) * np.abs(x) ** 2.5)
    part = np.s_[int(edge.min()) :]
    down = ((np.arange(height)[part, None] - edge) / (0.1 * height)).astype(np.float32)
    paint = colour(generator, *CAR_PAINTS) * scene.light_on((0, 1, 0)) * np.float32(0.5)
    shine = scene.sky_below * np.float32(0.35) * threefold(1 - 0.7 * down.clip(0, 1))
    np.copyto(picture[part], paint + shine, where=(down >= 0)[..., None])
    scene.labels[part][down >= 0] = IDS["ego vehicle"]


def photograph(scene, height, width):
    """What the camera makes of it, in the final size: picture, label ids and instance ids."""
    generator = scene.generator
    thick = 1 - np.exp(-np.minimum(scene.depth, 900) / np.float32(scene.sight))
    thick[scene.depth >= BACKDROP] = 0  # has it already
    picture = blend(scene.colours, scene.haze, thick)
    draw_bonnet(scene, picture)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    labels, instances, depth = (part[::2, ::2].copy() for part in (scene.labels, scene.instances, scene.depth))
    picture = blend(picture, cv2.GaussianBlur(picture, (0, 0), 0.9), np.clip(depth / 160, 0, 0.8))
    # Where the lens is corrected no pixel is left at the rim.
    border = max(round(width / 256), 1)
    rim = np.ones((height, width), bool)
    rim[border : height - border, border : width - border] = False
    labels[rim] = IDS["rectification border"]
    labels[0] = IDS["out of roi"]
    picture = cv2.GaussianBlur(picture, (0, 0), generator.uniform(0.3, 0.6))
    picture[rim] *= 0.1
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    picture *= threefold((1 - generator.uniform(0, 0.2) * (x * x + y * y) / 2).astype(np.float32))  # darker corners
    picture *= np.tile(generator.normal(1, 0.02, 3).astype(np.float32), (width, 1))
    picture *= np.float32((0.42 / float(picture.mean())) ** 0.6 * generator.uniform(0.9, 1.1))  # exposure
    picture **= np.float32(generator.uniform(0.9, 1.15))
    picture += generator.standard_normal(picture.shape, np.float32) * np.float32(generator.uniform(0.0015, 0.006))
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8), labels, number_instances(labels, instances)


def number_instances(labels, instances):
    """Instance ids as cityscapesScripts writes them: of a thing 1000 * id + its number, from 0; of all else the id."""
    ids = labels.astype(np.uint16)
    for label in THINGS:
        where = labels == label
        ids[where] = 1000 * label + np.unique(instances[where], return_inverse=True)[1]
    return ids


# ---------------------------------------------------------------------------------------------------------- files


class DrawError(Exception):
    """What went wrong and what to do, in one line for the user."""


def draw_one(seed, split, index, width=512):
    """Picture (height, width, 3), label ids (height, width) and instance ids (height, width) of a number, from 0.

    Each has a generator of its own, so that drawing more of them leaves the earlier ones as they were.
    """
    return draw_picture(np.random.default_rng([seed, list(CITIES).index(split), index]), width // 2, width)


def name_of(split, index):
    """City and name of the picture of this number, from 0: ("ahornfurt", "ahornfurt_000000_000019")."""
    city = CITIES[split][index % len(CITIES[split])]
    return city, f"{city}_{index // len(CITIES[split]):06d}_000019"


def encode_labels(image):
    """The bytes of a PNG of an image (height, width) uint8 or uint16, or (height, width, 4): RGB and opacity."""
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., [2, 1, 0, 3]])  # OpenCV's colours are blue, green, red
    return cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 6))[1].tobytes()


def draw_files(seed, split, index, width, out):
    """Draws one picture and writes its four files below the folder out."""
    picture, labels, instances = draw_one(seed, split, index, width)
    city, name = name_of(split, index)
    opaque = np.full((*labels.shape, 1), 255, np.uint8)
    contents = {
        "leftImg8bit": encoded(picture, ".png", cv2.IMWRITE_PNG_COMPRESSION, 4),  # 6 takes four times as long
        "gtFine_labelIds": encode_labels(labels),
        "gtFine_instanceIds": encode_labels(instances),
        "gtFine_color": encode_labels(np.concatenate([COLOURS[labels], opaque], axis=2)),
    }
    for suffix, content in contents.items():
        write_whole(out / suffix.split("_")[0] / split / city / f"{name}_{suffix}.png", content)


def find_drawn(out):
    """The files of a folder that this script has drawn, whatever its options were, and parts that a kill has left."""
    for kind, suffixes in KINDS.items():
        for folder in (out / kind / split / city for split, cities in CITIES.items() for city in cities):
            for suffix in suffixes:
                name = f"{folder.name}_{'[0-9]' * 6}_000019_{suffix}.png"
                yield from (*folder.glob(name), *folder.glob(f".{name}.*.part"))


def find_others(out):
    """What a folder holds that this script didn't write: a path, or None."""
    if not out.is_dir() or (out / MARK).is_file() or (out / UNFINISHED).is_file():
        return None
    return next((path for path in sorted(out.iterdir()) if not path.name.startswith(".")), None)


def draw_streets(out, train=200, val=50, seed=0, width=512, jobs=None):
    """Draws a set into the folder out; MARK in it, which comes last, tells that it is complete.

    Pictures that an earlier run drew there are replaced, and removed where now there are fewer of them.
    Raises: DrawError where out holds the real Cityscapes or anything else, and OSError where it cannot be written
    """
    out = Path(out)
    others = find_others(out)
    if others:
        raise DrawError(f"--out {out}: {others} isn't drawn by this script: give another folder, or an empty one")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / UNFINISHED, b"draw_streets.py has not come to its end: start it again.\n")
    (out / MARK).unlink(missing_ok=True)
    for path in list(find_drawn(out)):
        path.unlink()
    tasks = [
        (seed, split, index, width, out) for split, count in (("train", train), ("val", val)) for index in range(count)
    ]
    for _, split, index, *_ in tasks:
        for kind in KINDS:
            (out / kind / split / name_of(split, index)[0]).mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(tasks), unit="picture", disable=None) as bar:
        for _ in in_processes(draw_files, tasks, jobs):
            bar.update()
    note = f"Drawn by draw_streets.py with seed {seed}, {train} to train on and {val} to validate, {width} pixels wide."
    write_whole(out / MARK, f"{note} No photograph is in it.\n".encode())
    (out / UNFINISHED).unlink()
    return out


def stop(message):
    """Ends the program with one line and exit status 2."""
    print(f"draw_streets.py: {message}", file=sys.stderr)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description="Draws street scenes and their labels in the layout of Cityscapes.")
    parser.error = stop  # one line instead of the whole usage
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent / "streets",
        metavar="DIR",
        help="where leftImg8bit/ and gtFine/ go (default: streets/ beside this script)",
    )
    parser.add_argument("--train", type=int, default=200, metavar="N", help="pictures to train on (default: 200)")
    parser.add_argument("--val", type=int, default=50, metavar="N", help="pictures to validate on (default: 50)")
    parser.add_argument(
        "--width", type=int, default=512, metavar="N", help="pixels; the height is half of it (default: 512)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other pictures (default: 0)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that draw (default: one for each core)")
    options = parser.parse_args()
    limits = {"train": (1, MOST), "val": (1, MOST), "width": (64, 4096), "seed": (0, 2**63), "jobs": (1, 16)}
    for name, (least, most) in limits.items():
        number = getattr(options, name)
        if number is not None and not least <= number <= most:
            stop(f"--{name} is {number}: give {least} to {most}")
    if options.width % 2:
        stop(f"--width is {options.width}: give an even number")
    try:
        out = draw_streets(options.out, options.train, options.val, options.seed, options.width, options.jobs)
    except DrawError as error:
        stop(error)
    except OSError as error:
        reason = error.strerror or error
        stop(f"cannot write {error.filename or options.out}: {reason}; give a folder to write in with --out")
    except BrokenProcessPool:
        stop("a process that drew pictures was ended from outside, perhaps since memory ran out; start it again")
    except KeyboardInterrupt:
        print("draw_streets.py: stopped before all pictures were drawn: start it again", file=sys.stderr)
        sys.exit(130)
    print(f"{options.train + options.val} pictures and their labels are in {out}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    main()
