"""Why pre-training works: what an encoder's layers do, measured on any backbone and any checkpoint."""
