"""Tuning: a model learns the answers of another on unlabelled data.  The only room that imports torch.

Nothing here may be imported before :func:`onnxprune.tuning.need.need_torch` has found torch.
"""
