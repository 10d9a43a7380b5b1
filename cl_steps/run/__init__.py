"""A step as a container runs it: clone, fetch, run, store, push; what a step is given; how it stops."""
