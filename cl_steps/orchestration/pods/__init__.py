"""A step as a Kubernetes pod: what is its manifest, who waits for it, and what does its end mean?

Ways in: `manifest` (the one template), `steppod` and `stepjob` (operators for one node and for several), `failures`.
Steps do not know that they run in a pod.
"""
