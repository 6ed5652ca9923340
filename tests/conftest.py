"""Test settings: float64, no silent rank promotion, and quick compilation."""

import gc
import itertools
import os

import jax
import pytest

# Most of the suite's time is compilation. Less optimisation makes the suite twice as fast, and
# one compilation thread per worker makes it faster still.
_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (0, 11):  # later versions abort on this unknown flag
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])

# Much of the remaining time is Python: garbage collection among millions of live objects of JAX's
# traces, and the recording of each operation's place in the source.
gc.set_threshold(50_000, 20, 20)
jax.config.update("jax_traceback_in_locations_limit", 0)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

_done = itertools.count(1)


@pytest.fixture(autouse=True)
def _forget_programs():
    """Drop compiled programs after every 50 tests. Few are used again, and they fill memory."""
    yield
    if next(_done) % 50 == 0:
        jax.clear_caches()
