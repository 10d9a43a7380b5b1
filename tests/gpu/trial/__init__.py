"""One prepared trial of a GPU: `python -m tests.gpu.trial --out FILE`; tests/gpu/README.md says what it measures.

`models` has what is measured, `theirs` the loops of diffusers' scripts on it, `sections` what is measured of it,
`timing` how, and `outcome` the file that it leaves.
"""
