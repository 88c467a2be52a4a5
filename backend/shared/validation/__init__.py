"""Parts of the validator: what is compared, in which statements, and who is to be believed."""
