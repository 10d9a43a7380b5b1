"""Learning without forgetting: how does a candidate come of a champion?

Ways in: `learner.Learner` (one step), `loop.train` (all of them, with guard and checkpoints), `launch` (several
processes), `methods/` (what a method is made of). It reads no dataset, writes no report, and the loop names no
method.
"""
