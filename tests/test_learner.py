"""The learner beside a plain gradient of one row at a time, computed with transformers alone."""
