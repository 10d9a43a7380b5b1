"""The methods of continual learning: what makes one different from plain training?

`catalogue.METHODS` has them by name, each a `method.Method`: what it replays, who teaches it, and the terms that it
adds to the loss. One file a method; `.github/CONTRIBUTING.md` shows how one is added. None knows the loop that calls
it.
"""
