"""What other programs read of a line: OpenLineage, CycloneDX, Hugging Face, MLflow, C2PA."""
