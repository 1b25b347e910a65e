"""Video files in and out, with sound, rotation and timing kept.

Frames are uint8 RGB [H,W,3], upright and with square pixels; times are exact fractions of seconds. The only part of the
library that knows PyAV.
"""

from .reading import Frame, VideoInfo, left_out, probe, read_frames
from .segments import LENGTH as SEGMENT
from .segments import SegmentWriter
from .stages import pipelined
from .writing import FORMATS, VideoWriter, side_by_side

__all__ = ["FORMATS", "Frame", "SEGMENT", "SegmentWriter", "VideoInfo", "VideoWriter", "left_out", "pipelined",
           "probe", "read_frames", "side_by_side"]
