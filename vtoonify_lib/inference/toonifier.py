"""Toonifier: a picture or a clip in, its cartoon out. A frame's way: faces → crop → parsing → network.

Bundles of ours and published ones are handled alike. Drawing a face is in `stylizer`, tracking, drawing and writing a
clip in `video`; see `weights`, `faces` and `media` for weights, detection and codecs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..config import DATA, VToonifyError
from ..faces.crop import CropPlan, align_face, face_position, paste_all, resolve_padding
from ..faces.detector import FACE_NEEDS, Face
from ..media.images import read_image
from ..models.devices import pick_device
from ..styles.request import ALL, AS_TRAINED, LARGEST, Look, ResolvedLook, check_faces
from ..weights.bundle import DEFAULT_BUNDLE
from ..weights.published import open_bundle
from .frame_renderer import VideoOptions
from .networks import Engine, TorchEngine
from .occlusion import ownership_mask
from .stylizer import Stylizer
from .video import VideoResult, animate, several_faces_note

SAMPLE = DATA / "samples" / "portrait.mp4"  # a clip of ours
Looks = Look | ResolvedLook | Sequence[Look | ResolvedLook]


class FaceCrop(NamedTuple):
    """A face in a picture: the picture and the region to toonify, that region as the networks see it, the face aligned.

    picture, crop, aligned: uint8 RGB [H,W,3]; ownership_mask: this face's share of each pixel of the crop, float32
    [h,w] in [0,1], 1 where there are no other faces
    """

    picture: np.ndarray
    plan: CropPlan
    crop: np.ndarray
    aligned: np.ndarray
    ownership_mask: np.ndarray


class Toonifier(Stylizer):
    """A `Stylizer` that reads and writes files. `Toonifier.load("studio-t").video("in.mp4", "out.mp4")`."""

    @classmethod
    def load(cls, bundle: str | Path = DEFAULT_BUNDLE, device: str = "auto", engine: type[Engine] = TorchEngine,
             **how: Any) -> Toonifier:
        """The Toonifier of a bundle, by name or path.

        A published preset ("pixar-d") that is not on this machine is fetched and converted first. how: source,
        accept_licence, ask, … as `published.open_bundle` takes them; by default the user is asked about the licence.
        VToonifyError for an unknown or damaged bundle or device, and for a preset that cannot be had.
        """
        pick_device(device)  # before anything is fetched
        return cls(open_bundle(bundle, **how), device, engine)

    # ------------------------------------------------------------------ pictures
    def image(self, source: str | Path | np.ndarray | Image.Image, frame: str = "crop",
              padding: float | None = None, look: Looks = AS_TRAINED, faces: str | int = LARGEST
              ) -> np.ndarray:
        """Toonify the largest face of a picture, or several → uint8 RGB [H',W',3].

        source: path, array or Pillow picture (see `images.read_image`). frame: "crop" gives the region around the face
        at config.scale times the working size, "full" the whole picture with the person blended in. padding: pixels
        around the eye centre at working size, default 200/256 of in_size. look: exemplar and degrees; several: of the
        people from left to right, the last one of all who follow. faces: "largest", "all", or how many, largest first;
        more than one want frame="full".
        Warns when there are several faces and one is drawn. Raises VToonifyError when there is none, and for a look the
        bundle has not.
        """
        check_faces(faces, frame)
        looks = [one.require_static() for one in self._looks(look)]
        found = [self.face_in(source, padding)] if faces == LARGEST else self.faces_in(source, padding, faces)
        drawn = []
        for number, face in enumerate(found):
            look = looks[min(number, len(looks) - 1)]
            drawn.append(self.painter(self.style_code(face.aligned, look), look)(face.crop[None])[0])
        if frame == "crop":
            return drawn[0]
        masks = (self.networks.person_mask(picture, self.networks.parse(face.crop[None])) * face.ownership_mask
                 for face, picture in zip(found, drawn, strict=True))
        return paste_all(found[0].picture, [(picture, face.plan, mask) for face, picture, mask
                                            in zip(found, drawn, masks, strict=True)])

    def face_in(self, source: str | Path | np.ndarray | Image.Image, padding: float | None = None) -> FaceCrop:
        """The largest face of a picture, cut out as the networks want it. Warnings and errors as `image`."""
        rgb = read_image(source)
        faces = self._detect(rgb, source)
        if len(faces) > 1:
            warnings.warn(several_faces_note(len(faces)), stacklevel=3)
        return self._face(rgb, faces, 0, padding)

    def faces_in(self, source: str | Path | np.ndarray | Image.Image, padding: float | None = None,
                 faces: str | int = ALL) -> list[FaceCrop]:
        """`face_in` for all faces, or the `faces` largest, from left to right, without those too small to be drawn."""
        rgb, found, refused = read_image(source), [], None
        everybody = self._detect(rgb, source)
        for number, face in enumerate(everybody):
            try:
                found.append((face.centre[0], self._face(rgb, everybody, number, padding)))
            except VToonifyError as error:
                refused = error
        if not found:
            raise refused
        return [face for _, face in sorted(found[: None if faces == ALL else faces], key=lambda pair: pair[0])]

    def _detect(self, rgb: np.ndarray, source: Any) -> list[Face]:
        """The detector's faces, largest first; `source` is for the message when there is none."""
        found = self.finder.faces(rgb)
        if not found:
            what = source if isinstance(source, str | Path) else "the picture"
            raise VToonifyError(f"no face was found in {what} ({rgb.shape[1]}×{rgb.shape[0]} px); {FACE_NEEDS}",
                                code="no-face")
        return found

    def _face(self, rgb: np.ndarray, faces: list[Face], who: int, padding: float | None) -> FaceCrop:
        landmarks = faces[who].landmarks
        plan = self.preprocessing.plan(rgb.shape, landmarks, self.config.framing_size, padding)
        ownership = ownership_mask(np.array([face_position(face.landmarks) for face in faces]), who, plan)
        aligned = align_face(rgb, landmarks, self.networks.face_size)
        return FaceCrop(rgb, plan, self.cut(rgb, plan), aligned, ownership)

    # ------------------------------------------------------------------ clips
    def video(self, src: str | Path, dst: str | Path, frame: str = "crop", padding: float | None = None,
              look: Looks = AS_TRAINED, faces: str | int = LARGEST, smooth: bool = True,
              card: str | Path | None = None, progress: bool = True) -> VideoResult:
        """Toonify a clip with its sound; every frame is kept, at its time. Arguments as `image`.

        smooth: parsing maps flow along with the picture (`parsing_maps.SteadyParsing`); else each frame is for itself.
        card: a picture file for the quality card (`quality_card`), with its numbers in a .json beside it.
        Where the face is not there, the cartoon fades into the original. Raises VToonifyError for a clip without a face
        and for unusable input or output; nothing is left under the output's name then.
        """
        check_faces(faces, frame)
        padding, card = resolve_padding(self.config.framing_size, padding), None if card is None else Path(card)
        options = VideoOptions(frame, padding, self._looks(look), faces, smooth, card, progress)
        return animate(self, Path(src), Path(dst), options)

    def _looks(self, look: Looks) -> tuple[ResolvedLook, ...]:
        """One look or several, resolved."""
        return tuple(self.resolve(one) for one in ((look,) if isinstance(look, Look | ResolvedLook) else look))
