"""Programs that are copied into a bundle and run on the device. They import nothing but Python and TensorRT."""
