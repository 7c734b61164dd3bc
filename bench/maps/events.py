"""What a script with bcc does for the records of a ring buffer, as bcc's own examples do it: see drain.lua beside it.

bcc compiles programs from the kernel's headers, which not every machine has, so the map is another program's: the objects that
bcc makes of a program that it has compiled are made by hand, with the descriptor of that map. All that runs for a record
is bcc's.
"""
import ctypes
import os
import platform
import subprocess
import sys
import time

from bcc import BPF
from bcc.table import RingBuf

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_MAP_GET_FD_BY_ID = 14


class Event(ctypes.Structure):
    _fields_ = [
        ("number", ctypes.c_uint32),
        ("source", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
    ]


def map_fd(map_id):
    attr = (ctypes.c_uint32 * 4)(map_id, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF[platform.machine()], BPF_MAP_GET_FD_BY_ID, attr, ctypes.sizeof(attr))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_MAP_GET_FD_BY_ID")
    return fd


def loaded(fd):
    """BPF(...) as it is when its program is loaded, with one table, "events"."""
    b = BPF.__new__(BPF)
    b.module = None
    b._ringbuf_manager = None
    table = RingBuf.__new__(RingBuf)
    table.bpf = b
    table.map_fd = fd
    table._cbs = {}
    # What b["events"].event() makes of the C source at its first call.
    table._event_class = Event
    b.tables = {"events": table}
    return b


b = loaded(map_fd(int(sys.argv[2])))
events = total = 0


def on_event(ctx, data, size):
    global events, total
    event = b["events"].event(data)
    events += 1
    total += event.bytes


b["events"].open_ring_buffer(on_event)


def rate(seconds):
    """Records a second and the processor time of one, while somebody sends, then on until it is stopped. One call takes
    records for as long as there are any."""
    print("ready", flush=True)
    while events == 0:
        start, clock = time.monotonic(), time.process_time()
        b.ring_buffer_poll(100)
    while time.monotonic() - start < seconds:
        b.ring_buffer_poll(100)
    spent = time.process_time() - clock
    print(events / (time.monotonic() - start), spent / events, flush=True)
    while True:
        b.ring_buffer_poll(100)


def drain(rounds, fill):
    """Seconds of processor time for each record of a buffer that is full."""
    spent = 0
    for _ in range(rounds):
        subprocess.run(fill, check=True)
        start = time.process_time()
        b.ring_buffer_consume()
        spent += time.process_time() - start
    print(spent / events)


if sys.argv[1] == "rate":
    rate(float(sys.argv[3]))
else:
    drain(int(sys.argv[3]), sys.argv[4:])
os._exit(0)
