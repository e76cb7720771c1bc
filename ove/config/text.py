"""Text tags of pictures."""

from dataclasses import dataclass

from ove.config.checks import at_least_one
from ove.errors import ConfigError


@dataclass(frozen=True)
class TextConfig:
    """From the text in pictures to tags (spec §5)."""

    side_px: int = 736
    """Longer side of the picture in which text is looked for; larger ones are shrunk to it (lines are read at full size)."""
    turned: bool = True
    """Whether lines that stand on their head are recognised and turned."""
    min_confidence: float = 0.5
    """Lines that were read with less (0…1) are left out."""
    vocabulary_size: int = 365_187
    """Most words of the vocabulary: the most frequent ones (the size of the paper's bank)."""
    n_tags: int = 100
    """Tags of each picture that has any."""
    seed: int = 0
    """Decides which tags are kept where a picture has more."""

    def __post_init__(self) -> None:
        at_least_one("text", self, "vocabulary_size", "n_tags")
        if self.side_px < 32 or not 0 <= self.min_confidence <= 1:
            raise ConfigError(
                f"text.side_px = {self.side_px} must be at least 32, text.min_confidence = {self.min_confidence:g} within 0…1."
            )
