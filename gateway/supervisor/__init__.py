"""The parent process: settings, workers, limits, the ledger, the admin port."""
