"""The twins: four small models of as many families, trained to be measured on and never tuned on."""
