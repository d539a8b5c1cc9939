"""Speed and memory of linger against torch and its peers; ``python -m tests.bench --help``."""
