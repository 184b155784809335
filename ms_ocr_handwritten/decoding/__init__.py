"""From column scores to texts with probabilities: prefix beam search, language model, constraints. numpy only."""
