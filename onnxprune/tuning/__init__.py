"""Tuning: a model learns the outputs of another on unlabelled data.  Only this package imports torch.

Call :func:`onnxprune.tuning.need.need_torch` before you import anything else from here.
"""
