"""The steps of the policy path, one file each; `registry.STAGES` gives their order."""
