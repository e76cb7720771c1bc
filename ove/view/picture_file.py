"""Pictures as files that say that they were drawn here, so that they can be told from the user's own."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from ove.errors import ConfigError
from ove.files import atomic_write

_SOFTWARE = "ove"


def write_picture(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes a picture, whole or not at all, in the format of its suffix; ConfigError for a suffix of none."""
    form = Image.registered_extensions().get(path.suffix.lower())
    if form is None or form not in Image.SAVE:
        raise ConfigError(f"{path}: is of no kind of picture that can be written; end it with .png or .jpg.")
    about = Image.Exif()
    about[Base.Software] = _SOFTWARE
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, form, exif=about)


def was_drawn_here(path: Path) -> bool:
    """Returns whether a file is what `write_picture` writes; of formats without metadata (BMP) it never is."""
    try:
        with Image.open(path) as picture:
            return picture.getexif().get(Base.Software) == _SOFTWARE
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ):  # as Pillow says "no picture"
        return False
