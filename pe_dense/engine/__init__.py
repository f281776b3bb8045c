"""Build and run training and evaluation from configs."""

import os

# PyTorch's OpenMP threads wait by spinning, which is slow if data workers or other programs use the same cores; on a
# busy two-core machine a training step took five times as long. This must be set before PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
