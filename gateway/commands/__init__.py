"""One file per command of `penstock`: `run(args)` does it and gives the exit status."""
