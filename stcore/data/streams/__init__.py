"""Streams: training sets that are read shard by shard."""
