"""ONNX files of this package: what they say of themselves, export, and int8."""
