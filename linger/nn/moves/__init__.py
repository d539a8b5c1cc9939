"""Operators that move codes and change none: shapes, pieces, copies, padding, cat; and changes of scale or width."""
