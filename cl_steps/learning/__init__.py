"""Learning without forgetting: the loop, its plan, its guard, and the processes that share the work."""
