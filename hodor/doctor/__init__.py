"""The verb `doctor`: is everything in order on this machine, and what would each row take on it?"""
