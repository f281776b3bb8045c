"""Training-free evaluations of backbones and the benchmark that runs them with the probes."""
