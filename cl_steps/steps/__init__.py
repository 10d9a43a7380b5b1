"""The seven steps of a run: what does one night do?

One module a step, with `run(context)`: it reads what `pipeline.py` says, orders the parts to work, and writes. A step
imports no other step; what it reads is fetched for it and what it writes is stored for it (`run/`).
"""
