"""Keep freed memory in the process.

glibc hands every large tensor back to the kernel and faults it in again page by page; on a CPU that
costs a training step several times its arithmetic. Ten-fold differences were measured
(``bench/allocator.py``).
"""

import ctypes
import sys

ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
"""Environment of a process that does bulk work in threads. glibc gives each thread a heap of its
own, in pieces of 64 MiB that go back to the kernel one by one, ``keep_freed_memory`` or not: eight
times the page faults, and a third more memory. It is read when a process starts."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to serve large blocks from the heap and not to trim it.

    Call once at the start of CPU training or bulk inference. Returns whether it took effect;
    without glibc nothing changes. The process then holds on to its peak memory.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all([mallopt(name, value) == 1 for name, value in settings])
