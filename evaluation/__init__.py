"""What an encoder is worth as it is: protocols on frozen features, and tests of fine-tuned classifiers."""
