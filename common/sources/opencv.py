"""OpenCV, told to keep quiet: what goes wrong is said once, by the source, and without the secrets of a URL."""

from __future__ import annotations

import os

# FFmpeg's own messages name whole URLs. OpenCV reads this once, at its first capture.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["cv2"]
