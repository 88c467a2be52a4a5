"""Pure rules of the engine: phases, entity mappings, results and errors. Nothing here talks to a database."""
