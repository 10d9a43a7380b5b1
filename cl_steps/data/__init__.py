"""Images with captions: what may come in, what is the same, where does it belong?

Ways in: `intake` (a landing into shards and quarantine), `manifests` and `shards` (reading them), `duplicates`,
`splits`, `replay` (the buffer). Folders in, folders out: it knows no model, no run and no Git.
"""
