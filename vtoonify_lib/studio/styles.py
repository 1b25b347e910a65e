"""How a person is drawn: as a camera sees them (`PHOTO`), or in a look, by two degrees that do not touch each other.

Structure is shape and technique: a warp (extra morph targets, so identity and expression stay), the person's own
deviations grown, smoothness, matt clay, few flat tones, ink, paint. Colour is a `Palette`. The backdrop is the same in
every style: a stylisation network must learn to leave it alone. `exemplars` holds the sets of styles.
"""
from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from ..config import VToonifyError
from .looks import direction, natural_skin
from .people import SHAPE, Person

Color = tuple[float, float, float]
GREY = np.array([0.3, 0.59, 0.11])
LIMIT = 1.25
"""What the weight of an exaggerated feature tends to: twice as much no longer looks like a face."""

_TEETH_SHOW = {"chin/chin-jaw-drop-decr", "chin/chin-height-decr", "chin/chin-prominent-decr", "neck/neck-double-decr"}
"""Features that are not exaggerated: teeth would come through the chin."""
OWN_FEATURES = frozenset(name.format(s=s) for low, high, _ in SHAPE for name in (low, high) for s in "lr") - _TEETH_SHOW


@dataclass(frozen=True)
class Palette:
    """What a style does to colours; the defaults leave them alone.

    skin, hair, iris  colours to go to, and skin_pull, hair_pull, iris_pull in [0,1]: how far
    skin_light        factor on the skin's brightness; saturation factors are named after what they apply to
    vivid             saturation of all that is drawn
    key, ambient, shade, line  tints: of the key light, of the light all around, of flat shadows, of ink (0 = black)
    from_side, from_above, light_pull  where the key light goes to (radians), and how far
    fill, rim         factor on the fill light, and what is added to the light along edges
    """

    skin: Color = (0.5, 0.3, 0.2)
    skin_pull: float = 0.0
    skin_light: float = 1.0
    saturation: float = 1.0
    lip_saturation: float = 1.0
    blush: float = 1.0
    hair: Color = (0.1, 0.07, 0.05)
    hair_pull: float = 0.0
    hair_light: float = 1.0
    hair_saturation: float = 1.0
    iris: Color = (0.1, 0.1, 0.1)
    iris_pull: float = 0.0
    iris_light: float = 1.0
    iris_saturation: float = 1.0
    cloth_saturation: float = 1.0
    vivid: float = 1.0
    key: Color = (1.0, 1.0, 1.0)
    ambient: Color = (1.0, 1.0, 1.0)
    shade: Color = (1.0, 1.0, 1.0)
    line: Color = (0.0, 0.0, 0.0)
    from_side: float = 0.0
    from_above: float = 0.0
    light_pull: float = 0.0
    fill: float = 1.0
    rim: float = 0.0


@dataclass(frozen=True)
class Style:
    """A way of drawing people.

    warp        extra target weights, added to a person's shape
    exaggerate  by how much the person's own features grow, 0 = not
    iris, pupil, lids  factors on the sizes of iris and pupil and on how far lids close; larger eyes need longer ways
    toon        0 = photo shading … 1 = smooth and soft, without blemishes
    matte       0 … 1 = clay: no gloss, hair as one mass; lumps: how uneven the hand left it
    flat        0 … 1 = shading in `tones` steps
    ink         width of outlines in thousandths of the picture's side
    paint       0 … 1 = dabs of a brush
    """

    name: str
    warp: dict[str, float] = field(default_factory=dict)
    exaggerate: float = 0.0
    iris: float = 1.0
    pupil: float = 1.0
    lids: float = 1.0
    toon: float = 0.0
    matte: float = 0.0
    lumps: float = 0.0
    flat: float = 0.0
    tones: int = 3
    ink: float = 0.0
    paint: float = 0.0
    palette: Palette = Palette()


def both(targets: dict[str, float]) -> dict[str, float]:
    """{s} in a target's name → the same weight left and right."""
    out = {}
    for name, weight in targets.items():
        for side in "lr" if "{s}" in name else ("",):
            out[name.format(s=side)] = weight
    return out


STORYBOOK_WARP = both({
    "eyes/{s}-eye-scale-incr": 2.1, "eyes/{s}-eye-height2-incr": 1.0, "eyes/{s}-eye-trans-out": 0.15,
    "nose/nose-scale-vert-decr": 0.45, "nose/nose-scale-depth-decr": 0.55, "nose/nose-scale-horiz-decr": 0.35,
    "nose/nose-point-up": 0.35, "head/head-round": 0.7, "head/head-age-decr": 0.7, "chin/chin-width-decr": 0.6,
    "cheek/{s}-cheek-volume-incr": 0.4, "eyebrows/eyebrows-trans-up": 0.5, "eyebrows/eyebrows-angle-up": 0.3,
    "mouth/mouth-scale-horiz-decr": 0.2, "neck/neck-scale-horiz-decr": 0.7, "neck/neck-scale-depth-decr": 0.5,
})
STORYBOOK_PALETTE = Palette(
    skin_light=1.08, saturation=1.12, lip_saturation=1.2, blush=1.1, hair_light=1.15, hair_saturation=1.35,
    iris_light=1.4, iris_saturation=1.3, cloth_saturation=1.3, vivid=1.22, ambient=(1.12, 1.14, 1.17),
    fill=1.15, rim=0.1)
PHOTO = Style("photo")
STORYBOOK = Style("storybook", STORYBOOK_WARP, iris=1.28, pupil=1.1, lids=1.65, toon=1.0,
                  palette=replace(STORYBOOK_PALETTE, saturation=1.03, vivid=1.12))  # more would turn warm light orange
STYLES = {s.name: s for s in (PHOTO, STORYBOOK)}
_FACTORS = {"iris", "pupil", "lids"}  # 1 does nothing; of the other numbers of a style, 0 does


def at(style: Style, structure: float, color: float) -> Style:
    """The style at two degrees in [0,1]: 0, 0 draws what PHOTO draws; 1, 1 is the style itself.

    structure drives shape and technique, color the palette alone. VToonifyError outside [0,1].
    """
    for name, degree in (("structure", structure), ("color", color)):
        if not 0 <= degree <= 1:
            raise VToonifyError(f"the {name} degree is {degree}; give a number from 0 (the photo) to 1 (the style)")
    changes = {f.name: _scaled(getattr(style, f.name), structure, float(f.name in _FACTORS))
               for f in fields(Style) if f.name not in ("name", "warp", "tones", "palette")}
    warp = {name: weight * structure for name, weight in style.warp.items()} if structure else {}
    palette = {}
    for f in fields(Palette):
        goal = f"{f.name}_pull" in Palette.__dataclass_fields__ or f.name.startswith("from_")  # the pull says how far
        value = getattr(style.palette, f.name)
        palette[f.name] = value if goal else _scaled(value, color, f.default)
    return replace(style, warp=warp, palette=Palette(**palette), **changes)


def _scaled(value: float | Color, degree: float, neutral: float | Color) -> float | Color:
    """From neutral (degree 0) to value (degree 1)."""
    if isinstance(value, tuple):
        return tuple(_scaled(v, degree, n) for v, n in zip(value, neutral, strict=True))
    return neutral + (value - neutral) * degree if degree < 1 else value


def _saturate(color: np.ndarray, amount: float) -> np.ndarray:
    grey = float(np.dot(color, GREY))
    return np.clip(grey + (np.asarray(color) - grey) * amount, 0.004, 1.0)


def _pull(color: np.ndarray, goal: Color, hue: float, light: float) -> np.ndarray:
    """Towards a colour, in equal ratios: hue and brightness each go their own share of the way."""
    own, goal = np.maximum(color, 0.004), np.maximum(goal, 0.004)
    bright, aim = float(np.dot(own, GREY)), float(np.dot(goal, GREY))
    return (own / bright) ** (1 - hue) * (goal / aim) ** hue * bright ** (1 - light) * aim ** light


def restyle(person: Person, style: Style) -> Person:
    """The person with a style's features, colours and light; identity, pose and framing are untouched."""
    neutral = replace(style, name=PHOTO.name, warp={}, tones=PHOTO.tones)
    if neutral == replace(at(neutral, 0, 0), name=PHOTO.name, tones=PHOTO.tones):
        return person
    p, clothes = style.palette, person.clothes
    hair = _saturate(_pull(person.hair_color, p.hair, p.hair_pull, p.hair_pull), p.hair_saturation) * p.hair_light
    return replace(
        person,
        shape=_exaggerated(person.shape, style.exaggerate),
        expression={k: v * (style.lids if k.endswith("-closure") else 1.0) for k, v in person.expression.items()},
        skin=_skin(person, style),
        light=_light(person.light, style),
        clothes=dict(clothes, color=_saturate(clothes["color"], p.cloth_saturation)),
        hair_color=hair,
        brow_color=_pull(person.brow_color, p.hair, 0.8 * p.hair_pull, 0.3 * p.hair_pull),
        iris=_iris(person.iris, p), iris2=_iris(person.iris2, p),
        iris_size=person.iris_size * style.iris,
        pupil=person.pupil * style.pupil,
    )


def _exaggerated(shape: dict[str, float], amount: float) -> dict[str, float]:
    """Own features grow; macro targets (age, sex, origin) and unevenness do not."""
    if not amount:
        return shape
    share = min(1.0, amount)  # no leap where exaggeration begins

    def grown(weight: float) -> float:
        more = LIMIT * np.tanh(weight * (1 + amount) / LIMIT)
        return float(weight + share * (max(more, weight) - weight))

    return {name: grown(w) if name in OWN_FEATURES else w for name, w in shape.items()}


def _skin(person: Person, style: Style) -> dict[str, object]:
    skin, p = person.skin, style.palette
    # brightness goes less far than hue: dark skin stays darker than light skin
    own, goal = np.asarray(skin["tone"]), np.maximum(p.skin, 0.004)
    bright = [float(np.dot(own, GREY)), float(np.dot(goal, GREY))]
    reached = bright[0] ** (1 - 0.35 * p.skin_pull) * bright[1] ** (0.35 * p.skin_pull)
    plain = [natural_skin(b) for b in (*bright, reached)]
    tone = plain[2] * (own / plain[0]) ** (1 - p.skin_pull) * (goal / plain[1]) ** p.skin_pull
    lip = skin["lip"] * (tone / np.maximum(skin["tone"], 0.004)) ** 0.8
    tone = _saturate(tone, p.saturation) * p.skin_light
    beard = _pull(skin["beard_color"], p.hair, 0.7 * p.hair_pull, 0.4 * p.hair_pull)
    return dict(skin, tone=tone, lip=_saturate(lip, p.lip_saturation), blush=skin["blush"] ** p.blush,
                beard_color=beard, wrinkles=skin["wrinkles"] * (1 - 0.6 * style.toon))


def _light(light: dict[str, object], style: Style) -> dict[str, object]:
    p = style.palette
    key_dir = (1 - p.light_pull) * light["key_dir"] + p.light_pull * direction(p.from_side, p.from_above)
    around = np.array(p.ambient)
    return dict(light, key_dir=key_dir / np.linalg.norm(key_dir), key=light["key"] * p.key, sky=light["sky"] * around,
                ground=light["ground"] * around, shadow=light["shadow"] * (1 - 0.4 * style.toon),
                rim=light["rim"] + p.rim, fill=light["fill"] * p.fill)


def _iris(color: np.ndarray, p: Palette) -> np.ndarray:
    return _saturate(_pull(color, p.iris, p.iris_pull, 0.6 * p.iris_pull), p.iris_saturation) * p.iris_light
