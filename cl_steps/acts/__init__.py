"""What a person does after the fact: answer, roll back, withdraw, ask for a new base.

One module an act, each of them one event on main, by compare-and-swap, in the person's name. No act runs a step or
opens a model; who may do what is the Git server's to enforce.
"""
