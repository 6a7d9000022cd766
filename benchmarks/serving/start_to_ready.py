#!/usr/bin/env python3
"""How fast prism-decoder comes from its start to ready, with weights from a disk or made on the device.

    benchmarks/serving/start_to_ready.py --model DIR [--times 3] [-- ARGUMENTS OF prism-decoder ...]

For a folder with safetensors files, each round drops the page cache and reads the files with O_DIRECT and --readers
reads under way; drops it again, starts the decoder and asks /readyz until it says 200. It prints the speed of both
and their ratio, in bytes of the decoder's part of the weights (names under model.visual. left out). For a folder
without, only the time from exec to ready. Dropping the cache needs root; --warm leaves it.

Only Python's standard library is used; Linux.
"""

import argparse
import concurrent.futures
import http.client
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PRISM_BIN_DIR", ROOT / "build/cuda/bin"))
READ_BYTES = 16 << 20


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def text_bytes(path):
    """Bytes of the decoder's tensors in a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    sizes = {name: entry["data_offsets"][1] - entry["data_offsets"][0]
             for name, entry in header.items() if name != "__metadata__"}
    return sum(size for name, size in sizes.items() if "visual." not in name)


def read_direct(paths, readers):
    """Bytes a second of reading whole files past the page cache."""
    pieces = [(path, offset) for path in paths for offset in range(0, path.stat().st_size, READ_BYTES)]

    def worker(index):
        buffer, total = mmap.mmap(-1, READ_BYTES), 0
        descriptors = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path in paths}
        for path, offset in pieces[index::readers]:
            total += os.preadv(descriptors[path], [buffer], offset)
        for descriptor in descriptors.values():
            os.close(descriptor)
        return total

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(readers) as pool:
        total = sum(pool.map(worker, range(readers)))
    return total / (time.monotonic() - begun)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def seconds_to_ready(arguments, timeout):
    """From exec to the first 200 of /readyz."""
    port = free_port()
    begun = time.monotonic()
    decoder = subprocess.Popen([BIN / "prism-decoder", "--port", "0", "--metrics-port", str(port), *arguments],
                               stderr=subprocess.PIPE, text=True)
    try:
        while time.monotonic() - begun < timeout:
            if decoder.poll() is not None:
                sys.exit(f"prism-decoder ended with {decoder.returncode}:\n{decoder.stderr.read()}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return time.monotonic() - begun
            except OSError:
                pass
            time.sleep(0.005)
        sys.exit(f"not ready after {timeout} s")
    finally:
        decoder.send_signal(signal.SIGTERM)
        decoder.communicate(timeout=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--readers", type=int, default=16, help="O_DIRECT reads under way")
    parser.add_argument("--warm", action="store_true", help="leave the page cache as it is")
    parser.add_argument("--timeout-s", type=float, default=300)
    parser.add_argument("decoder", nargs="*", help="arguments of prism-decoder, behind --")
    options = parser.parse_args()
    arguments = ["--model", str(options.model), *options.decoder]
    paths = sorted(options.model.glob("*.safetensors"))
    ratios = []
    for _ in range(options.times):
        if not paths:
            print(f"exec to ready: {seconds_to_ready(arguments, options.timeout_s):.2f} s", flush=True)
            continue
        if not options.warm:
            drop_caches()
        direct = read_direct(paths, options.readers)
        if not options.warm:
            drop_caches()
        seconds = seconds_to_ready(arguments, options.timeout_s)
        size = sum(map(text_bytes, paths))
        ratios.append(size / seconds / direct)
        print(f"O_DIRECT {direct / 1e9:.2f} GB/s; exec to ready {seconds:.2f} s for {size / 1e9:.2f} GB, "
              f"{size / seconds / 1e9:.2f} GB/s, ratio {ratios[-1]:.2f}", flush=True)
    if ratios:
        print(f"ratio, median of {len(ratios)}: {sorted(ratios)[len(ratios) // 2]:.2f}")


if __name__ == "__main__":
    main()
