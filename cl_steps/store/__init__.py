"""The bytes of a line: DVC's objects on any store, and files in places behind URLs. DVC is called here alone.

It knows no Git, and not what the bytes mean.
"""
