"""Mistakes with packed documents: a mask under which every token reads those of its own document, and of no other."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.pitfalls.dense import Array, Reference
from conformance.pitfalls.tiled import Tiled


def documents_of(mask: Array | None, shape: tuple[int, ...]) -> Array | None:
    """The document of each token, named by its first key, (B, Hq, L).

    None unless the mask, broadcast to (B, Hq, L, L), is one of documents side by side and somewhere of more than one.
    """
    if mask is None or shape[2] != shape[3] or 0 in shape:
        return None
    first = mask.argmax(axis=-1)
    if first.ndim == 0 or not first.any() or (np.diff(first) < 0).any():
        return None
    allowed = np.broadcast_to(mask, shape)
    first = np.broadcast_to(first, shape[:3])
    return first if np.array_equal(allowed, first[..., :, None] == first[..., None, :]) else None


class DocumentsMerged(Reference):
    name = "documents-merged"
    explanation = "Where a mask means packed documents, their boundaries are lost on the way: every token reads all documents."
    citation = "maxtext#4476"
    needs = "documents"

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and whether the mask is one of documents."""
        return {**super().facts(), "documents": lambda: documents_of(self.mask, self.shape) is not None}

    def within_mask(self) -> Array:
        return True


class DocumentTileFull(Tiled):
    name = "document-tile-judged-by-its-ends"
    explanation = (
        "A tile whose first query and key lie in one document, and whose last ones do, is taken as full, though documents may end between."
    )
    citation = "Krell et al. 2021, section 3.2, arXiv:2107.02027"
    needs = "documents"
    occasional = True

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and whether the mask is one of documents."""
        return {**super().facts(), "documents": lambda: documents_of(self.mask, self.shape) is not None}

    def within_mask(self) -> Array:
        documents = documents_of(self.mask, self.shape)
        assert documents is not None, "the mistake applies to documents only"
        own, other = documents[..., :, None], documents[..., None, :]
        first = own[..., self.first_queries()[:, 0], :] == other[..., self.first_keys()]
        last = own[..., self.last_queries()[:, 0], :] == other[..., self.last_keys()]
        return super().within_mask() | (first & last)
