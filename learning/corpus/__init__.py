"""Corpus-sized jobs in shards: affect over video, embeddings, replies for comparison.

`places` is where files lie; `shards` is the bookkeeping and knows nothing of Ray; `pipelines` runs
shards on Ray Data; `affect`, `embeddings` and `replies` say what a job does with one shard.
"""
