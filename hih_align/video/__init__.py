"""Videos: frames from a file or a camera, and frames into a file with the sound of another; needs ``[video]``.

`source` opens a file or camera, `writer` makes an H.264 file of frames and sound.
"""

from .source import Camera, Frame, VideoFile, open_video
from .writer import VideoWriter, check_writable, writing

__all__ = ["Camera", "Frame", "VideoFile", "VideoWriter", "check_writable", "open_video", "writing"]
