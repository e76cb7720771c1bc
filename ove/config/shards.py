"""What is written to disk."""

from dataclasses import dataclass

from ove.errors import ConfigError

FORMS = ("frames", "h264", "mosaics")


@dataclass(frozen=True)
class ShardsConfig:
    """What is written to disk."""

    records_per_shard: int = 64
    store: tuple[str, ...] = ("frames",)
    """How the pixels of a video are stored: as JPEG `frames`, as an `h264` stream (fewer bytes, more work), both, and, besides,
    the selected patches as `mosaics` (quick to read, for this one selection)."""
    jpeg_quality: int = 92
    """Of the stored frames, and of pictures that had to be encoded anew, 4:4:4 (1…100)."""
    h264_crf: int = 18
    """Of the stored stream: 0 (large) … 51 (poor)."""
    budget_tokens: int = 2048
    """Patches of a clip in its mosaics; chosen as the video section says."""
    max_side_px: int = 0
    """Pictures whose longer side is more are shrunk to that; 0: none are."""
    image_column: str = ""
    """Where a table (Parquet, TFRecord) has the file itself; "": where it usually is (docs/data_format.md)."""
    label_column: str = ""
    """Where a list, a table or the JSON of a sample has the class name; "": `label` and what else is usual."""
    centers_obj: int = 0
    centers_vid: int = 0
    centers_ocr: int = 0
    """Class centers of a bank, for inputs with labels: a file with a label that is not below is set aside. 0: any is taken."""
    workers: int | None = None
    """Processes that decode in parallel; None: one a core; 0: in the command's own, which a crash of the decoder ends."""

    @property
    def centers(self) -> dict[str, int]:
        """Class centers by bank, where they are told."""
        told = {"obj": self.centers_obj, "vid": self.centers_vid, "ocr": self.centers_ocr}
        return {bank: count for bank, count in told.items() if count}

    def __post_init__(self) -> None:
        if self.records_per_shard < 1 or not 1 <= self.jpeg_quality <= 100 or (self.workers or 0) < 0:
            raise ConfigError(
                f"shards.records_per_shard = {self.records_per_shard} must be at least 1, shards.jpeg_quality = "
                f"{self.jpeg_quality} within 1…100, and shards.workers = {self.workers} not negative."
            )
        if unknown := [form for form in self.store if form not in FORMS]:
            raise ConfigError(f"shards.store names {unknown[0]!r}, which is none of {', '.join(FORMS)}.")
        if not {"frames", "h264"} & set(self.store) or len(set(self.store)) < len(self.store):
            raise ConfigError(
                f"shards.store = {','.join(self.store) or 'nothing'} must have frames or h264, each once: mosaics alone are "
                "enough for one selection only."
            )
        if not 0 <= self.h264_crf <= 51 or self.budget_tokens < 1 or min(self.max_side_px, *self._all_centers) < 0:
            raise ConfigError(
                f"shards.h264_crf = {self.h264_crf} must be within 0…51, shards.budget_tokens = {self.budget_tokens} positive, "
                f"shards.max_side_px = {self.max_side_px} and centers_obj, _vid, _ocr = {self._all_centers} not negative."
            )

    @property
    def _all_centers(self) -> tuple[int, int, int]:
        return self.centers_obj, self.centers_vid, self.centers_ocr
