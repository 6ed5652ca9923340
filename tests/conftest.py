"""Test settings: float64, no silent broadcasting between ranks, and quick compilation."""

import os

import jax

# Most of the suite's time is compilation: less optimisation makes it twice as fast, and
# one thread for each of the workers some more.
_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (0, 12):  # later versions do not know it, and abort
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
