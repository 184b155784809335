"""This package's ONNX files: their metadata, export, and int8 quantisation."""
