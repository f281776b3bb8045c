"""Build and run training and evaluation from configs."""

import os

# Threads of PyTorch that wait for each other by spinning slow everything down as soon as a data worker or another
# program wants a core too; on a busy two-core machine a training step took five times as long. To be set before
# PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
