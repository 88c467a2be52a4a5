"""`tandem demo-orders`: orders that cross four databases, while participants and the broker are killed and one service moves."""
