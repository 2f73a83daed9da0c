"""Pretraining a small causal LM from scratch, with a history of checkpoints."""
