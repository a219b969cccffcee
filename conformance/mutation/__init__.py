"""Systematic mistakes: programs changed in one place, and how many cases of a hunt it takes to notice."""

from conformance.mutation.operators import OPERATORS
from conformance.mutation.programs import Mutant, Program, specification
from conformance.mutation.score import MutationReport, Outcome, mutation_score

__all__ = ["OPERATORS", "Mutant", "MutationReport", "Outcome", "Program", "mutation_score", "specification"]
