"""LSTM and GRU: modules, states, packed sequences, and their nodes in files."""
