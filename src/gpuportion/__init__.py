"""Gives a container a portion of a GPU, and holds it to that portion."""
