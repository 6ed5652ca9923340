"""The memory of `fit` on Parquet files of growing size.

    python experiments/parquet_memory.py
    python experiments/parquet_memory.py --gigabytes 4 20

Writes files of random rows, fits a flow to each for one epoch in a separate process, and records
the largest resident memory of the process. The slope is the memory for each further byte of the
file; a process that loads the file has a slope of at least 1.
"""

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from flax import nnx
from measuring.report import save

import afflow

DIM = 16
GROUP = 2**17  # rows in a group: 8 MiB


@dataclass(frozen=True)
class Config:
    """The sizes of the files."""

    gigabytes: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    batch_size: int = 2**15
    num_groups: int = 8
    seed: int = 0
    only: Path | None = None
    """Fit one file and print the peak of the memory in bytes. The script calls itself with this."""
    out: Path = Path(__file__).parent / "results" / "parquet_memory.json"


def write(path: Path, size: float, rng: np.random.Generator) -> int:
    """Write a file of about `size` gigabytes, group by group. Return its number of bytes."""
    names = [f"x{i}" for i in range(DIM)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(max(1, round(size * 1e9 / (4 * DIM * GROUP)))):
            rows = rng.normal(size=(DIM, GROUP)).astype(np.float32)
            writer.write_table(pa.table(dict(zip(names, rows, strict=True)), schema), GROUP)
    return path.stat().st_size


def measure(config: Config, path: Path) -> int:
    """Fit a flow to a file for one epoch. Return the peak of the resident memory in bytes."""
    stream = afflow.training.read_parquet(path, config.batch_size, num_groups=config.num_groups)
    flow = afflow.maf(DIM, num_layers=1, hidden=(16,), rngs=nnx.Rngs(0))
    key = jax.random.key(config.seed)
    afflow.fit(flow, stream, key=key, validation=0, max_epochs=1, progress=False)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(config: Config, size: float, folder: Path) -> dict[str, float]:
    """Write a file and fit it in a new process. Return sizes in bytes and the seconds."""
    path = folder / f"{size}.parquet"
    written = write(path, size, np.random.default_rng(config.seed))
    start = time.perf_counter()
    command = [sys.executable, __file__, "--only", str(path), "--seed", str(config.seed)]
    command += ["--batch-size", str(config.batch_size), "--num-groups", str(config.num_groups)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - start
    path.unlink()
    return {"file_bytes": written, "peak_bytes": int(output.split()[-1]), "seconds": seconds}


def main(config: Config) -> None:
    """Measure each size; write and print the peaks and their slope."""
    if config.only is not None:
        print(measure(config, config.only))
        return
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for size in config.gigabytes:
            runs.append(run(config, size, Path(folder)))
            print({name: f"{value:.4g}" for name, value in runs[-1].items()}, flush=True)
    sizes, peaks = ([r[name] for r in runs] for name in ("file_bytes", "peak_bytes"))
    slope = float(np.polyfit(sizes, peaks, 1)[0]) if len(runs) > 1 else float("nan")
    print(f"slope {slope:.4f} bytes of memory for each byte of the file")
    save(config.out, config, {"runs": runs, "slope": slope})


if __name__ == "__main__":
    main(tyro.cli(Config))
