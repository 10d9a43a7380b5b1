"""A line's workspace: Git is the ledger, DVC the store. Git and DVC are called here and nowhere else."""
