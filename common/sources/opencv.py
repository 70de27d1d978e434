"""OpenCV, told to keep quiet: what goes wrong is said once, by the source, and without the secrets of a URL."""

from __future__ import annotations

import os
from typing import Any

# FFmpeg's own messages name whole URLs. OpenCV reads this once, at its first capture.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2 as _cv2

cv2: Any = _cv2  # its stubs call every array one of any number type, which no typed array accepts

if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["cv2"]
