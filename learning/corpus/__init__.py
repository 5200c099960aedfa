"""Corpus-sized jobs in shards: so far affect over video.

`places` is where files lie; `shards` is the bookkeeping and knows nothing of Ray; `pipelines` runs
shards on Ray Data; `jobs` says what a job does with one shard.
"""
