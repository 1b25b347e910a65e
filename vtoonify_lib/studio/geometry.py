"""Person + style → posed vertices, camera and landmarks. Pure numpy; knows nothing about colours or OpenGL.

The face is framed as FFHQ frames it (Karras et al. 2019, appendix C): a square whose side is the larger of four eye
distances and 3.6 eye-to-mouth distances, centred a tenth of the eye-to-mouth distance below the eyes. Lengths are
decimetres; +y is up, +z out of the face, +x the subject's left, which is the right of the picture.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .brows import MARKS, Brow, lash_ends, lash_prop
from .hair import Hair, grow
from .kit import Kit, Prop, VertexNormals
from .people import Person
from .regions import Regions
from .scalp import Scalp, above_hairline
from .spectacles import tubes
from .strands import tangents

NECK_PIVOT = np.array([0.0, 6.1, 0.15])
CAMERA_DISTANCE = 11.0  # from the neck: the perspective of a portrait lens
VIEWPOINT = np.array([0.0, 7.1, CAMERA_DISTANCE])
NEAR, FAR = CAMERA_DISTANCE - 4.0, CAMERA_DISTANCE + 5.0
OFF_SKIN = np.array([0, 0, 0.012])  # brow hairs lie just in front of the skin they are bound to
EYE_GROUPS = {"l": "helper-l-eye", "r": "helper-r-eye"}
BALD = -9.0  # decimetres inside the hairline of who has none
OWN_NORMAL = 0.6  # weight of a ribbon's own normal, where that of the hair's whole form has 1
KEPT = 32  # styles of hair, brows and lashes that are kept grown: a clip shows the same people again and again
Posing = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Part:
    """One drawable: positions, normals, rest positions (where noise is anchored) [n,3], uv [n,2], triangles [t,3].

    own  [n,1] of the body: decimetres inside the hairline; [n,4] of strands: their direction, how light they are
    """

    positions: np.ndarray
    normals: np.ndarray
    rest: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    own: np.ndarray | None = None


@dataclass(frozen=True)
class Eye:
    """An eyeball: mesh, centre and the unit vectors gaze and up, all posed."""

    part: Part
    center: np.ndarray
    gaze: np.ndarray
    up: np.ndarray

    @property
    def axes(self) -> np.ndarray:
        """[3,3], columns side, up and gaze: what the iris is painted on, and what turns with the eye."""
        side = np.cross(self.up, self.gaze)
        side = side / np.linalg.norm(side)
        return np.stack([side, np.cross(self.gaze, side), self.gaze], 1)


@dataclass(frozen=True)
class Scene:
    """Everything geometric that a render needs.

    camera     [4,4] world → clip; picture rows run downwards
    landmarks  [68,3] on posed skin, brows' on the hairs that are worn; iBUG order; `project` takes them to the picture
    """

    body: Part
    eyes: tuple[Eye, Eye]  # the subject's left, right
    teeth: Part
    tongue: Part
    brow: Part
    lashes: Part
    hair: Part | None
    glasses: Part | None
    camera: np.ndarray
    landmarks: np.ndarray


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Yaw about y (+ turns the face to +x), then pitch about x (+ = down), then roll about z."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    return (np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]))


def project(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """points [n,3] → [n,2] in picture widths and heights, origin at the top left corner."""
    return (_clip(points, camera) + 1) / 2


def _clip(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    h = np.c_[points, np.ones(len(points))] @ camera.T
    return h[:, :2] / h[:, 3:4]


def turn_head(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points [n,3] in the pose of rest, turned about the neck by `rotation(*pose)`; shoulders follow a little."""
    w = np.clip((points[:, 1:2] - 4.7) / 1.5, 0, 1)
    w = w * w * (3 - 2 * w)
    return points + (0.12 + 0.88 * w) * ((points - NECK_PIVOT) @ rotation(*pose).T + NECK_PIVOT - points)


def plain_camera() -> np.ndarray:
    """Perspective camera [4,4] at VIEWPOINT that looks straight ahead, before any framing."""
    view = np.eye(4)
    view[:3, 3] = -VIEWPOINT
    depth = [-(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)]
    return np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, *depth], [0, 0, -1, 0]]) @ view


def ffhq_camera(eyes: np.ndarray, mouth: np.ndarray, framing: np.ndarray) -> np.ndarray:
    """Perspective camera [4,4] whose picture is the FFHQ square of a face, then zoomed, shifted and rolled.

    eyes     [2,3] centres, the subject's left first
    mouth    [2,3] corners
    framing  zoom, shift right and down in picture widths, roll in radians; 1, 0, 0, 0 is FFHQ's own
    """
    plain = plain_camera()
    eye, corner = _clip(eyes, plain), _clip(mouth, plain)
    across, down = eye[0] - eye[1], corner.mean(0) - eye.mean(0)
    axis = across - np.array([-down[1], down[0]])
    axis = axis / np.hypot(*axis)
    side = max(np.hypot(*across) * 4.0, np.hypot(*down) * 3.6)
    center = eye.mean(0) + 0.1 * down
    zoom, dx, dy, roll = framing
    spin = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    linear = zoom * 2 / side * spin @ np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])
    frame = np.eye(4)
    frame[:2, :2], frame[:2, 3] = linear, -linear @ center + 2 * np.array([dx, dy])
    return frame @ plain


def widen(camera: np.ndarray, height: int, width: int, square: tuple[float, float, float] | None = None) -> np.ndarray:
    """Camera of a square picture → camera of a height×width picture in which that picture is a part.

    square: (left, top, side) of the part in pixels; by default the largest square, in the middle.
    """
    side = min(height, width)
    left, top, side = square or ((width - side) / 2, (height - side) / 2, side)
    out = np.eye(4)
    out[0, 0], out[0, 3] = side / width, (2 * left + side) / width - 1
    out[1, 1], out[1, 3] = side / height, (2 * top + side) / height - 1
    return out @ camera


class Sculptor:
    """Builds scenes from a kit. `Sculptor(kit).scene(person, warp)`; warp is a style's extra target weights."""

    def __init__(self, kit: Kit):
        self.kit = kit
        self.regions = Regions(kit)
        self.rest = self.regions.rest
        self._body = kit.group("body")
        self._eyes = {s: kit.group(g) for s, g in EYE_GROUPS.items()}
        self._teeth = kit.group("helper-lower-teeth", "helper-upper-teeth")
        self._tongue = kit.group("helper-tongue")
        self._bite = np.unique(np.concatenate([self._teeth, self._tongue]))
        # no two of these groups share a vertex, so that normals of all are those of each
        self._normals = VertexNormals(np.concatenate([self._body, *self._eyes.values(), self._teeth, self._tongue]),
                                      len(self.rest))
        self._balls = {s: np.unique(t) for s, t in self._eyes.items()}
        self._no_uv = np.zeros((len(self.rest), 2), np.float32)
        self.scalp = Scalp(self.regions)
        self._grown = lru_cache(KEPT)(lambda style: grow(style, self.scalp))
        self._hairlines = lru_cache(KEPT)(self._hairline)
        self._brows = lru_cache(KEPT)(lambda brow: self._bound(self.regions.brow_ridge(brow)))
        ends = lash_ends(kit, self.rest)
        self._lashes = lru_cache(KEPT)(lambda length: self._bound(lash_prop(length, *ends)))

    def _hairline(self, receding: float) -> np.ndarray:
        return above_hairline(self.rest, receding)[:, None].astype(np.float32)

    def scene(self, person: Person, warp: dict[str, float] | None = None, camera: np.ndarray | None = None) -> Scene:
        """Person → Scene. The warp changes proportions before expression and pose are applied.

        camera: keep this one instead of framing the face anew (in a clip the head moves, the camera does not).
        """
        neutral, flesh = self._flesh(person, warp or {})
        turn = rotation(*person.pose)

        def pose(points: np.ndarray) -> np.ndarray:
            return turn_head(points, person.pose)

        posed = pose(flesh)
        scalp = self._hairlines(person.hair.receding) if person.hair else np.full((len(posed), 1), BALD, np.float32)
        skin = Part(posed.astype(np.float32), self._normals(posed), self.rest, self._no_uv, self._body, scalp)
        eyes = tuple(self._eye(s, flesh, skin, pose, turn, person) for s in "lr")
        if camera is None:
            camera = ffhq_camera(np.array([e.center for e in eyes]), posed[self.regions.mouth_corners], person.framing)
        brows, lashes = self._brows(person.brow), self._lashes(person.lash)
        hairs = pose(self.brow_hairs(person.brow, flesh))
        landmarks = posed[self.regions.landmarks]
        landmarks[17:27] = hairs[MARKS]
        hair = self._grown(person.hair) if person.hair else None
        return Scene(
            body=skin,
            eyes=eyes,
            teeth=replace(skin, triangles=self._teeth),
            tongue=replace(skin, triangles=self._tongue),
            brow=_prop(*brows, hairs),
            lashes=_prop(*lashes, pose(lashes[0].place(flesh))),
            hair=_strands(hair, hair.ribbons(pose(hair.place(neutral)), turn), turn) if hair else None,
            glasses=self._spectacles(person, flesh, pose) if person.glasses else None,
            camera=camera,
            landmarks=landmarks,
        )

    def brow_hairs(self, brow: Brow, flesh: np.ndarray) -> np.ndarray:
        """Vertices of the brows on vertices [6357,3] in the pose of rest; `brows.MARKS` of them are landmarks 17–26."""
        return self._brows(brow)[0].place(flesh) + OFF_SKIN

    def _flesh(self, person: Person, warp: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [6357,3] in the pose of rest: without expression, and with expression and cloth."""
        weights = dict(person.shape)
        for name, weight in warp.items():
            weights[name] = weights.get(name, 0.0) + weight
        neutral = self.kit.morph(weights)
        flesh = self._cloth(self.kit.morph(person.expression, neutral), person)
        moved = sum(abs(weight) for name, weight in warp.items() if name.startswith(("chin/", "head/")))
        if moved:  # a chin that a style made smaller would let teeth through: they draw together, and back
            teeth, tight = flesh[self._bite], min(1.0, moved / 3)
            middle = teeth.mean(0)
            inwards = 1 - tight * np.array([0.22, 0.12, 0])
            flesh[self._bite] = middle + (teeth - middle) * inwards - [0, 0, 0.07 * tight]
        return neutral, flesh

    def _bound(self, prop: Prop) -> tuple[Prop, np.ndarray, VertexNormals]:
        """A prop, where it is at rest, and its normals."""
        placed = prop.place(self.rest)
        return prop, placed.astype(np.float32), VertexNormals(prop.mesh.triangles, len(placed))

    def _cloth(self, vertices: np.ndarray, person: Person) -> np.ndarray:
        """Cloth stands off the skin: move shoulder vertices outwards."""
        thickness = 0.09 if person.clothes["jacket"] else 0.05
        amount = np.clip((person.clothes["neckline"] + 0.12 - self.rest[:, 1]) / 0.35, 0, 1) * thickness
        return vertices + amount[:, None] * self.regions.rest_normals

    def _eye(self, side: str, flesh: np.ndarray, skin: Part, pose: Posing, turn: np.ndarray, person: Person) -> Eye:
        ball = flesh[self._balls[side]]
        low, high = ball.min(0), ball.max(0)
        radius = float((high - low)[:2].mean() / 2)
        center = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[2] - radius])
        yaw, pitch = person.gaze
        ahead = turn @ rotation(yaw, pitch, 0) @ [0, 0, 1.0]
        return Eye(replace(skin, triangles=self._eyes[side]), pose(center[None])[0], ahead, turn @ [0, 1.0, 0])

    def _spectacles(self, person: Person, flesh: np.ndarray, pose: Posing) -> Part:
        points, triangles = tubes(person.glasses, flesh, self._eyes, self.regions)
        posed, uv = pose(points).astype(np.float32), np.zeros((len(points), 2), np.float32)
        return Part(posed, VertexNormals(triangles, len(posed))(posed), points.astype(np.float32), uv, triangles)


def _prop(prop: Prop, rest: np.ndarray, normals: VertexNormals, placed: np.ndarray) -> Part:
    own = np.tile(np.float32([0, 0, 0, 1]), (len(placed), 1))
    return Part(placed.astype(np.float32), normals(placed), rest, prop.mesh.uv, prop.mesh.triangles, own)


def _strands(hair: Hair, placed: np.ndarray, turn: np.ndarray) -> Part:
    along, normals = tangents(placed, hair.rows)
    out = hair.out @ turn.T  # light falls on the whole of the hair, and on each ribbon
    normals = (out + OWN_NORMAL * np.sign((normals * out).sum(1, keepdims=True)) * normals).astype(np.float32)
    mesh = hair.prop.mesh
    own = np.concatenate([along, hair.tone[:, None]], 1)
    return Part(placed.astype(np.float32), normals, hair.rest, mesh.uv, mesh.triangles, own)
