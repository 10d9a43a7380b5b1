"""A demonstration small enough for a laptop: pictures, a base model and a feature extractor of our own.

Ways in: `nights` (what arrives each night), `train` (the shipped models made again from nothing). It stands apart:
nothing of the product but `retain init`'s defaults and `retain demo` knows it.
"""
