"""Initial weights of a training: those of a bundle of the same kind and size, or grown from a smaller one."""

from __future__ import annotations

from dataclasses import replace

from ..config import VToonifyConfig, VToonifyError
from ..weights.bundle import Bundle
from .exemplars import dual_task
from .growth import grown_task
from .vtoonify import DualVToonifyTask, VToonifyTask, encoder_size


def task_from_bundle(bundle: Bundle) -> VToonifyTask:
    """A task with the weights of a bundle's VToonify and style encoder, of either kind.

    Weights that inference does not use, and a bundle may lack, keep their initial values.
    """
    style, kind = bundle.network("style_encoder"), DualVToonifyTask if is_dual(bundle.config) else VToonifyTask
    task = kind(bundle.config, **encoder_size(style))
    task.vtoonify.load_state_dict({**task.vtoonify.state_dict(), **bundle.network("vtoonify").state_dict()})
    task.style.load_state_dict(style.state_dict())
    return task


def initial_task(bundle: Bundle, config: VToonifyConfig | None = None) -> VToonifyTask:
    """A task of `config` (None: VToonify-D of the bundle's size) that starts from the bundle's weights.

    VToonify-D starts from a VToonify-T, a large network from a small one (`growth`). VToonifyError where that is
    impossible.
    """
    config, task = config or replace(bundle.config, backbone="dualstylegan"), task_from_bundle(bundle)
    if _same_network(task.vtoonify.config, config):
        return task
    if is_dual(bundle.config):
        raise VToonifyError(f"{bundle.name} is a VToonify-D for {bundle.config.in_size} → {bundle.config.out_size} px; "
                            "one of another kind or size has to start from a bundle with a VToonify-T")
    simple = replace(config, backbone="toonify")
    if not _same_network(bundle.config, simple):
        task = grown_task(task, simple)
    return dual_task(task, config) if is_dual(config) else task


def _same_network(one: VToonifyConfig, other: VToonifyConfig) -> bool:
    """Whether both have the same weights, however they are used."""
    return replace(one, face_size=other.face_size, sharpen=other.sharpen) == other


def is_dual(config: VToonifyConfig) -> bool:
    """Whether it is a VToonify-D."""
    return config.backbone == "dualstylegan"
