"""Import of PyAV, which the extra ``[video]`` installs."""

from __future__ import annotations

from typing import Any


def pyav() -> Any:
    try:
        import av
        import av.stream
    except ImportError as error:
        raise ImportError("video needs PyAV: pip install 'hih-align[video]'") from error
    return av
