"""Our side: what the package's own stages do, on a workload, timed."""
