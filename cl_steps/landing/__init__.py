"""Where strangers put things: what does one run see of it?

`place` says which folder or bucket it is; `folder` and `bucket` list it and read from it; `bounds` says what of
it a run takes; `snapshot` keeps that under names of our own, so that no other library ever meets a name of theirs. No
picture and no caption is opened here: `data/` does that, with what was copied.
"""
