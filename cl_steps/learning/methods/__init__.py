"""The methods of continual learning: what makes one different from plain training?

One file a method, each with a `METHOD` (`method.Method`): its knobs, the terms that it adds to the loss, how it changes
a gradient, what it replays, who teaches it, what a version keeps of it. `catalogue.Methods` is a set of them as one;
`.github/CONTRIBUTING.md` shows how one is added. None knows the loop that calls it.
"""
