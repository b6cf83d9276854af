"""Training of the memory: data, distillation from the model's own full attention, adapters."""
