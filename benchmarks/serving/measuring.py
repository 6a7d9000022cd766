"""What the measurements of a whole cluster share: where its programs are, and how a machine and figures are told.

Only Python's standard library is used.
"""
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/integration"))
from cluster import BIN, ROOT, png_chunk, rgb_png  # noqa: E402, F401


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def machine(cpus):
    """The line above every figure: what was measured, and on what."""
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (f"commit {commit.strip()}, {model.group(1) if model else platform.machine()}, {cpus} of "
            f"{len(os.sched_getaffinity(0))} CPUs, load of the machine before: {os.getloadavg()[0]:.1f}")
