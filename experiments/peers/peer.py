"""The connection of the main process to a worker process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

_SETTLE = 0.01  # seconds for the idle threads of the last worker to stop spinning
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",  # every first call compiles
    "PYTHONWARNINGS": "ignore",
}


class Peer:
    """The process of one library, and its errors.

    Args:
        library: a key of `LIBRARIES`.
        threads: the number of cores of the process.
        root: a checkout whose packages are imported before the installed ones.
    """

    def __init__(self, library: str, threads: int, root: Path | None = None):
        self.library = library
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker", library, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env=os.environ | _ENVIRONMENT | ({"PYTHONPATH": str(root.resolve())} if root else {}),
        )

    def ask(self, *request: Any) -> Any:
        """Return the reply to `method, *arguments`.

        If the request fails, record the error, print it and return `None`.
        """
        time.sleep(_SETTLE)
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            reply = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            reply = {"error": "its process has ended"}
        if isinstance(reply, dict) and "error" in reply:
            self.errors.append(f"{list(request)}: {reply['error']}")
            tqdm.write(f"{self.library} is left out ({request[0]}): {reply['error']}")
            return None
        return reply
