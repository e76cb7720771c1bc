"""Reads the published annotation files of video benchmarks as lists of labelled samples."""
