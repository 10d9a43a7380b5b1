"""A step as a container runs it: how does one get its inputs, and where does what it made go?

Ways in: `stage` (clone, fetch, run, store, push), `context` (what a step is given, and its report), `machine`
(processes, nodes, parts), `stopping`. It does not know what any step does: it is handed the function.
"""
