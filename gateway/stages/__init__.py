"""The steps of the policy path, a file or folder each; `registry.STAGES` gives their order."""
