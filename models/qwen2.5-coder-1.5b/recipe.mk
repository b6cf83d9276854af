# How the model folder is made. Its memory is untrained and has no effect, so it is as small as it
# can be; far recall comes from the passages that are read again.
MODEL_OPTIONS := --weights int4 --window 1024 --sinks 64 --chunk 128 --mem-width 64
