# Made by cffi from libcap_mem/include/region_layout.h and libcap_mem/python/host.h, which say what is in it.
from typing import Any

ffi: Any
lib: Any
