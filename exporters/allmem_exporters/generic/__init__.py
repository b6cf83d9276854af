"""The generic path: decoders whose mathematics transformers' own modelling code computes.

The code of a family that ``model/families`` does not know is used as it is. Its attentions call
ours, a memory is added beside each, and what its rope turns is found by trying it.
"""
