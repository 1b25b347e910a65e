"""What a training begins with: the students of a bundle, of the same kind and size, or made of smaller ones."""

from __future__ import annotations

from dataclasses import replace

from ..config import VToonifyConfig, VToonifyError
from ..weights.bundle import Bundle
from .exemplars import dual_students
from .growth import grown_students
from .vtoonify import DualStudents, Students


def students_of(bundle: Bundle) -> Students:
    """Students that go on from a bundle's VToonify and style encoder, whichever kind they are.

    A bundle may lack what frames never read; that may begin anywhere.
    """
    style, kind = bundle.network("style_encoder"), DualStudents if is_dual(bundle.config) else Students
    students = kind(bundle.config, style.image_size, style.body[0].out_channels)
    students.vtoonify.load_state_dict({**students.vtoonify.state_dict(), **bundle.network("vtoonify").state_dict()})
    students.style.load_state_dict(style.state_dict())
    return students


def first_students(bundle: Bundle, config: VToonifyConfig | None = None) -> Students:
    """Students of `config` (None: VToonify-D of the bundle's size): those of the bundle, or made of them.

    VToonify-D begins as a VToonify-T, a large network as a small one (`growth`). VToonifyError where that cannot be.
    """
    config, students = config or replace(bundle.config, backbone="dualstylegan"), students_of(bundle)
    if replace(students.vtoonify.config, face_size=config.face_size) == config:
        return students
    if is_dual(bundle.config):
        raise VToonifyError(f"{bundle.name} is a VToonify-D for {bundle.config.in_size} → {bundle.config.out_size} px; "
                            "one of another kind or size has to start from a bundle with a VToonify-T")
    simple = replace(config, backbone="toonify")
    if replace(bundle.config, face_size=simple.face_size) != simple:
        students = grown_students(students, simple)
    return dual_students(students, config) if is_dual(config) else students


def is_dual(config: VToonifyConfig) -> bool:
    """Whether it is a VToonify-D."""
    return config.backbone == "dualstylegan"
