"""Training of what is not a generator: weight encoder, merge predictor, router, gate, multi-task
LoRA.

Does not live here: generators' objectives (training.objectives).
"""
