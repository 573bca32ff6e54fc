"""Pure builders, one module for each FHIR resource (FHIR R4)."""
