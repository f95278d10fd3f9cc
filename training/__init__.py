"""How generators are trained and how every method is measured.

Lives here: LightningModules, DataModules, Lightning's command line, the evaluation. Does not: the
generators themselves (generator), nor what a score is (library.tasks.metrics).
"""
