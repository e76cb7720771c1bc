"""How the tests of the front door read videos."""

SIZE_PX, BUDGET = 56, 160
"""16 patches a frame: two I-frames, and 128 patches of the other 62."""
