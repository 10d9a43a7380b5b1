"""A step as a Kubernetes pod: its manifest, its operator, and what it means how one ended."""
