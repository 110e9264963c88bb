"""The OCI hook `gpuportion-hook`: what each stage of a container means to us."""
