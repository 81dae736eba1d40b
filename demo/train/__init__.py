"""How the demo's weights were trained: one loop (fit.py), one file a model. What is stopped goes on from its last saved state.

FIRSTFRAME_WEIGHTS: the folder of the weights, read and written; FIRSTFRAME_TRAIN_STATE: that of the states.
"""
