"""The OCI runtime `gpuportion-runtime`: what a container asks for, and the edit of its OCI spec."""
