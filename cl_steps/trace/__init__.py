"""Where did an image go, what made a version, what changed between two?

Ways in: `assets`, `tree`, `changes`, each one document for a command or a page. Derived from main and the store, and
never the truth: the index may be deleted at any time. It changes nothing on main.
"""
