"""A photograph → the person and the camera with which the studio would draw the same head.

Landmarks in the pose of rest are linear functions of morph target weights, so 68 found landmarks give pose, camera,
shape and expression by nonlinear least squares with Gaussian priors (a morphable model, Blanz and Vetter 1999, on the
kit's own targets). Gaze follows from the irises. What the photograph then becomes is decided in `photo_cartoon`.
"""
from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.optimize import least_squares

from ..config import VToonifyError
from ..faces.crop import eye_centres
from .brows import MARKS
from .fitted_person import FittedPerson, canvas
from .geometry import VIEWPOINT, Scene, Sculptor, plain_camera, project, rotation, turn_head
from .kit import Kit, macro_weights
from .people import ASYMMETRY, SHAPE, Z_SIZE, Person, person, unit_target

NOISE = 0.022       # standard deviation of a found landmark, in eye distances
ALONG_BROW = 0.25   # weight of a brow point's error along the brow: hairs begin and end anywhere
ONE_SIDED = 0.12    # standard deviation of the difference between left and right of a factor
UNITS = {
    "mouth-open": 0.5, "mouth-corner-puller": 0.5, "mouth-depression": 0.3, "mouth-protusion": 0.25,
    "mouth-retraction": 0.3, "mouth-upward-retraction": 0.35, "mouth-compression": 0.25, "mouth-part-later": 0.4,
    "eyebrows-left-up": 0.4, "eyebrows-right-up": 0.4, "eyebrows-left-down": 0.3, "eyebrows-right-down": 0.3,
    "eyebrows-left-inner-up": 0.3, "eyebrows-right-inner-up": 0.3, "eye-left-closure": 0.5, "eye-right-closure": 0.5,
    "eye-left-opened-up": 0.3, "eye-right-opened-up": 0.3}
"""Action units that are fitted, and their standard deviations."""

NEGATIVE = 6.0      # how much more than that a negative unit costs: muscles pull, they do not push

AVERAGE = {
    "head/head-scale-horiz-incr": -0.29, "head/head-scale-vert-incr": -0.35, "head/head-square": 0.1,
    "head/head-round": -0.06, "eyebrows/eyebrows-angle-up": 0.41, "eyebrows/eyebrows-trans-up": 0.19,
    "eyes/{s}-eye-scale-incr": 0.58, "eyes/{s}-eye-height2-incr": -0.18, "eyes/{s}-eye-corner1-up": -0.57,
    "eyes/{s}-eye-corner2-up": -0.24, "eyes/{s}-eye-trans-out": -0.19, "nose/nose-scale-horiz-incr": 0.5,
    "nose/nose-scale-vert-incr": 0.5, "nose/nose-scale-depth-incr": 0.05, "nose/nose-hump-incr": 0.12,
    "nose/nose-curve-convex": 0.44, "nose/nose-point-up": 0.38, "nose/nose-flaring-incr": 0.35,
    "mouth/mouth-scale-horiz-incr": 0.62, "mouth/mouth-trans-up": 0.32, "mouth/mouth-upperlip-height-incr": -0.38,
    "mouth/mouth-lowerlip-height-incr": -0.73, "mouth/mouth-angles-up": 0.1, "chin/chin-width-incr": 0.12,
    "chin/chin-height-incr": -0.08, "cheek/{s}-cheek-bones-incr": -0.2, "cheek/{s}-cheek-volume-incr": -0.06,
    "neck/neck-scale-horiz-incr": -0.28, "neck/neck-double-incr": 0.07}
"""Factors (by their target of positive weights) that fits of 410 photographs have in common: how found landmarks
differ from the kit's average head. Fits are drawn to it, and caricatures lead away from it."""

ORIGIN = np.array([1.0, 0, 0])  # variant of the action units' targets: they hardly differ
MOST_RESIDUAL = 0.065           # eye distances: of 400 photographs, those above are wrong (profiles, covered faces)
MOST_YAW = 0.75                 # radians: beyond, the far eye's landmarks are guesses
MOST_ROLL = 0.7                 # radians: lids are read from left to right, and the studio's people sit upright
LEAST_INSIDE = 0.95             # share of the landmarks that must lie in the photograph
LEAST_EYES = 24.0               # px between the eyes in the photograph: below, there is nothing to draw from
_POSE, _MACRO = slice(0, 6), slice(6, 11)


class Fitter:
    """Fits people to photographs: `Fitter(kit).fit(photo, landmarks) → FittedPerson`."""

    def __init__(self, kit: Kit | None = None):
        self.kit = kit or Kit()
        self.sculptor = Sculptor(self.kit)
        self._brow = person(np.zeros(Z_SIZE)).brow

    def fit(self, photo: np.ndarray, landmarks: np.ndarray, irises: np.ndarray | None = None,
            size: int = 768) -> FittedPerson:
        """The person in a photograph.

        photo      uint8 [H,W,3]
        landmarks  [68,2] x, y in pixels, (0, 0) the middle of the first one, iBUG order
        irises     [2,2] centres likewise, the subject's right eye first; None or NaN: not found
        size       side of the canvas; the FFHQ square in it is 1/MARGIN of that
        VToonifyError for what is no photograph and for landmarks that are no face's.
        """
        photo = np.asarray(photo)
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
            raise VToonifyError(f"the photograph is {photo.dtype} {photo.shape}; expected uint8 [H,W,3], as "
                                "media.images.read_image gives it")
        _check_landmarks(landmarks)
        image, covered, move = canvas(photo, landmarks, size)
        points = _moved(landmarks, move)
        seen = irises is not None and np.isfinite(irises).all()
        found = _moved(irises, move) if seen else None
        wide = (points + 0.5) / size
        x = self._solve(wide)
        camera, residual = self._camera(x), self._residual(x, wide)
        who = self._person(x)
        if found is not None:
            scene = self.sculptor.scene(who, None, camera)
            who = who.with_(gaze=_gaze(scene, who, (found + 0.5) / size))
        eye = np.hypot(*np.subtract(*eye_centres(points)))
        refusals = [reason for wrong, reason in (
            (residual > MOST_RESIDUAL, f"the landmarks fit no face (residual {residual:.3f} eye distances)"),
            (_inside(points, covered) < LEAST_INSIDE, "part of the face lies outside of the picture"),
            (abs(x[2]) > MOST_ROLL, f"the head is tilted by {abs(np.degrees(x[2])):.0f} degrees"),
            (abs(x[0]) > MOST_YAW, f"the head is turned by {abs(np.degrees(x[0])):.0f} degrees"),
            (eye / move[0, 0] < LEAST_EYES, f"the eyes are {eye / move[0, 0]:.0f} px apart")) if wrong]
        return FittedPerson(who, camera, image.astype(np.float32) / 255, covered, points, found, float(move[0, 0]),
                            residual, tuple(refusals))

    # -- landmarks as linear functions of target weights ----------------------------------------------------------
    def _marks(self, flesh: np.ndarray) -> np.ndarray:
        """Landmarks [68,3] on vertices [6357,3] in the pose of rest; the brows' lie on their hairs."""
        regions = self.sculptor.regions
        points = flesh[regions.landmarks].astype(np.float64)
        points[17:27] = self.sculptor.brow_hairs(self._brow, flesh)[MARKS]
        return points

    def _column(self, target: str) -> np.ndarray:
        """How far a target's weight of 1 moves the landmarks, [68,3]."""
        return self._marks(self.kit.morph({target: 1.0})) - self._zero

    @cached_property
    def _zero(self) -> np.ndarray:
        return self._marks(self.kit.vertices)

    @cached_property
    def _factors(self) -> list[tuple[str, str]]:
        """Targets of negative and of positive weights; of two-sided factors the left follows the right."""
        out = []
        for low, high, _ in SHAPE:
            out += [(low.format(s=s), high.format(s=s)) for s in ("rl" if "{s}" in low else ("",))]
        return out + [(name.format(s="r"), name.format(s="l")) for name in ASYMMETRY]

    @cached_property
    def _prior(self) -> np.ndarray:
        """[rows, factors]: what is normal of the factors' weights once it has been multiplied by this."""
        n, rows, at = len(self._factors), [], 0
        for low, _, std in SHAPE:
            if "{s}" in low:
                for pair in ((0.5 / std, 0.5 / std), (1 / ONE_SIDED, -1 / ONE_SIDED)):
                    rows.append(np.zeros(n))
                    rows[-1][at:at + 2] = pair
                at += 2
            else:
                rows.append(np.eye(n)[at] / std)
                at += 1
        return np.array([*rows, *(np.eye(n)[at:] / 0.3)])

    @cached_property
    def _average(self) -> np.ndarray:
        """AVERAGE in the order of `_factors`."""
        both = {high.format(s=s): AVERAGE.get(high, 0.0) for _, high, _ in SHAPE for s in "lr"}
        return np.array([both.get(high, 0.0) for _, high in self._factors])

    @cached_property
    def _low_high(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns [factors,68,3] of negative and of positive weights."""
        low, high = zip(*self._factors, strict=True)
        return np.stack([self._column(name) for name in low]), np.stack([self._column(name) for name in high])

    @cached_property
    def _units(self) -> tuple[list[str], np.ndarray]:
        names = [unit_target(unit, ORIGIN) for unit in UNITS]
        return names, np.stack([self._column(name) for name in names])

    @cached_property
    def _macros(self) -> tuple[list[str], np.ndarray]:
        names = {n for e in np.eye(3) for sex in (0, 1) for age in (0, 1) for weight in (-1, 1)
                 for n in macro_weights(e, sex, age, weight)}
        known = sorted(names & set(self.kit.target_names))
        return known, np.stack([self._column(name) for name in known])

    # -- parameters: pose 3, log scale, shift 2, macro 5, factors, units ----------------------------------------------
    def _split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of factors and of units."""
        return np.split(x[_MACRO.stop:], [len(self._factors)])

    def _posed(self, x: np.ndarray) -> np.ndarray:
        names, columns = self._macros
        weights = macro_weights(**_macro(x[_MACRO]))
        factors, units = self._split(x)
        low, high = self._low_high
        points = self._zero + np.tensordot([weights.get(name, 0.0) for name in names], columns, 1)
        points = points + np.tensordot(np.maximum(factors, 0), high, 1) + np.tensordot(np.maximum(-factors, 0), low, 1)
        return turn_head(points + np.tensordot(units, self._units[1], 1), x[:3])

    def _camera(self, x: np.ndarray) -> np.ndarray:
        frame = np.eye(4)
        frame[0, 0] = frame[1, 1] = np.exp(x[3])
        frame[:2, 3] = x[4:6]
        return frame @ plain_camera()

    def _project(self, x: np.ndarray) -> np.ndarray:
        """Landmarks [68,2] in canvas widths."""
        return project(self._posed(x), self._camera(x))

    def _residual(self, x: np.ndarray, points: np.ndarray) -> float:
        eye = np.hypot(*np.subtract(*eye_centres(points)))
        return float(np.linalg.norm(self._project(x) - points, axis=1).mean() / eye)

    def _solve(self, points: np.ndarray) -> np.ndarray:
        """Landmarks [68,2] in canvas widths → parameters."""
        axes = _axes(points)
        unit_std = np.array(list(UNITS.values()))

        def errors(x: np.ndarray) -> np.ndarray:
            off = np.einsum("nij,nj->ni", axes, self._project(x) - points)
            factors, units = self._split(x)
            prior = [x[:3] / [0.5, 0.25, 0.35], x[_MACRO] / [1.2, 1.2, 1, 1, 1],
                     self._prior @ (factors - self._average), units / unit_std,
                     NEGATIVE * np.minimum(units / unit_std, 0)]
            return np.concatenate([off.ravel(), *prior])

        def slopes(x: np.ndarray) -> np.ndarray:
            return self._slopes(x, axes, errors)

        x = np.concatenate([np.zeros(_MACRO.stop), self._average, np.zeros(len(UNITS))])
        first = self._project(x)
        spread = [np.linalg.norm(p - p.mean(0)) for p in (points, first)]
        x[2] = -np.arctan2(*(points[45] - points[36])[::-1])
        x[3] = np.log(spread[0] / spread[1])
        x[4:6] = 2 * (points.mean(0) - self._project(x).mean(0))
        x[_POSE] = least_squares(lambda rigid: errors(np.concatenate([rigid, x[6:]])), x[_POSE], loss="soft_l1",
                                 max_nfev=15).x
        return least_squares(errors, x, slopes, loss="soft_l1", f_scale=3.0, max_nfev=25).x

    def _slopes(self, x: np.ndarray, axes: np.ndarray, errors) -> np.ndarray:
        """Jacobian of `errors`: differences for pose, camera and macro, the rest in closed form."""
        factors, units = self._split(x)
        low, high = self._low_high
        here, few = errors(x), _MACRO.stop
        out = np.zeros((len(here), len(x)))
        for i in range(few):
            step = x.copy()
            step[i] += 1e-4
            out[:, i] = (errors(step) - here) / 1e-4
        moves = np.concatenate([np.where((factors > 0)[:, None, None], high, -low),
                                self._units[1]])
        posed, camera = self._posed(x), self._camera(x)
        turned = moves @ rotation(*x[:3]).T  # the neck's share of the turn is next to 1 in the face
        h = np.c_[posed, np.ones(68)] @ camera.T
        change = turned @ camera[:, :3].T
        flat = (change[..., :2] - h[:, :2] / h[:, 3:4] * change[..., 3:4]) / h[:, 3:4] / 2
        out[:136, few:] = np.einsum("nij,knj->nik", axes, flat).reshape(136, -1)
        n, rows = len(self._factors), len(self._prior)
        unit_std = np.array(list(UNITS.values()))
        at = 136 + 8
        out[at:at + rows, few:few + n] = self._prior
        out[at + rows:at + rows + len(UNITS), few + n:] = np.diag(1 / unit_std)
        out[at + rows + len(UNITS):, few + n:] = np.diag(np.where(units < 0, NEGATIVE / unit_std, 0))
        return out

    def _person(self, x: np.ndarray) -> Person:
        macro = _macro(x[_MACRO])
        factors, units = self._split(x)
        shape = macro_weights(**macro)
        for (low, high), weight in zip(self._factors, factors, strict=True):
            name = high if weight > 0 else low
            shape[name] = shape.get(name, 0.0) + abs(float(weight))
        expression = {n: float(w) for n, w in zip(self._units[0], units, strict=True) if w > 0}
        return person(np.zeros(Z_SIZE)).with_(
            shape=shape, expression=expression, age=macro["age"], male=macro["gender"], ethnicity=macro["ethnicity"],
            pose=x[:3].copy(), hair=None, glasses=None)


def _check_landmarks(landmarks: np.ndarray) -> None:
    points = np.asarray(landmarks, float)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise VToonifyError(f"landmarks are {points.shape}, some perhaps not finite; expected 68 finite points in iBUG "
                            "order, as faces.detector.FaceFinder finds them")
    if np.hypot(*np.subtract(*eye_centres(points))) < 1:
        raise VToonifyError("the eyes of these landmarks are less than a pixel apart; find the face again")


def _moved(points: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Points of the photograph [n,2] → canvas."""
    return np.asarray(points, float) @ move[:, :2].T + move[:, 2]


def _inside(points: np.ndarray, covered: np.ndarray) -> float:
    """Share of canvas points [n,2] at which there is photograph."""
    places = points.round().astype(int).clip(0, len(covered) - 1)
    return float((covered[places[:, 1], places[:, 0]] > 0.5).mean())


def _axes(points: np.ndarray) -> np.ndarray:
    """[68,2,2] from errors in canvas widths to errors in standard deviations; along a brow they count for less."""
    eye = np.hypot(*np.subtract(*eye_centres(points)))
    weight = np.ones(68)
    weight[:17], weight[36:48] = 0.55, 2.0  # outlines slide, lids are what people look at
    out = np.eye(2) * weight[:, None, None]
    for brow in (slice(17, 22), slice(22, 27)):
        t = np.gradient(points[brow], axis=0)
        t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)
        out[brow] = np.stack([ALONG_BROW * t, t[:, ::-1] * [-1, 1]], 1)
    return out / (eye * NOISE)


def _macro(m: np.ndarray) -> dict:
    """Five normal numbers → arguments of `macro_weights`."""
    mix = np.exp(1.3 * np.array([0, m[0], m[1]]))
    gender, age = 1 / (1 + np.exp(-np.array([3 * m[2], 1.6 * m[3] - 1.0])))
    return {"ethnicity": mix / mix.sum(), "gender": float(gender), "age": float(age),
            "weight": float(np.tanh(0.4 * m[4]))}


def _gaze(scene: Scene, who: Person, irises: np.ndarray) -> np.ndarray:
    """Yaw and pitch relative to the head at which the eyes look, from iris centres [2,2] in canvas widths."""
    out, inverse = [], np.linalg.inv(scene.camera)
    for eye, place in zip(scene.eyes[::-1], irises, strict=True):
        ball = eye.part.positions[np.unique(eye.part.triangles)]
        radius = 0.89 * (ball.max(0) - ball.min(0))[0] / 2  # of the plane in which an iris lies
        ends = [inverse @ [*(2 * place - 1), depth, 1] for depth in (-1.0, 1.0)]
        ray = ends[1][:3] / ends[1][3] - VIEWPOINT
        ray /= np.linalg.norm(ray)
        near = (eye.center - VIEWPOINT) @ ray
        across = VIEWPOINT + near * ray - eye.center  # from the centre to the nearest point of the ray
        depth = radius**2 - across @ across
        ahead = across - np.sqrt(max(depth, 0)) * ray
        x, y, z = rotation(*who.pose).T @ ahead / np.linalg.norm(ahead)
        out.append([np.arctan2(x, z), -np.arcsin(np.clip(y, -1, 1))])
    return np.clip(np.mean(out, 0), -0.6, 0.6)


def grown(shape: dict[str, float], amount: float, parts: tuple[str, ...], limit: float) -> dict[str, float]:
    """A fitted person's shape with what sets them apart from the AVERAGE, times 1 + amount.

    parts: how the names of the targets begin that grow; limit: what the growth of a weight tends to
    """
    out = dict(shape)
    for low, high, _ in SHAPE:
        for side in "lr" if "{s}" in low else ("",):
            less, more = low.format(s=side), high.format(s=side)
            if more.startswith(parts):
                weight = shape.get(more, 0.0) - shape.get(less, 0.0)
                weight += limit * float(np.tanh(amount * (weight - AVERAGE.get(high, 0.0)) / limit))
                out.pop(less, None), out.pop(more, None)
                out[more if weight > 0 else less] = abs(weight)
    return out


def exact(scene: Scene, who: Person, photo: np.ndarray, landmarks: np.ndarray) -> FittedPerson:
    """A render as a fit without error: its own person, camera and landmarks.

    photo uint8 [S,S,3], landmarks [68,2] in its pixels; the scene is the one that was drawn, see `canvas_camera`.
    """
    size = photo.shape[0]
    centres = np.array([e.center + e.gaze * 0.89 * np.ptp(e.part.positions[np.unique(e.part.triangles)], 0)[0] / 2
                        for e in scene.eyes[::-1]])
    return FittedPerson(who, scene.camera, photo.astype(np.float32) / 255, np.ones((size, size), np.float32),
                        np.asarray(landmarks, float) - 0.5, project(centres, scene.camera) * size - 0.5,
                        1.0, 0.0, ())
