"""A GPU for machines without one: tensors that say they are on cuda:0, while their numbers stay on the CPU.

Operations on them run on the CPU and give such tensors again; one that mixes them with tensors of the CPU fails, as it
would on a GPU. Only inference: autograd wants a real device. As a script it draws with a bundle on this device and on
the CPU and compares: `python tests/second_device.py BUNDLE FOLDER`. A process of its own, for where torch cannot be
deceived it ends the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FRAMES = 5  # of the clip: more than are drawn at a time
CARD = torch.device("cuda", 0)
aten = torch.ops.aten
CROSSING = (aten._to_copy.default, aten.copy_.default)
BY_INDEX = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)  # indices may lie on the CPU


def _batch_norm(*args: object, **kwargs: object) -> tuple[torch.Tensor, ...]:
    return (*aten.native_batch_norm.default(*args, **kwargs), torch.zeros(0))


ON_CPU = {aten.cudnn_batch_norm.default: _batch_norm}  # what a torch that was built for GPUs asks cuDNN for


class OnCard(torch.Tensor):
    """A tensor of the card; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnCard:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CARD)

    def __init__(self, held: torch.Tensor):
        self.held = held

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Some functions of tensors ask for the driver before they can be intercepted."""
        if func is torch.Tensor.__getitem__:
            return OnCard(args[0].held[tree_map(_held, args[1])])
        if func is torch.Tensor.__setitem__:
            args[0].held[tree_map(_held, args[1])] = _held(args[2])
            return None
        if func in (torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__bool__):
            return func(args[0].held)
        if func is torch.Tensor.copy_:
            args[0].held.copy_(_held(args[1]))
            return args[0]
        if func is torch.Tensor.contiguous:
            return OnCard(args[0].held.contiguous(*args[1:], **(kwargs or {})))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Card(TorchDispatchMode):
    """Where tensors may be made on, and moved to, the card.

    most: pictures that it can convolve at a time; refused: how often it was asked for more
    """

    most, refused = 10**9, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Making(TorchFunctionMode):
    """torch.tensor and torch.as_tensor make numbers behind the back of a TorchDispatchMode."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **{k: v for k, v in kwargs.items() if k != "device"}).to(kwargs["device"])
        return func(*args, **kwargs)


def _held(t: object) -> object:
    return t.held if isinstance(t, OnCard) else t


def _run(func: Callable, args: tuple, kwargs: dict) -> object:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    cards = [t for t in tensors if isinstance(t, OnCard)]
    if cards and func not in CROSSING and func not in BY_INDEX:
        if any(t.ndim and not isinstance(t, OnCard) for t in tensors):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")
        if "conv" in str(func) and len(args[0]) > Card.most:
            Card.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory (as far as this test goes)")
    where = kwargs.get("device")
    kind = None if where is None else torch.device(where).type
    kwargs = {**kwargs, **({"device": torch.device("cpu")} if kind else {})}
    if kwargs.get("pin_memory"):
        raise RuntimeError("memory cannot be pinned here")
    out = ON_CPU.get(func, func)(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func is aten.copy_.default:
        return args[0]
    if kind == "cpu" or not (cards or kind == "cuda"):
        return out
    known = {id(t.held): t for t in cards}  # what works in place gives back what it was given
    return tree_map(lambda t: known[id(t)] if id(t) in known else OnCard(t) if isinstance(t, torch.Tensor) else t,
                    out)


@contextmanager
def card(free: int = 10**10, frame: int = 10**8):
    """The card in place: torch believes in it. free, frame: bytes that it has, and that drawing a frame takes."""
    torch.cuda._lazy_init = lambda: None
    told = {"is_available": True, "reset_peak_memory_stats": None, "memory_allocated": 0, "max_memory_allocated": frame,
            "mem_get_info": (free, free)}
    for name, value in told.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    torch.accelerator.synchronize = lambda *_: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with torch.no_grad(), Card(), Making():
        yield


# -- as a script ------------------------------------------------------------------------------------------------------
def refuses_mixtures() -> None:
    conv, x = torch.nn.Conv2d(3, 4, 3).to(CARD), torch.ones(1, 3, 8, 8)
    assert conv(x.to(CARD)).device == CARD and torch.equal(conv(x.to(CARD)).cpu(), conv.cpu()(x))
    for mixed in (lambda: conv.to(CARD)(x), lambda: x + torch.ones(8, device=CARD)):
        try:
            mixed()
        except RuntimeError as error:
            assert "same device" in str(error)
        else:
            raise AssertionError("a mixture was computed")


def benches(name: str) -> None:
    """`vtoonify bench`, but for its clip and the processes in which it measures memory."""
    from vtoonify_lib.apps.bench import report

    report.peak_memory, report.split, report.MATRIX, report.COPIED = lambda *_: 1.0, lambda _: {}, 64, 1024
    report.variants = lambda *_: {kind: (kind, torch.float32) for kind in ("textbook", "plain", "folded")}
    torch.cuda.get_device_name = lambda *_: "a card"
    torch.inference_mode = torch.no_grad  # tensors of that mode cannot be deceived about their views
    told = report.run(name, 64, 1, "cuda:0")
    assert max(max(form["error"], form["parsing_error"]) for form in told["forms"].values()) < 1e-5
    assert "cuda:0 (a card)" in report.as_text(told)


def main(name: str, folder: Path) -> None:
    from vtoonify_lib.evaluation import quality_card
    from vtoonify_lib.inference import networks
    from vtoonify_lib.inference.preview import Preview
    from vtoonify_lib.inference.toonifier import SAMPLE, Toonifier
    from vtoonify_lib.media.video import VideoWriter, read_frames
    from vtoonify_lib.models import devices
    from vtoonify_lib.styles.request import Keyframes, Look
    from vtoonify_lib.weights.bundle import load_bundle

    quality_card.LOOKED_AT = 1  # picture: faces are found on the CPU anyway
    networks.pick_dtype = lambda device: torch.float32  # half precision is slow here, and would hide small mistakes
    tasks: dict[str, Callable[[Toonifier], list[np.ndarray]]] = {
        "picture": lambda t: [t.image(SAMPLE.with_name("portrait_1.jpg"), frame="full")]}
    still, short = SAMPLE.with_name("portrait_2.jpg"), folder / "short.mp4"
    with VideoWriter(short) as writer:
        for frame, _ in zip(read_frames(SAMPLE), range(FRAMES), strict=False):
            writer.write(frame.rgb, frame.pts)

    def clip(t: Toonifier, **how: object) -> list[np.ndarray]:
        out = folder / "out.mp4"
        t.video(short, out, padding=24, progress=False, **how)
        frames = [frame.rgb for frame in read_frames(out)]
        out.unlink()
        return frames

    if load_bundle(name).config.backbone == "dualstylegan":
        looks = (Look("comic"), Look("clay-03:0.5, storybook:0.5", structure=0.3, color=0.6), Look("new", seed=3),
                 Look(str(still)))
        tasks["looks"] = lambda t: [Preview(t, still).draw(look) for look in looks]
        moving = Look("comic", structure=Keyframes.parse("0:0, 0.2:1"))  # frame by frame
        tasks["clip"] = lambda t: clip(t, look=moving)
    else:
        moving = None
        tasks["clip"] = lambda t: clip(t, frame="full", faces="all", card=folder / "card.png")
    drawn = {}
    for device in ("cpu", "cuda:0"):
        def work(device: str = device) -> None:
            toonifier = Toonifier.load(name, device=device)
            assert str(toonifier.networks.device) == device
            drawn[device] = {task: do(toonifier) for task, do in tasks.items()}

        if device == "cpu":
            work()
        else:
            with card(free=8 * 10**8):
                refuses_mixtures()
                assert devices.pick_device().type == "cuda" and devices.frames_that_fit(CARD, lambda: None) == 4
                Card.most = 2  # fewer than it said: groups are halved
                work()
                assert Card.refused or moving, "it was never asked for too much"
                Card.most = 10**9
                benches(name)
    for task, pictures in drawn["cpu"].items():
        for one, other in zip(pictures, drawn["cuda:0"][task], strict=True):
            apart = np.abs(one.astype(int) - other).mean()
            assert apart < 0.5, f"{task}: {apart} grey levels apart"
        print(task, len(pictures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
