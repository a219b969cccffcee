"""Cases: small, printable descriptions of a call, from which its arrays are made."""

from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.lines import CaseError, parse_case

__all__ = ["ArrayRecipe", "Case", "CaseError", "parse_case"]
