"""What is written down for ever about a version: its record, the keys, the signatures, the provenance."""
