"""Training of generators, and the evaluation of every method.

Lives here: LightningModules, DataModules, Lightning's command line, the evaluation. Does not: the
generators themselves (generator), nor what a score is (library.tasks.metrics).
"""
