"""Who is in the crowd scene: people cut out of the sample media, with the face box that a detector gives each of them.

The boxes were measured once with the project's own face detector (CenterFace) and are constants here, so that the scene
and its truth do not depend on the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.media import sample
from common.sources.base import Pixels
from common.sources.folder import read_image
from common.sources.opencv import cv2
from common.sources.video import Video

Box = tuple[float, float, float, float]  # x, y, width, height, pixels

FACE_HEIGHT = 200.0  # of the people in a cutout, pixels: the largest that the scene shows


@dataclass(frozen=True, slots=True)
class Cutout:
    """A person without background.

    Attributes:
        pixels: (H, W, 4) uint8, BGR multiplied by alpha, then alpha.
        box: the face in it.
    """

    pixels: Pixels
    box: Box

    def scaled(self, factor: float) -> Cutout:
        """The same, smaller, with clean edges."""
        rows, columns = self.pixels.shape[:2]
        size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
        fx, fy = size[0] / columns, size[1] / rows
        x, y, width, height = self.box
        return Cutout(
            cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA), (x * fx, y * fy, width * fx, height * fy)
        )


def cut_out(picture: Pixels, alpha: Pixels, box: Box) -> Cutout:
    """Of a picture (H, W, 3), what ``alpha`` (H, W) keeps."""
    kept = cv2.multiply(picture, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)
    return Cutout(np.dstack([kept, alpha]), box)


@dataclass(frozen=True, slots=True)
class Photo:
    """One face in a photo, and how to cut its owner out.

    Attributes:
        hair: how far the head reaches to each side of the face's middle, in face widths.
        crown: how far it reaches up from the eyes, in face heights.
        shirt: BGR of a drawn shirt, for portraits that end at the neck.
    """

    sample: str
    box: Box
    hair: float = 0.72
    crown: float = 0.92
    shirt: tuple[int, int, int] | None = None


FIVE: tuple[Box, ...] = (
    (223, 66, 83, 106),
    (316, 237, 96, 122),
    (440, 211, 77, 98),
    (534, 303, 98, 133),
    (688, 291, 103, 130),
)
PHOTOS: dict[str, Photo] = {
    "sunglasses": Photo("five_people.jpg", FIVE[0], hair=0.8),
    "blonde": Photo("five_people.jpg", FIVE[1], hair=0.8),
    "obama": Photo("obama.jpg", (369, 85, 251, 348), hair=0.62),
    "biden": Photo("biden.jpg", (430, 161, 286, 409), hair=0.62),
    "hiker": Photo("single_face.jpg", (184, 136, 199, 270)),
    "surprised": Photo("portrait_surprised.jpg", (118, 101, 280, 362), hair=0.85, crown=0.55, shirt=(196, 190, 178)),
    "happy": Photo("portrait_happy.jpg", (121, 124, 258, 331), hair=1.0, shirt=(92, 88, 150)),
    "angry": Photo("portrait_angry.jpg", (108, 141, 268, 314), hair=1.0, shirt=(120, 110, 70)),
}

# Face boxes in the clip of the woman, every so many frames, straight lines between.
WOMAN_STEP = 15
# fmt: off
WOMAN: tuple[Box, ...] = (
    (323, 51, 223, 294), (330, 65, 217, 278), (362, 72, 211, 276), (347, 43, 216, 290),
    (326, 46, 216, 286), (310, 74, 216, 274), (336, 95, 212, 261), (329, 84, 210, 271),
    (344, 104, 197, 254), (351, 79, 206, 274), (324, 38, 224, 289), (318, 28, 223, 283),
    (325, 30, 219, 287), (330, 28, 217, 291), (330, 26, 215, 296), (338, 25, 213, 291),
    (336, 22, 225, 304), (335, 16, 229, 316), (331, 16, 220, 316), (335, 17, 219, 307),
    (332, 2, 227, 319), (339, 11, 228, 312), (334, 19, 233, 325), (352, 22, 220, 317),
    (365, 21, 216, 321), (367, 21, 214, 322),
)
# fmt: on
WOMAN_FRAMES = 375  # used from the beginning
CUT_SCALE = 0.4  # the cutting is done on a smaller picture


def boxes_between(keys: tuple[Box, ...], step: int, count: int) -> NDArray[np.float64]:
    """(count, 4) boxes of all frames from those of every ``step``-th."""
    at = np.minimum(np.arange(len(keys)) * step, count - 1)
    return np.stack([np.interp(np.arange(count), at, [key[i] for key in keys]) for i in range(4)], axis=1)


def photo_cutout(name: str) -> Cutout:
    """The person of this name in ``PHOTOS``."""
    photo = PHOTOS[name]
    picture = read_image(sample(photo.sample))
    x, y, width, height = photo.box
    middle = x + width / 2
    x0, x1 = int(max(0, middle - 2 * width)), int(min(picture.shape[1], middle + 2 * width))
    y0, y1 = int(max(0, y - 0.75 * height)), int(min(picture.shape[0], y + 1.95 * height))
    scale = FACE_HEIGHT / height
    part = cv2.resize(
        picture[y0:y1, x0:x1],
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
    )
    box = ((x - x0) * scale, (y - y0) * scale, width * scale, height * scale)
    others = [
        ((ox - x0) * scale, (oy - y0) * scale, ow * scale, oh * scale)
        for ox, oy, ow, oh in (FIVE if photo.box in FIVE else ())
        if (ox, oy, ow, oh) != photo.box
    ]
    backdrop = photo.shirt is not None  # these portraits stand before a blue wall
    alpha = _silhouette(part, box, (photo.hair, photo.crown), others, blue_backdrop=backdrop)
    if photo.shirt:
        part, alpha = _with_shirt(part, alpha, box, photo.shirt)
    return _cropped(cut_out(part, alpha, box))


class Clip:
    """The clip of the woman, shrunk so that its faces are about ``face_height`` pixels high."""

    def __init__(self, face_height: float) -> None:
        boxes = boxes_between(WOMAN, WOMAN_STEP, WOMAN_FRAMES)
        scale = face_height / float(boxes[:, 3].mean())
        self._boxes = boxes * scale
        self._pictures = _frames(sample("woman.mp4"), WOMAN_FRAMES, scale)
        self.middle = float((self._boxes[:, 0] + self._boxes[:, 2] / 2).mean())  # x of the face, on average
        self.rows = self._pictures[0].shape[0]

    def cutout(self, number: int) -> Cutout:
        """One frame; all have the same size, so that its own movements are kept."""
        picture = self._pictures[number]
        x, y, width, height = (float(value) for value in self._boxes[number])
        box = (x, y, width, height)
        return cut_out(picture, _long_hair(picture.shape[1], picture.shape[0], box), box)


def _frames(path: Path, count: int, scale: float) -> list[Pixels]:
    video = Video(path)
    pictures: list[Pixels] = []
    video.open()
    while len(pictures) < count and (picture := video.read()):
        pictures.append(cv2.resize(picture.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    video.close()
    return pictures


def _cropped(cutout: Cutout) -> Cutout:
    """Only what is seen: the scene copies it for every frame."""
    ys, xs = np.nonzero(cutout.pixels[:, :, 3])
    y0, x0 = int(ys.min()), int(xs.min())
    x, y, width, height = cutout.box
    part = np.ascontiguousarray(cutout.pixels[y0 : ys.max() + 1, x0 : xs.max() + 1])
    return Cutout(part, (x - x0, y - y0, width, height))


def _silhouette(
    part: Pixels, box: Box, reach: tuple[float, float], others: list[Box], *, blue_backdrop: bool = False
) -> Pixels:
    """Head and shoulders around a face by GrabCut (Rother et al., 2004), started from where they must and may be."""
    rows, columns = part.shape[:2]
    hair, crown = reach
    x, y, width, height = box
    middle, eyes, chin = x + width / 2, y + 0.45 * height, y + height
    hints = np.full((rows, columns), cv2.GC_BGD, np.uint8)

    def ellipse(cx: float, cy: float, rx: float, ry: float, hint: int) -> None:
        cv2.ellipse(hints, (round(cx), round(cy)), (round(rx), round(ry)), 0, 0, 360, hint, -1)

    def torso(neck: float, shoulders: float, bottom: float, hint: int) -> None:
        half = [(-neck, chin - 0.1 * height), (-shoulders, chin + 0.5 * height), (-bottom, rows)]
        outline = half + [(-side, level) for side, level in reversed(half)]
        points = np.array([(middle + side * width, level) for side, level in outline])
        cv2.fillPoly(hints, [np.round(points).astype(np.int32)], hint)

    ellipse(middle, eyes - 0.05 * height, hair * width, crown * height, cv2.GC_PR_BGD)
    torso(max(hair, 0.6), 1.9, 2.0, cv2.GC_PR_BGD)
    ellipse(middle, eyes - 0.1 * height, min(0.65, hair) * width, min(0.66, crown) * height, cv2.GC_PR_FGD)
    torso(0.4, 1.2, 1.3, cv2.GC_PR_FGD)
    ellipse(middle, eyes, 0.45 * width, 0.5 * height, cv2.GC_FGD)
    torso(0.25, 0.55, 0.7, cv2.GC_FGD)
    for ox, oy, ow, oh in others:
        ellipse(ox + ow / 2, oy + 0.4 * oh, 0.6 * ow, 0.7 * oh, cv2.GC_BGD)
    if blue_backdrop:
        hue, saturation, value = cv2.split(cv2.cvtColor(part, cv2.COLOR_BGR2HSV))
        blue = (hue > 98) & (hue < 135) & (saturation > 60) & (value > 100)
        hints[blue] = cv2.GC_BGD
        hints[~blue & (hints != cv2.GC_BGD)] = cv2.GC_FGD
    cv2.setRNGSeed(7)  # its clusters start at random
    small = cv2.resize(part, None, fx=CUT_SCALE, fy=CUT_SCALE, interpolation=cv2.INTER_AREA)
    hints = cv2.resize(hints, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_NEAREST)
    cv2.grabCut(small, hints, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    inside = np.isin(hints, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    _, labels = cv2.connectedComponents(inside)
    inside = (labels == labels[int(eyes * CUT_SCALE), int(middle * CUT_SCALE)]).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    soft = cv2.resize(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.5), (columns, rows))
    alpha: Pixels = (cv2.GaussianBlur(np.clip((soft - 0.45) / 0.5, 0, 1), (0, 0), 1.2) * 255).astype(np.uint8)
    return alpha


def _long_hair(columns: int, rows: int, box: Box) -> Pixels:
    """A soft outline for the woman's clip, whose hair and wall are of one colour: a dome down to the bottom."""
    x, y, width, height = box
    middle, top = x + width / 2, max(3.0, y - 0.26 * height)
    reach, dome = 0.83 * width, 0.8 * height
    level, across = np.mgrid[0:rows, 0:columns].astype(np.float32)
    side = np.abs(across - middle) / reach
    up = np.clip((top + dome - level) / dome, 0, None)
    radius = np.sqrt(side * side + up * up)
    alpha: Pixels = (np.clip((1 - radius) * reach / 9, 0, 1) * 255).astype(np.uint8)
    return alpha


def _with_shirt(part: Pixels, alpha: Pixels, box: Box, shirt: tuple[int, int, int]) -> tuple[Pixels, Pixels]:
    rows, columns = alpha.shape
    x, _, width, height = box
    middle, extra = x + width / 2, round(0.45 * height)
    part = cv2.copyMakeBorder(part, 0, extra, 0, 0, cv2.BORDER_REPLICATE)
    alpha = cv2.copyMakeBorder(alpha, 0, extra, 0, 0, cv2.BORDER_CONSTANT, value=0)
    outline = np.zeros((rows + extra, columns), np.uint8)
    half = [(-0.3, rows - 14), (-0.42, rows - 10), (-0.9, rows + 0.14 * height), (-1.05, rows + 0.3 * height)]
    half.append((-1.1, rows + extra))
    points = np.array([(middle + s * width, v) for s, v in half + [(-s, v) for s, v in reversed(half)]])
    cv2.fillPoly(outline, [np.round(points).astype(np.int32)], 255)
    neck = (round(middle), rows - 16)
    cv2.ellipse(outline, neck, (round(0.3 * width), round(0.11 * height)), 0, 0, 360, 0, -1)  # the collar
    cover = cv2.GaussianBlur(outline.astype(np.float32) / 255, (0, 0), 2.5)
    level, across = np.mgrid[0 : rows + extra, 0:columns].astype(np.float32)
    shade = 1.08 - 0.35 * np.abs(across - middle) / (1.1 * width) - 0.12 * (level - rows) / extra
    cloth = np.clip(np.array(shirt, np.float32) * shade[:, :, None], 0, 255)
    mixed = part * (1 - cover[:, :, None]) + cloth * cover[:, :, None]
    return mixed.astype(np.uint8), np.maximum(alpha, (cover * 255).astype(np.uint8))
