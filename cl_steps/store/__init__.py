"""Where are the bytes of a line? DVC is called here alone.

`objects.open_store` opens a store of DVC's by its URL: its objects and folders are read, listed, stored, copied and
deleted there. `dvc` does the same for a workspace's checkout; `places.open_place` is for named files behind a folder or
a URL (checkpoints, pages, backups); `pointers` reads what Git holds of a store, `digests` says what DVC calls bytes.

It knows no Git, no line and no step, and not what the bytes mean.
"""
