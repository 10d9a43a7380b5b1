"""What is written down for ever about a version: how is it made and signed?

Ways in: `builders` (event and record of a run), `provenance` (the same in SLSA's words), `signer` and `keys`. It does
not judge whether a signature is right (`verify/` does), and changes no branch.
"""
