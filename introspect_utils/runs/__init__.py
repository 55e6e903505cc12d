"""Which notebooks run with which parameters, which are due, and what each result was made from."""
