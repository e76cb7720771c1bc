"""What runs inside of TensorFlow's own environment (`.venv-tfio`): no module of `ove`, no JAX; the others never import it."""
