"""The SATUSEHAT platform as a destination: OAuth2, FHIR, DICOMweb store."""
