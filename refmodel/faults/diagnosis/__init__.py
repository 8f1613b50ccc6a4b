"""Which fault explains another program's numbers: from full traces, hidden states, logits, probabilities or greedy tokens."""
