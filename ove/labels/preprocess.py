"""Pictures as CLIP's own preprocessing cuts them: shorter side resized, the middle kept (spec §5)."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def cut(picture: UInt8[np.ndarray, "H W 3"], side_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of a picture whose shorter side is resized to `side_px`, bicubic, antialiased when it gets smaller.

    The same bytes as transformers' CLIPImageProcessor with Pillow gives before it normalises: the resizing is Pillow's, which
    rounds as it was done when CLIP was trained. A picture of that size is left as it is.
    """
    height, width = picture.shape[:2]
    if (height, width) == (side_px, side_px):
        return picture
    if height < width:
        new_height, new_width = side_px, int(side_px * width / height)
    else:
        new_height, new_width = int(side_px * height / width), side_px
    resized = np.asarray(Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BICUBIC))
    top, left = (new_height - side_px) // 2, (new_width - side_px) // 2
    return resized[top : top + side_px, left : left + side_px]
