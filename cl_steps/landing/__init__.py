"""The place where strangers put things, and the state of it that a run sees: listed, bounded, copied, digested by us.

`place` says which folder or bucket it is; `folder` and `bucket` list it and read from it; `bounds` says what of it
a run takes; `snapshot` keeps that under names of our own, so that no other library ever meets a name of theirs.
"""
