"""Averages and maxima over windows and axes, and the places of maxima."""
