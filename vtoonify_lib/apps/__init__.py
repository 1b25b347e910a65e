"""What a person touches: command line, whole folders, notebooks, panels, benchmarks."""
