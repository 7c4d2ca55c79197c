"""Differentially private methods: a vector of the face, clipped, noised, and drawn from there on.

``mechanism`` makes the guarantee; ``base`` tells the pipeline of it; ``eigenface``, ``template``
and ``virtual`` say which vector it is and what becomes of it, which is post-processing.
"""
