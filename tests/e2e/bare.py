#!/usr/bin/env python3
"""The bench's bare loop between a VM's socket and a TAP, in softnet's place or the VM's monitor's, for
perf/offload.py. It takes the part of softnet's command line that unfiltered.py takes, and ends when killed."""

import argparse
import os

from lab import paths
from unfiltered import open_tap

parser = argparse.ArgumentParser()
parser.add_argument("--vm-fd", type=int, required=True)
parser.add_argument("--tap", required=True)
options, _about_filtering = parser.parse_known_args()
tap = open_tap(options.tap)
os.dup2(options.vm_fd, 0)
os.dup2(tap, 1)
os.set_blocking(1, False)
os.execv(paths.SOFTNET, [paths.SOFTNET, "bench-subject", "bare", "--max-frame", "1514", "--rules", "0"])
