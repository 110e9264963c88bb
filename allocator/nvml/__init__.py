"""NVML, NVIDIA's management library: only modules of this package talk to it."""
