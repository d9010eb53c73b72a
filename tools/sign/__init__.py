"""
Who may upgrade a device: keys, manifests and their signatures, on the side that signs.

The other side is ota/trust.py. A private key is read where it is used, and goes nowhere else: it
stands in no message, no log and no data base.
"""
