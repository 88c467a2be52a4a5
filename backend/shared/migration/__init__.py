"""Moving what is there already, and putting right what differs: backfill and repair."""
