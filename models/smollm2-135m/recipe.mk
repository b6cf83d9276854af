# How the model folder is made: with the memory that was trained for it, and windows by head.
MODEL_OPTIONS := --memory models/smollm2-135m/memory.safetensors --window 1024 --sinks 64 --chunk 128 \
    --windows models/smollm2-135m/heads.json
