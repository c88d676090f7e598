"""What every stage is given: the job, and the run that it speaks through."""
