"""Landmarks for photographs, by MediaPipe's face mesh: the file of labels that `training.landmarks --labels` reads.

    python data/pseudo_labels.py FOLDER … --renders runs/landmarks/renders --out labels.npz
    python data/pseudo_labels.py runs/labels --canvases

A tool for development that stands by itself, because the mesh's package (`mediapipe==0.10.21`, Apache-2.0, up to Python
3.12) wants other versions of ours: run it in an environment with that package alone. Eyes, irises, nose base and lips
are the mesh's own vertices. Jaw, brows and the bridge of the nose are marked elsewhere in our renders: how far from the
nearest vertex, in three dimensions, is measured on renders, in which the mesh and the truth are both known.

With --canvases, the mesh itself and MediaPipe's person mask are written beside each NAME_photo.png of a folder, as
NAME_teachers.npz: `training.photo_labels` makes parsing maps with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

SIDE = 512              # pictures are shown to the mesh in squares of this side
CALIBRATION = 800       # renders that the offsets are measured on
ROUNDS = 6              # of re-weighted least squares: the mesh misses some renders altogether
OWN = {**dict(zip(range(31, 36), (98, 97, 2, 326, 327), strict=True)),
       **dict(zip(range(36, 48), (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380), strict=True)),
       **dict(zip(range(48, 60), (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181), strict=True)),
       **dict(zip(range(60, 68), (78, 81, 13, 311, 308, 402, 14, 178), strict=True)), 68: 468, 69: 473}
"""Landmark → vertex of the mesh, where the two are the same; 68 and 69 are the irises, the subject's right first."""
OVAL = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356,
        227, 137, 177, 215, 138, 135, 169, 170, 140, 171, 175, 396, 369, 395, 394, 364, 367, 435, 401, 366, 447, 147,
        213, 192, 214, 210, 211, 32, 208, 199, 428, 262, 431, 430, 434, 416, 433, 376)
BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 336, 296, 334, 293, 300, 285, 295, 282, 283, 276)
BRIDGE = (168, 6, 197, 195, 5, 4, 1)
EYES = (slice(36, 42), slice(42, 48))


class FaceMesh:
    """`FaceMesh()(rgb)` → [478,3] in pixels of a uint8 RGB picture, the largest face; None where there is none."""

    def __init__(self) -> None:
        import mediapipe

        self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=True, refine_landmarks=True, max_num_faces=3, min_detection_confidence=0.3)

    def __call__(self, rgb: np.ndarray) -> np.ndarray | None:
        """A face that is too small for the whole picture is looked for in parts of it; then it is seen close."""
        height, width = rgb.shape[:2]
        for share in (1.0, 0.75, 0.55):
            side, steps = share * max(height, width), (0.5,) if share == 1 else (0, 0.5, 1)
            corners = [(x * (width - side), y * (height - side)) for x in steps for y in steps]
            found = [face for corner in corners for face in self._seen(rgb, *corner, side)]
            if found:
                face = max(found, key=lambda p: np.prod(np.ptp(p[:, :2], axis=0)))
                size = np.ptp(face[:, :2], axis=0).max()
                left, top = face[:, :2].min(0) / 2 + face[:, :2].max(0) / 2 - size
                close = [p for p in self._seen(rgb, left, top, 2 * size)
                         if np.linalg.norm((p - face)[:, :2].mean(0)) < 0.25 * size]
                return close[0] if close else face
        return None

    def _seen(self, rgb: np.ndarray, left: float, top: float, side: float) -> list[np.ndarray]:
        """All faces in a square of the picture, whose edge is repeated beyond it."""
        scale = SIDE / side
        smooth = cv2.GaussianBlur(rgb, (0, 0), 0.4 / scale) if scale < 0.7 else rgb
        square = cv2.warpAffine(smooth, np.array([[scale, 0, -left * scale], [0, scale, -top * scale]]), (SIDE, SIDE),
                                borderMode=cv2.BORDER_REPLICATE)
        faces = self._mesh.process(square).multi_face_landmarks or []
        return [np.array([(p.x, p.y, p.z) for p in face.landmark]) * side + [left, top, 0] for face in faces]


def frame(mesh: np.ndarray) -> np.ndarray:
    """Axes of a head as rows, [3,3], as long as the root mean square distance of the mesh [478,3] from its middle."""
    x, down = mesh[263] - mesh[33], mesh[152] - mesh[10]
    z = np.cross(x, down)
    y = np.cross(z, x)
    size = np.sqrt(((mesh - mesh.mean(0)) ** 2).sum(1).mean())
    return size * np.stack([axis / np.linalg.norm(axis) for axis in (x, y, z)])


def calibrate(meshes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertex [70] and offset [70,3] in `frame` of each landmark, from meshes [n,478,3] and true points [n,70,2]."""
    axes = np.stack([frame(mesh)[:, :2].T for mesh in meshes])  # [n,2,3]: from the frame to the picture
    size = np.linalg.norm(axes, axis=(1, 2))
    vertices, offsets = np.zeros(70, int), np.zeros((70, 3))
    for i in range(70):
        if i in OWN:
            vertices[i] = OWN[i]
            continue
        fits = [(vertex, *_offset(points[:, i] - meshes[:, vertex, :2], axes, size))
                for vertex in (OVAL if i < 17 else BROWS if i < 27 else BRIDGE)]
        vertices[i], offsets[i], _ = min(fits, key=lambda fit: np.linalg.norm(fit[1]) + 0.3 * fit[2])
    return vertices, offsets


def _offset(away: np.ndarray, axes: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, float]:
    """The offset [3] that explains how far points lie from a vertex, [n,2], and the median error that is left."""
    weight = np.ones(len(away))
    for _ in range(ROUNDS):
        x, y = axes * (weight / size)[:, None, None], away * (weight / size)[:, None]
        offset = np.linalg.lstsq(x.reshape(-1, 3), y.reshape(-1), rcond=None)[0]
        error = np.linalg.norm(away - axes @ offset, axis=1) / size
        weight = 1 / np.sqrt(np.maximum(error, 0.01))
    return offset, float(np.median(error))


def labels(mesh: np.ndarray, vertices: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [70,2] in pixels and openness [2] of the eyes, in three dimensions, of a mesh [478,3]."""
    marks, opened = mesh[vertices], []
    for eye in EYES:
        a, b, c, d, e, f = marks[eye]
        opened.append((np.linalg.norm(b - f) + np.linalg.norm(c - e)) / 2 / np.linalg.norm(a - d))
    return marks[:, :2] + offsets @ frame(mesh)[:, :2], np.array(opened)


def measure(mesh: FaceMesh, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """`calibrate` on renders of `training.landmark_data`."""
    meshes, truths = [], []
    for image, points in _renders(folder):
        found = mesh(image)
        size = np.ptp(points, axis=0).max()
        if found is not None and np.linalg.norm(found[:468, :2].mean(0) - points[:68].mean(0)) < 0.25 * size:
            meshes.append(found)
            truths.append(points)
    return calibrate(np.stack(meshes), np.stack(truths) + 0.5)


def _renders(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    count = 0
    for path in sorted(folder.glob("??????.npz")):
        with np.load(path) as data:
            yield from zip(data["image"], data["points"], strict=True)
            count += len(data["points"])
        if count >= CALIBRATION:
            return


def teach(folder: Path) -> None:
    """mesh [478,3] in pixels ([0,3] where there is no face) and person uint8 [H,W] of each canvas in a folder."""
    import mediapipe

    mesh = FaceMesh()
    selfie = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    for path in sorted(folder.glob("*_photo.png")):
        out = path.with_name(path.name.replace("_photo.png", "_teachers.npz"))
        if out.exists():
            continue
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        found, person = mesh(picture), selfie.process(picture).segmentation_mask
        np.savez(out, mesh=np.zeros((0, 3), np.float32) if found is None else found.astype(np.float32),
                 person=(255 * person).astype(np.uint8))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, help="pictures, or folders of them")
    parser.add_argument("--canvases", action="store_true", help="write mesh and person mask beside each NAME_photo.png")
    parser.add_argument("--renders", type=Path, help="folder of training.landmark_data.render")
    parser.add_argument("--out", type=Path, help="the .npz file to write")
    args = parser.parse_args(arguments)
    if args.canvases:
        for folder in args.photos:
            teach(folder)
        return
    if args.renders is None or args.out is None:
        parser.error("--renders and --out are needed, or --canvases")
    paths = [p for path in args.photos for p in (sorted(path.rglob("*")) if path.is_dir() else [path]) if p.is_file()]
    mesh = FaceMesh()
    vertices, offsets = measure(mesh, args.renders)
    rows = []
    for path in paths:
        picture = cv2.imread(str(path))
        found = None if picture is None else mesh(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        nothing = np.full((70, 2), np.nan), np.full(2, np.nan)
        rows.append((*(nothing if found is None else labels(found, vertices, offsets)), found is not None))
    points, opened, found = (np.array(column) for column in zip(*rows, strict=True))
    np.savez(args.out, path=np.array([str(path) for path in paths]), points=points[:, :68].astype(np.float32),
             irises=points[:, 68:].astype(np.float32), openness=opened.astype(np.float32), found=found)


if __name__ == "__main__":
    main()
