"""Where weights come from: bundles of ours, the authors' checkpoints, downloads, layers swapped between networks."""
