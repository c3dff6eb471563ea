#!/usr/bin/env bash
# What only a GPU can show, in under eight minutes on one: benchmarks/gpu_check.sh [PYTEST OPTION …]
# The tests marked gpu: float64 conformance, bf16, TF32, resident images, compiled steps, searches recorded as CUDA
# graphs beside the eager ones, and a run of each backend.
# STCORE_TEST_DEVICE=cpu tries the script out without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${STCORE_TEST_DEVICE:-gpu}
if [ "$device" = gpu ] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu_check: expected a CUDA device that PyTorch sees; found none" >&2
  exit 1
fi
export TF_FORCE_GPU_ALLOW_GROWTH=true XLA_PYTHON_CLIENT_PREALLOCATE=false
STCORE_TEST_DEVICE=$device timeout 480 python -m pytest -n 0 -m gpu tests/test_gpu.py "$@"
