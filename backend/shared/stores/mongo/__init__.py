"""MongoDB as a side: clients, transactions, and what its refusals mean."""
