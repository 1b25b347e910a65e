"""Person + style → posed vertices, camera and landmarks. Pure numpy; knows nothing about pixels or OpenGL.

The face is framed as FFHQ frames it (Karras et al. 2019, appendix C): a square whose side is the larger of four eye
distances and 3.6 eye-to-mouth distances, centred a tenth of the eye-to-mouth distance below the eyes.
"""
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .kit import Kit, vertex_normals
from .people import Person
from .regions import Regions

NECK_PIVOT = np.array([0.0, 6.1, 0.15])
CAMERA_DISTANCE = 11.0  # decimetres from the neck: the perspective of a portrait lens
EYE_GROUPS = {"l": "helper-l-eye", "r": "helper-r-eye"}


@dataclass(frozen=True)
class Part:
    """One drawable: positions, normals, rest positions [n,3], uv [n,2], triangles [t,3]; source [n] into the base mesh or None."""

    positions: np.ndarray
    normals: np.ndarray
    rest: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True)
class Eye:
    """An eyeball: mesh, centre, radius and unit gaze and up vectors, all posed."""

    part: Part
    center: np.ndarray
    radius: float
    gaze: np.ndarray
    up: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Everything geometric that a render needs. camera: 4x4 world → clip, with picture rows running downwards."""

    body: Part
    eyes: tuple[Eye, Eye]  # the subject's left, right
    teeth: Part
    tongue: Part
    brow: Part
    lashes: Part
    hair: Part | None
    glasses: Part | None
    camera: np.ndarray
    viewpoint: np.ndarray
    landmarks: np.ndarray  # [68,2] in picture widths, origin top left


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Yaw about y (+ turns the face to +x), then pitch about x (+ = down), then roll about z."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    return (np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]))


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

    @cached_property
    def _prop_rest(self) -> dict[str, np.ndarray]:
        return {name: prop.place(self.rest) for name, prop in self.kit.props.items()}

    def scene(self, person: Person, warp: dict[str, float] | None = None) -> Scene:
        """Person → Scene. The warp changes proportions before expression and pose are applied."""
        weights = dict(person.shape)
        for name, weight in (warp or {}).items():
            weights[name] = weights.get(name, 0.0) + weight
        neutral = self.kit.morph(weights)
        flesh = neutral.copy()
        for name, weight in person.expression.items():
            index, delta = self.kit.target(name)
            flesh[index] += weight * delta
        flesh = self._cloth(flesh, person)
        turn = rotation(*person.pose)

        def pose(points: np.ndarray) -> np.ndarray:
            w = np.clip((points[:, 1:2] - 4.7) / 1.5, 0, 1)
            w = w * w * (3 - 2 * w)
            return points + (0.12 + 0.88 * w) * ((points - NECK_PIVOT) @ turn.T + NECK_PIVOT - points)

        posed = pose(flesh)
        hair = self.kit.props.get(person.hair)
        eyes = tuple(self._eye(s, flesh, pose, turn, person) for s in "lr")
        camera, viewpoint = self._camera(posed, eyes, person)
        placed = {name: self.kit.props[name].place(flesh) for name in (person.brow, f"eyelashes/{person.lash}")}
        placed[person.brow] = self._on_brow(placed[person.brow], flesh)
        return Scene(
            body=self._part(posed, self._body, self.rest), eyes=eyes, teeth=self._part(posed, self._teeth, self.rest),
            tongue=self._part(posed, self._tongue, self.rest),
            brow=self._prop(person.brow, pose(placed[person.brow])), lashes=self._prop(f"eyelashes/{person.lash}", pose(placed[f"eyelashes/{person.lash}"])),
            hair=self._prop(person.hair, pose(self._off_eyes(hair.place(neutral), neutral))) if hair else None,
            glasses=self._spectacles(person, flesh, pose) if person.glasses else None,
            camera=camera, viewpoint=viewpoint, landmarks=self._project(posed[self.regions.landmarks], camera),
        )

    def _part(self, vertices: np.ndarray, triangles: np.ndarray, rest: np.ndarray) -> Part:
        return Part(vertices.astype(np.float32), vertex_normals(vertices, triangles), rest, np.zeros((len(vertices), 2), np.float32), triangles)

    def _prop(self, name: str, placed: np.ndarray) -> Part:
        mesh = self.kit.props[name].mesh
        positions = placed[mesh.source].astype(np.float32)
        normals = vertex_normals(placed, mesh.source[mesh.triangles])[mesh.source]
        return Part(positions, normals, self._prop_rest[name][mesh.source].astype(np.float32), mesh.uv, mesh.triangles)

    def _off_eyes(self, hair: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        """Fringes end at the brows: strands in front of the eyes are drawn up and aside."""
        brow = neutral[self.regions.landmarks[[19, 24]]].mean(0)
        x, y, z = hair.T
        near = np.clip((z - 0.75) / 0.35, 0, 1) * np.clip((1.0 - np.abs(x)) / 0.4, 0, 1)
        drop = np.maximum(brow[1] + 0.12 - y, 0)
        out = hair.copy()
        out[:, 1] += near * 0.9 * drop
        out[:, 0] += near * 0.25 * drop * np.sign(x)
        return out

    def _on_brow(self, brow: np.ndarray, flesh: np.ndarray) -> np.ndarray:
        """Brow hairs lie on the skin: push each point just in front of the body vertex it is bound to."""
        return brow + [0, 0, 0.012]

    def _cloth(self, vertices: np.ndarray, person: Person) -> np.ndarray:
        """Cloth stands off the skin: move shoulder vertices outwards."""
        amount = np.clip((person.clothes["neckline"] + 0.12 - self.rest[:, 1]) / 0.35, 0, 1) * (0.09 if person.clothes["jacket"] else 0.05)
        return vertices + amount[:, None] * self.regions.rest_normals

    def _eye(self, side: str, flesh: np.ndarray, pose, turn: np.ndarray, person: Person) -> Eye:
        triangles = self._eyes[side]
        index = np.unique(triangles)
        low, high = flesh[index].min(0), flesh[index].max(0)
        radius = float((high - low)[:2].mean() / 2)
        center = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[2] - radius])
        yaw, pitch = person.gaze
        posed = self._part(pose(flesh), triangles, self.rest)
        return Eye(posed, pose(center[None])[0], radius, turn @ rotation(yaw, pitch, 0) @ [0, 0, 1.0], turn @ [0, 1.0, 0])

    def _spectacles(self, person: Person, flesh: np.ndarray, pose) -> Part:
        """Two rims, a bridge and two temples as thin tubes in front of the eyes."""
        from .spectacles import tubes

        points, triangles = tubes(person.glasses, flesh, self._eyes, self.regions)
        return self._part(pose(points), triangles, points.astype(np.float32))

    def _camera(self, posed: np.ndarray, eyes: tuple[Eye, Eye], person: Person) -> tuple[np.ndarray, np.ndarray]:
        """Perspective camera whose picture is the FFHQ square of this face, then zoom, shift and roll."""
        viewpoint = np.array([0.0, 7.1, CAMERA_DISTANCE])
        view = np.eye(4)
        view[:3, 3] = -viewpoint
        near, far = CAMERA_DISTANCE - 4.0, CAMERA_DISTANCE + 5.0
        lens = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)], [0, 0, -1, 0]])
        plain = lens @ view
        eye = np.array([self._clip(e.center[None], plain)[0] for e in eyes])  # left eye of the subject is on the image right
        mouth = self._clip(posed[self.regions.mouth_corners], plain)
        across, down = eye[0] - eye[1], mouth.mean(0) - eye.mean(0)
        axis = across - np.array([-down[1], down[0]])
        axis = axis / np.hypot(*axis)
        side = max(np.hypot(*across) * 4.0, np.hypot(*down) * 3.6)
        center = eye.mean(0) + 0.1 * down
        zoom, dx, dy, roll = person.framing
        spin = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        linear = zoom * 2 / side * spin @ np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])
        offset = -linear @ center + 2 * np.array([dx, dy])
        frame = np.eye(4)
        frame[:2, :2], frame[:2, 3] = linear, offset
        return frame @ plain, viewpoint

    @staticmethod
    def _clip(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
        h = np.c_[points, np.ones(len(points))] @ camera.T
        return h[:, :2] / h[:, 3:4]

    @classmethod
    def _project(cls, points: np.ndarray, camera: np.ndarray) -> np.ndarray:
        return (cls._clip(points, camera) + 1) / 2
