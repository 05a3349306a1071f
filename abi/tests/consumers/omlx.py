# SPDX-License-Identifier: Apache-2.0
"""Uses a kv_store_v1 backend the way oMLX does: from Python, through ctypes, out of many threads.

    omlx.py LIBRARY URI fill      put and read back blocks from 8 threads over one handle
    omlx.py LIBRARY URI verify    read what `fill` put, from a process that put nothing
    omlx.py LIBRARY URI restart   fill, say READY, wait for a line on stdin (the server may be
                                  killed and started in between), then go on with the same handle

The habits that matter, none of which the interface forbids: keys are 32-byte SHA-256 digests; a
flush is an EMPTY manifest under one fixed name, put over and over; a block is expected to be there
right after the flush; existence is asked by getting; blocks are never deleted and no manifest ever
names them.

The exit status is 0 when everything held; otherwise 1, and stderr says what did not.
"""

import ctypes
import hashlib
import sys
import threading
import traceback

THREADS = 8
BLOCKS_PER_THREAD = 16
BLOCKS_SHARED = 8  # put by every thread, as sessions with one system prompt do
FLUSH_EVERY = 4
FLUSH_NAME = b"omlx-flush"

POINTER = ctypes.POINTER(ctypes.c_uint8)


class Table(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32),
        ("open", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)),
        ("close", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("put_chunk", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t,
                                       ctypes.c_char_p, ctypes.c_size_t)),
        ("get_chunk", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t,
                                       ctypes.POINTER(POINTER), ctypes.POINTER(ctypes.c_size_t))),
        ("put_manifest", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p,
                                          ctypes.c_size_t)),
        ("get_manifest", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(POINTER),
                                          ctypes.POINTER(ctypes.c_size_t))),
    ]


class Mismatch(Exception):
    pass


class Store:
    """One handle. ctypes lets go of the interpreter lock in every call, so threads do overlap."""

    def __init__(self, library: str, uri: str) -> None:
        loaded = ctypes.CDLL(library)
        loaded.kv_store_get_vtable.restype = ctypes.POINTER(Table)
        self.table = loaded.kv_store_get_vtable().contents
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]
        self.handle = self.table.open(uri.encode())
        if not self.handle:
            raise Mismatch(f"cannot open {uri}")

    def put(self, key: bytes, data: bytes) -> None:
        status = self.table.put_chunk(self.handle, key, len(key), data, len(data))
        if status != 0:
            raise Mismatch(f"put_chunk {key.hex()} ({len(data)} bytes) answered {status}")

    def get(self, key: bytes) -> bytes | None:
        data, length = POINTER(), ctypes.c_size_t()
        status = self.table.get_chunk(self.handle, key, len(key), ctypes.byref(data), ctypes.byref(length))
        if status < 0:
            return None
        try:
            return ctypes.string_at(data, length.value)
        finally:
            self.free(data)

    def flush(self) -> None:
        status = self.table.put_manifest(self.handle, FLUSH_NAME, b"", 0)
        if status != 0:
            raise Mismatch(f"the flush answered {status}")

    def flush_manifest_length(self) -> int:
        data, length = POINTER(), ctypes.c_size_t(1)
        status = self.table.get_manifest(self.handle, FLUSH_NAME, ctypes.byref(data), ctypes.byref(length))
        if status != 0:
            raise Mismatch(f"get_manifest of the flush name answered {status}")
        self.free(data)
        return length.value

    def close(self) -> None:
        self.table.close(self.handle)


def block(owner: str, index: int) -> tuple[bytes, bytes]:
    seed = f"{owner}/{index}".encode()
    size = 1 + int.from_bytes(hashlib.sha256(seed).digest()[:4], "big") % 200_000
    data = hashlib.shake_128(seed).digest(size)
    return hashlib.sha256(data).digest(), data


def blocks_of(thread: int) -> list[tuple[bytes, bytes]]:
    own = [block(f"thread {thread}", index) for index in range(BLOCKS_PER_THREAD)]
    return [block("shared", index) for index in range(BLOCKS_SHARED)] + own


def expect(store: Store, key: bytes, data: bytes, when: str) -> None:
    got = store.get(key)
    if got is None:
        raise Mismatch(f"block {key.hex()} is missing {when}")
    if got != data:
        raise Mismatch(f"block {key.hex()} came back different {when}: {len(got)} bytes for {len(data)}")


def save_session(store: Store, thread: int) -> None:
    pending = []
    for key, data in blocks_of(thread):
        found = store.get(key)  # there is no other way to ask
        if found is not None and found != data:
            raise Mismatch(f"block {key.hex()} was never put with these bytes")
        store.put(key, data)
        pending.append((key, data))
        if len(pending) == FLUSH_EVERY:
            store.flush()
            for key, data in pending:
                expect(store, key, data, "right after a flush")
            pending.clear()
    store.flush()
    missing = hashlib.sha256(f"thread {thread} never put this".encode()).digest()
    if store.get(missing) is not None:
        raise Mismatch(f"block {missing.hex()} is there, but nobody put it")


def in_threads(work) -> None:
    failures: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def fill(store: Store) -> None:
    in_threads(lambda thread: save_session(store, thread))
    if store.flush_manifest_length() != 0:
        raise Mismatch("the flush manifest is not empty")


def verify(store: Store, when: str) -> None:
    # Every thread reads what its neighbour put.
    def read(thread: int) -> None:
        for key, data in blocks_of((thread + 1) % THREADS):
            expect(store, key, data, when)

    in_threads(read)


def restart(store: Store) -> None:
    fill(store)
    print("READY", flush=True)
    sys.stdin.readline()
    verify(store, "after the server's restart")
    key, data = block("after the restart", 0)
    store.put(key, data)
    store.flush()
    expect(store, key, data, "when put after the server's restart")


def main() -> int:
    if len(sys.argv) != 4 or sys.argv[3] not in ("fill", "verify", "restart"):
        print(__doc__, file=sys.stderr)
        return 2
    library, uri, mode = sys.argv[1:]
    try:
        store = Store(library, uri)
        if mode == "fill":
            fill(store)
            verify(store, "after all flushes")
        elif mode == "verify":
            verify(store, "in a new process")
        else:
            restart(store)
        store.close()
    except Mismatch as mismatch:
        print(f"omlx.py: {mismatch}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
