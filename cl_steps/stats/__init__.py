"""Statistics that decide: is it different, is it worse, and how sure is that?

Ways in: `drift_verdict` (of the step drift), `evaluation_set` and `measure` (what is measured of a model), `decision`
(the gate's verdict). Arrays and tables in, figures out: it knows no workspace, and `measure` knows a model by what it
can do.
"""
