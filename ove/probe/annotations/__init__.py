"""The annotation files of video benchmarks, as their owners publish them, read as lists of labelled samples."""
