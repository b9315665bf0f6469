"""One to twelve months ahead: totals of days, weeks and months, structural forecasts of them, and growth what-ifs."""
