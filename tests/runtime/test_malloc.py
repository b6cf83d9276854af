"""Large blocks that are freed go back to the system, also from between others that stay."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HOLES = """
from allmem_runtime.engine.malloc import map_large_blocks
map_large_blocks()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

blocks = [bytearray(24 << 20)]  # the first one that is freed teaches the C library its threshold
blocks.clear()
blocks = [bytearray(4 << 20) for _ in range(40)]
full = resident()
del blocks[::2]
print((full - resident()) / (80 << 20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_blocks_between_others_go_back_to_the_system():
    command = [sys.executable, "-c", HOLES]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(told) > 0.9


FAULTS = """
import resource
from allmem_runtime.engine.malloc import heap_reused, map_large_blocks
map_large_blocks()

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with heap_reused():
    faults(1)
    meanwhile = faults(20)
print(meanwhile, faults(20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library can be told so")
def test_blocks_that_are_used_again_are_mapped_once_and_later_ones_anew():
    command = [sys.executable, "-c", FAULTS]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    meanwhile, after = map(int, told.split())
    pages = 20 * (16 << 20) // resource.getpagesize()
    assert meanwhile < pages // 20
    assert after > pages // 2
