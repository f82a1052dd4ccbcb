"""What a person looks at: figures of each run, a page per participant, the methods in words."""
