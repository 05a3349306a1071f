"""Mooncake Store over TCP, as the bench drives it: one process holds the values, the other moves them.

Started as `store_driver.py server ADDRESS MASTER` or `store_driver.py client ADDRESS MASTER`. The client reads lines `put|get|clear SIZE COUNT DEPTH BATCH`
and answers each with the seconds it took and the processor time it used. Values go from and into registered buffers, without
copies in Python; DEPTH calls are under way at once, each with BATCH values.
"""

import sys
import threading
import time

import numpy
from mooncake.store import MooncakeDistributedStore

SEGMENT = 1 << 30
BUFFER = 64 << 20


def opened(address, master, segment):
    store = MooncakeDistributedStore()
    code = store.setup(address, "P2PHANDSHAKE", segment, BUFFER, "tcp", "", master)
    if code != 0:
        raise SystemExit(f"setup answered {code}")
    return store


def run(act, store, size, count, depth, batch, base, generation):
    """Every value once; each thread has its own part of the buffer."""
    failures = []
    wanted = 0 if act == "put" else size

    def share(place):
        pointers = [base + (place * batch + n) * size for n in range(batch)]
        for first in range(place * batch, count, depth * batch):
            keys = [f"bench-{generation}-{n:08}" for n in range(first, min(first + batch, count))]
            at, sizes = pointers[: len(keys)], [size] * len(keys)
            if batch == 1:
                call = store.put_from if act == "put" else store.get_into
                codes = [call(keys[0], at[0], size)]
            else:
                call = store.batch_put_from if act == "put" else store.batch_get_into
                codes = call(keys, at, sizes)
            if any(code != wanted for code in codes):
                failures.append((keys[0], codes[0]))
                return

    threads = [threading.Thread(target=share, args=(place,)) for place in range(depth)]
    began, computed = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began, time.process_time() - computed
    if failures:
        return f"error {failures[0]}"
    return f"{took[0]} {took[1]}"


def main():
    role, address, master = sys.argv[1:4]
    if role == "server":
        store = opened(address, master, SEGMENT)
        print("ready", flush=True)
        sys.stdin.read()
        store.close()
        return
    store = opened(address, master, 0)
    memory = numpy.random.default_rng(1).integers(0, 256, BUFFER, dtype=numpy.uint8)
    base = memory.ctypes.data
    if store.register_buffer(base, BUFFER) != 0:
        raise SystemExit("the buffer cannot be registered")
    generation = 0
    print("ready", flush=True)
    for line in sys.stdin:
        act, *numbers = line.split()
        size, count, depth, batch = map(int, numbers)
        if act == "clear":
            for n in range(count):
                store.remove(f"bench-{generation}-{n:08}", True)
            generation += 1
            print("0 0", flush=True)
        else:
            print(run(act, store, size, count, depth, batch, base, generation), flush=True)


main()
