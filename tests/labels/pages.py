"""Pages of text drawn with the fonts that OpenCV carries, and the words that stand on them.

OpenCV 5 has a font for Chinese and for most alphabets in its wheel ("uni", WenQuanYi Micro Hei); OpenCV 4 has none.
"""

from collections.abc import Sequence

import cv2
import numpy as np

HAS_FONTS = hasattr(cv2, "FontFace")
ENGLISH = (
    "The harbour opens at seven",
    "Tickets cost twelve dollars",
    "Please keep the door closed",
    "Fresh bread every morning",
    "Parking behind the museum",
)
CHINESE = ("今天天气很好", "我们去公园散步", "图书馆上午九点开门", "请不要在这里停车", "新鲜水果蔬菜")
MIXED = ("Beijing 北京欢迎你", "Open 24 hours 营业时间", "WiFi 密码 12345678", "Exit 出口 Platform 3", "咖啡 Coffee 15.50")
_INK, _PAPER = (20, 20, 20), 255


def page(lines: Sequence[str], turned_deg: int = 0, size_px: int = 448, text_px: int = 20) -> np.ndarray:
    """A white RGB page with lines of text, turned against the clock."""
    picture = np.full((size_px, size_px, 3), _PAPER, np.uint8)
    for row, line in enumerate(lines):
        place = (size_px // 10, size_px // 5 + round(row * text_px * 2))
        cv2.putText(picture, line, place, _INK, cv2.FontFace("uni"), text_px, 400)
    if turned_deg % 90 == 0:
        return np.ascontiguousarray(np.rot90(picture, turned_deg // 90))
    centre = (size_px / 2, size_px / 2)
    turn = cv2.getRotationMatrix2D(centre, turned_deg, 0.8)
    return cv2.warpAffine(picture, turn, (size_px, size_px), flags=cv2.INTER_CUBIC, borderValue=(_PAPER,) * 3)
