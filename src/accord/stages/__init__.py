"""One file per arrow of the flow; each has `run(config) -> RunFolder` and is a command."""
