"""LSTM and GRU: modules, states, packed sequences, and their nodes in files."""

from . import gru_nodes, lstm_nodes, packing  # noqa: F401  for the tables they fill
