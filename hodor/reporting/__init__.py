"""Tables, figures and pages made from scores."""
