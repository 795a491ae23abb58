"""Reading the database: queries, evidence, sentences and tables of rh-report."""
