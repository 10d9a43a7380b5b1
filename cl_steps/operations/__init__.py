"""Whole undertakings on a line: play a night, reproduce, play again without, begin, keep only what is needed."""
