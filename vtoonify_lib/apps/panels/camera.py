"""A few seconds from the webcam: ipywebrtc in Jupyter, a snippet of JavaScript on Colab.

Nothing is recorded before the button is pressed, and nothing leaves the machine that the notebook runs on.
"""

from __future__ import annotations

import tempfile
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from ...config import VToonifyError
from .parts import Status

SIZE = (640, 480)

COLAB_SNIPPET = """
(async () => {
  const video = document.createElement('video');
  const button = document.createElement('button');
  const stream = await navigator.mediaDevices.getUserMedia({video: {width: %d, height: %d}, audio: true});
  video.srcObject = stream; video.muted = true; button.textContent = 'Record %g seconds';
  document.body.append(video, button);
  await video.play();
  google.colab.output.setIframeHeight(document.documentElement.scrollHeight, true);
  await new Promise(resolve => button.onclick = resolve);
  const recorder = new MediaRecorder(stream), parts = [];
  recorder.ondataavailable = event => parts.push(event.data);
  const ended = new Promise(resolve => recorder.onstop = resolve);
  recorder.start();
  await new Promise(resolve => setTimeout(resolve, %d));
  recorder.stop();
  await ended;
  const reader = new FileReader();
  const read = new Promise(resolve => reader.onload = resolve);
  reader.readAsDataURL(new Blob(parts, {type: recorder.mimeType}));
  await read;
  stream.getTracks().forEach(track => track.stop());
  video.remove(); button.remove();
  return reader.result;
})()
"""


class Camera:
    """The webcam in Jupyter: `camera = Camera(); camera.view` shows it; then `.clip()` is a file.

    on_clip: called with the path of each recording, a .webm file.
    VToonifyError when ipywebrtc is not installed, and from `clip` before anything was recorded.
    """

    def __init__(self, on_clip: Callable[[Path], None] | None = None, folder: str | Path | None = None) -> None:
        try:
            from ipywebrtc import CameraStream, VideoRecorder
        except ImportError as error:
            raise VToonifyError("the webcam needs ipywebrtc, which is not installed: pip install ipywebrtc; or pick a "
                                "file") from error
        self.on_clip, self.path = on_clip, Path(folder or tempfile.mkdtemp(prefix="vtoonify-")) / "recording.webm"
        self.status = Status()
        self.stream = CameraStream(constraints={"video": {"width": SIZE[0], "height": SIZE[1]}, "audio": True})
        self.moving = VideoRecorder(stream=self.stream, format="webm", filename=str(self.path))
        self.moving.video.observe(lambda _: self._tell(), "value")
        self.view = widgets.VBox([self.stream, self.moving, self.status])

    def clip(self) -> Path:
        """The recording that was made last, a .webm file."""
        if not self.moving.video.value:
            raise VToonifyError("nothing was recorded yet; press the record button, speak, and press it again")
        self.path.write_bytes(bytes(self.moving.video.value))
        return self.path

    def _tell(self) -> None:
        if self.on_clip:
            with self.status.guard("reading what the camera saw"):
                self.on_clip(self.clip())


def colab_snapshot(folder: str | Path = "out", seconds: float = 5) -> Path:
    """On Colab: show the camera and a button, and wait for it → a clip of `seconds`, as a file.

    VToonifyError outside of Colab, when the browser gives no camera, or sends no recording.
    """
    try:
        from google.colab.output import eval_js
    except ImportError as error:
        raise VToonifyError("this works on Colab only; elsewhere use panels.Camera, or pick a file") from error
    try:
        answer = str(eval_js(COLAB_SNIPPET % (*SIZE, seconds, round(1000 * seconds))))
    except Exception as error:  # whatever the browser answered: no permission, no camera, no frame
        raise VToonifyError(f"the browser gave no camera ({error}); allow it in the address bar, or pick a file"
                            ) from error
    kind, comma, content = answer.partition(",")
    if not kind.startswith("data:") or not comma or not content:
        raise VToonifyError("the browser sent no recording; try again, or pick a file")
    path = Path(folder) / "recording.webm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b64decode(content))
    return path
