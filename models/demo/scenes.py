"""Procedural captioned pictures: a few flat shapes with soft light and shadow. Data for the demo checkpoint.

Every picture follows from a `Scene` and a generator for the small jitter; every scene has captions. Distances are in
fractions of the picture's side, y grows downwards.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.13, 0.15),
    "orange": (0.97, 0.52, 0.08),
    "yellow": (0.99, 0.85, 0.15),
    "green": (0.13, 0.60, 0.27),
    "blue": (0.13, 0.35, 0.86),
    "purple": (0.52, 0.20, 0.70),
    "pink": (0.97, 0.46, 0.68),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (0.95, 0.95, 0.94),
    "grey": (0.60, 0.62, 0.64),
    "black": (0.09, 0.09, 0.11),
    "beige": (0.91, 0.84, 0.72),
    "mint": (0.73, 0.90, 0.81),
}
RADII = {"small": 0.115, "medium": 0.155, "large": 0.20}
NEAR, MIDDLE, FAR = 0.26, 0.5, 0.74
POSITIONS: dict[str, tuple[float, float]] = {
    "in the centre": (MIDDLE, MIDDLE),
    "on the left": (NEAR, MIDDLE),
    "on the right": (FAR, MIDDLE),
    "at the top": (MIDDLE, NEAR),
    "at the bottom": (MIDDLE, FAR),
    "in the top left": (NEAR, NEAR),
    "in the top right": (FAR, NEAR),
    "in the bottom left": (NEAR, FAR),
    "in the bottom right": (FAR, FAR),
}
ROWS = {"at the top": NEAR, "in the middle": MIDDLE, "at the bottom": FAR}
COUNTS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class Thing:
    """One drawn shape: what, in which colour, how large, and where its centre is."""

    shape: str
    colour: str
    radius: float
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """The things on a background, and the sentence that describes them without the background."""

    things: tuple[Thing, ...]
    background: str
    description: str

    @property
    def caption(self) -> str:
        """The full sentence: `a large red circle on the left on a white background`."""
        return f"{self.description} on a {self.background} background"

    @property
    def is_held_out(self) -> bool:
        """One scene in twelve, chosen by its caption, is never trained on."""
        return hashlib.sha256(self.caption.encode()).digest()[0] % 12 == 0


def single(shape: str, colour: str, size: str, position: str, background: str) -> Scene:
    """One thing at one of nine places."""
    x, y = POSITIONS[position]
    thing = Thing(shape, colour, RADII[size], x, y)
    return Scene((thing,), background, f"a {size} {colour} {shape} {position}")


def row(count: int, shape: str, colour: str, place: str, background: str) -> Scene:
    """Two or three equal things side by side."""
    things = tuple(
        Thing(shape, colour, RADII["small"], 0.5 + (i - (count - 1) / 2) * 0.30, ROWS[place]) for i in range(count)
    )
    return Scene(things, background, f"{COUNTS[count]} {colour} {shape}s in a row {place}")


def pair(first: tuple[str, str], second: tuple[str, str], is_upright: bool, background: str) -> Scene:
    """Two different things, (shape, colour) each: left and right, or above and below."""
    near, far = ((MIDDLE, NEAR), (MIDDLE, FAR)) if is_upright else ((NEAR, MIDDLE), (FAR, MIDDLE))
    where = ("at the top", "at the bottom") if is_upright else ("on the left", "on the right")
    things = tuple(
        Thing(shape, colour, RADII["medium"], x, y) for (shape, colour), (x, y) in ((first, near), (second, far))
    )
    words = [
        f"{'an' if colour == 'orange' else 'a'} {colour} {shape} {place}"
        for (shape, colour), place in zip((first, second), where, strict=True)
    ]
    return Scene(things, background, " and ".join(words))


def random_scene(rng: random.Random) -> Scene:
    """A scene: three in four are single things, the rest rows and pairs."""
    background = rng.choice(list(BACKGROUNDS))
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    kind = rng.random()
    if kind < 0.75:
        return single(shape, colour, rng.choice(["small", "large"]), rng.choice(list(POSITIONS)), background)
    if kind < 0.88:
        return row(rng.choice(list(COUNTS)), shape, colour, rng.choice(list(ROWS)), background)
    other = rng.choice([c for c in COLOURS if c != colour])
    return pair((shape, colour), (rng.choice(SHAPES), other), rng.random() < 0.5, background)


def scenes(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """`count` random scenes from the training part or from the held-out part."""
    rng = random.Random(seed)
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng)
        if scene.is_held_out == held_out:
            found.append(scene)
    return found


def wording(scene: Scene, rng: random.Random) -> str:
    """One of several ways to say it, so that prompts need not be in one fixed form."""
    plain = scene.caption
    match rng.randrange(4):
        case 0:
            return f"{scene.description}, {scene.background} background"
        case 1:
            return plain.removeprefix("a ")
        case _:
            return plain


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    dx, dy = x.abs() - 0.74, y.abs() - 0.74
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    return outside + torch.maximum(dx, dy).clamp(max=0) - 0.12


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    y = y - 0.22
    slope = math.sqrt(3) / 2
    sides = torch.maximum(x.abs() * slope - y * 0.5, y)
    return sides - 0.62


def _star(x: Tensor, y: Tensor) -> Tensor:
    y = y - 0.06
    outer, inner, wedge = 1.18, 0.52, 2 * math.pi / 5
    angle = torch.remainder(torch.atan2(x, -y) + wedge / 2, wedge) - wedge / 2
    radius = torch.hypot(x, y)
    along, across = radius * angle.cos(), radius * angle.sin().abs()
    ex, ey = inner * math.cos(wedge / 2) - outer, inner * math.sin(wedge / 2)
    return ((along - outer) * ey - across * ex) / math.hypot(ex, ey)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    half, y = 0.56, y - 0.14
    u, v = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)
    box = torch.maximum(u.abs(), v.abs()) - half
    lobes = torch.minimum(torch.hypot(u + half, v), torch.hypot(u, v + half)) - half
    return torch.minimum(box, lobes)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.74).abs() - 0.27


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
}


def distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Distance to the outline in radii, negative inside; x and y are offsets from the centre in radii."""
    return DISTANCES[shape](x, y)


def draw(scene: Scene, size: int, rng: random.Random) -> Tensor:
    """Picture [3, size, size] in 0..1, with a little jitter of place, size and tint from `rng`."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image = torch.tensor(BACKGROUNDS[scene.background])[:, None, None] * (1.04 - 0.10 * y - 0.10 * (x - 0.5) ** 2)
    for thing in scene.things:
        image = _drawn(image, thing, x, y, rng)
    return image.clamp(0, 1)


def _drawn(image: Tensor, thing: Thing, x: Tensor, y: Tensor, rng: random.Random) -> Tensor:
    radius = thing.radius * rng.uniform(0.93, 1.07)
    u = (x - thing.x - rng.uniform(-0.02, 0.02)) / radius
    v = (y - thing.y - rng.uniform(-0.02, 0.02)) / radius
    shadow = torch.sigmoid(-distance(thing.shape, u - 0.12, v - 0.22) * 7)
    image = image * (1 - 0.30 * shadow)
    cover = (0.5 - distance(thing.shape, u, v) * radius * image.shape[-1]).clamp(0, 1)
    tint = torch.tensor([c * rng.uniform(0.96, 1.03) for c in COLOURS[thing.colour]])[:, None, None]
    light = 1.06 - 0.14 * v.clamp(-1.2, 1.2) + 0.10 * torch.exp(-((u + 0.4) ** 2 + (v + 0.5) ** 2) * 3)
    return image * (1 - cover) + (tint * light).clamp(0, 1) * cover


def batch(drawn: Sequence[Scene], size: int, rng: random.Random) -> Tensor:
    """Pictures [B, 3, size, size] in -1..1, as the autoencoder takes them."""
    return torch.stack([draw(scene, size, rng) for scene in drawn]) * 2 - 1
