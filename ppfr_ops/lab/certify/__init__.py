"""How much a published picture may be disturbed before a recogniser decides otherwise: proofs."""
