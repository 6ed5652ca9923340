"""One library in a process of its own: requests and replies are lines of JSON.

    python -m peers.worker zuko 2         # in experiments/; never run by hand

A request is `[method, *arguments]` of a `Worker`; a reply is what it returned, or
`{"error": ...}`.
"""

import importlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from peers import EPOCH, LIBRARIES, Sizes


class Worker:
    """The flow of one library at one set of sizes, run when asked."""

    def __init__(self, library: str, threads: int):
        self.library = library
        self.threads = threads
        self.calls: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Import the library; return its versions and the memory that takes."""
        packages = LIBRARIES[self.library].packages
        for name in packages:
            importlib.import_module(name)
        found = {name: version(name) for name in packages}
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
        return {"versions": found, "peak_mib": self.peak_mib()}

    def build(self, *sizes: int) -> int:
        """Build the flow; return its number of parameters, masked ones included."""
        sizes_ = Sizes(*sizes)
        rng = np.random.default_rng(sizes_.seed)
        x = rng.standard_normal((sizes_.batch, sizes_.dim), np.float32)
        self.calls, self.outputs = {}, {}
        module = importlib.import_module(LIBRARIES[self.library].module)
        self.calls = module.build(self.library, sizes_, x)
        self.calls.setdefault("fit", self._epoch)
        return self.calls["num_params"]()

    def _epoch(self) -> None:
        """Train as long as an epoch takes, and validate: for loops that users write by hand."""
        for _ in range(EPOCH):
            self.calls["train"]()
        self.calls["score"]()

    def run(self, call: str, times: int) -> list[float] | None:
        """Return the seconds of each of some calls in a row, or None if there is no such call."""
        if call not in self.calls:
            return None
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            self.outputs[call] = self.calls[call]()
            seconds.append(time.perf_counter() - start)
        return seconds

    def finite(self) -> bool:
        """Whether the last outputs, and the log-densities of the last samples, are finite."""
        outputs = dict(self.outputs)
        if "sample" in outputs:
            outputs["log_prob"] = self.calls["log_prob"](outputs["sample"])
        values = [out for out in outputs.values() if out is not None]
        return all(bool(np.isfinite(np.asarray(out)).all()) for out in values)

    def peak_mib(self) -> float:
        """Return the most memory that this process ever held, in MiB.

        It is Linux's `VmHWM`: `ru_maxrss` would begin at what the parent held.
        """
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


def serve(worker: Worker) -> None:
    """Answer requests until the input ends; whatever libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            reply = getattr(worker, method)(*arguments)
        except Exception as error:  # a library that fails is left out, not the end
            reply = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    cores = sorted(os.sched_getaffinity(0))[: int(sys.argv[2])]
    os.sched_setaffinity(0, cores)  # XLA takes as many threads as it has cores
    serve(Worker(sys.argv[1], len(cores)))
