"""What targets share whose programs are float products with quantize and dequantize around them: form, numbers, audit."""
