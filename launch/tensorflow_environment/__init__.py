"""TensorFlow's own environment (`.venv-tfio`): `install` makes it; the rest runs inside, without `ove` and JAX."""
