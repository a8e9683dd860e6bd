"""Reading, viewing and writing ONNX models."""
