"""What lasts: what do events, records and reports say, and what follows from them?

Ways in: `fold` (events to the state of every intake), `ancestors`, `names`, `schemas`. Pure: documents in, states
out. It knows neither Git nor the store.
"""
