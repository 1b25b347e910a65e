"""Video files in and out, with sound, rotation and timing kept.

Frames are uint8 RGB [H,W,3], upright and with square pixels; times are exact fractions of seconds. The only part of the
library that knows PyAV.
"""

from vtoonify_lib.video.reading import Frame, VideoInfo, probe, read_frames, same_file
from vtoonify_lib.video.stages import pipelined
from vtoonify_lib.video.writing import FORMATS, VideoWriter, side_by_side

__all__ = [
    "FORMATS",
    "Frame",
    "VideoInfo",
    "VideoWriter",
    "pipelined",
    "probe",
    "read_frames",
    "same_file",
    "side_by_side",
]
