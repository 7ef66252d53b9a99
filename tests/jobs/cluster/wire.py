"""A bad wire between two networks of this machine: `python -m tests.jobs.cluster.wire NAME DELAY_S LOSS`.

The far network is a namespace of Linux called NAME. Here is 10.77.0.1, there 10.77.0.2, and every packet between them
goes by this process, which keeps it for so long and drops some. It says "ready", and ends with its standard input.
Needs to be root; kernels without `netem` do.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from threading import Thread

HERE, THERE = "10.77.0.1", "10.77.0.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 1500


def socket_to(port: int) -> socket.socket:
    """A connection to the far side."""
    return socket.create_connection((THERE, port), 10)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)  # ours, and where it lies differs


def tunnel(name: str) -> int:
    """A network device whose packets are read and written here."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def tunnel_in(namespace: str, name: str) -> int:
    """The same in another network: threads may each be in one of their own."""
    made: list[int] = []

    def make() -> None:
        with Path("/var/run/netns", namespace).open() as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(tunnel(name))

    thread = Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def carry(ends: tuple[int, int], delay_s: float, loss: float) -> None:
    """Packets from each end to the other, until standard input ends."""
    chance, numbers = random.Random(18), count()
    under_way: list[tuple[float, int, int, bytes]] = []
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable = select.select([*ends, sys.stdin], [], [], wait_s)[0]
        if sys.stdin in readable:
            return
        for end in readable:
            packet = os.read(end, MTU + 100)
            if chance.random() >= loss:
                other = ends[1] if end == ends[0] else ends[0]
                heapq.heappush(under_way, (time.monotonic() + delay_s, next(numbers), other, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(under_way)
            os.write(end, packet)


def main(namespace: str, delay_s: float, loss: float) -> None:
    """Lay it, use it, take it away."""
    ip("netns", "add", namespace)
    try:
        near, far = f"{namespace}0", f"{namespace}1"
        ends = tunnel(near), tunnel_in(namespace, far)
        ip("addr", "add", HERE, "peer", THERE, "dev", near)
        ip("link", "set", near, "up")
        for words in (("addr", "add", THERE, "peer", HERE, "dev", far), ("link", "set", far, "up")):
            ip("-n", namespace, *words)
        ip("-n", namespace, "link", "set", "lo", "up")
        print("ready", flush=True)  # noqa: T201  # who started it waits for that
        carry(ends, delay_s, loss)
    finally:
        ip("netns", "del", namespace)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
