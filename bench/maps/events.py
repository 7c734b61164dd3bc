"""Takes the records of a ring buffer for some seconds with bcc, as its examples do: MAP_ID SECONDS.

Prints "ready", then how many records came a second. bcc compiles programs from the kernel's headers, which not every
machine has, so the map is another program's: only bcc's consumer is measured.
"""
import ctypes
import sys
import time

from bcc.libbcc import lib
from bcc.table import _RINGBUF_CB_TYPE

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_MAP_GET_FD_BY_ID = 14


class Event(ctypes.Structure):
    _fields_ = [
        ("number", ctypes.c_uint32),
        ("source", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
    ]


def map_fd(map_id):
    import platform

    attr = (ctypes.c_uint32 * 4)(map_id, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF[platform.machine()], BPF_MAP_GET_FD_BY_ID, attr, ctypes.sizeof(attr))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_MAP_GET_FD_BY_ID")
    return fd


events = total = 0


def on_event(_, data, size):
    global events, total
    event = ctypes.cast(data, ctypes.POINTER(Event)).contents
    events += 1
    total += event.bytes
    return 0


callback = _RINGBUF_CB_TYPE(on_event)
ring = lib.bpf_new_ringbuf(map_fd(int(sys.argv[1])), callback, None)
print("ready", flush=True)
while events == 0:
    lib.bpf_poll_ringbuf(ring, 100)
before, start = events, time.monotonic()
while time.monotonic() - start < float(sys.argv[2]):
    lib.bpf_poll_ringbuf(ring, 100)
print((events - before) / (time.monotonic() - start))
