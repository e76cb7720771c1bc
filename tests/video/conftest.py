"""The fixture that writes video files, for all tests of this folder."""

from video_files import write_video

__all__ = ["write_video"]
