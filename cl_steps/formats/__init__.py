"""What do other programs read of a line? OpenLineage, CycloneDX, Hugging Face, MLflow, C2PA.

`facts` gathers once what they all tell; one module a format writes it in that format's words. They tell what is on
record and decide nothing: a run does not depend on any of them.
"""
