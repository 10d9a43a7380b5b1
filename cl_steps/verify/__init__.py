"""Is everything what it says? Digests, signatures and the ledger, recomputed.

Ways in: `verification` (all of it), `before_loading` (of one model), `judging` (what promote asks of a judge's
signature). It changes nothing and believes nothing that it can compute.
"""
