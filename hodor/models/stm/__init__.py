"""STM: a memory written by an encoder of its own and read by softmax over all of it."""
