"""The front door: what `import ove` offers. Each function here calls the rooms; nothing is computed in this folder."""
