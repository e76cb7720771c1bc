"""TensorFlow's own environment (`.venv-tfio`): `install` makes it, `supervise` runs it; the rest, inside it, has no `ove`."""
