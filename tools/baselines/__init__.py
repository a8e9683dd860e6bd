"""The literature's training-free methods and the peers' tools, for ``bench_accuracy.py`` only.

All get the same images, the same coupling (which channels must leave together), the same MACs and the same
re-estimation of statistics; what is compared is which channels leave, how many of each group, and how the rest
makes up for it.
"""
