"""Draws the bundled newts: pictures of two species and their masks, the same for the same seed.

akahara  Cynops pyrrhogaster, Japanese fire-bellied newt: dark brown warty back, orange-red belly with black blotches
madara   Triturus marmoratus, marbled newt: black with moss-green marbling, often an orange stripe down the back

A newt is a few hundred ellipsoids strung along curves in space: snout to tail tip, four legs, toes, eyes. A camera
looks at them from above, from the side or from below, and each pixel takes the nearest surface. That one surface gives
the shading, the place in the skin's pattern and the mask, so picture and mask cannot disagree.

    python Dataset/draw_newts.py                                     draws the bundled set again
    python Dataset/draw_newts.py --out more --train 200 --test 50    draws more, for any answer's --data more
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit("draw_newts.py: interrupted"))

import cv2
import numpy as np
from tqdm import tqdm

SPECIES = {"akahara": (127, 0, 0), "madara": (0, 127, 0)}  # the colour of each in a mask, RGB
SHAPES = ((144, 256), (455, 256))  # height, width of the two kinds of picture
VIEWS = {"above": (48, 90), "side": (14, 36), "below": (-88, -62)}  # the camera's elevation in degrees, least and most
VIEWS_IN_TURN = {
    "akahara": ("above", "below", "above", "side", "above", "side"),  # only akahara's belly tells its name
    "madara": ("above", "above", "side"),
}
FIRST_NUMBER = {"train": 1, "test": 9}
OVERSAMPLING = 2  # drawn twice as large and then reduced, so that edges are smooth

# Lengths on a newt are in units of its body from snout to hip; the tail is about as long again.
TAIL_END = 2.0
TEXELS = 700  # pixels of skin pattern per unit along the body
SKIN_SHAPE = (int(TEXELS * 2.3), 448)  # along the body; around it, belly at both edges and back in the middle
BODY, LEG, TOE, EYE = range(4)


# ---------------------------------------------------------------------------------------------------------- noise


EVERYTHING = np.s_[:, :]


def smooth_noise(generator, shape, size, window=EVERYTHING):
    """Noise with features of about `size` pixels (a number, or one for rows and one for columns).

    Returns (height, width) float32, mean 0, deviation 1; its left edge continues its right one, as skin must. With a
    window (two slices) returns this part of the same noise.
    """
    size_y, size_x = np.broadcast_to(size, 2) / 2
    lattice = generator.standard_normal((int(shape[0] / size_y) + 4, max(int(shape[1] / size_x), 3))).astype(np.float32)
    lattice = cv2.GaussianBlur(np.tile(lattice, 3), (0, 0), 1.0)
    lattice /= lattice.std()
    wide = cv2.resize(lattice, (3 * shape[1], len(lattice)), interpolation=cv2.INTER_CUBIC)
    wide = wide[:, shape[1] : 2 * shape[1]][:, window[1]]  # only now in height too, for the middle is all that's needed
    noise = cv2.resize(wide, (wide.shape[1], int(len(lattice) * size_y) + 1), interpolation=cv2.INTER_CUBIC)
    return noise[int(size_y) : int(size_y) + shape[0]][window[0]]


def rough_noise(generator, shape, size, octaves=4, window=EVERYTHING):
    """Sum of smooth noises, each half as large and 0.6 times as strong as the one before: (height, width)."""
    return (
        sum(
            smooth_noise(generator, shape, np.maximum(np.divide(size, 2**octave), 2), window) * 0.6**octave
            for octave in range(octaves)
        )
        / 1.2
    )


def ramp(values, low, high):
    """0 below low, 1 above high, a smooth step between."""
    values = np.clip((values - low) / (high - low), 0, 1)
    return values * values * (3 - 2 * values)


def threefold(values):
    """values (...) as three equal colours (..., 3). A product with them is much quicker than one with [..., None]."""
    return cv2.merge([values] * 3).reshape(*values.shape, 3)


def tinted(tint, values):
    """A colour (3,) times values (height, width): (height, width, 3)."""
    return cv2.merge([part * values for part in tint])


def blend(under, over, amount):
    """under where amount is 0, over where it is 1; amount has the shape of the pictures without their colours."""
    over = np.asarray(over, np.float32)
    if over.ndim == 1:
        over = np.tile(over, (under.shape[-2], 1))  # a whole row of it, for the reason that threefold has
    change = (over - under) * threefold(amount)
    change += under  # in place, since fresh memory costs more time than the sum
    return change


def colour(generator, *choices, spread=0.12):
    """One of the RGB choices (0..255), varied a little: (3,) float32 in 0..1."""
    picked = np.array(choices[generator.integers(len(choices))], np.float32) / 255
    varied = picked * generator.normal(1, spread) * generator.normal(1, spread / 3, 3)
    return np.minimum(np.maximum(varied, 0.01), 1).astype(np.float32)  # np.clip takes thrice as long for three numbers


# ---------------------------------------------------------------------------------------------------------- the newt


def tube(points, radii, arc, part):
    """Ellipsoids along a curve: points (n, 3), radii (n, 3) along it, sideways and up, arc (n,) place in the skin.

    Returns a dictionary of arrays; frame (n, 3, 3) has the unit vectors along, sideways and up in its rows.
    """
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.stack([along[:, 1] + 1e-6, -along[:, 0], np.zeros(len(points))], axis=1)  # level, across along
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    (ax, ay, az), (sx, sy, _) = along.T, side.T
    up = np.stack([sy * az, -sx * az, sx * ay - sy * ax], axis=1)
    return {
        "centre": points,
        "radii": radii,
        "frame": np.stack([along, side, up], axis=1),
        "arc": arc,
        "part": np.full(len(points), part),
    }


def spine(generator, species, lift):
    """The body from snout to tail tip, bent along a curve in the ground plane; the head is raised by lift."""
    count = 320
    arc = np.linspace(0, TAIL_END, count)
    bends = [
        (generator.normal(0, 0.75), 0.28, generator.uniform(0, 6.3)),
        (generator.normal(0, 0.45), 0.55, generator.uniform(0, 6.3)),
        (generator.normal(0, 0.12), 1.1, generator.uniform(0, 6.3)),
    ]
    heading = sum(strength * np.sin(6.283 * frequency * arc + phase) for strength, frequency, phase in bends)
    heading += generator.normal(0, 0.45) * ramp(arc, 1.0, 2.0)  # the tail swings further than the trunk
    heading *= min(1, 2.3 / np.ptp(heading))  # no newt ties itself into a knot
    stout = generator.uniform(1.0, 1.25) * (1.12 if species == "madara" else 1.0)
    places = [0, 0.03, 0.08, 0.15, 0.21, 0.27, 0.45, 0.65, 0.85, 0.97, 1.08, 1.3, 1.6, 1.85, 2.0]
    widths = [0.030, 0.056, 0.080, 0.092, 0.084, 0.074, 0.092, 0.100, 0.088, 0.068, 0.046, 0.034, 0.022, 0.012, 0.005]
    heights = [0.022, 0.034, 0.046, 0.056, 0.058, 0.060, 0.076, 0.082, 0.076, 0.066, 0.060, 0.068, 0.062, 0.036, 0.010]
    smoothing = np.hanning(17) / np.hanning(17).sum()
    width, height = (
        np.convolve(np.pad(np.interp(arc, places, values), 8, "edge"), smoothing, "valid")
        for values in (widths, heights)
    )
    width = width * np.interp(arc, [0, 0.3, 1, 2], [1.25, stout, stout, 1.1])
    height = height * np.interp(arc, [0, 1], [1.1, stout])
    step = TAIL_END / (count - 1)
    raised = height + 0.03 * (1 - ramp(arc, 0.9, 1.2)) + lift * (1 - ramp(arc, 0.0, 0.5))
    points = np.stack([np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step, raised], axis=1)
    return tube(points, np.stack([np.maximum(width, 0.6 * height), width, height], axis=1), arc, BODY)


def limb(joints, thickness, arc, part, count):
    """A chain of balls through the joints (n, 3), as thick as thickness (n,) there; arc is its place in the skin."""
    joints, place = np.asarray(joints), np.linspace(0, len(joints) - 1, count)
    points = np.stack([np.interp(place, range(len(joints)), joints[:, axis]) for axis in range(3)], axis=1)
    points = cv2.blur(points, (1, max(count // 7, 1)), borderType=cv2.BORDER_REPLICATE)  # rounds the elbow
    radius = np.interp(place, range(len(joints)), thickness)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return tube(points, np.repeat(radius[:, None], 3, axis=1), arc + np.r_[0, np.cumsum(lengths)], part)


def leg(body, at, left, front, gait, spreads):
    """One leg with its toes, from the place `at` along the body to a foot on the ground.

    gait is how far ahead the leg reaches, spreads (toes,) by how much each toe points away from its usual direction.
    """
    index = np.searchsorted(body["arc"], at)
    along, side, up = body["frame"][index] * [[1], [1 if left else -1], [1]]
    ahead, (_, wide, tall) = -along, body["radii"][index]

    def towards(angle, rise):  # 0 is straight out to the side, positive is ahead
        return side * np.cos(angle) + ahead * np.sin(angle) + up * rise

    first, second = (-0.35 + gait, 0.75 + gait) if front else (0.45 + gait, -0.45 + gait)
    shoulder = body["centre"][index] + side * wide * 0.65 - up * tall * 0.35
    elbow = shoulder + 0.125 * towards(first, 0.15)
    wrist = elbow + 0.125 * towards(second, 0)
    wrist[2] = 0.014
    arc = 0.35 if front else 0.85
    thick = 0.030 if front else 0.036
    parts = [limb([shoulder, elbow, wrist], [thick * 1.2, thick, thick * 0.62], arc, LEG, 44)]
    for spread in np.linspace(-0.85, 0.85, len(spreads)) + spreads:
        length = (0.085 - 0.032 * abs(spread)) * (1.0 if front else 1.1)
        tip = wrist + length * towards(second * 0.8 + spread, 0)
        tip[2] = 0.007
        parts.append(limb([wrist, tip], [0.013, 0.0065], arc + 0.22, TOE, 14))
    return parts


def random_pose(generator, species):
    """All that is random about a newt's shape: its body from snout to tail tip, and (gait, spreads) of its legs."""
    body = spine(generator, species, lift=abs(generator.normal(0, 0.08)))
    return body, [(generator.uniform(-0.5, 0.5), generator.normal(0, 0.06, toes)) for toes in (4, 5, 4, 5)]


def build_newt(body, legs):
    """A newt standing on the plane z = 0: a dictionary of arrays, one row per ellipsoid, those of its body first."""
    parts = [body]
    for left, front, hind in ((True, *legs[:2]), (False, *legs[2:])):
        parts += leg(body, 0.30, left, True, *front) + leg(body, 0.95, left, False, *hind)
        index = np.searchsorted(body["arc"], 0.085)
        along, side, up = body["frame"][index] * [[1], [1 if left else -1], [1]]
        _, wide, tall = body["radii"][index]
        socket = body["centre"][index] + side * wide * 0.66 + up * tall * 0.66
        lids = np.stack([socket, socket + along * 0.02])
        parts.append(tube(lids, np.full((2, 3), 0.021), np.array([0.1, 0.11]), LEG))
        eyes = tube(
            np.stack([socket, socket + along * 1e-3]) + side * 0.009 + up * 0.002,
            np.full((2, 3), 0.0172),
            np.zeros(2),
            EYE,
        )
        eyes["frame"][:] = side * 0.95 + up * 0.3, along, up  # the first axis is where the eye looks
        parts.append(eyes)
    return {name: np.concatenate([part[name] for part in parts]) for name in body}


def turned(newt, azimuth, elevation, roll, distance):
    """The newt as a camera sees it: x to the right, y down, z towards the camera; still in body lengths.

    All angles are in radians: azimuth turns the newt on the ground, elevation is the camera's height (pi / 2: straight
    from above, negative: through a glass floor), roll tilts the camera. What is nearer looks larger.
    """

    def rotation(angle):
        return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    rise, run = np.sin(elevation), np.cos(elevation)
    tilt = np.array([[1, 0, 0], [0, -rise, -run], [0, -run, rise]])
    view = rotation(roll) @ tilt @ rotation(azimuth)
    centre = (newt["centre"] - newt["centre"][100] * (1, 1, 0)) @ view.T
    nearness = (distance / (distance - centre[:, 2:])).clip(0.5, 2.5)
    return {**newt, "centre": centre * nearness, "radii": newt["radii"] * nearness, "frame": newt["frame"] @ view.T}


def silhouette(newt, scale, origin, shape):
    """About the share of a picture that the newt covers, much sooner than surface() tells it exactly."""
    axes = newt["frame"][..., :2] * newt["radii"][..., None] * scale
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    # The shadow of an ellipsoid is an ellipse, with the sum of the squares of its axes for a covariance.
    circle = np.stack([np.cos(turn), np.sin(turn)])
    outlines = (np.linalg.cholesky(axes.transpose(0, 2, 1) @ axes) @ circle).transpose(0, 2, 1)
    outlines += newt["centre"][:, None, :2] * scale + origin
    covered = np.zeros(shape, np.uint8)
    for outline in (outlines * 8).round().astype(np.int32):
        cv2.fillConvexPoly(covered, outline, 1, cv2.LINE_8, 3)
    return 0.965 * covered.mean()  # without the outlines, which are as wide as a pixel


def surface(newt, scale, origin, shape):
    """The nearest surface at each pixel of a picture of the given shape (height, width).

    scale is in pixels per body length, origin (x, y) the pixel where the point (0, 0, 0) lies. Returns a dictionary:
    covered (height, width) bool, depth (height, width) in pixels, and for the covered pixels alone, in their order:
    normal (n, 3), arc (n,) place along the body, angle (n,) around it (0 on the back), part (n,), and look (n,), the
    cosine of the angle to the ellipsoid's first axis, which for an eye is where it looks.
    """
    centre = newt["centre"] * scale + (*origin, 0)
    radii = newt["radii"] * scale
    shapes = np.einsum("nki,nk,nkj->nij", newt["frame"], radii**-2.0, newt["frame"])
    reach = np.sqrt(np.einsum("nki,nk->ni", newt["frame"] ** 2, radii**2.0))
    # Where a ray (x, y) meets it is a root of zz z^2 + 2 (xz x + yz y) z + xx x^2 + 2 xy x y + yy y^2 - 1 = 0, that is
    # z = sqrt(a x^2 + b x y + c y^2 + d) - e x - f y.
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = shapes.transpose(1, 2, 0)
    square = zz * zz
    terms = [(xz * xz - zz * xx) / square, 2 * (xz * yz - zz * xy) / square, (yz * yz - zz * yy) / square]
    terms = np.stack([*terms, 1 / zz, xz / zz, yz / zz], axis=1).tolist()
    starts = np.maximum(np.ceil(centre[:, :2] - reach[:, :2]), 0).astype(int).tolist()
    stops = np.minimum(centre[:, :2] + reach[:, :2] + 1, shape[::-1]).astype(int).tolist()
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    depth = np.full(shape, -np.inf)
    owner = np.full(shape, -1, np.int32)
    with np.errstate(invalid="ignore"):  # the root of a negative number is nan: there the ray passes by
        for number, (x, y, z) in enumerate(centre.tolist()):
            (left, top), (right, bottom), (a, b, c, d, e, f) = starts[number], stops[number], terms[number]
            if left >= right or top >= bottom:
                continue
            window = np.s_[top:bottom, left:right]
            x, y = columns[left:right] - x, rows[top:bottom] - y
            near = b * x + c * y
            near *= y
            near += a * x * x + d
            np.sqrt(near, out=near)
            near -= e * x - z + f * y
            np.copyto(owner[window], number, where=near > depth[window])
            np.fmax(depth[window], near, out=depth[window])
    covered = owner >= 0
    owner = owner[covered]
    y, x = np.nonzero(covered)
    offset = np.stack([x, y, depth[covered]], axis=1) - centre[owner]
    frame = newt["frame"][owner]
    place = np.einsum("nki,ni->nk", frame, offset)
    normal = np.einsum("nki,nk->ni", frame, place * (radii**-2.0)[owner])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    local = np.einsum("nki,ni->nk", frame, normal)
    arc = newt["arc"][owner] + place[:, 0] / scale  # so skin runs on smoothly between neighbouring centres
    return {
        "covered": covered,
        "depth": depth,
        "normal": normal,
        "part": newt["part"][owner],
        "look": local[:, 0],
        "arc": arc,
        "angle": np.arctan2(local[:, 1], local[:, 2]),
    }


# ---------------------------------------------------------------------------------------------------------- its skin


def akahara_skin(generator, window):
    """Pattern of a fire-bellied newt: see SKINS."""
    noise = partial(smooth_noise, generator, SKIN_SHAPE, window=window)
    angle = np.abs(np.linspace(-np.pi, np.pi, SKIN_SHAPE[1], dtype=np.float32))[
        None, window[1]
    ]  # 0 on the back, pi on the belly
    back = colour(generator, (74, 50, 38), (82, 60, 44), (66, 47, 38), (82, 55, 45), spread=0.07)
    belly = colour(generator, (222, 84, 30), (212, 66, 28), (228, 104, 36), spread=0.07)
    warts = ramp(noise(7), 0.5, 1.9)
    mottle = rough_noise(generator, SKIN_SHAPE, 60, window=window)
    skin = tinted(back, 0.95 + 0.12 * mottle + 0.25 * warts)
    border = angle + 0.10 * noise(30) + 0.10 * noise(11)
    dots = ramp(noise(11), 1.1, 1.4) * ramp(border, 1.3, 1.7)
    fire = np.maximum(ramp(border, 1.95, 2.10), dots)
    blotches = ramp(
        noise(34) + 0.4 * noise(13),
        *(generator.uniform(0.35, 0.8) + np.array([0, 0.15])),
    )
    skin = blend(skin, tinted(belly, 1 + 0.07 * mottle), fire * (1 - blotches))
    skin = blend(skin, back * 0.45, fire * blotches)
    ridges = 7 * np.exp(-((angle / 0.12) ** 2)) + 5 * np.exp(-(((angle - 1.05) / 0.15) ** 2))
    return skin, (2.6 * warts * (1 - 0.6 * fire) + ridges) / TEXELS


def madara_skin(generator, window):
    """Pattern of a marbled newt: see SKINS."""
    noise = partial(smooth_noise, generator, SKIN_SHAPE, window=window)
    signed = np.linspace(-np.pi, np.pi, SKIN_SHAPE[1], dtype=np.float32)[None, window[1]]
    angle = np.abs(signed)
    black = colour(generator, (30, 28, 26), (38, 34, 30))
    green = colour(generator, (116, 152, 64), (136, 172, 74), (108, 132, 68), (124, 150, 88), spread=0.08)
    warts = noise(8)
    size = generator.uniform(22, 30)
    marbling = noise(size) + 0.4 * noise(size * 0.45)
    marbling += 0.15 * noise(9) - 0.3 * noise(3 * size)
    level = generator.uniform(-0.3, 0.15) + 1.5 * ramp(angle, 1.7, 2.2)  # no marbling on the belly
    veined = ramp(marbling - level, -0.06, 0.06)
    stipple = ramp(noise(11), 1.15, 1.35)
    skin = tinted(black, 1 + 0.2 * warts)
    mottled = tinted(green, 1 + 0.10 * rough_noise(generator, SKIN_SHAPE, 40, window=window))
    skin = blend(skin, mottled, veined * (1 - 0.85 * stipple))
    skin = blend(skin, colour(generator, (70, 62, 58)), ramp(angle, 1.9, 2.6) * (1 - veined))
    specks = ramp(noise(10), 1.25, 1.5) * ramp(angle, 1.5, 2.0)
    skin = blend(skin, (0.8, 0.8, 0.76), specks)
    if generator.random() < 0.65:
        wander = signed + 0.05 * smooth_noise(generator, (SKIN_SHAPE[0], 8), (50, 8), (window[0], [0]))
        ragged = np.abs(wander) + 0.03 * noise(10)
        broken = ramp(smooth_noise(generator, (SKIN_SHAPE[0], 8), (60, 8), (window[0], [0])), -1.6, 0.4)
        behind_head = ramp(np.arange(SKIN_SHAPE[0])[window[0], None] / TEXELS, 0.14, 0.24)
        stripe = (1 - ramp(ragged, 0.07, 0.13)) * broken * behind_head
        skin = blend(skin, colour(generator, (206, 112, 44), (190, 130, 70), (214, 96, 34)), stripe)
    return skin, (warts + 0.5 * veined) / TEXELS


# Each skin draws a window (two slices) of SKIN_SHAPE: colours (height, width, 3) and bumps (height, width) in body
# lengths.
SKINS = {"akahara": akahara_skin, "madara": madara_skin}


def paint_newt(generator, species, seen, scale):
    """Colours (n, 3) and bumped normals (3, n) of the pixels that the newt covers."""
    shape = seen["covered"].shape
    part = seen["part"]
    # A leg's girth is a third of the trunk's: without the factor its pattern would be squeezed to stripes.
    angle = np.where(part == BODY, seen["angle"], 0.5 + np.abs(seen["angle"]) * 0.46)
    rows = np.clip(seen["arc"] * TEXELS, 0, SKIN_SHAPE[0] - 1).astype(np.float32)
    columns = ((angle / (2 * np.pi) + 0.5) * (SKIN_SHAPE[1] - 1)).astype(np.float32)
    # About half of the skin is out of sight and needs no painting. 16 texels more are enough for blurring.
    left, top = (int(max(place.min() - 16, 0)) // 16 * 16 for place in (columns, rows))
    window = np.s_[top : int(rows.max()) + 17, left : int(columns.max()) + 17]
    skin, bumps = SKINS[species](generator, window)
    rows, columns = rows - top, columns - left
    smaller = max(scale / TEXELS, 0.3)  # a far newt's skin is blurred first, or its pattern would sparkle
    if smaller < 1:
        skin, bumps = (cv2.GaussianBlur(texture, (0, 0), 0.45 / smaller) for texture in (skin, bumps))

    def lookup(texture):  # in strips, for cv2.remap takes no picture higher than 32767
        strips = [
            cv2.remap(texture, columns[i : i + 30000, None], rows[i : i + 30000, None], cv2.INTER_LINEAR)
            for i in range(0, len(rows), 30000)
        ]
        return np.concatenate(strips).reshape(len(rows), -1)

    colours = lookup(skin)
    relief = np.zeros(shape, np.float32)
    relief[seen["covered"]] = lookup(bumps.astype(np.float32))[:, 0] * scale
    slope = slopes(relief)[:, seen["covered"]]
    normal = seen["normal"].T.copy()
    normal[:2] -= np.clip(slope, -0.7, 0.7) * (part != EYE)
    normal /= np.linalg.norm(normal, axis=0)

    head = (part == BODY) & (seen["arc"] < 0.17)
    mouth = head * np.exp(-(((np.abs(seen["angle"]) - 1.75) / 0.07) ** 2))
    nostril = head * np.exp(-(((np.abs(seen["angle"]) - 0.75) / 0.25) ** 2) - ((seen["arc"] - 0.006) / 0.006) ** 2)
    colours = blend(colours, colours * 0.25, np.maximum(mouth, nostril))
    if species == "akahara":  # the feet of a fire-bellied newt are paler and redder than its back
        foot = np.maximum(part == TOE, 0.6 * (part == LEG) * ramp((seen["arc"] - 0.35) % 0.5, 0.05, 0.25))
        colours = blend(colours, colour(generator, (190, 90, 50), (120, 76, 54)), 0.6 * foot)
    iris = ramp(seen["look"], 0.55, 0.62) - ramp(seen["look"], 0.80, 0.86)
    eye = blend(np.full_like(colours, 0.03), colour(generator, (150, 112, 46), (110, 96, 60)), iris)
    return np.where((part == EYE)[:, None], eye, colours), normal


# ---------------------------------------------------------------------------------------------------------- the ground
# Each ground returns its colours (height, width, 3) in 0..1 and its relief (height, width) in pixels.

BROWNS = ((70, 50, 38), (98, 68, 46), (50, 40, 34), (122, 88, 58), (84, 70, 52))
DARKS = ((30, 28, 27), (42, 38, 36), (56, 48, 42), (24, 26, 30))
GREENS = ((92, 118, 54), (70, 94, 46), (112, 140, 68), (58, 78, 50), (102, 116, 70))
FIRES = ((190, 92, 44), (168, 64, 38), (190, 124, 60), (140, 62, 40))
PALES = ((196, 184, 160), (168, 156, 130), (180, 180, 176), (146, 134, 116))


def nearest_seeds(seeds, y, x):
    """How far the nearest and the second nearest seed are from the places (y, x), and the number of the nearest one.

    seeds (rows, columns, 2) tells where in its cell, one long and one wide, each of them lies. All results have the
    shape of y and x.
    """
    columns = seeds.shape[1]
    seed_y, seed_x = (seeds + np.stack(np.indices(seeds.shape[:2]), axis=-1)).reshape(-1, 2).T.copy()
    first, second = np.full((2, *y.shape), np.inf)
    owner = np.empty(y.shape, int)
    for top in range(0, len(y), 32):  # in strips that fit into the processor's cache
        strip = np.s_[top : top + 32]
        cell = y[strip].astype(int) * columns + x[strip].astype(int)
        for step_y, step_x in np.ndindex(3, 3):
            near = cell + (step_y - 1) * columns + step_x - 1
            distance = (seed_y[near] - y[strip]) ** 2 + (seed_x[near] - x[strip]) ** 2
            np.copyto(owner[strip], near, where=distance < first[strip])
            np.minimum(second[strip], np.maximum(first[strip], distance), out=second[strip])
            np.minimum(first[strip], distance, out=first[strip])
    return np.sqrt(first), np.sqrt(second), owner


def stones(generator, shape, size, palette, tilt=0.5):
    """Stones of about size pixels, packed: the cells around points scattered on a jittered grid."""
    seeds = generator.uniform(0.05, 0.95, (int(shape[0] / size) + 5, int(shape[1] / size) + 5, 2))
    y, x = (
        grid / size + 2 + 0.12 * smooth_noise(generator, shape, size * 0.8) for grid in np.ogrid[: shape[0], : shape[1]]
    )
    row, column = y.astype(int), x.astype(int)
    first, second, owner = nearest_seeds(seeds, y, x)
    rim = np.clip((second - first) / 0.55, 0, 1).astype(np.float32)
    dome = np.sqrt(1 - (1 - rim) ** 2)
    colours = np.stack([colour(generator, *palette, spread=0.25) for _ in range(seeds.shape[0] * seeds.shape[1])])
    slopes = generator.normal(0, tilt, (len(colours), 2))
    relief = size * (0.32 * dome + slopes[:, 0][owner] * (y - row) * 0.5 + slopes[:, 1][owner] * (x - column) * 0.5)
    grain = 1 + 0.12 * rough_noise(generator, shape, size / 2, 3)
    return (colours[owner] * threefold(grain * ramp(rim, -0.1, 0.35))).astype(np.float32), relief.astype(np.float32)


def gravel(generator, shape):
    """The floor of a tank: small glossy stones, here and there a pebble."""
    families = (
        DARKS,
        DARKS * 2 + BROWNS,
        BROWNS * 2 + FIRES[2:] + PALES[1:3],
        DARKS + BROWNS + FIRES[3:],
        DARKS * 2 + PALES,
    )
    family = families[generator.integers(len(families))]
    colours, relief = stones(generator, shape, generator.uniform(14, 26), family)
    size = generator.uniform(60, 100)
    pebbles, heights = stones(generator, shape, size, DARKS * 2 + BROWNS + FIRES, tilt=0.05)
    chosen = ramp(heights / size, 0.20, 0.23) * (smooth_noise(generator, shape, 110) > 0.7)
    return blend(colours, pebbles, chosen), relief + (heights + 10) * chosen


def fronds(generator, colours, relief, palette, length, density, where=None):
    """Draws tufts of moss over the ground, the deeper and darker ones first; where (height, width) > 0 limits them."""
    height, width = relief.shape
    drawn = np.clip(colours * 255, 0, 255).astype(np.uint8)
    tops = np.clip(relief, 0, 255).astype(np.uint8)
    count = int(density * height * width / length**2)
    tufts = []
    for order in np.linspace(0.25, 1, count):
        root = generator.random(2) * (width, height)
        if where is not None and where[int(root[1]), int(root[0])] <= 0:
            continue
        angle, bend = generator.uniform(0, 6.3), generator.normal(0, 0.9)
        size = length * generator.uniform(0.4, 1.1)
        shade = colour(generator, *palette, spread=0.2) * 255 * order
        tufts.append((root, angle, bend, size, order, shade.tolist(), generator.integers(1, 3).item()))
    if not tufts:
        return drawn.astype(np.float32) / 255, tops.astype(np.float32)
    roots, angles, bends, sizes, orders, shades, widths = zip(*tufts, strict=True)
    # The shapes of all tufts at once: a call of numpy for each would take longer than to draw them.
    heading = np.array(angles)[:, None] + np.array(bends)[:, None] * np.linspace(0, 1, 6)
    way = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    stems = np.array(roots)[:, None] + np.array(sizes)[:, None, None] * np.cumsum(way, axis=1) / 6
    reach = length * 0.24 * (1 - 0.1 * np.arange(6))[:, None]
    leaflets = [
        np.stack([stems, stems + np.stack([np.cos(heading + turn), np.sin(heading + turn)], -1) * reach], axis=2)[:, 1:]
        for turn in (-0.9, 0.9)
    ]
    stems, leaflets = ((lines * 8).astype(np.int32) for lines in (stems, np.concatenate(leaflets, axis=1)))
    for stem, sides, order, shade, thickness in zip(stems, leaflets, orders, shades, widths, strict=True):
        lines = [stem, *sides]
        cv2.polylines(drawn, lines, False, shade, thickness, cv2.LINE_AA, 3)
        cv2.polylines(tops, lines, False, int(20 * order), 1, cv2.LINE_AA, 3)
    return drawn.astype(np.float32) / 255, tops.astype(np.float32)


def moss(generator, shape):
    """A cushion of moss: fresh green, dried and pale, or dark and wet."""
    palette = (GREENS, PALES + ((120, 104, 80),), GREENS + DARKS, GREENS + BROWNS)[generator.integers(4)]
    deep = np.zeros((*shape, 3), np.float32) + colour(generator, *DARKS)
    return fronds(generator, deep, np.zeros(shape, np.float32), palette, generator.uniform(24, 44), 13)


def bark(generator, shape):
    """Bark with furrows along the picture's longer side, lichen and a little moss."""
    warp = 6 * smooth_noise(generator, shape, 90)
    long, wide = generator.uniform(140, 260), generator.uniform(16, 34)
    furrows = rough_noise(generator, shape, (long, wide) if shape[0] > shape[1] else (wide, long), 5)
    ridges = 1 - np.abs(furrows + 0.05 * warp).clip(0, 1.5) / 1.5
    wood = tinted(colour(generator, *BROWNS), 0.45 + 0.75 * ramp(1 - ridges, 0, 0.7))
    wood *= threefold(1 + 0.15 * rough_noise(generator, shape, 10, 3))
    wood = blend(wood, colour(generator, *BROWNS, *FIRES[2:]), 0.4 * ramp(rough_noise(generator, shape, 120), 0.2, 0.9))
    lichen = ramp(rough_noise(generator, shape, 60), 1.2, 1.4)
    colours, relief = blend(wood, colour(generator, *PALES, *GREENS), 0.7 * lichen), 22 * (1 - ridges)
    where = rough_noise(generator, shape, 150) - generator.uniform(0.2, 1.4)
    patches, tops = fronds(generator, colours, relief, GREENS, 24, 5, where)
    return patches, np.maximum(relief, tops)


def soil(generator, shape):
    """Dark crumbs with patches of moss, much like marbling."""
    colours, relief = stones(generator, shape, generator.uniform(9, 18), DARKS + BROWNS[:3])
    where = rough_noise(generator, shape, generator.uniform(60, 140), 3) - generator.uniform(-0.2, 0.5)
    return fronds(generator, colours, relief, GREENS, generator.uniform(14, 24), 8, where)


def leaf(generator, shape, centre, length, breadth, angle, base, margin=0):
    """One leaf, its middle at centre (x, y), in pixels; angle in radians, breadth a share of its length.

    Returns the window (two slices of a picture of that shape) around it, wider by a margin in pixels, and of this
    window alone opacity (height, width), colours (height, width, 3) and relief (height, width).
    """
    bend, fullness = generator.normal(0, 0.35), generator.uniform(0.65, 1.0)
    waves = generator.uniform(20, 60)
    cosine, sine = np.cos(angle), np.sin(angle)
    rib = np.linspace(0, 1, 50)
    wide = 1.1 * breadth * np.sin(np.pi * rib**fullness) ** 0.8 + 0.01
    sideways = np.stack([wide, -wide]) - bend * rib * (1 - rib)
    outline = np.stack([(rib - 0.5) * cosine - sideways * sine, (rib - 0.5) * sine + sideways * cosine])
    slack = 0.02 * length + 2 + margin
    least = np.maximum(centre + outline.min(axis=(1, 2)) * length - slack, 0).astype(int)
    most = np.maximum(centre + outline.max(axis=(1, 2)) * length + slack, 0).astype(int)
    if margin and most[1] >= shape[0]:
        least[1] = 0  # a shadow that np.roll moves over the lower edge comes back at the upper one
    window = np.s_[least[1] : most[1], least[0] : most[0]]
    y = np.arange(shape[0])[window[0], None] - centre[1]
    x = np.arange(shape[1])[window[1]] - centre[0]
    along = (x * cosine + y * sine) / length + 0.5  # 0 at the stalk, 1 at the tip
    inside = np.clip(along, 0, 1)
    across = (y * cosine - x * sine) / length + bend * inside * (1 - inside)
    half = breadth * np.sin(np.pi * inside**fullness) ** 0.8 + 1e-3
    half = half * (1 + 0.05 * np.sin(along * waves))
    edge = (half - np.abs(across)) * length
    opacity = np.clip(edge + 0.5, 0, 1) * ((along > 0) & (along < 1))
    side = np.abs(across) / half
    vein = along * generator.uniform(7, 12) - side * generator.uniform(0.6, 1.4)
    midrib = np.exp(-((across * length / (0.012 * length + 1)) ** 2))
    lines = 0.35 * np.exp(-(((vein - np.round(vein)) / 0.07) ** 2)) + midrib
    mottle = rough_noise(generator, (shape[0] // 4 + 1, shape[1] // 4 + 1), length / 16, 3)
    mottle = cv2.resize(mottle, shape[::-1], interpolation=cv2.INTER_LINEAR)[window]
    tone = 1 + 0.13 * mottle + 0.12 * np.sign(across) + 0.35 * lines - 0.25 * ramp(side, 0.8, 1)
    colours = tinted(base, tone)
    if generator.random() < 0.5:
        colours = blend(colours, colour(generator, *BROWNS), 0.8 * ramp(mottle + side, 1.3, 1.7))
    relief = 0.10 * length * breadth * 2 * (1 - side.clip(0, 1) ** 2) - 1.5 * lines
    return window, opacity, colours, relief


def scatter_leaves(generator, colours, relief, count, length, palette, breadth=(0.14, 0.30)):
    """Lays leaves on the ground, each with its shadow; length (least, most) in pixels. Changes both arrays in place."""
    height, width = relief.shape
    for _ in range(count):
        size = generator.uniform(*length)
        centre = generator.uniform((0, 0), (width, height))
        left, top = np.maximum(centre - size * 0.65, 0).astype(int)
        window = np.s_[top : int(centre[1] + size * 0.65) + 1, left : int(centre[0] + size * 0.65) + 1]
        opacity = np.zeros(relief[window].shape)
        within, covering, tint, rise = leaf(
            generator,
            opacity.shape,
            centre - (left, top),
            size,
            generator.uniform(*breadth),
            generator.uniform(0, 6.3),
            colour(generator, *palette),
        )
        opacity[within] = covering
        shadow = cv2.GaussianBlur(np.roll(opacity, int(size * 0.04), 0), (0, 0), size * 0.03 + 1)
        colours[window] *= threefold(1 - 0.65 * shadow)
        colours[window][within] = blend(colours[window][within], tint, covering)
        relief[window][within] = relief[window][within] * (1 - covering) + (rise + 8) * covering


def litter(generator, shape):
    """Fallen leaves, brown, orange and red, with a few green ones."""
    palette = (BROWNS + FIRES, BROWNS * 2 + FIRES + GREENS, BROWNS + DARKS)[generator.integers(3)]
    colours, relief = stones(generator, shape, 14, DARKS + BROWNS)
    size = generator.uniform(90, 180)
    count = int(7 * shape[0] * shape[1] / size**2)
    scatter_leaves(generator, colours, relief, count, (0.6 * size, 1.4 * size), palette)
    return colours, relief


def foliage(generator, shape):
    """Broad green leaves before something out of focus: a wall, a window, a room."""
    colours = np.zeros((*shape, 3), np.float32) + colour(generator, *PALES, *DARKS)
    for _ in range(2):
        patch = ramp(smooth_noise(generator, shape, 220), -0.2, 0.6)
        colours = blend(colours, colour(generator, *PALES, *DARKS, *GREENS, *FIRES), patch)
    relief = np.zeros(shape, np.float32)
    scatter_leaves(generator, colours, relief, 8, (160, 360), GREENS + DARKS)
    colours, relief = cv2.GaussianBlur(colours, (0, 0), 7), cv2.GaussianBlur(relief, (0, 0), 9)
    count = shape[0] * shape[1] // 16000
    scatter_leaves(generator, colours, relief, count, (150, 420), GREENS + DARKS, (0.12, 0.28))
    return colours, relief


GROUNDS = (gravel, moss, soil, bark, litter, foliage, gravel)


# ---------------------------------------------------------------------------------------------------------- the picture


def lit(colours, normal, light, gloss, ambient):
    """Colours (..., 3) under a lamp, by Lambert's law and with a highlight of wet skin or stone.

    normal (3, ...) and light (3,), towards the lamp, are unit vectors with z towards the camera.
    """
    middle = light + (0, 0, 1)
    middle /= np.linalg.norm(middle)
    facing, shine = (
        np.clip(sum(part * along for part, along in zip(normal, way, strict=True)), 0, None) for way in (light, middle)
    )
    highlight = gloss * (shine**40 + 0.18 * shine**8)
    bright = colours * threefold(ambient + (1.25 - ambient) * facing)
    bright += threefold(highlight)
    return bright


def slopes(relief):
    """How steeply a relief (height, width) rises to the right and down: (2, height, width)."""
    return np.stack([cv2.Sobel(relief, cv2.CV_32F, 1, 0), cv2.Sobel(relief, cv2.CV_32F, 0, 1)]) / 8


def normals(relief):
    """Normals (3, height, width) of a relief in pixels."""
    normal = np.concatenate([-slopes(relief).clip(-1.5, 1.5), np.ones((1, *relief.shape), np.float32)])
    return normal / np.linalg.norm(normal, axis=0)


def draw_ground(generator, ground, shape, light, slanted):
    """The ground under its light: (height, width, 3). A slanted one recedes towards the top."""
    stretch = 1.35 if slanted else 1.0
    whole = tuple(int(length * stretch) for length in shape)
    colours, relief = ground(generator, whole)
    gloss = generator.uniform(0.05, 0.45) if ground in (gravel, moss) else generator.uniform(0, 0.15)
    picture = lit(colours, normals(relief), light, gloss, generator.uniform(0.25, 0.5)).astype(np.float32)
    if slanted:
        height, width = whole
        margin = width * 0.2
        corners = np.float32([[0, 0], [width, 0], [width - margin, height], [margin, height]])
        target = np.float32([[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]])
        picture = cv2.warpPerspective(picture, cv2.getPerspectiveTransform(corners, target), shape[::-1])
    return picture


def place_newt(generator, species, view, shape, target):
    """A newt in a pose, seen from a side, that fills about the share `target` of the picture.

    Returns its surface and its scale in pixels per body length.
    """
    elevation = np.deg2rad(generator.uniform(*VIEWS[view]))
    tall = shape[0] > shape[1]
    frame = np.array(shape[::-1])
    whole = generator.uniform(0.45, 0.95)  # how much of the body the frame must hold, tail and all
    for attempt in range(400):
        azimuth = generator.normal(np.pi / 2 if tall and view != "side" else 0, 0.5) + np.pi * generator.integers(2)
        roll = generator.normal(np.pi / 2 if tall and view == "side" else 0, 0.25)  # in a tall frame it climbs
        pose = random_pose(generator, species)
        camera = (azimuth, elevation, roll, generator.uniform(2.5, 6))
        body = turned(pose[0], *camera)["centre"][:, :2]
        scale = np.sqrt(target * frame.prod()) * generator.uniform(1.25, 1.9)
        origin = frame * generator.uniform((0.38, 0.38), (0.62, 0.62)) - body[:230].mean(axis=0) * scale
        placed = body * scale + origin
        inside = np.all((placed > 0.03 * frame) & (placed < 0.97 * frame), axis=1)
        if inside[10:60].all() and inside.mean() > whole - attempt * 0.002:
            newt = turned(build_newt(*pose), *camera)
            allowed = 0.2 + attempt * 0.01
            if abs(silhouette(newt, scale, origin, shape) / target - 1) < 1.05 * allowed + 0.05:
                seen = surface(newt, scale, origin, shape)
                if abs(seen["covered"].mean() / target - 1) < allowed:
                    break
    return seen, scale


def draw_picture(generator, species, number):
    """One picture (height, width, 3) RGB and where its newts show (height, width) bool."""
    small = SHAPES[number % 2]
    shape = tuple(OVERSAMPLING * length for length in small)
    views = VIEWS_IN_TURN[species]
    view = views[number // 2 % len(views)]  # even and odd numbers have different shapes: each view comes in both
    ground = GROUNDS[number % len(GROUNDS)]
    layers = [place_newt(generator, species, view, shape, generator.uniform(0.22, 0.42))]
    if generator.random() < 0.2:
        layers.insert(0, place_newt(generator, species, view, shape, generator.uniform(0.06, 0.12)))
    light = np.array([generator.normal(0, 0.5), -abs(generator.normal(0.3, 0.4)), 1.0])
    light /= np.linalg.norm(light)
    behind_glass = view == "below"  # the newt clings to the pane, the ground lies far behind
    picture = draw_ground(generator, ground, shape, light, slanted=view == "side" and shape[0] < shape[1])
    out_of_focus = generator.uniform(4, 8) if behind_glass else generator.uniform(0.5, 2.5)
    picture = cv2.GaussianBlur(picture, (0, 0), out_of_focus)
    covered = np.zeros(shape, bool)
    for seen, scale in layers:
        colours, normal = paint_newt(generator, species, seen, scale)
        inside = seen["covered"].astype(np.float32)
        drop = light[:2] * -0.09 * scale + (0, 0.02 * scale)
        cast = cv2.warpAffine(inside, np.float32([[1, 0, drop[0]], [0, 1, drop[1]]]), shape[::-1])
        contact = cv2.GaussianBlur(inside, (0, 0), 0.012 * scale)
        shadow = np.maximum(cv2.GaussianBlur(cast, (0, 0), 0.03 * scale), contact)
        picture *= threefold(1 - (0.15 if behind_glass else 0.7) * shadow)
        # Where the surroundings are nearer to the camera, less light gets in.
        depth = np.where(seen["covered"], seen["depth"], seen["depth"][seen["covered"]].min()).astype(np.float32)
        around = cv2.GaussianBlur(depth, (0, 0), 0.03 * scale)
        hollow = np.clip((around - depth)[seen["covered"]] / (0.05 * scale), 0, 1)
        bright = lit(colours, normal, light, gloss=generator.uniform(0.12, 0.5), ambient=0.38)
        picture[seen["covered"]] = bright * threefold(1 - 0.6 * hollow)
        covered |= seen["covered"]
    picture, covered = draw_before(generator, picture, covered)
    picture = photograph(generator, picture, behind_glass, ground in (gravel, moss, soil))
    reduced = cv2.resize(picture.astype(np.float32), small[::-1], interpolation=cv2.INTER_AREA)
    visible = cv2.resize(covered.astype(np.float32), small[::-1], interpolation=cv2.INTER_AREA) >= 0.5
    reduced += generator.normal(0, generator.uniform(0.004, 0.014), reduced.shape)
    return np.clip(reduced * 255 + 0.5, 0, 255).astype(np.uint8), visible


def draw_before(generator, picture, covered):
    """Leaves and blades between the camera and the newt; where they are opaque no newt shows."""
    height, width = covered.shape
    count = generator.choice(4, p=(0.5, 0.25, 0.15, 0.1))
    picture = picture.astype(float) if count else picture
    for _ in range(count):
        blade = generator.random() < 0.4
        length = generator.uniform(0.3, 0.6) * np.hypot(height, width) if blade else generator.uniform(100, 220)
        breadth = 0.035 if blade else generator.uniform(0.15, 0.28)
        base = colour(generator, *(GREENS if blade else GREENS + BROWNS + FIRES))
        centre = generator.uniform((0, 0), (width, height))
        window, opacity, tint, relief = leaf(
            generator, covered.shape, centre, length, breadth, generator.uniform(0, 6.3), base, margin=72
        )  # blurred opacity and shadow fade out within the margin
        focus = generator.uniform(0.6, 4)
        tint = lit(tint, normals(relief.astype(np.float32)), np.array([0.3, -0.4, 0.87]), 0.15, 0.4).astype(np.float32)
        opacity = cv2.GaussianBlur(opacity, (0, 0), focus)
        shadow = cv2.GaussianBlur(np.roll(opacity, 14, 0), (0, 0), 9)
        picture[window] = blend(picture[window] * threefold(1 - 0.45 * shadow), tint, opacity)
        covered[window] &= opacity < 0.5
    return picture, covered


def photograph(generator, picture, behind_glass, wet):
    """Water, glass and camera: veil, ripples of light, specks, reflections, focus, exposure and colour cast."""
    shape = picture.shape[:2]
    if wet and (behind_glass or generator.random() < 0.5):
        waves = smooth_noise(generator, shape, 70) + 0.5 * smooth_noise(generator, shape, 30)
        ripples = ramp(-np.abs(waves), -0.5, 0.1)
        picture = picture * threefold(1 + 0.4 * ripples)
        veil = colour(generator, (120, 140, 170), (110, 140, 110), (150, 130, 150))
        picture = picture + (veil - picture) * generator.uniform(0.03, 0.16)
    if behind_glass or generator.random() < 0.1:
        y, x = np.mgrid[: shape[0], : shape[1]]
        line = (x - generator.uniform(0, shape[1])) * np.cos(1.2) + (y - generator.uniform(0, shape[0])) * np.sin(1.2)
        picture = picture + threefold(0.2 * np.exp(-((line / generator.uniform(8, 60)) ** 2)))
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), generator.uniform(0.4, 1.1))
    picture = picture * np.tile(generator.normal(1, 0.035, 3), (shape[1], 1))
    np.clip(picture, 0, None, out=picture)
    picture **= generator.uniform(0.82, 0.96)
    picture *= generator.uniform(1.0, 1.25)
    return picture


# ---------------------------------------------------------------------------------------------------------- files


def write_whole(path, content):
    """Writes bytes so that the file is there whole or not at all, whatever interrupts."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def encoded(picture, ending, *settings):
    """The bytes of an image file: picture (height, width, 3) uint8 RGB."""
    reordered = np.ascontiguousarray(picture[..., ::-1])  # OpenCV's colours are blue, green, red
    return cv2.imencode(ending, reordered, settings)[1].tobytes()


def draw_pair(seed, split, species, number):
    """One picture and its mask, each (height, width, 3) uint8 RGB.

    Each has a generator of its own, so that drawing more of them leaves the earlier ones as they were.
    """
    generator = np.random.default_rng([seed, list(FIRST_NUMBER).index(split), list(SPECIES).index(species), number])
    picture, visible = draw_picture(generator, species, number)
    return picture, visible[..., None] * np.array(SPECIES[species], np.uint8)


def draw_set(folder, seed, counts):
    """Draws counts (a dictionary split -> pictures per species) into the folder. Returns how many pairs."""
    jobs = [
        (split, species, FIRST_NUMBER[split] + index)
        for split, count in counts.items()
        for species in SPECIES
        for index in range(count)
    ]
    images = {job: folder / job[0] / "images" / job[1] / f"{job[1]}_{job[2]:04d}.jpg" for job in jobs}
    masks = {job: folder / job[0] / "seg_images" / job[1] / f"{job[1]}_{job[2]:04d}.png" for job in jobs}
    for path in (*images.values(), *masks.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
    ours = {*images.values(), *masks.values()}
    others = sorted(
        path
        for split in counts
        for kind in ("images", "seg_images")
        for path in (folder / split / kind).rglob("*.*")
        if path.is_file() and path not in ours
    )
    if others:
        print(f"{folder} holds {len(others)} other files, such as {others[0]}: they stay, and answers read them too")
    tasks = [(seed, job, images[job], masks[job]) for job in jobs]
    with tqdm(total=len(tasks), unit="newt", disable=None) as bar:
        for _ in in_processes(draw_files, tasks):
            bar.update()
    return len(jobs)


def draw_files(seed, job, image, mask):
    """Draws one pair and writes it to the paths image and mask."""
    picture, classes = draw_pair(seed, *job)
    write_whole(image, encoded(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 88))
    write_whole(mask, encoded(classes, ".png", cv2.IMWRITE_PNG_COMPRESSION, 9))


def in_processes(function, tasks, most=None):
    """Calls function(*task) for all tasks in a few processes; yields a result when one is there, in any order."""
    count = min(most or os.cpu_count() or 1, 16, len(tasks) // 8)  # for a few pictures it isn't worth starting one
    if count < 2:
        yield from (function(*task) for task in tasks)
        return
    executor = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), be_a_helper)
    # Ctrl-C goes to all processes, and only this one answers it: the others start with it ignored.
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        futures = [executor.submit(function, *task) for task in tasks]
        signal.signal(signal.SIGINT, answer)
        for future in as_completed(futures):
            yield future.result()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        executor.shutdown(cancel_futures=True)  # waits for the pictures under way: no file is left half written
        signal.signal(signal.SIGINT, answer)


def be_a_helper():
    """Prepares a process that draws for another one: it uses one core, and ends when that one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows this isn't inherited
    cv2.setNumThreads(1)

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def stop(message):
    """Ends the program with one line and exit status 2."""
    print(f"draw_newts.py: {message}", file=sys.stderr)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description="Draws newts and their masks; the same for the same seed.")
    parser.error = stop  # one line instead of the whole usage
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent,
        metavar="DIR",
        help="where train/ and test/ go (default: the folder of this script)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other newts (default: 0)")
    parser.add_argument(
        "--train", type=int, default=72, metavar="N", help="training pictures per species (default: 72)"
    )
    parser.add_argument("--test", type=int, default=8, metavar="N", help="test pictures per species (default: 8)")
    options = parser.parse_args()
    for name, least in (("seed", 0), ("train", 1), ("test", 1)):
        if getattr(options, name) < least:
            stop(f"--{name} is {getattr(options, name)}: give {least} or more")
    try:
        count = draw_set(options.out, options.seed, {"train": options.train, "test": options.test})
    except OSError as error:
        stop(f"cannot write {error.filename or options.out}: {error.strerror}; give a folder to write in with --out")
    except BrokenProcessPool:
        stop("a process that drew pictures was ended from outside, perhaps since memory ran out; start it again")
    except KeyboardInterrupt:
        stop("stopped before all pictures were drawn; those that are there are whole")
    print(f"{count} pictures and their masks are in {options.out}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    main()
