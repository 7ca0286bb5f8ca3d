"""Videos: read frames from a file or a camera, and write frames and sound to a file. Needs the extra ``[video]``.

`source` opens a file or a camera. `writer` writes an H.264 file.
"""

from .source import Camera, Frame, VideoFile, open_video
from .writer import VideoWriter, check_writable, writing

__all__ = ["Camera", "Frame", "VideoFile", "VideoWriter", "check_writable", "open_video", "writing"]
