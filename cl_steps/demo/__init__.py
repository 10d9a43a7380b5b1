"""A demonstration small enough for a laptop: pictures, a base model and a feature extractor of our own."""
