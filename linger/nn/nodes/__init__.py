"""What the writers of several families share.

Standard nodes in a row, broadcasts, scalar products, changes of scale; and what readers check.
"""
