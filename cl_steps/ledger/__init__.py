"""What lasts: events, records, the champion and reports as types, and what follows from them.

Pure: documents in, states out. It knows neither Git nor the store.
"""
