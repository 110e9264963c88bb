"""What NVML, the driver's management library, tells of this machine's GPUs: what others need of allocator/nvml, whose
modules alone talk to it."""

from gpuportion.allocator.nvml.gpus import OLDEST_DRIVER, Nvml, Sample
from gpuportion.allocator.nvml.one_gpu import Reading
from gpuportion.allocator.nvml.session import LIBRARY_VARIABLE, library_folder

__all__ = ["LIBRARY_VARIABLE", "OLDEST_DRIVER", "Nvml", "Reading", "Sample", "library_folder"]
