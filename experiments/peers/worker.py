"""One library in a separate process; requests and replies are lines of JSON.

    python -m peers.worker zuko 2         # in experiments/; never run by hand

A request is `[method, *arguments]` of a `Worker`. A reply is the result of the method, or
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
    """The flow of one library at one set of sizes, which runs on request."""

    def __init__(self, library: str, threads: int):
        self.library = library
        self.threads = threads
        self.calls: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Import the library; return its versions, and the peak memory after the import."""
        packages = LIBRARIES[self.library].packages
        for name in packages:
            importlib.import_module(name)
        found = {name: version(name) for name in packages}
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
        return {"versions": found, "peak_mib": self.peak_mib()}

    def build(self, *sizes: int) -> int:
        """Build the flow; return its number of parameters, masked parameters included."""
        sizes_ = Sizes(*sizes)
        rng = np.random.default_rng(sizes_.seed)
        x = rng.standard_normal((sizes_.batch, sizes_.dim), np.float32)
        self.calls, self.outputs = {}, {}
        module = importlib.import_module(LIBRARIES[self.library].module)
        self.calls = module.build(self.library, sizes_, x)
        self.calls.setdefault("fit", self._epoch)
        return self.calls["num_params"]()

    def _epoch(self) -> None:
        """Train for an epoch and validate, as in the training loops that users write by hand."""
        for _ in range(EPOCH):
            self.calls["train"]()
        self.calls["score"]()

    def run(self, call: str, times: int) -> list[float] | None:
        """Return the seconds of each of `times` calls in a row, or `None` for an unknown call."""
        if call not in self.calls:
            return None
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            self.outputs[call] = self.calls[call]()
            seconds.append(time.perf_counter() - start)
        return seconds

    def finite(self) -> bool:
        """Return whether the last outputs and the log-densities of the last samples are finite."""
        outputs = dict(self.outputs)
        if "sample" in outputs:
            outputs["log_prob"] = self.calls["log_prob"](outputs["sample"])
        values = [out for out in outputs.values() if out is not None]
        return all(bool(np.isfinite(np.asarray(out)).all()) for out in values)

    def peak_mib(self) -> float:
        """Return the peak memory of this process in MiB.

        The source is Linux's `VmHWM`. `ru_maxrss` would start at the memory of the parent process.
        """
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


def serve(worker: Worker) -> None:
    """Answer requests until the input ends; all other output goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            reply = getattr(worker, method)(*arguments)
        except Exception as error:  # a library that fails is left out and must not end the run
            reply = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    cores = sorted(os.sched_getaffinity(0))[: int(sys.argv[2])]
    os.sched_setaffinity(0, cores)  # XLA starts one thread per core
    serve(Worker(sys.argv[1], len(cores)))
