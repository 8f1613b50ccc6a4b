"""The search for a route: many routes of one model, scored by probes, in a ledger, with honest statistics."""
