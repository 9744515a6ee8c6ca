"""Recipe: frozen data that names one adapter per stage: read, layered, checked and planned without any weights."""
