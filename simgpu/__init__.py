"""A simulated NVIDIA driver for machines without a GPU: unmodified CUDA and NVML clients run on it.

Kernels do nothing; memory is real enough: what a process takes by CUDA, NVML reports, and it is free again
when the last holder of the process's driver descriptor has gone.
"""

from gpuportion.simgpu.behaviour import Behaviour
from gpuportion.simgpu.simulation import Device, Sim, Status, ensure, refresh, start, status, stop

__all__ = ["Behaviour", "Device", "Sim", "Status", "ensure", "refresh", "start", "status", "stop"]
