"""Is everything what it says? Digests, signatures and the ledger, recomputed. It changes nothing."""
